"""The virtual clock on greenlets: the same schedules as on threads, at a tenth of their price, and processes that stop.

A process may be frozen for a while, as by SIGSTOP or a pause of its virtual machine, and killed while it is frozen.
"""

from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

from outbox.clock import Clock
from tests.virtual_clock import Killed, VirtualClock, _Task, _Thread

__all__ = ["Killed", "SimClock"]


class SimClock(VirtualClock):
    """A `VirtualClock` for programs that hold no lock of the standard library's while they wait.

    Attributes:
        broke: what was raised in a thread and caught by nobody.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.broke: list[BaseException] = []
        self._frozen: dict[str, float] = {}
        self._suspended: dict[str, float] = {}
        self._greenlets: dict[_Thread, greenlet] = {self._main: getcurrent()}

    def start(self, process: str, name: str, run: Callable[[], object]) -> _Task:
        thread = _Thread(name, process)

        def live(*_: object) -> None:
            try:
                self._die_if_killed()
                run()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001 - the schedule has failed, and says why
                self.broke.append(error)
            finally:
                thread.ended = True
                self._hand_over()

        self._greenlets[thread] = greenlet(live, self._greenlets[self._main])
        self._threads.append(thread)
        return _Task(self, thread)

    def freeze(self, process: str, seconds: float) -> None:
        """Let no thread of a process go on for so long; the running one stops where it waits next."""
        self._frozen[process] = self.now + seconds
        self._suspended[process] = self._suspended.get(process, 0.0) + seconds

    def of(self, process: str, *, stops: bool) -> Clock:
        """The clock as a process sees it; ``stops``: it stands still while the process is frozen, machine and all."""
        return _Stopping(self, process) if stops else self

    def wait_until(self, can_go_on: Callable[[], bool], timeout: float | None = None) -> bool:
        """As the base class; by no less than the clock can tell from nothing, or a waiter would wait for ever."""
        return super().wait_until(can_go_on, timeout if timeout is None else max(timeout, 1e-6))

    def suspended_s(self, process: str) -> float:
        """For how long it has been frozen altogether."""
        return self._suspended.get(process, 0.0)

    def _hand_over(self) -> _Thread:
        me, following = self.running, self._next()
        self.running = following
        if me.ended:
            # A greenlet that ends goes on in its parent.
            del self._greenlets[me]
            getcurrent().parent = self._greenlets[following]
        elif following is not me:
            self._greenlets[following].switch()
        return me

    def _next(self) -> _Thread:
        threads = self._threads = [thread for thread in self._threads if not thread.ended]
        ready = [thread for thread in threads if self._is_ready(thread)]
        while not ready:
            wakes = [wake for thread in threads if (wake := self._wakes_at(thread)) is not None]
            self._stuck = not wakes
            if self._stuck:
                return self._main
            self.now = min(wakes)
            ready = [thread for thread in threads if self._is_ready(thread)]
        return ready[0] if len(ready) == 1 else ready[int(self._chance.random() * len(ready))]

    def _is_ready(self, thread: _Thread) -> bool:
        if self._is_killed(thread):
            return True
        if self._frozen and self._frozen.get(thread.process, 0.0) > self.now:
            return False
        return (thread.until is not None and self.now >= thread.until) or thread.can_go_on()

    def _wakes_at(self, thread: _Thread) -> float | None:
        frozen = self._frozen.get(thread.process, 0.0)
        if thread.until is not None:
            return max(thread.until, frozen)
        return frozen if frozen > self.now else None


class _Stopping:
    """The clock of a process whose machine may be suspended."""

    def __init__(self, clock: SimClock, process: str) -> None:
        self._clock = clock
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def monotonic(self) -> float:
        return self._clock.monotonic() - self._clock.suspended_s(self._process)
