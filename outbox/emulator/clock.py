"""The broker's clock: the wall clock, which tests may move."""

import time
from collections.abc import Callable

__all__ = ["FRESH_S", "LATEST", "BrokerClock", "ClockError"]

LATEST = 32_503_680_000.0
"""The year 3000: further on there are soon no dates that a ``Date`` header can hold."""

FRESH_S = 900.0
"""How far a request's ``Date`` may be from the broker's clock, in seconds (the HTTP API's "Common parameters")."""


class ClockError(ValueError):
    """The clock cannot be moved there; the text says why in one line."""


class BrokerClock:
    """Epoch seconds that run at real speed from wherever they were set.

    ``advance`` lets time pass for what the broker keeps (handles, schedules, redelivery, checks) without making
    clients late: a request's ``Date`` is fresh by the clock with or without its advances, so a client that lives in
    real time still gets in after a virtual day, and so does one whose own clock was moved along. ``set`` is what the
    clock of a wrongly set server looks like: only dates near it are fresh.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._shift = 0.0
        self._advanced = 0.0

    def now(self) -> float:
        """Return epoch seconds, by the broker."""
        return self._wall() + self._shift + self._advanced

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass at once.

        Raises:
            ClockError: for less than 0, and for what leads beyond the year 3000.
        """
        if not 0 <= seconds <= LATEST - self.now():
            raise ClockError("time passes by 0 seconds or more, and not beyond the year 3000")
        self._advanced += seconds

    def set(self, epoch: float) -> None:
        """Make it ``epoch`` now; earlier advances are forgotten.

        Raises:
            ClockError: for what is before 1970 or beyond the year 3000.
        """
        if not 0 <= epoch <= LATEST:
            raise ClockError("the clock is set to times between the years 1970 and 3000")
        self._shift = epoch - self._wall()
        self._advanced = 0.0

    def reset(self) -> None:
        """Make it the wall clock's time."""
        self._shift = self._advanced = 0.0

    def is_fresh(self, date: float) -> bool:
        """Tell whether a request of this ``Date`` (epoch seconds) is within 15 minutes of the broker's time."""
        off = date - self.now()
        return abs(off) <= FRESH_S or abs(off + self._advanced) <= FRESH_S
