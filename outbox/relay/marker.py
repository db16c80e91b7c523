"""The marker: tells the database what came of the rows."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from outbox.clock import Clock
from outbox.errors import DatabaseError
from outbox.outcomes import Fault
from outbox.relay.board import Board
from outbox.relay.findings import Findings, LanePause
from outbox.relay.halves import InHand
from outbox.store import halves, pauses
from outbox.store.database import Database
from outbox.store.halves import Committed, Standing
from outbox.store.lanes import Lane
from outbox.store.mark import Mark, MarkFailed, MarkRetry, MarkSent, Release, mark

__all__ = ["Counts", "Marker", "lane_fields"]

log = logging.getLogger("outbox")

_DATABASE_REST_S = 1.0


@dataclass(slots=True)
class Counts:
    """What a relay has done so far, in rows. ``unsettled``: half messages that it left to a checker."""

    sent: int = 0
    retried: int = 0
    failed: int = 0
    released: int = 0
    lost: int = 0
    unsettled: int = 0

    @property
    def finished(self) -> int:
        """Rows that reached an end."""
        return self.sent + self.failed + self.unsettled


class Marker:
    """The last stage of a relay.

    Args:
        database: the outbox's.
        board: whose findings to tell.
        clock: time.
        lease_s: seconds for which it is worth while to try again.
        keep_sent: False deletes a row when it is sent.
        on_progress: called after each flush; what it raises is logged and costs nothing else.
    """

    def __init__(
        self,
        database: Database,
        board: Board,
        clock: Clock,
        *,
        lease_s: float,
        keep_sent: bool,
        on_progress: Callable[[Counts], None],
    ) -> None:
        self.counts = Counts()
        self._database = database
        self._board = board
        self._clock = clock
        self._lease_s = lease_s
        self._keep_sent = keep_sent
        self._on_progress = on_progress

    def run(self) -> None:
        """Tell the database what the board finds, until the board is closed and all is told."""
        while (findings := self._board.findings()) is not None:
            self._tell(findings)
            self._board.told(findings)
            try:
                self._on_progress(self.counts)
            except Exception:
                log.exception("outbox.progress_broke")

    def _tell(self, findings: Findings) -> None:
        give_up = self._clock.monotonic() + self._lease_s
        self._elect(findings.elections, give_up)
        for pause in findings.pauses:
            self._insist(partial(self._pause, pause), give_up)
        if not self._insist(partial(self._mark, findings.marks), give_up):
            self.counts.lost += len(findings.marks)
        confirmed = self._insist(partial(halves.confirm, self._database, findings.committed), give_up)
        self._count_halves(findings.committed, findings.unsettled, confirmed=confirmed)
        for lane in findings.ended:
            self._insist(partial(self._resume, lane), give_up)

    def _elect(self, candidates: list[InHand], give_up: float) -> None:
        """Put half messages to the vote; asking again is harmless, and where nothing answers nothing is ended."""
        standings: dict[str, Standing] = {}

        def ask() -> None:
            elections = [one.election(self._lease_s) for one in candidates]
            standings.update(halves.elect(self._database, elections))

        if candidates:
            soonest = min(one.posted_at + one.check_s for one in candidates)
            self._insist(ask, min(give_up, soonest))
            self._board.elected(candidates, standings)

    def _count_halves(self, committed: list[Committed], unsettled: int, *, confirmed: bool) -> None:
        if confirmed:
            self.counts.sent += len(committed)
            for one in committed:
                log.debug("outbox.sent", extra={"row_id": one.id, "message_id": one.message_id})
        self.counts.unsettled += unsettled + (0 if confirmed else len(committed))

    def _insist(self, tell: Callable[[], None], give_up: float) -> bool:
        """Try again and again while the database is away, for a mark is worth as much as its publish."""
        while True:
            try:
                tell()
            except DatabaseError as error:
                log.warning("outbox.mark_failed", extra={"error": str(error)})
                if self._clock.monotonic() >= give_up:
                    return False
                self._clock.sleep(_DATABASE_REST_S)
            else:
                return True

    def _pause(self, pause: LanePause) -> None:
        pauses.pause_automatically(
            self._database,
            pause.lane,
            for_s=pause.for_s,
            reason=f"{pause.fault.code}: {pause.fault.text}",
            failures=pause.failures,
        )
        fault = pause.fault
        clocks = {} if fault.clock_offset_s is None else {"clock_offset_seconds": round(fault.clock_offset_s)}
        extra = lane_fields(pause.lane) | {"for_s": pause.for_s, "code": fault.code} | clocks
        log.warning("outbox.paused", extra=extra)

    def _resume(self, lane: Lane) -> None:
        pauses.end_automatic_pause(self._database, lane)
        log.info("outbox.resumed", extra=lane_fields(lane))

    def _mark(self, marks: list[Mark]) -> None:
        lost = mark(self._database, marks, keep_sent=self._keep_sent)
        self.counts.lost += len(lost)
        for one in marks:
            if one.id in lost:
                log.warning("outbox.lease_lost", extra={"row_id": one.id})
            else:
                self._count(one)

    def _count(self, one: Mark) -> None:
        match one:
            case MarkSent():
                self.counts.sent += 1
                log.debug("outbox.sent", extra={"row_id": one.id, "message_id": one.message_id})
            case MarkRetry(fault=fault):
                self.counts.retried += 1
                # Something between us and the broker alters messages: a person should hear of it.
                level = logging.ERROR if fault.accepted else logging.INFO
                extra = {"row_id": one.id, "delay_s": one.delay_s} | _fault_fields(fault)
                log.log(level, "outbox.retried", extra=extra)
            case MarkFailed(fault=fault):
                self.counts.failed += 1
                log.error("outbox.failed", extra={"row_id": one.id} | _fault_fields(fault))
            case Release():
                self.counts.released += 1


def _fault_fields(fault: Fault) -> dict[str, object]:
    return {"code": fault.code, "http_status": fault.http_status, "request_id": fault.request_id}


def lane_fields(lane: Lane) -> dict[str, object]:
    """A lane, for a log event."""
    return {"destination": lane.destination, "topic": lane.topic}
