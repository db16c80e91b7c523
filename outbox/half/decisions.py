"""What to answer when the broker asks about a half message. Pure: every rule stands here, and nothing else does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from outbox.outcomes import Half
from outbox.retry import half_margin_s
from outbox.states import State
from outbox.store.halves import HalfRow

__all__ = [
    "ALARMING",
    "CANARY",
    "Adopt",
    "Commit",
    "Decision",
    "Leave",
    "Offer",
    "Reason",
    "Rollback",
    "decide",
    "offer_of",
]

#: The property by which a canary is known.
CANARY = "outbox_canary"
# The broker offers a half message again after about ten seconds; within these a Date can be believed.
_NEXT_OFFER_S = (-2.0, 120.0)
_OFFERED_EVERY_S = 10.0
_OLDEST_S = 2 * 86_400.0

Reason = Literal[
    "foreign",  # another origin's, or not one of the outbox's at all
    "undated",  # its age cannot be believed
    "young",  # its sender may still be at it
    "altered",  # not what the row says
    "newer",  # of a replay that this database does not know: it was restored
    "ended",  # its commit was confirmed: the broker's own anomaly
    "odd",  # a row as no verb leaves it
    "unreadable",  # no decision of `decide`: the answer lacks its MessageId of 32 hexadecimal digits, or its times
]
#: Reasons that a person should hear of.
ALARMING: frozenset[Reason] = frozenset({"foreign", "undated", "altered", "newer", "ended", "odd", "unreadable"})


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
        age_s: at least so old, by the broker's clock alone; None where that cannot be believed.
        oldest_s: at most so old.
    """

    message_id: str
    outbox_id: str
    replay: int
    origin: str
    canary: bool
    check_s: int | None
    age_s: float | None
    oldest_s: float | None
    destination: str
    topic: str
    tag: str
    body: str = field(repr=False)
    properties: Mapping[str, str] = field(repr=False)

    @property
    def is_early(self) -> bool:
        """Whether it may be offered before its check time has passed: then it says nothing of how others are."""
        if self.age_s is None or self.check_s is None:
            return True
        # A Date has whole seconds.
        return self.age_s < self.check_s - half_margin_s(self.check_s)


def offer_of(half: Half, destination: str, topic: str) -> Offer:
    """Read what a half message says of itself; whatever it says wrong reads as missing."""
    properties = _read_properties(half.properties)
    replay = properties.get("outbox_replay", "")
    check_s = properties.get("__TransCheckT", "")
    youngest_s, oldest_s = _ages_s(half)
    return Offer(
        message_id=half.message_id,
        outbox_id=properties.get("outbox_id", ""),
        replay=int(replay) if _is_number(replay) else -1,
        origin=properties.get("outbox_origin", ""),
        canary=CANARY in properties,
        check_s=int(check_s) if _is_number(check_s) else None,
        age_s=youngest_s,
        oldest_s=oldest_s,
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
    return _decide_by_age(row, offer) or _decide_by_row(row, offer)


def _decide_by_age(row: HalfRow | None, offer: Offer) -> Leave | None:
    check_s = offer.check_s if offer.check_s is not None else row.transaction_check_s if row is not None else None
    if offer.age_s is None or check_s is None:
        return Leave("undated")
    return Leave("young") if offer.age_s <= check_s + half_margin_s(check_s) else None


def _decide_by_row(row: HalfRow | None, offer: Offer) -> Decision:
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


def _ages_s(half: Half) -> tuple[float | None, float | None]:
    """Between what its age is, by the broker's clock: as the answer's Date says, and as the next offer's time does.

    The two may differ: something on the way may have written the Date, or kept the answer. Of an offer that may be too
    early the lower one counts, of a day that may be over the higher one; where they are far apart, neither.
    """
    if half.answered_at_s is None:
        return None, None
    shortest, longest = _NEXT_OFFER_S
    if not shortest <= half.offered_again_at_s - half.answered_at_s <= longest:
        return None, None
    youngest_s = min(half.answered_at_s, half.offered_again_at_s - _OFFERED_EVERY_S) - half.published_at_s
    oldest_s = max(half.answered_at_s, half.offered_again_at_s) - half.published_at_s
    is_believable = -longest <= youngest_s and oldest_s <= _OLDEST_S
    return (youngest_s, oldest_s) if is_believable else (None, None)
