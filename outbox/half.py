"""Half messages from the checker's side: what to answer when the broker asks about one, and the rounds of asking.

::

    open mark ─▶ poll ─▶ record every id, close mark ─▶ read rows ─▶ decide ─▶ adopt ─▶ read again, decide again ─▶ end

`decide` is pure and holds every rule. The checker around it keeps no state that matters: any number of them may run at
the same time, and each may end at any point. Each request is made once, with no transaction open.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import uuid4

from outbox.clock import SYSTEM, Clock
from outbox.errors import DatabaseError
from outbox.outcomes import Checked, CheckOutcome, Ended, EndOutcome, Half, NotFound, Outcome, Paused, Sent, Unknown
from outbox.retry import half_deadline_s, half_margin_s
from outbox.states import State
from outbox.store import checks, halves
from outbox.store.checks import Heard, Topic
from outbox.store.database import Database
from outbox.store.halves import Committed, Election, HalfRow

__all__ = [
    "Adopt",
    "CheckConfig",
    "CheckCounts",
    "Checker",
    "Commit",
    "Decision",
    "HalfClient",
    "Leave",
    "Offer",
    "Reason",
    "Rollback",
    "decide",
    "offer_of",
]

log = logging.getLogger("outbox")

CANARY = "outbox_canary"
_CANARY_BODY = "canary"
# The broker offers a half message again after about ten seconds; within these a Date can be believed.
_NEXT_OFFER_S = (-2.0, 120.0)
_OLDEST_S = 2 * 86_400.0
_LATE_S = 5.0
_MOST = 16

Reason = Literal[
    "foreign",  # another origin's, or not one of the outbox's at all
    "undated",  # its age cannot be believed
    "young",  # its sender may still be at it
    "altered",  # not what the row says
    "newer",  # of a replay that this database does not know: it was restored
    "ended",  # its commit was confirmed: the broker's own anomaly
    "odd",  # a row as no verb leaves it
]
#: Reasons that a person should hear of.
ALARMING: frozenset[Reason] = frozenset({"foreign", "undated", "altered", "newer", "ended", "odd"})


@dataclass(frozen=True, slots=True)
class Commit:
    """End it as sent: it is the elected one."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Elect it, and then decide again: its row is undecided, and its sender is not coming back."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """End it unsent: it can never be the elected one."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Do nothing; the broker offers it again."""

    reason: Reason


Decision = Commit | Adopt | Rollback | Leave


@dataclass(frozen=True, slots=True)
class Offer:
    """What a half message says of itself.

    Attributes:
        outbox_id: the row's, or a canary's; empty where it has none.
        replay: how often the row had been replayed when it was posted; -1 where it does not say.
        origin: of the database that posted it; empty where it has none.
        canary: whether it is one.
        check_s: its own transaction check time; None where it does not say.
        age_s: by the broker's clock alone; None where that cannot be believed.
    """

    message_id: str
    outbox_id: str
    replay: int
    origin: str
    canary: bool
    check_s: int | None
    age_s: float | None
    destination: str
    topic: str
    tag: str
    body: str = field(repr=False)
    properties: Mapping[str, str] = field(repr=False)


def offer_of(half: Half, destination: str, topic: str) -> Offer:
    """Read what a half message says of itself; whatever it says wrong reads as missing."""
    properties = _read_properties(half.properties)
    replay = properties.get("outbox_replay", "")
    check_s = properties.get("__TransCheckT", "")
    return Offer(
        message_id=half.message_id,
        outbox_id=properties.get("outbox_id", ""),
        replay=int(replay) if _is_number(replay) else -1,
        origin=properties.get("outbox_origin", ""),
        canary=CANARY in properties,
        check_s=int(check_s) if _is_number(check_s) else None,
        age_s=_age_s(half),
        destination=destination,
        topic=topic,
        tag=half.tag,
        body=half.body,
        properties=properties,
    )


def decide(row: HalfRow | None, offer: Offer, origin: str) -> Decision:
    """What to answer when the broker offers a half message.

    Args:
        row: the row that it says it is of, as it stands now; None when there is none.
        offer: the half message.
        origin: this database's.
    """
    if offer.origin != origin or not offer.outbox_id or offer.replay < 0:
        return Leave("foreign")
    if offer.canary:
        return Rollback()
    check_s = offer.check_s if offer.check_s is not None else row.transaction_check_s if row is not None else None
    if offer.age_s is None or check_s is None:
        return Leave("undated")
    if offer.age_s <= check_s + half_margin_s(check_s):
        return Leave("young")
    if row is None:
        return Rollback()
    if not _is_of(row, offer):
        return Leave("altered")
    if offer.replay != row.replays:
        return Rollback() if offer.replay < row.replays else Leave("newer")
    return _decide_by_state(row, offer)


def _decide_by_state(row: HalfRow, offer: Offer) -> Decision:
    is_elected = row.message_id == offer.message_id
    match row.state:
        case State.PENDING:
            return Adopt() if row.message_id is None else Leave("odd")
        case State.FAILED | State.DISCARDED:
            return Rollback()
        case State.COMMITTING | State.IN_DOUBT if row.message_id is None:
            return Leave("odd")
        case State.COMMITTING | State.IN_DOUBT:
            return Commit() if is_elected else Rollback()
        case State.SENT if not is_elected:
            return Rollback()
        case State.SENT:
            # Losing a message is worse than delivering one outbox_id twice.
            return Commit() if row.confirmed_by == "silence" or row.reoffered_long else Leave("ended")


def _is_of(row: HalfRow, offer: Offer) -> bool:
    """Whether the half message is what the row says, but for what the broker itself may have added to it."""
    ours = _read_properties(row.properties) | {"outbox_replay": str(offer.replay), "outbox_origin": offer.origin}
    added = {name for name in offer.properties.keys() - ours.keys() if not name.startswith("__") and name != "KEYS"}
    kept = all(offer.properties.get(name) == value for name, value in ours.items() if name != "__TransCheckT")
    given = (offer.destination, offer.topic, offer.tag, offer.body, offer.outbox_id)
    same = (row.destination, row.topic, row.tag or "", row.body, row.outbox_id) == given
    return same and kept and not added and offer.check_s in (None, row.transaction_check_s)


def _read_properties(text: str) -> dict[str, str]:
    pairs = (pair.partition(":") for pair in text.split("|") if pair)
    return {name: value for name, _, value in pairs}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10  # noqa: PLR2004 - digits of a column


def _age_s(half: Half) -> float | None:
    """By the broker's clock: the answer's Date, as long as the time of the next offer bears it out."""
    if half.answered_at_s is None:
        return None
    shortest, longest = _NEXT_OFFER_S
    if not shortest <= half.offered_again_at_s - half.answered_at_s <= longest:
        return None
    age_s = half.answered_at_s - half.published_at_s
    return age_s if -_NEXT_OFFER_S[1] <= age_s <= _OLDEST_S else None


# --- the checker --------------------------------------------------------------------------------------------------


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
        canary_check_s: a canary's transaction check time.
        quiet_s: for which a row must not have been offered before a canary is posted for it.
        canary_lost_s: after which a canary that was never offered is given up.
        idle_s: between two rounds that found nothing.
    """

    request_deadline_s: float = 10.0
    canary_check_s: int = 60
    quiet_s: float = 20.0
    canary_lost_s: float = 180.0
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """One half message of an answer, and the handle to end it with."""

    offer: Offer
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
        self._tended_at: float | None = None

    def run(self, until: Callable[[], bool] = lambda: False, enough: Callable[[], bool] = lambda: False) -> CheckCounts:
        """Go round until `stop` is called, or ``until`` says so after a round, or ``enough`` between two polls.

        Raises:
            ConfigError: the origin of a destination is not this process's to use.
        """
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
        """Poll every topic until it has nothing more to check, then settle; returns how many were offered.

        Raises:
            ConfigError: as for `run`.
        """
        offered = 0
        try:
            known = checks.topics(self._database)
        except DatabaseError as error:
            log.warning("outbox.check_failed", extra={"error": str(error)})
            return 0
        for topic in known:
            client = self._clients.get(topic.destination)
            if client is None:
                log.warning("outbox.check_skipped", extra={"destination": topic.destination, "topic": topic.topic})
                continue
            origin = self._origin(topic.destination)
            while not self._is_over() and (found := self.poll(client, topic, origin)):
                offered += found
                if found < _MOST:
                    break
            self.tend(client, topic, origin)
        self._doubt()
        return offered

    # --- one poll

    def poll(self, client: HalfClient, topic: Topic, origin: str) -> int:
        """Ask once, and answer what was offered; returns how many half messages were."""
        deadline_s = self._config.request_deadline_s
        try:
            checks.open_poll(self._database, self._name, topic, for_s=deadline_s + 2 * _LATE_S)
        except DatabaseError as error:
            log.warning("outbox.check_failed", extra={"error": str(error)})
            return 0
        self.counts.polls += 1
        # A poll that waits would leave its mark open, and its half messages unseen, should this process be killed.
        outcome = client.check(topic.topic, _MOST, 0, deadline_s=deadline_s)
        answered_at = self._clock.monotonic()
        try:
            match outcome:
                case Checked(halves=found, damaged=damaged):
                    return self._answer(client, topic, origin, found, damaged, answered_at)
                case Paused(fault=fault) | Unknown(fault=fault):
                    self.counts.failed_polls += 1
                    log.warning("outbox.poll_failed", extra={"topic": topic.topic, "code": fault.code})
                    checks.fail_poll(self._database, self._name, topic)
        except DatabaseError as error:
            log.warning("outbox.check_failed", extra={"error": str(error)})
        return 0

    def _answer(
        self,
        client: HalfClient,
        topic: Topic,
        origin: str,
        found: Sequence[Half],
        damaged: int,
        answered_at: float,
    ) -> int:
        asked = [_Asked(offer_of(one, topic.destination, topic.topic), one.receipt_handle) for one in found]
        heard = [Heard(one.offer.outbox_id, one.offer.message_id) for one in asked]
        checks.close_poll(self._database, self._name, topic, heard, whole=not damaged)
        self.counts.offered += len(asked)
        if not asked:
            return 0
        rows = halves.rows_of(self._database, [one.offer.outbox_id for one in asked])
        if self._adopt(asked, rows, origin):
            rows = halves.rows_of(self._database, [one.offer.outbox_id for one in asked])
        committed: list[Committed] = []
        try:
            for one in asked:
                self._end(client, one, rows.get(one.offer.outbox_id), origin, answered_at, committed)
        finally:
            halves.confirm(self._database, committed)
        return len(asked)

    def _adopt(self, asked: Sequence[_Asked], rows: Mapping[str, HalfRow], origin: str) -> bool:
        """Elect what is undecided; of two half messages of one row the first wins. Whether there was any."""
        elections = []
        for one in asked:
            row = rows.get(one.offer.outbox_id)
            if row is not None and one.offer.age_s is not None and isinstance(decide(row, one.offer, origin), Adopt):
                elections.append(Election(row.id, row.replays, one.offer.message_id, one.offer.age_s))
        firsts = {election.id: election for election in reversed(elections)}
        if firsts:
            halves.elect(self._database, list(firsts.values()))
            self.counts.adopted += len(firsts)
        return bool(firsts)

    def _end(
        self,
        client: HalfClient,
        one: _Asked,
        row: HalfRow | None,
        origin: str,
        answered_at: float,
        committed: list[Committed],
    ) -> None:
        offer = one.offer
        if self._clock.monotonic() - answered_at > _LATE_S:
            self.counts.left += 1
            return
        deadline_s = half_deadline_s(self._config.request_deadline_s, offer.check_s or 10)
        match decide(row, offer, origin):
            case Commit():
                outcome = client.end(offer.topic, one.handle, "commit", deadline_s=deadline_s)
                if isinstance(outcome, Ended) and row is not None:
                    self.counts.committed += 1
                    committed.append(Committed(row.id, offer.message_id))
                self._note(outcome, "commit", offer)
            case Rollback():
                outcome = client.end(offer.topic, one.handle, "rollback", deadline_s=deadline_s)
                self.counts.rolled_back += isinstance(outcome, Ended)
                self._note(outcome, "rollback", offer)
            case Adopt():
                # It was not adopted after all; the next offer will tell.
                self.counts.left += 1
            case Leave(reason=reason):
                self.counts.left += 1
                self._alarm(reason, offer)

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
            self.counts.alarms[reason] = self.counts.alarms.get(reason, 0) + 1
            extra = {"reason": reason, "outbox_id": offer.outbox_id[:36], "message_id": offer.message_id}
            log.error("outbox.half_left", extra=extra)

    # --- silence

    def tend(self, client: HalfClient, topic: Topic, origin: str) -> None:
        """Settle what silence has proven; post a canary where rows wait for one."""
        config = self._config
        try:
            settled = checks.settle(self._database, topic)
            if settled:
                self.counts.settled += settled
                log.info("outbox.settled", extra={"topic": topic.topic, "rows": settled})
            canary = checks.plan_canary(
                self._database, topic, quiet_s=config.quiet_s, lost_s=config.canary_lost_s + config.canary_check_s
            )
            if canary is not None:
                self._post_canary(client, topic, origin, canary)
        except DatabaseError as error:
            log.warning("outbox.check_failed", extra={"error": str(error)})

    def _post_canary(self, client: HalfClient, topic: Topic, origin: str, canary: str) -> None:
        config = self._config
        properties = f"__TransCheckT:{config.canary_check_s}|{CANARY}:1|outbox_id:{canary}|"
        outcome = client.post_half(
            topic.topic,
            _CANARY_BODY,
            None,
            properties,
            replay=0,
            origin=origin,
            deadline_s=half_deadline_s(config.request_deadline_s, config.canary_check_s),
        )
        self.counts.canaries += 1
        match outcome:
            case Sent() | Unknown():
                log.info("outbox.canary_posted", extra={"topic": topic.topic})
            case _:
                log.warning("outbox.canary_refused", extra={"topic": topic.topic, "code": outcome.fault.code})
                checks.drop_canary(self._database, topic, canary)

    def _doubt(self) -> None:
        try:
            doubted = halves.doubt(self._database)
            self._forget()
        except DatabaseError as error:
            log.warning("outbox.check_failed", extra={"error": str(error)})
            return
        if doubted:
            self.counts.doubted += doubted
            log.error("outbox.in_doubt", extra={"rows": doubted})

    def _forget(self) -> None:
        now = self._clock.monotonic()
        if self._tended_at is None or now - self._tended_at > 3600:  # noqa: PLR2004 - an hour
            self._tended_at = now
            checks.forget_checkers(self._database)
