"""Time, threads and waiting as one injectable object.

All that the relay knows of time and of other threads comes from a `Clock`, so that a simulator can hand it a virtual
clock and threads that switch only where it says. The database's time is another matter: it stays in SQL.
"""

import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

__all__ = ["SYSTEM", "Clock", "Condition", "Lock", "SystemClock", "Task"]


class Lock(Protocol):
    """A lock that its holder may take again, as `threading.RLock`."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Any: ...


class Condition(Lock, Protocol):
    """Something to wait for under a lock, as `threading.Condition`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, sleep until notified or ``timeout`` seconds have passed, take the lock again."""

    def notify(self, n: int = 1) -> None:
        """Wake ``n`` of those who wait."""

    def notify_all(self) -> None:
        """Wake all who wait."""


class Task(Protocol):
    """A running thread, as `threading.Thread`."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most ``timeout`` seconds."""

    def is_alive(self) -> bool:
        """Whether it still runs."""


class Clock(Protocol):
    """What a part of the relay may ask of the outside world besides the database and the broker."""

    def wall(self) -> float:
        """Seconds since 1970, for the ``Date`` header only."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines within this process."""

    def cpu(self) -> float:
        """Seconds that this thread has computed, from a point of its own."""

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""

    def uniform(self, low: float, high: float) -> float:
        """A random number for jitter."""

    def lock(self) -> Lock:
        """A new lock; re-entrant, since a signal handler may interrupt its holder."""

    def condition(self, lock: Lock) -> Condition:
        """Something new to wait for under ``lock``."""

    def spawn(self, name: str, run: Callable[[], None]) -> Task:
        """Start a thread."""


class SystemClock:
    """The machine's own clock and threads."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    cpu = staticmethod(time.thread_time)
    sleep = staticmethod(time.sleep)
    uniform = staticmethod(random.uniform)
    lock = staticmethod(threading.RLock)

    @staticmethod
    def condition(lock: Any) -> threading.Condition:
        """A condition of the standard library's over its own lock."""
        return threading.Condition(lock)

    @staticmethod
    def spawn(name: str, run: Callable[[], None]) -> threading.Thread:
        """Start a daemon thread: a process that must end does not wait for a stalled request."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


SYSTEM: Clock = SystemClock()
