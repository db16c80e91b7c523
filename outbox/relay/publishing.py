"""The publishers' side of the relay: from the board to the broker and back.

Two kinds, for the two kinds of HTTP engine: `ThreadPublishers` is a thread for each request in flight, and
`outbox.relay.looping.LoopPublisher` is one thread that keeps them all in flight. Here is what both share.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from outbox.clock import Clock
from outbox.errors import ConfigError, DatabaseError
from outbox.outcomes import EndOutcome, Fault, Outcome, Paused, Unknown
from outbox.relay.board import Board
from outbox.relay.chains import Assignment
from outbox.relay.crew import Crew
from outbox.relay.halves import HalfEnd
from outbox.retry import half_deadline_s
from outbox.rocketmq.transport import Loop
from outbox.store import claim as claims
from outbox.store.claim import ClaimedRow
from outbox.store.database import Database
from outbox.store.lanes import Lane

__all__ = [
    "Desk",
    "Prepared",
    "Publisher",
    "Publishers",
    "Spawn",
    "StartingPublisher",
    "ThreadPublishers",
    "broken",
    "is_too_late",
]

log = logging.getLogger("outbox")

#: Starts a thread of the relay's, by a name.
Spawn = Callable[[str, Callable[[], None]], None]


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


class StartingPublisher(Protocol):
    """The same without waiting: ``done`` is called from ``loop.step``, unless an outcome is returned at once."""

    def start_publish(
        self,
        loop: Loop,
        topic: str,
        body: str,
        tag: str | None,
        properties: str,
        *,
        deadline_s: float,
        done: Callable[[Outcome], None],
    ) -> Outcome | None:
        """POST one message."""

    def start_half(
        self,
        loop: Loop,
        topic: str,
        body: str,
        tag: str | None,
        properties: str,
        *,
        replay: int,
        origin: str,
        deadline_s: float,
        done: Callable[[Outcome], None],
    ) -> Outcome | None:
        """POST one half message, once."""

    def start_end(
        self,
        loop: Loop,
        topic: str,
        receipt_handle: str,
        how: Literal["commit", "rollback"],
        *,
        deadline_s: float,
        done: Callable[[EndOutcome], None],
    ) -> EndOutcome | None:
        """Commit or roll back one half message, once."""


class Publishers(Protocol):
    """One kind of publishers."""

    def staff(self, busy: int) -> None:
        """Have as many publishers as can be busy now."""


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class Prepared:
    """A row that can be published now. ``origin`` is a half message's, None for others."""

    body: str = field(repr=False)
    origin: str | None
    deadline_s: float


class Desk:
    """What both kinds need to know of a row before they can publish it.

    Args:
        database: where large bodies are read.
        origin: gives the origin for the half messages of a lane; see `outbox.relay.pipeline.Relay`.
        request_deadline_s: seconds that a request may take.
    """

    def __init__(self, database: Database, origin: Callable[[Lane], str], request_deadline_s: float) -> None:
        self.request_deadline_s = request_deadline_s
        self._database = database
        self._origin = origin
        self._origins: dict[Lane, str] = {}

    def is_waiting_needed(self, row: ClaimedRow) -> bool:
        """Whether the database must be asked about the row first."""
        is_half = row.transaction_check_s is not None
        return row.body is None or (is_half and _lane_of(row) not in self._origins)

    def prepare(self, row: ClaimedRow) -> Prepared | Outcome | None:
        """The row made ready; or what came of it; None where its lease was lost."""
        try:
            body = row.body if row.body is not None else claims.read_body(self._database, row)
            if body is None:
                return None
            if row.transaction_check_s is None:
                return Prepared(body, None, self.request_deadline_s)
            deadline_s = half_deadline_s(self.request_deadline_s, row.transaction_check_s)
            return Prepared(body, self._origin_of(_lane_of(row)), deadline_s)
        except ConfigError as error:
            return Paused(Fault("HalfMessagesRefused", str(error)))
        except DatabaseError as error:
            return Paused(Fault("BodyUnreadable", str(error)))
        except Exception as error:  # noqa: BLE001 - a defect of ours must cost this row an attempt, not the relay its thread
            return broken(error, row)

    def _origin_of(self, lane: Lane) -> str:
        known = self._origins.get(lane)
        if known is None:
            known = self._origins[lane] = self._origin(lane)
        return known


def _lane_of(row: ClaimedRow) -> Lane:
    return Lane(row.destination, row.topic)


def broken(error: Exception, row: ClaimedRow) -> Unknown:
    """The outcome of what a defect of ours has ended."""
    log.error("outbox.publish_broke", exc_info=error, extra={"outbox_id": row.outbox_id})
    return Unknown(Fault("PublisherBroke", type(error).__name__, accepted=None))


def is_too_late(end: HalfEnd, now: float) -> bool:
    """Whether an end waited here too long, for then a checker may be committing it."""
    return end.half.receipt_handle is None or (end.how == "commit" and not end.half.may_commit(now))


class ThreadPublishers:
    """A thread for each request in flight, as many as are needed; see also `outbox.relay.crew`.

    Args:
        board: where rows come from and outcomes go.
        desk: what prepares rows.
        publishers: by name of destination.
        clock: time.
        spawn: starts a thread of the relay's.
        concurrency: threads at most.
    """

    def __init__(
        self,
        board: Board,
        desk: Desk,
        publishers: Mapping[str, Publisher],
        *,
        clock: Clock,
        spawn: Spawn,
        concurrency: int,
    ) -> None:
        self._board = board
        self._desk = desk
        self._publishers = publishers
        self._clock = clock
        self._spawn = spawn
        self._concurrency = concurrency
        self._threads = 0
        self._crew = Crew(clock, board.empty)

    def staff(self, busy: int) -> None:
        """Have as many threads as can be busy, within the concurrency."""
        while self._threads < min(busy, self._concurrency):
            self._spawn(f"outbox-publisher-{self._threads}", partial(self._publish_all, self._threads))
            self._threads += 1
        self._crew.call()

    def _publish_all(self, number: int) -> None:
        try:
            computed_s = self._clock.cpu()
            while (task := self._next_task(number)) is not None:
                match task:
                    case Assignment():
                        posted_at = self._clock.monotonic()
                        self._board.done(task, self._publish(task.row), posted_at)
                    case HalfEnd():
                        self._board.ended(task, self._end(task))
                before, computed_s = computed_s, self._clock.cpu()
                self._crew.worked(number, computed_s - before)
        finally:
            # Also where a defect ends the one that is alone: nobody else would ever look at the board again.
            self._crew.dismiss()

    def _next_task(self, number: int) -> Assignment | HalfEnd | None:
        self._crew.wait_for_turn(number)
        return self._board.take()

    def _publish(self, row: ClaimedRow) -> Outcome | None:
        prepared = self._desk.prepare(row)
        if not isinstance(prepared, Prepared):
            return prepared
        publisher, message = self._publishers[row.destination], (row.topic, prepared.body, row.tag, row.properties)
        try:
            if prepared.origin is None:
                return publisher.publish(*message, deadline_s=prepared.deadline_s)
            return publisher.post_half(
                *message, replay=row.replays, origin=prepared.origin, deadline_s=prepared.deadline_s
            )
        except Exception as error:  # noqa: BLE001 - as in Desk.prepare
            return broken(error, row)

    def _end(self, end: HalfEnd) -> EndOutcome | None:
        """Send it once; None when it was too late."""
        row, handle = end.half.row, end.half.receipt_handle
        if handle is None or is_too_late(end, self._clock.monotonic()):
            return None
        try:
            deadline_s = end.deadline_s(self._desk.request_deadline_s)
            return self._publishers[row.destination].end(row.topic, handle, end.how, deadline_s=deadline_s)
        except Exception as error:  # noqa: BLE001 - as for a publish; nothing is sent a second time
            return broken(error, row)
