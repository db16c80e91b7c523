"""The verdict: what was promised, held against what three witnesses say. Pure.

The shop says what it committed, the outbox what became of each message, the broker's ledger what was delivered. None of
them knows the others, so that no part of the outbox is its own judge.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["KILLED", "Delivery", "Duplicate", "Evidence", "Finding", "Pace", "Row", "judge", "pace"]

#: Stands among the codes of a row's unknown outcomes for a relay that died with the row under its lease.
KILLED = "killed relay"


@dataclass(frozen=True, slots=True)
class Row:
    """What the outbox says of one message.

    Attributes:
        key: of the order.
        content: topic, tag, body and properties, as they must go out.
        unknowns: the code of each attempt that the broker may have accepted without our knowing, `KILLED` among them.
        unknown_outcomes: how many of them the row counted.
    """

    key: str
    outbox_id: str
    ordering_key: str | None
    content: tuple[object, ...]
    state: str
    message_id: str | None
    unknowns: tuple[str, ...]
    unknown_outcomes: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry of the broker's ledger. ``at`` is in epoch seconds, ``content`` as in `Row`."""

    key: str
    outbox_id: str
    message_id: str
    content: tuple[object, ...]
    at: float


@dataclass(frozen=True)
class Evidence:
    """What the witnesses say.

    Attributes:
        committed: the key of each order that the shop committed, and when, in epoch seconds.
        rolled_back: the keys of the orders that it rolled back.
        rows: the outbox, in the order of insertion.
        delivered: the broker's ledger, in the order of acceptance.
    """

    committed: Mapping[str, float]
    rolled_back: frozenset[str]
    rows: Sequence[Row]
    delivered: Sequence[Delivery]

    @cached_property
    def first(self) -> Mapping[str, Delivery]:
        """The first delivery of each outbox_id, in the order of acceptance."""
        first: dict[str, Delivery] = {}
        for one in self.delivered:
            first.setdefault(one.outbox_id, one)
        return first

    @cached_property
    def duplicates(self) -> Sequence["Duplicate"]:
        """Messages that were delivered more than once, in the order of insertion."""
        times = Counter(one.outbox_id for one in self.delivered)
        return [
            Duplicate(row.outbox_id, times[row.outbox_id] - 1, row.unknowns, row.unknown_outcomes)
            for row in self.rows
            if times[row.outbox_id] > 1
        ]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A message that was delivered ``again`` times after its first delivery, and what accounts for it."""

    outbox_id: str
    again: int
    unknowns: tuple[str, ...]
    unknown_outcomes: int

    @property
    def cause(self) -> str:
        """The codes of its unknown outcomes; any of them may have been the one."""
        return " or ".join(sorted(set(self.unknowns))) or "no unknown outcome"


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, and what became of it.

    Attributes:
        promise: what was promised.
        found: the counts, in words.
        broken: what contradicts the promise, one name each; empty when it held.
    """

    promise: str
    found: str
    broken: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it went.

    Attributes:
        waits: seconds from each order's commit to its message's first delivery, shortest first.
        seconds: from the first commit to the last first delivery.
        busiest: first deliveries in the busiest second.
    """

    waits: Sequence[float]
    seconds: float
    busiest: int

    def wait(self, share: float) -> float:
        """The wait, in seconds, that this share of the messages did not exceed; not a number where there is none."""
        return self.waits[math.ceil(len(self.waits) * share) - 1] if self.waits else math.nan


def judge(evidence: Evidence) -> list[Finding]:
    """Hold every promise for messages against the evidence; the promises held if nothing is ``broken``."""
    return [rule(evidence) for rule in _RULES]


def pace(evidence: Evidence) -> Pace:
    """Measure how fast it went."""
    first = {one.key: one.at for one in evidence.first.values() if one.key in evidence.committed}
    # The broker may have the message before the shop's commit has returned.
    waits = sorted(max(0.0, at - evidence.committed[key]) for key, at in first.items())
    instants = sorted(first.values())
    busiest = max((bisect_left(instants, at + 1) - number for number, at in enumerate(instants)), default=0)
    return Pace(waits, instants[-1] - min(evidence.committed.values()) if instants else math.nan, busiest)


# --- one function for each promise --------------------------------------------------------------------------------


def _nothing_lost(evidence: Evidence) -> Finding:
    delivered = {one.key for one in evidence.delivered}
    lost = [key for key in evidence.committed if key not in delivered]
    arrived = len(evidence.committed) - len(lost)
    found = f"{len(evidence.committed)} committed, {arrived} delivered, {len(lost)} lost"
    return Finding("what commits is published", found, lost)


def _no_ghosts(evidence: Evidence) -> Finding:
    ghosts = sorted({one.key for one in evidence.delivered if one.key not in evidence.committed})
    found = f"{len(evidence.rolled_back)} rolled back, {len(ghosts)} ghosts"
    return Finding("what rolls back is not", found, ghosts)


def _sent_is_true(evidence: Evidence) -> Finding:
    known = {(one.outbox_id, one.message_id) for one in evidence.delivered}
    sent = [row for row in evidence.rows if row.state == "sent"]
    false = [row.key for row in sent if (row.outbox_id, row.message_id) not in known]
    found = f"{len(sent)} sent, {len(sent) - len(false)} in the broker's ledger"
    return Finding("sent: the broker has it", found, false)


def _duplicates_counted(evidence: Evidence) -> Finding:
    uncounted = [one.outbox_id for one in evidence.duplicates if one.again > one.unknown_outcomes]
    again = sum(one.again for one in evidence.duplicates)
    unknown = sum(row.unknown_outcomes for row in evidence.rows)
    found = f"{again} duplicates, {unknown} unknown outcomes"
    return Finding("every duplicate is accounted for", found, uncounted)


def _bytes_equal(evidence: Evidence) -> Finding:
    content = {row.outbox_id: row.content for row in evidence.rows}
    altered = [one.key for one in evidence.delivered if content.get(one.outbox_id, one.content) != one.content]
    found = f"{len(evidence.delivered)} deliveries, {len(altered)} altered"
    return Finding("the bytes sent equal the row", found, altered)


def _order_kept(evidence: Evidence) -> Finding:
    inserted: dict[str, list[str]] = {}
    for row in evidence.rows:
        if row.ordering_key is not None and row.outbox_id in evidence.first:
            inserted.setdefault(row.ordering_key, []).append(row.outbox_id)
    place = {outbox_id: number for number, outbox_id in enumerate(evidence.first)}
    broken = [key for key, ids in inserted.items() if ids != sorted(ids, key=place.__getitem__)]
    found = f"{len(inserted) - len(broken)}/{len(inserted)} keys in order"
    return Finding("order within each ordering key", found, broken)


_RULES: Sequence[Callable[[Evidence], Finding]] = (
    _nothing_lost,
    _no_ghosts,
    _sent_is_true,
    _duplicates_counted,
    _bytes_equal,
    _order_kept,
)
