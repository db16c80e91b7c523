"""What the tasks do: one relay at a time in each process, for a bounded time, no longer than the worker may run."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from outbox.clock import Clock
from outbox.half import Checker
from outbox.relay import Ending, Relay
from outbox.store.operate import purge
from outbox.wiring import Runtime

__all__ = ["LONGEST_S", "Sweeper"]

log = logging.getLogger("outbox")

#: Seconds after which a task begins nothing more: far below any broker's visibility timeout.
LONGEST_S = 30.0


class Sweeper:
    """Does the work of the tasks in one process. Threads may share it.

    Args:
        runtime: this process's.
        longest_s: seconds after which a sweep or a purge begins nothing more.
    """

    def __init__(self, runtime: Runtime, longest_s: float) -> None:
        self._runtime = runtime
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._checking = threading.Lock()
        self._relay: Relay | None = None
        self._checker: Checker | None = None
        self._nudged = False

    def sweep(self, stop: Connection | None = None, *, nudged: bool = False) -> bool:
        """Relay what is due; or, where a relay runs in this process already, have that one look again.

        Args:
            stop: readable once the worker is to end; what is in flight is finished then, the rest given back.
            nudged: look thrice more when nothing is found, for a commit may become visible any moment. Backoffs, pauses
                and others' leases are left to the next tick: nudges must not fill the pool with tasks that wait.

        Returns:
            Whether time was up before the work was done.

        Raises:
            ConfigError: a setting that the relay needs is missing or wrong.
        """
        if _is_told(stop):
            return False
        with self._lock:
            self._nudged |= nudged
            if self._relay:
                self._relay.wake()
                return False
            relay, ending = self._prepare()
        return self._run(relay, ending, stop)

    def check(self, stop: Connection | None = None) -> None:
        """Answer the broker's checks of half messages: one round over all topics; nothing where there are none.

        One at a time in each process: while one is at it, another has nothing to do.

        Raises:
            ConfigError: a setting that the checker needs is missing or wrong.
        """
        if _is_told(stop) or not self._checking.acquire(blocking=False):
            return
        try:
            # One for all ticks: what it has learnt of the topics is worth failed polls.
            checker = self._checker = self._checker or self._runtime.checker()
            clock = self._runtime.clock
            until = clock.monotonic() + self._longest_s
            checker.run(lambda: True, lambda: _is_told(stop) or clock.monotonic() >= until)
        finally:
            self._checking.release()

    def purge(self, stop: Connection | None = None) -> int:
        """Delete finished rows older than the retention, and return how many; the next one goes on where time was up.

        Raises:
            ConfigError: ``OUTBOX_DATABASE_URL`` is missing or wrong.
            DatabaseError: see `outbox.store.purge.purge`.
        """
        settings, clock = self._runtime.settings, self._runtime.clock
        until = clock.monotonic() + self._longest_s
        deleted = 0

        def on_progress(so_far: int) -> None:
            nonlocal deleted
            deleted = so_far
            if _is_told(stop) or clock.monotonic() >= until:
                raise _EnoughError

        with suppress(_EnoughError):
            purge(self._runtime.database, settings.retention_s, on_progress=on_progress)
        log.info("outbox.purged", extra={"rows": deleted})
        return deleted

    def _run(self, relay: Relay, ending: Ending, stop: Connection | None) -> bool:
        try:
            with _limit(self._runtime.clock, self._longest_s, stop, self._stop) as limit:
                while True:
                    relay.run(ending)
                    with self._lock:
                        if limit.reached or not self._nudged:
                            # At once, so that a nudge from now on finds no relay that would not look again.
                            self._relay = None
                            return limit.time_is_up
                        relay, ending = self._prepare()
        finally:
            with self._lock:
                if self._relay is relay:
                    self._relay = None

    def _prepare(self) -> tuple[Relay, Ending]:
        """The next relay and its ending; under the lock."""
        nudged, self._nudged = self._nudged, False
        wait_s = 0.0 if nudged else min(self._runtime.settings.sweep_s, self._longest_s)
        self._relay = self._runtime.relay()
        return self._relay, _OrNudged(self._runtime.swept(wait_s, nudged=nudged), lambda: self._nudged)

    def _stop(self) -> None:
        with self._lock:
            if self._relay:
                self._relay.stop()


class _EnoughError(Exception):
    """Ends a purge between two batches."""


class _OrNudged:
    """An ending that comes at once when a nudge has come, for a relay that looks as often as a nudge asks for."""

    def __init__(self, ending: Ending, is_nudged: Callable[[], bool]) -> None:
        self._ending = ending
        self._is_nudged = is_nudged

    def rest_s(self, finished: int) -> float | None:
        return None if self._is_nudged() else self._ending.rest_s(finished)


@dataclass
class _Limit:
    """Why a relay was stopped before its ending came."""

    time_is_up: bool = False
    told: bool = False

    @property
    def reached(self) -> bool:
        return self.time_is_up or self.told


@contextmanager
def _limit(clock: Clock, longest_s: float, stop: Connection | None, on_reached: Callable[[], None]) -> Iterator[_Limit]:
    """Call ``on_reached`` after ``longest_s`` seconds, or when ``stop`` becomes readable, unless left before."""
    limit = _Limit()
    left, leave = Pipe(duplex=False)

    def watch() -> None:
        ready = wait([left, stop] if stop else [left], longest_s)
        limit.time_is_up = not ready
        limit.told = stop in ready
        if left not in ready:
            on_reached()

    with left, leave:
        watcher = clock.spawn("outbox-limit", watch)
        try:
            yield limit
        finally:
            leave.send_bytes(b"!")
            watcher.join()


def _is_told(stop: Connection | None) -> bool:
    return stop is not None and stop.poll()
