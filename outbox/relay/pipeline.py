"""The three stages and the threads they run in."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from outbox.clock import SYSTEM, Clock, Task
from outbox.errors import ConfigError, DatabaseError
from outbox.relay.board import Board
from outbox.relay.claiming import Claimer
from outbox.relay.endings import LOOK_S, Ending
from outbox.relay.looping import LoopPublisher
from outbox.relay.marker import Counts, Marker, lane_fields
from outbox.relay.publishing import Desk, Publisher, Publishers, StartingPublisher, ThreadPublishers
from outbox.retry import Policy
from outbox.rocketmq.transport import Loops
from outbox.store import pauses
from outbox.store.claim import ClaimedRow
from outbox.store.database import Database
from outbox.store.lanes import AutomaticPause, DueLane, Lane

__all__ = ["Publisher", "Relay", "RelayConfig"]

log = logging.getLogger("outbox")


def _no_halves(lane: Lane) -> str:
    raise ConfigError("OUTBOX_GROUP_ID", f"missing; half messages of the destination {lane.destination!r} need it")


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """The relay's settings; durations in seconds, sizes in bytes."""

    batch_size: int = 500
    concurrency: int = 16
    lease_s: float = 60.0
    request_deadline_s: float = 10.0
    policy: Policy = field(default_factory=Policy)
    skip_failed_heads: frozenset[str] = frozenset()
    keep_sent: bool = True
    bytes_in_flight: int = 16_777_216


class Relay:
    """Drains the outbox through any number of lanes. Runs once; any number of relays may run at the same time.

    Args:
        database: the outbox's.
        publishers: by name of destination; lanes of others are left to relays that know them.
        config: limits.
        clock: time and threads.
        on_progress: called from the marker's thread after each flush; what it raises is logged and costs nothing else.
        origin: gives the origin for the half messages of a lane, after it has seen to it that they are checked; may
            raise `ConfigError` or `DatabaseError`.
        loops: where the publishers' loop is from, if they start requests on one; without it, each request in flight
            takes a thread.
    """

    def __init__(
        self,
        database: Database,
        publishers: Mapping[str, Publisher] | Mapping[str, StartingPublisher],
        config: RelayConfig,
        clock: Clock = SYSTEM,
        on_progress: Callable[[Counts], None] = lambda _counts: None,
        *,
        origin: Callable[[Lane], str] = _no_halves,
        loops: Loops | None = None,
    ) -> None:
        self._database = database
        self._claimer = Claimer(
            database,
            clock,
            lease_s=config.lease_s,
            policy=config.policy,
            skip_failed_heads=config.skip_failed_heads,
        )
        self._destinations = frozenset(publishers)
        self._config = config
        self._clock = clock
        self._board = Board(clock, config.policy, room=config.batch_size, bytes_in_flight=config.bytes_in_flight)
        self._marker = Marker(
            database,
            self._board,
            clock,
            lease_s=config.lease_s,
            keep_sent=config.keep_sent,
            on_progress=on_progress,
        )
        self.counts = self._marker.counts
        self._unknown = set[Lane]()
        self._publishing = self._publishers(Desk(database, origin, config.request_deadline_s), publishers, loops)
        self._stopping = False
        self._broken: BaseException | None = None
        self._tasks: list[Task] = []
        self._turn = 0
        # No request takes longer, so a relay that finished nothing for so long is not getting anywhere.
        self._patience_s = config.request_deadline_s + 1.0

    def run(self, ending: Ending) -> Counts:
        """Claim in this thread, publish and mark in others, until ``ending`` says so or `stop` is called.

        Raises:
            RuntimeError: it has run before.
            BaseException: whatever a defect raised in one of the threads, after the others have ended.
        """
        if self._tasks:
            raise RuntimeError("a relay runs once; make another")
        config = self._config
        self._spawn("outbox-marker", self._marker.run)
        try:
            self._claim_until(ending)
        finally:
            self._board.close()
            # A half message takes two requests.
            grace = self._clock.monotonic() + self._patience_s + config.request_deadline_s
            for task in self._tasks:
                task.join(max(0.0, grace - self._clock.monotonic()))
        if self._broken:
            raise self._broken
        return self.counts

    def stop(self) -> None:
        """Claim nothing more, finish what is in flight, give back the rest. Safe in a signal handler."""
        self._stopping = True
        self._board.wake()

    def wake(self) -> None:
        """Look at the database now, if idle."""
        self._board.wake()

    def _publishers(self, desk: Desk, given: Mapping[str, object], loops: Loops | None) -> Publishers:
        board, clock, spawn, concurrency = self._board, self._clock, self._spawn, self._config.concurrency
        if loops is None:
            waiting = cast("Mapping[str, Publisher]", given)
            return ThreadPublishers(board, desk, waiting, clock=clock, spawn=spawn, concurrency=concurrency)
        starting = cast("Mapping[str, StartingPublisher]", given)
        return LoopPublisher(board, desk, starting, clock=clock, spawn=spawn, concurrency=concurrency, loops=loops)

    def _spawn(self, name: str, stage: Callable[[], None]) -> None:
        def run() -> None:
            try:
                stage()
            except BaseException as error:  # without this stage the others would wait for ever
                log.exception("outbox.relay_broke", extra={"stage": name})
                self._broken = self._broken or error
                self.stop()

        self._tasks.append(self._clock.spawn(name, run))

    # --- claim ---

    def _claim_until(self, ending: Ending) -> None:
        finished, since = 0, self._clock.monotonic()
        while not self._stopping:
            claimed, stale = self._look()
            busy = stale or claimed > 0 or not self._board.empty()
            if self.counts.finished > finished or not busy:
                finished, since = self.counts.finished, self._clock.monotonic()
            is_getting_on = busy and self._clock.monotonic() - since <= self._patience_s
            rest = LOOK_S if is_getting_on else ending.rest_s(finished)
            if rest is None:
                return
            if not stale:
                self._board.rest(self._claimer.rest_s(rest), until_empty=is_getting_on)

    def _look(self) -> tuple[int, bool]:
        try:
            return self._round()
        except DatabaseError as error:
            log.warning("outbox.claim_failed", extra={"error": str(error)})
            return 0, False

    def _round(self) -> tuple[int, bool]:
        """Claim from every due lane in turn until each had fewer rows than asked for.

        Returns:
            Rows claimed, and whether the list of lanes grew stale before the round was over.
        """
        seen, claimed = self._board.pauses, 0
        active = self._in_turn(self._claimer.look())
        while active and not self._stopping:
            if self._board.pauses != seen or self._claimer.is_look_old():
                return claimed, True
            if not self._board.wait_for_room(LOOK_S):
                continue
            due = active.popleft()
            rows = self._claim(due, seen)
            claimed += rows
            if rows >= self._config.batch_size and not due.automatic:
                active.append(due)
        return claimed, False

    def _in_turn(self, due: list[DueLane]) -> deque[DueLane]:
        known = (one for one in due if self._is_known(one.lane))
        free = deque(one for one in known if not one.operator_paused and (one.automatic is None or one.automatic.over))
        self._turn += 1
        free.rotate(-self._turn)
        return free

    def _is_known(self, lane: Lane) -> bool:
        """Whether this relay has the lane's destination; a pause would hold up other relays, which may have it."""
        if lane.destination in self._destinations:
            return True
        if lane not in self._unknown:
            self._unknown.add(lane)
            log.warning("outbox.destination_unknown", extra=lane_fields(lane))
        return False

    def _claim(self, due: DueLane, seen: int) -> int:
        lane, probe, config = due.lane, due.automatic, self._config
        if self._board.is_stale(lane, seen):
            return 0
        start_before = self._clock.monotonic() + config.lease_s - config.request_deadline_s
        start_before -= min(1.0, config.lease_s / 10)
        rows = self._claimer.claim(due, 1 if probe else config.batch_size)
        if not rows:
            return 0
        log.debug("outbox.claimed", extra=lane_fields(lane) | {"rows": len(rows)})
        if probe and not self._win_probe(lane, probe, rows):
            return 0
        self._publishing.staff(self._board.offer(lane, rows, start_before, probe, seen))
        return len(rows)

    def _win_probe(self, lane: Lane, probe: AutomaticPause, rows: list[ClaimedRow]) -> bool:
        """Asked with the row in hand, or a lane without a row to spare would stay quiet for a probe that never was."""
        won = False
        try:
            won = pauses.win_probe(self._database, lane, probe, for_s=self._patience_s)
        finally:
            if not won:
                self._board.give_back(rows)
        return won
