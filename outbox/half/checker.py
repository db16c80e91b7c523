"""The checker: polls, records, answers, settles.

::

    open mark ─▶ poll ─▶ record every id, close mark ─▶ read rows ─▶ decide ─▶ adopt ─▶ read again, decide again ─▶ end

Each request is made once, with no transaction open, and nothing is asked of a broker while the database is away.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, Protocol
from uuid import uuid4

from outbox.clock import SYSTEM, Clock
from outbox.errors import ConfigError, DatabaseError
from outbox.half.decisions import ALARMING, CANARY, Adopt, Commit, Leave, Offer, Reason, Rollback, decide, offer_of
from outbox.outcomes import (
    TOO_LARGE,
    Checked,
    CheckOutcome,
    Ended,
    EndOutcome,
    NotFound,
    Outcome,
    Paused,
    Sent,
    Unknown,
)
from outbox.retry import half_deadline_s
from outbox.store import halves, polls, silence
from outbox.store.database import Database
from outbox.store.halves import Committed, Election, HalfRow
from outbox.store.polls import Heard, Poll
from outbox.store.silence import Canary, Pace
from outbox.store.topics import Topic, topics

__all__ = ["CheckConfig", "CheckCounts", "Checker", "HalfClient"]

log = logging.getLogger("outbox")

_CANARY_BODY = "canary"
_SHORTEST_CHECK_S = 10
_FORGET_EVERY_S = 3600.0
_DOUBT_EVERY_S = 60.0
# From before the poll: the broker makes the handles when it answers, and takes them back after about ten.
_LATE_S = 5.0
_MOST = 16
_POLLS_IN_A_ROW = 8


class HalfClient(Protocol):
    """What the checker asks of an HTTP client; `outbox.rocketmq.client.Client` is one. Nothing here ever raises."""

    def check(self, topic: str, limit: int, wait_s: int, *, deadline_s: float) -> CheckOutcome:
        """Ask which half messages are to be checked."""

    def end(
        self, topic: str, receipt_handle: str, how: Literal["commit", "rollback"], *, deadline_s: float
    ) -> EndOutcome:
        """Commit or roll back, once."""

    def post_half(
        self, topic: str, body: str, tag: str | None, properties: str, *, replay: int, origin: str, deadline_s: float
    ) -> Outcome:
        """POST one half message, once."""


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """The checker's settings, in seconds. All but the first are shortened in tests only.

    Attributes:
        request_deadline_s: of each request; of a poll, beside its wait.
        pace: of canaries.
        idle_s: between two rounds that found nothing.
    """

    request_deadline_s: float = 10.0
    pace: Pace = field(default_factory=Pace)
    idle_s: float = 1.0


@dataclass(slots=True)
class CheckCounts:
    """What a checker has done so far, in half messages and rows."""

    polls: int = 0
    failed_polls: int = 0
    offered: int = 0
    adopted: int = 0
    committed: int = 0
    rolled_back: int = 0
    left: int = 0
    unanswered: int = 0
    settled: int = 0
    doubted: int = 0
    canaries: int = 0
    alarms: dict[Reason, int] = field(default_factory=dict)
    #: Topics that cannot be checked with these settings, and why.
    skipped: dict[Topic, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A topic, whom to ask about it, and the origin of what is ours there."""

    topic: Topic
    client: HalfClient
    origin: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """One half message of an answer: the poll that brought it, until when it may be ended (monotonic), and how."""

    offer: Offer
    poll: Poll
    until: float
    handle: str = field(repr=False)


class Checker:
    """Answers the broker's checks of half messages, and settles what it no longer asks about.

    Args:
        database: the outbox's.
        clients: by name of destination.
        origin: the origin that a destination's half messages have; may raise `ConfigError`.
        config: limits.
        clock: time, and the wait between rounds.
        name: of this checker's marks; no other may use it at the same time.
    """

    def __init__(
        self,
        database: Database,
        clients: Mapping[str, HalfClient],
        origin: Callable[[str], str],
        config: CheckConfig | None = None,
        clock: Clock = SYSTEM,
        *,
        name: str | None = None,
    ) -> None:
        self.counts = CheckCounts()
        self._database = database
        self._clients = clients
        self._origin = origin
        self._config = config or CheckConfig()
        self._clock = clock
        self._name = name or str(uuid4())
        self._stopping = False
        self._enough: Callable[[], bool] = lambda: False
        self._doubted_at: float | None = None
        self._forgot_at: float | None = None
        self._latest: Topic | None = None
        # Half messages of that topic that one answer has room for. It never grows again: each try would cost an answer.
        self._room: dict[Topic, int] = {}

    def run(self, until: Callable[[], bool] = lambda: False, enough: Callable[[], bool] = lambda: False) -> CheckCounts:
        """Go round until `stop` is called, or ``until`` says so after a round, or ``enough`` between two polls."""
        self._enough = enough
        while not self._is_over():
            found = self.round()
            if until():
                break
            if not found and not self._stopping:
                self._clock.sleep(self._config.idle_s)
        return self.counts

    def stop(self) -> None:
        """End after the poll at hand. Safe in a signal handler."""
        self._stopping = True

    def _is_over(self) -> bool:
        return self._stopping or self._enough()

    def round(self) -> int:
        """Visit every topic, beginning behind the one visited last; returns how many half messages were offered."""
        offered = 0
        try:
            for topic in self._in_turn(topics(self._database)):
                if self._is_over():
                    break
                self._latest = topic
                offered += self._visit(topic)
            self._doubt()
        except DatabaseError as error:
            # Nothing more is asked of the broker: each offer that cannot be answered makes its message later.
            log.warning("outbox.check_failed", extra={"error": str(error)})
        return offered

    def _in_turn(self, found: Sequence[Topic]) -> Sequence[Topic]:
        """A round that ends early must not always end before the same topics."""
        latest = self._latest
        after = sum(latest is not None and topic <= latest for topic in found)
        return [*found[after:], *found[:after]]

    def _visit(self, topic: Topic) -> int:
        """Poll a topic while it has more than one answer holds, but not for ever: others wait. Then settle."""
        place = self._place(topic)
        if place is None:
            return 0
        offered, found = 0, None
        for _ in range(_POLLS_IN_A_ROW):
            if self._is_over():
                break
            found = self._poll(place)
            offered += found or 0
            if found is None or found < self._room.get(topic, _MOST):
                break
        self._settle(topic)
        if found is not None:
            # Where polls fail, a canary would never be heard of.
            self._send_canary(place)
        return offered

    def _place(self, topic: Topic) -> _Place | None:
        """None where this process cannot or may not ask; a person is told once."""
        client = self._clients.get(topic.destination)
        try:
            if client is not None:
                return _Place(topic, client, self._origin(topic.destination))
            why = "no such destination in this checker's settings"
        except ConfigError as error:
            why = str(error)
        if topic not in self.counts.skipped:
            self.counts.skipped[topic] = why
            extra = {"destination": topic.destination, "topic": topic.topic, "reason": why}
            log.error("outbox.check_skipped", extra=extra)
        return None

    # --- one poll

    def _poll(self, place: _Place) -> int | None:
        """Ask once, and answer what was offered; returns how many half messages were, None where any may be missing."""
        deadline_s, topic = self._config.request_deadline_s, place.topic
        limit = self._room.get(topic, _MOST)
        poll = polls.open_poll(self._database, self._name, topic, for_s=deadline_s + 2 * _LATE_S)
        self.counts.polls += 1
        until = self._clock.monotonic() + _LATE_S
        # It does not wait: an open mark holds up every other checker's proof, should this process be killed.
        outcome = place.client.check(topic.topic, limit, 0, deadline_s=deadline_s)
        match outcome:
            case Checked(halves=found, damaged=damaged):
                offers = [(offer_of(one, topic.destination, topic.topic), one.receipt_handle) for one in found]
                asked = [_Asked(offer, poll, until, handle) for offer, handle in offers]
                self._tell_unreadable(topic, damaged)
                self._answer(place, asked, whole=not damaged)
                return None if damaged else len(asked)
            case Paused(fault=fault) | Unknown(fault=fault):
                self.counts.failed_polls += 1
                log.warning("outbox.poll_failed", extra={"topic": topic.topic, "code": fault.code, "limit": limit})
                if fault.code == TOO_LARGE:
                    self._room[topic] = max(1, limit // 2)
                polls.fail_poll(self._database, self._name, topic)
                return None

    def _tell_unreadable(self, topic: Topic, halves: int) -> None:
        """Without its MessageId or its times a half message is nobody's: it stays until its day is over."""
        if halves:
            self.counts.failed_polls += 1
            self._count_alarm("unreadable", halves)
            extra = {"reason": "unreadable", "topic": topic.topic, "halves": halves}
            log.error("outbox.half_left", extra=extra)

    def _answer(self, place: _Place, asked: Sequence[_Asked], *, whole: bool) -> None:
        heard = [Heard(one.offer.outbox_id, one.offer.message_id, one.offer.is_early) for one in asked]
        polls.close_poll(self._database, self._name, place.topic, heard, whole=whole)
        self.counts.offered += len(asked)
        rows = self._rows(asked)
        if self._adopt(place, asked, rows):
            rows = self._rows(asked)
        committed: list[Committed] = []
        try:
            for one in asked:
                row = rows.get(one.offer.outbox_id)
                if self._end(place, one, row) and row is not None:
                    committed.append(Committed(row.id, one.offer.message_id))
        finally:
            halves.confirm(self._database, committed)

    def _rows(self, asked: Sequence[_Asked]) -> Mapping[str, HalfRow]:
        return halves.rows_of(self._database, [one.offer.outbox_id for one in asked])

    def _adopt(self, place: _Place, asked: Sequence[_Asked], rows: Mapping[str, HalfRow]) -> bool:
        """Elect what is undecided; of two half messages of one row the first wins. Whether there was any."""
        elections: dict[int, Election] = {}
        for one in asked:
            row, oldest_s = rows.get(one.offer.outbox_id), one.offer.oldest_s
            if row is not None and oldest_s is not None and isinstance(decide(row, one.offer, place.origin), Adopt):
                posted_at = one.poll.opened_at - timedelta(seconds=oldest_s)
                candidate = Election(row.id, row.replays, one.offer.message_id, posted_at, one.poll.until)
                elections.setdefault(row.id, candidate)
        halves.elect(self._database, list(elections.values()))
        self.counts.adopted += len(elections)
        return bool(elections)

    def _end(self, place: _Place, one: _Asked, row: HalfRow | None) -> bool:
        """Answer one half message; whether the broker confirmed its commit."""
        if self._clock.monotonic() > one.until:
            # The handle may not be good for long enough; the next offer brings another.
            self.counts.left += 1
            return False
        match decide(row, one.offer, place.origin):
            case Commit():
                is_committed = self._send(place, one, "commit")
                self.counts.committed += is_committed
                return is_committed
            case Rollback():
                self.counts.rolled_back += self._send(place, one, "rollback")
            case Adopt():
                # Another half message of its row was adopted in the same answer, or none after all.
                self.counts.left += 1
            case Leave(reason=reason):
                self.counts.left += 1
                self._alarm(reason, one.offer)
        return False

    def _send(self, place: _Place, one: _Asked, how: Literal["commit", "rollback"]) -> bool:
        offer = one.offer
        deadline_s = half_deadline_s(self._config.request_deadline_s, offer.check_s or _SHORTEST_CHECK_S)
        outcome = place.client.end(offer.topic, one.handle, how, deadline_s=deadline_s)
        self._note(outcome, how, offer)
        return isinstance(outcome, Ended)

    def _note(self, outcome: EndOutcome, how: str, offer: Offer) -> None:
        extra = {"outbox_id": offer.outbox_id, "message_id": offer.message_id, "how": how}
        match outcome:
            case Ended():
                log.info("outbox.ended", extra=extra)
            case NotFound(fault=fault) | Paused(fault=fault) | Unknown(fault=fault):
                self.counts.unanswered += 1
                log.warning("outbox.not_ended", extra=extra | {"code": fault.code})

    def _alarm(self, reason: Reason, offer: Offer) -> None:
        if reason in ALARMING:
            self._count_alarm(reason, 1)
            extra = {"reason": reason, "outbox_id": offer.outbox_id[:36], "message_id": offer.message_id}
            log.error("outbox.half_left", extra=extra)

    def _count_alarm(self, reason: Reason, halves: int) -> None:
        self.counts.alarms[reason] = self.counts.alarms.get(reason, 0) + halves

    # --- silence

    def _settle(self, topic: Topic) -> None:
        settled = silence.settle(self._database, topic)
        if settled:
            self.counts.settled += settled
            log.info("outbox.settled", extra={"topic": topic.topic, "rows": settled})

    def _send_canary(self, place: _Place) -> None:
        """Post a canary where rows wait for one."""
        canary = silence.plan_canary(self._database, place.topic, self._config.pace)
        if canary is not None:
            self._post_canary(place, canary)

    def _post_canary(self, place: _Place, canary: Canary) -> None:
        topic = place.topic
        outcome = place.client.post_half(
            topic.topic,
            _CANARY_BODY,
            None,
            f"__TransCheckT:{canary.check_s}|{CANARY}:1|outbox_id:{canary.outbox_id}|",
            replay=0,
            origin=place.origin,
            deadline_s=half_deadline_s(self._config.request_deadline_s, canary.check_s),
        )
        self.counts.canaries += 1
        match outcome:
            case Sent() | Unknown():
                log.info("outbox.canary_posted", extra={"topic": topic.topic})
            case _:
                log.warning("outbox.canary_refused", extra={"topic": topic.topic, "code": outcome.fault.code})
                silence.drop_canary(self._database, topic, canary.outbox_id)

    def _doubt(self) -> None:
        now = self._clock.monotonic()
        if self._doubted_at is None or now - self._doubted_at > _DOUBT_EVERY_S:
            self._doubted_at = now
            doubted = halves.doubt(self._database)
            if doubted:
                self.counts.doubted += doubted
                log.error("outbox.in_doubt", extra={"rows": doubted})
        if self._forgot_at is None or now - self._forgot_at > _FORGET_EVERY_S:
            self._forgot_at = now
            polls.forget_checkers(self._database)
