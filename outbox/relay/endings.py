"""When a relay that finds nothing to do looks again, and when it ends."""

from collections.abc import Callable
from typing import Protocol

from outbox.clock import Clock
from outbox.errors import DatabaseError

__all__ = ["LOOK_S", "Drained", "Ending", "Forever", "Swept"]

#: Seconds between two looks of an idle relay.
LOOK_S = 1.0
# A nudge may come just before its commit is visible.
_LOOKS_AFTER_A_NUDGE_S = (0.02, 0.1, 0.4)


class Ending(Protocol):
    """Asked after a look at the database that found nothing to claim, when every row held has been marked.

    And after every look, once no row has reached an end for longer than a request may take.
    """

    def rest_s(self, finished: int) -> float | None:
        """Seconds until the next look, None to end. ``finished``: rows that reached an end so far."""


class Forever:
    """Never end."""

    def rest_s(self, finished: int) -> float | None:  # noqa: ARG002 - the protocol's signature
        """Look again in a second."""
        return LOOK_S


class Drained:
    """End when nothing is left to do now, or when nothing got done for ``timeout_s`` seconds.

    Attributes:
        stalled: whether it ended for the second reason.
    """

    def __init__(self, clock: Clock, left_to_do: Callable[[], bool], timeout_s: float) -> None:
        self.stalled = False
        self._clock = clock
        self._left_to_do = left_to_do
        self._timeout_s = timeout_s
        self._finished = -1
        self._since = clock.monotonic()

    def rest_s(self, finished: int) -> float | None:
        """Wait for backoffs, others' leases and automatic pauses; not for schedules or for operators."""
        now = self._clock.monotonic()
        if finished != self._finished:
            self._finished, self._since = finished, now
        if not _is_something_left(self._left_to_do):
            return None
        self.stalled = now - self._since >= self._timeout_s
        return None if self.stalled else LOOK_S / 4


class Swept:
    """End once nothing is left to do now, or after ``longest_s`` seconds; after a nudge, look thrice more first."""

    def __init__(self, clock: Clock, left_to_do: Callable[[], bool], longest_s: float, *, nudged: bool = False) -> None:
        self._looks = list(_LOOKS_AFTER_A_NUDGE_S) if nudged else []
        self._left_to_do = left_to_do
        self._clock = clock
        self._until = clock.monotonic() + longest_s

    def rest_s(self, finished: int) -> float | None:
        """Wait for backoffs, others' leases and automatic pauses while there is time."""
        if not finished and self._looks:
            return self._looks.pop(0)
        if self._clock.monotonic() >= self._until or not _is_something_left(self._left_to_do):
            return None
        return LOOK_S


def _is_something_left(left_to_do: Callable[[], bool]) -> bool:
    """What ``left_to_do`` says; a database that cannot be asked has something left."""
    try:
        return left_to_do()
    except DatabaseError:
        return True
