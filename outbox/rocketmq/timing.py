"""What answers teach of the broker's clock, and what requests are dated with. No I/O.

The broker takes requests that are dated within 15 minutes of its own clock, and the ``Date`` of its answers says what
that clock shows. But anybody on the way may write a ``Date``, and over http anybody may be on the way. So it is
believed only where it fits what the broker has just done:

- The request was taken: the broker's clock is within 15 minutes of the date that we signed. A ``Date`` further from it
  is not the broker's, and is passed over: it must not stop what works.
- The request has expired: the broker's clock is further off. A ``Date`` near the one that we signed is not the
  broker's, and neither is what was learnt before.
- Any other answer proves nothing.

What is believed is kept against the monotonic clock, so that a wall clock that is set right is right at once. Requests
are dated by the wall clock while it is within a minute of the broker's, and by the broker's when it is further off: up
to 14 minutes over http, which bounds for how much longer than intended a signature can be made to last; up to a day
over https, where the ``Date`` comes from the endpoint. Further off, nothing is sent for a minute after each request
that has expired, unless the clock is set meanwhile.
"""

from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from outbox.outcomes import Fault

__all__ = ["FRESH_S", "Timing", "clock_words", "epoch_of"]

#: How far a request's date may be from the broker's clock, in seconds (the HTTP API's "Common parameters").
FRESH_S = 900.0

# Less than this needs no correction; a Date says no more than its second, and may have been under way for some.
_RIGHT_S = 60.0
_LARGEST_UNAUTHENTICATED_S = FRESH_S - _RIGHT_S
_LARGEST_S = 86_400.0
_REST_S = 60.0


class Timing:
    """The broker's clock, as far as it is known. Safe to share between threads.

    Args:
        wall: this machine's clock, seconds since 1970.
        monotonic: seconds that never go back.
        authenticated: whether answers come over https.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float], *, authenticated: bool) -> None:
        self.wall = wall
        self._monotonic = monotonic
        self._largest_s = _LARGEST_S if authenticated else _LARGEST_UNAUTHENTICATED_S
        self._ahead_of_monotonic_s: float | None = None
        self._expired_at: float | None = None
        self._last_taken = ""

    @property
    def offset_s(self) -> float | None:
        """Seconds by which the broker's clock is ahead of the wall clock, to about a second; None where unknown."""
        ahead_s = self._ahead_of_monotonic_s
        return None if ahead_s is None else self._monotonic() + ahead_s - self.wall()

    def now(self) -> float:
        """Seconds since 1970 to date a request with."""
        offset_s = self.offset_s
        is_needed = offset_s is not None and _RIGHT_S <= abs(offset_s) <= self._largest_s
        return self.wall() + (offset_s or 0.0) if is_needed else self.wall()

    def refusal(self) -> Fault | None:
        """Why nothing may be signed now, None where it may."""
        expired_at, offset_s = self._expired_at, self.offset_s
        if expired_at is None or offset_s is None or abs(offset_s) <= self._largest_s:
            return None
        if self._monotonic() - expired_at >= _REST_S:
            return None
        text = f"{clock_words(offset_s)}, too far to send anything: set the clock"
        return Fault("ClockOff", text, clock_offset_s=offset_s)

    def learn(self, answered: str, signed: str, *, taken: bool) -> None:
        """Take note of one answer.

        Args:
            answered: its ``Date``.
            signed: the ``Date`` of its request.
            taken: True where the broker did what was asked, False where it said ``TimeExpired``.
        """
        # The same second as last time teaches nothing new; to parse it would cost more than to sign a request.
        if taken and answered == self._last_taken:
            return
        at, dated = epoch_of(answered), epoch_of(signed)
        if at is None or dated is None:
            return
        apart_s = abs(at - dated)
        fits = apart_s <= FRESH_S + _RIGHT_S if taken else apart_s >= FRESH_S - _RIGHT_S
        if fits:
            self._ahead_of_monotonic_s = at - self._monotonic()
        elif not taken:
            self._ahead_of_monotonic_s = None
        self._expired_at = None if taken else self._monotonic()
        self._last_taken = answered if taken else ""


def clock_words(offset_s: float) -> str:
    """How far the clocks are apart, in words.

    Args:
        offset_s: seconds by which the broker's is ahead.
    """
    return f"the broker's clock is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"


def epoch_of(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date, None where it is not one. UTC where it names no zone."""
    try:
        at = parsedate_to_datetime(date)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
