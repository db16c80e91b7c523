"""A clock whose time passes only while everybody waits, and whose threads take turns as a seed says.

The threads are real, but only the holder of the baton runs. It hands the baton on wherever it waits (for a lock, a
condition, a sleep, a join) and at every `VirtualClock.step`; the seed chooses among those who can go on. When nobody
can, time jumps to the first deadline. So one seed is one schedule, the same every time, provided that nothing else in
the program depends on real time or on chance.
"""

import random
import threading
from collections.abc import Callable
from typing import Self

from outbox.clock import Condition, Lock

__all__ = ["Deadlock", "Killed", "VirtualClock"]

_START_WALL = 1_700_000_000.0


class Deadlock(BaseException):
    """Everybody waits, and nobody for a time."""


class Killed(BaseException):
    """Raised in a thread, where it waits, when its process is killed: it runs nothing but its ``finally`` clauses."""


class _Thread:
    """A thread that runs while it holds the baton.

    Attributes:
        process: the label shared by those that die together.
        can_go_on: what it waits for.
        until: virtual time at which it goes on all the same, None for never.
    """

    def __init__(self, name: str, process: str) -> None:
        self.name = name
        self.process = process
        self.can_go_on: Callable[[], bool] = _at_once
        self.until: float | None = None
        self.ended = False
        self.baton = threading.Semaphore(0)


class VirtualClock:
    """An `outbox.clock.Clock`. The thread that makes it takes part, under the name ``main``, and must make it alone.

    Use it as a context manager: what still runs in the end is killed.

    Args:
        seed: of the schedule and of `uniform`.
        on_step: called at each `step` with the name of the running process and of the step, before others may run. What
            it raises, the step raises: an error, or `Killed` after `kill`.
    """

    def __init__(self, seed: int = 0, on_step: Callable[[str, str], None] = lambda _process, _what: None) -> None:
        self.now = 0.0
        self._chance = random.Random(seed)
        self._on_step = on_step
        self._killed: set[str] = set()
        self._stuck = False
        self._main = _Thread("main", "main")
        self._closing = False
        self._threads = [self._main]
        #: Who holds the baton.
        self.running = self._main

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._closing = True
        self.wait_until(lambda: all(thread.ended for thread in self._threads if thread is not self._main))

    # --- outbox.clock.Clock ---

    def wall(self) -> float:
        return _START_WALL + self.now

    def monotonic(self) -> float:
        return self.now

    def cpu(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.wait_until(_never, seconds)

    def uniform(self, low: float, high: float) -> float:
        return self._chance.uniform(low, high)

    def lock(self) -> Lock:
        return _Lock(self)

    def condition(self, lock: Lock) -> Condition:
        assert isinstance(lock, _Lock)
        return _Condition(self, lock)

    def spawn(self, name: str, run: Callable[[], None]) -> "_Task":
        """A thread of the running thread's process."""
        return self.start(self.running.process, name, run)

    # --- for simulators ---

    def start(self, process: str, name: str, run: Callable[[], object]) -> "_Task":
        """Start a thread of any process."""
        thread = _Thread(name, process)

        def live() -> None:
            thread.baton.acquire()
            try:
                self._die_if_killed()
                run()
            except Killed:
                pass
            finally:
                thread.ended = True
                self._hand_over()

        threading.Thread(target=live, name=f"{process}/{name}", daemon=True).start()
        self._threads.append(thread)
        return _Task(self, thread)

    def kill(self, process: str) -> None:
        """End all threads of a process where they wait; the running one, if it is among them, where it waits next."""
        self._killed.add(process)

    def step(self, what: str) -> None:
        """Let others run: put one wherever something reaches the outside world, such as a statement or a request."""
        self._on_step(self.running.process, what)
        self.wait_until(_at_once)

    def wait_until(self, can_go_on: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until a condition holds, at most ``timeout`` virtual seconds; returns whether it holds."""
        me = self.running
        me.can_go_on, me.until = can_go_on, None if timeout is None else self.now + timeout
        if self._hand_over() is not me:
            me.baton.acquire()
        if self._stuck:
            self._stuck = False
            raise Deadlock([f"{thread.process}/{thread.name}" for thread in self._threads])
        self._die_if_killed()
        return can_go_on()

    # --- the baton ---

    def _is_killed(self, thread: _Thread) -> bool:
        return thread.process in self._killed or (self._closing and thread is not self._main)

    def _die_if_killed(self) -> None:
        if self._is_killed(self.running):
            raise Killed

    def _hand_over(self) -> _Thread:
        before, self.running = self.running, self._next()
        if self.running is not before:
            self.running.baton.release()
        return self.running

    def _next(self) -> _Thread:
        self._threads = [thread for thread in self._threads if not thread.ended]
        ready = [thread for thread in self._threads if self._is_ready(thread)]
        if not ready:
            deadlines = [thread.until for thread in self._threads if thread.until is not None]
            self._stuck = not deadlines
            self.now = min(deadlines, default=self.now)
            ready = [self._main] if self._stuck else [thread for thread in self._threads if self._is_ready(thread)]
        return self._chance.choice(ready)

    def _is_ready(self, thread: _Thread) -> bool:
        is_over = thread.until is not None and self.now >= thread.until
        return is_over or self._is_killed(thread) or thread.can_go_on()


class _Lock:
    """Re-entrant. Taking it is a step of its own, for that is where threads meet."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.owner: _Thread | None = None
        self.depth = 0

    def __enter__(self) -> None:
        if self.owner is not self._clock.running:
            self._clock.wait_until(self.is_free)
            self.owner = self._clock.running
        self.depth += 1

    def __exit__(self, *_exc: object) -> None:
        self.depth -= 1
        if not self.depth:
            self.owner = None

    def is_free(self) -> bool:
        return self.owner is None


class _Condition:
    def __init__(self, clock: VirtualClock, lock: _Lock) -> None:
        self._clock = clock
        self._lock = lock
        self._waiting: list[object] = []

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._lock.__exit__(*exc)

    def wait(self, timeout: float | None = None) -> bool:
        clock, lock, ticket = self._clock, self._lock, object()
        self._waiting.append(ticket)
        depth, lock.depth, lock.owner = lock.depth, 0, None
        notified = clock.wait_until(lambda: ticket not in self._waiting, timeout)
        if not notified:
            self._waiting.remove(ticket)
        clock.wait_until(lock.is_free)
        lock.depth, lock.owner = depth, clock.running
        return notified

    def notify(self, n: int = 1) -> None:
        del self._waiting[:n]

    def notify_all(self) -> None:
        self._waiting.clear()


class _Task:
    def __init__(self, clock: VirtualClock, thread: _Thread) -> None:
        self._clock = clock
        self._thread = thread

    def join(self, timeout: float | None = None) -> None:
        self._clock.wait_until(lambda: self._thread.ended, timeout)

    def is_alive(self) -> bool:
        return not self._thread.ended


def _at_once() -> bool:
    return True


def _never() -> bool:
    return False
