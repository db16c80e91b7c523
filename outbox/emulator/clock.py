"""The broker's clock: the wall clock, which tests may move."""

import time
from collections.abc import Callable

__all__ = ["FRESH_S", "BrokerClock"]

FRESH_S = 900.0
"""How far a request's ``Date`` may be from the broker's clock, in seconds (the HTTP API's "Common parameters")."""


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
        """Let ``seconds`` pass at once."""
        self._advanced += seconds

    def set(self, epoch: float) -> None:
        """Make it ``epoch`` now; earlier advances are forgotten."""
        self._shift = epoch - self._wall()
        self._advanced = 0.0

    def reset(self) -> None:
        """Make it the wall clock's time."""
        self._shift = self._advanced = 0.0

    def is_fresh(self, date: float) -> bool:
        """Tell whether a request of this ``Date`` (epoch seconds) is within 15 minutes of the broker's time."""
        off = date - self.now()
        return abs(off) <= FRESH_S or abs(off + self._advanced) <= FRESH_S
