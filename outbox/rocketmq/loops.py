"""Loops, and their connections, that outlive the relay that uses them.

In a worker a relay lives for one sweep, and a sweep may carry one message: without this each would connect anew, and
shake hands for TLS.
"""

import os
import threading
import weakref
from collections.abc import Callable

from outbox.rocketmq.transport import Loop

__all__ = ["KeptLoops"]

_inherited: list[list[Loop]] = []


class KeptLoops:
    """See `outbox.rocketmq.transport.Loops`. It keeps one loop, until it is closed or forgotten itself.

    Args:
        make: makes a loop that keeps so many connections.
    """

    def __init__(self, make: Callable[[int], Loop]) -> None:
        self._make = make
        self._begin()

    def take(self, connections: int) -> Loop:
        """The kept loop, else a new one."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            return self._kept.pop() if self._kept else self._make(connections)

    def give_back(self, loop: Loop) -> None:
        """Keep it for the next, unless one is kept, or answers are still to come, which nobody would hear."""
        with self._lock:
            if not self._kept and not loop.in_flight:
                self._kept.append(loop)
                return
        loop.close()

    def close(self) -> None:
        """Close the kept loop; a later `take` makes another."""
        with self._lock:
            _close(self._kept, self._pid)

    def _begin(self) -> None:
        """Have nothing. What a parent process has kept stays its own, and its lock may have been held at the fork."""
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._kept: list[Loop] = []
        weakref.finalize(self, _close, self._kept, self._pid).atexit = False


def _close(kept: list[Loop], pid: int) -> None:
    """Close what this process has kept. What its parent has kept stays open: to close it would end its connections."""
    if pid != os.getpid():
        _inherited.append(kept)
        return
    while kept:
        kept.pop().close()
