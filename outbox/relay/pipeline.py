"""The three stages and the threads they run in."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from outbox.clock import SYSTEM, Clock, Task
from outbox.errors import ConfigError, DatabaseError
from outbox.outcomes import EndOutcome, Fault, Outcome, Paused, Unknown
from outbox.relay.board import Board
from outbox.relay.chains import Assignment
from outbox.relay.endings import LOOK_S, Ending
from outbox.relay.halves import HalfEnd
from outbox.relay.marker import Counts, Marker, lane_fields
from outbox.retry import Policy, half_deadline_s
from outbox.store import claim as claims
from outbox.store import lanes, pauses
from outbox.store.claim import ClaimedRow
from outbox.store.database import Database
from outbox.store.lanes import AutomaticPause, DueLane, Lane

__all__ = ["Publisher", "Relay", "RelayConfig"]

log = logging.getLogger("outbox")


class Publisher(Protocol):
    """What the relay asks of an HTTP client; `outbox.rocketmq.client.Client` is one."""

    def publish(self, topic: str, body: str, tag: str | None, properties: str, *, deadline_s: float) -> Outcome:
        """POST one message; never raises for what the network or the broker did."""

    def post_half(
        self, topic: str, body: str, tag: str | None, properties: str, *, replay: int, origin: str, deadline_s: float
    ) -> Outcome:
        """POST one half message, once."""

    def end(
        self, topic: str, receipt_handle: str, how: Literal["commit", "rollback"], *, deadline_s: float
    ) -> EndOutcome:
        """Commit or roll back one half message, once."""


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
        publishers: by name of destination.
        config: limits.
        clock: time and threads.
        on_progress: called from the marker's thread after each flush; what it raises is logged and costs nothing else.
        origin: gives the origin for the half messages of a lane, after it has seen to it that they are checked; may
            raise `ConfigError` or `DatabaseError`.
    """

    def __init__(
        self,
        database: Database,
        publishers: Mapping[str, Publisher],
        config: RelayConfig,
        clock: Clock = SYSTEM,
        on_progress: Callable[[Counts], None] = lambda _counts: None,
        *,
        origin: Callable[[Lane], str] = _no_halves,
    ) -> None:
        self._origin = origin
        self._database = database
        self._publishers = publishers
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
        self._stopping = False
        self._broken: BaseException | None = None
        self._tasks: list[Task] = []
        self._turn = 0
        self._cursors: dict[Lane, str] = {}
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
                self._board.rest(rest, until_empty=is_getting_on)

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
        started, seen, claimed = self._clock.monotonic(), self._board.pauses, 0
        active = self._in_turn(lanes.due_lanes(self._database))
        while active and not self._stopping:
            if self._board.pauses != seen or self._clock.monotonic() - started > LOOK_S:
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
        free = deque(one for one in due if not one.operator_paused and (one.automatic is None or one.automatic.over))
        self._turn += 1
        free.rotate(-self._turn)
        return free

    def _claim(self, due: DueLane, seen: int) -> int:
        lane, probe, config = due.lane, due.automatic, self._config
        if self._board.is_stale(lane, seen):
            return 0
        start_before = self._clock.monotonic() + config.lease_s - config.request_deadline_s
        start_before -= min(1.0, config.lease_s / 10)
        rows = self._claim_rows(due, 1 if probe else config.batch_size)
        if not rows:
            return 0
        log.debug("outbox.claimed", extra=lane_fields(lane) | {"rows": len(rows)})
        if probe and not self._win_probe(lane, probe, rows):
            return 0
        self._staff(self._board.offer(lane, rows, start_before, probe, seen))
        return len(rows)

    def _claim_rows(self, due: DueLane, limit: int) -> list[ClaimedRow]:
        lane, config = due.lane, self._config
        rows: list[ClaimedRow] = []
        if due.unordered:
            rows = claims.claim(
                self._database, lane, limit=limit, lease_s=config.lease_s, max_attempts=config.policy.max_attempts
            )
        if due.ordered and len(rows) < limit and not any(row.alone for row in rows):
            ordered = claims.claim_ordered(
                self._database,
                lane,
                limit=limit - len(rows),
                lease_s=config.lease_s,
                max_attempts=config.policy.max_attempts,
                after_key=self._cursors.get(lane, ""),
                skip_failed_heads=lane.topic in config.skip_failed_heads,
            )
            if ordered:
                self._cursors[lane] = ordered[-1].ordering_key or ""
            rows += ordered
        return rows

    def _win_probe(self, lane: Lane, probe: AutomaticPause, rows: list[ClaimedRow]) -> bool:
        """Asked with the row in hand, or a lane without a row to spare would stay quiet for a probe that never was."""
        won = False
        try:
            won = pauses.win_probe(self._database, lane, probe, for_s=self._patience_s)
        finally:
            if not won:
                self._board.give_back(rows)
        return won

    # --- publish ---

    def _staff(self, busy: int) -> None:
        """Have as many publishers as can be busy, within the concurrency."""
        while (publishers := len(self._tasks) - 1) < min(busy, self._config.concurrency):
            self._spawn(f"outbox-publisher-{publishers}", self._publish_all)

    def _publish_all(self) -> None:
        while (task := self._board.take()) is not None:
            match task:
                case Assignment():
                    posted_at = self._clock.monotonic()
                    self._board.done(task, self._publish(task.row), posted_at)
                case HalfEnd():
                    self._board.ended(task, self._end(task))

    def _publish(self, row: ClaimedRow) -> Outcome | None:
        publisher = self._publishers.get(row.destination)
        if publisher is None:
            return Paused(Fault("UnknownDestination", "no such destination in this relay's settings"))
        try:
            body = row.body if row.body is not None else claims.read_body(self._database, row)
            if body is None:
                return None
            if row.transaction_check_s is not None:
                return self._post_half(publisher, row, body, row.transaction_check_s)
            return publisher.publish(
                row.topic, body, row.tag, row.properties, deadline_s=self._config.request_deadline_s
            )
        except DatabaseError as error:
            return Paused(Fault("BodyUnreadable", str(error)))
        except Exception as error:  # a defect of ours must cost this row an attempt, not the relay its thread
            log.exception("outbox.publish_broke", extra={"outbox_id": row.outbox_id})
            return Unknown(Fault("PublisherBroke", type(error).__name__, accepted=None))

    def _post_half(self, publisher: Publisher, row: ClaimedRow, body: str, check_s: int) -> Outcome:
        try:
            origin = self._origin(Lane(row.destination, row.topic))
        except ConfigError as error:
            return Paused(Fault("HalfMessagesRefused", str(error)))
        return publisher.post_half(
            row.topic,
            body,
            row.tag,
            row.properties,
            replay=row.replays,
            origin=origin,
            deadline_s=half_deadline_s(self._config.request_deadline_s, check_s),
        )

    def _end(self, end: HalfEnd) -> EndOutcome | None:
        """Send it once; None when it waited here too long, for then a checker may be committing it."""
        half = end.half
        publisher = self._publishers.get(half.row.destination)
        if publisher is None or half.receipt_handle is None:
            return None
        if end.how == "commit" and not half.may_commit(self._clock.monotonic()):
            return None
        try:
            deadline_s = end.deadline_s(self._config.request_deadline_s)
            return publisher.end(half.row.topic, half.receipt_handle, end.how, deadline_s=deadline_s)
        except Exception as error:  # as for a publish; nothing is sent a second time
            log.exception("outbox.end_broke", extra={"outbox_id": half.row.outbox_id})
            return Unknown(Fault("PublisherBroke", type(error).__name__, accepted=None))
