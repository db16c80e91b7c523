"""Whether all threads publish, or one of them alone does better.

Threads of one process share an interpreter. Where answers come at once, one thread uses nearly all of its time, and
more would only take turns at it: with sixteen, a message costs half as much again. Where answers take long, threads
wait for them side by side, and all are needed. Which of the two holds shows only in what one alone spends its time on.
"""

from collections.abc import Callable

from outbox.clock import Clock

__all__ = ["WINDOW_S", "Crew"]

#: Seconds from one judgement to the next.
WINDOW_S = 0.1
#: Of one processor, what all together compute before one is tried alone; and what that one computes if it suffices.
_BUSY, _SUFFICES = 0.8, 0.55
#: A trial ends after so many seconds if what it computes is less than this share.
_GLANCE_S, _HOPELESS = 0.02, 0.3
#: Seconds from one trial that failed to the next; each waits twice as long as the one before.
_FIRST_REST_S, _LAST_REST_S = 1.0, 60.0


class Crew:
    """The threads 0, 1, … of which all take part, or the first alone.

    Args:
        clock: time and locks.
        is_idle: whether there is nothing to be done.
    """

    def __init__(self, clock: Clock, is_idle: Callable[[], bool]) -> None:
        self._clock = clock
        self._is_idle = is_idle
        self._lock = clock.lock()
        self._changed = clock.condition(self._lock)
        self._alone = self._on_trial = False
        self._over = False
        self._computed_s = 0.0
        self._since = self._next_trial = clock.monotonic()
        self._rest_s = _FIRST_REST_S

    def wait_for_turn(self, number: int) -> None:
        """Wait until this thread takes part, or all are dismissed."""
        if number == 0 or not self._alone:
            return
        with self._lock:
            while not self._may_leave():
                # The first may be held up by an answer that does not come, so that only time tells.
                watches = number == 1 and not self._is_idle()
                self._changed.wait(WINDOW_S if watches else None)
                if watches:
                    self._judge()

    def call(self) -> None:
        """There is something to be done."""
        if self._alone:
            with self._lock:
                self._changed.notify_all()

    def worked(self, number: int, computed_s: float) -> None:
        """This thread has computed for so many seconds since it last said so."""
        with self._lock:
            # Others may have been at work when the first was left alone.
            if number == 0 or not self._alone:
                self._computed_s += computed_s
            self._judge()

    def dismiss(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._over = True
            self._changed.notify_all()

    def _may_leave(self) -> bool:
        return self._over or not self._alone

    def _judge(self) -> None:
        """Once a window, under the lock; sooner where a trial is hopeless."""
        now = self._clock.monotonic()
        seconds = now - self._since
        if seconds < (_GLANCE_S if self._on_trial else WINDOW_S):
            return
        share = self._computed_s / seconds
        if seconds < WINDOW_S and share >= _HOPELESS:
            return
        self._computed_s, self._since, self._on_trial = 0.0, now, False
        if not self._alone:
            self._alone = self._on_trial = share > _BUSY and now >= self._next_trial
        elif share < _SUFFICES:
            self._alone = False
            self._next_trial = now + self._rest_s
            self._rest_s = min(2 * self._rest_s, _LAST_REST_S)
            self._changed.notify_all()
