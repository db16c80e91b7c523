"""Tally: how many messages are where, in bounded time, however many there are.

What an index has is counted, up to a limit. Beyond it, and for sent messages, which no index has by state, the numbers
are estimated from a sample: runs of rows, evenly spread over all ids. An estimate says that it is one.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Select,
    bindparam,
    case,
    func,
    select,
    union_all,
)

from outbox.states import FINISHED, State
from outbox.store.conditions import HELD, held, ordered, state_is, unordered, waiting_since
from outbox.store.database import Database
from outbox.store.dialects import by_due, by_id, by_ordering_key, by_sent, by_state, has_id
from outbox.store.lanes import Lane
from outbox.table import Instant, db_now, messages

__all__ = ["Count", "Tally", "tally"]

_LIMIT = 10_000
_RUNS = 200
_RUN = 20
_ANY_LANE = Lane("", "")


@dataclass(frozen=True, slots=True)
class Count:
    """A number of messages, and how it is known.

    Attributes:
        number: exact, unless one of the others holds.
        at_least: counting ended there.
        about: estimated from a sample.
    """

    number: int
    at_least: bool = False
    about: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """How many messages are where.

    Attributes:
        counts: in each state, every state named.
        lanes: in each lane and state but ``sent`` and ``discarded``; only what there is.
        oldest_pending_s: seconds that the oldest pending message has waited, None without any; where pending ones were
            estimated, that of the sample.
    """

    counts: dict[State, Count]
    lanes: dict[tuple[Lane, State], Count]
    oldest_pending_s: float | None


def tally(database: Database) -> Tally:
    """Count messages by state and lane: four statements at most, each of which reads a bounded number of rows.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return database.read(_tally)


def _tally(connection: Connection) -> Tally:
    now, first, last = connection.execute(_span()).one()
    span = 0 if first is None else last - first + 1
    counted = _Cells.of(connection.execute(_counted(), {"most": _LIMIT + 1}))
    overflowing = {state for state in State if counted.total(state) > _LIMIT}
    if span <= _LIMIT:
        counted.cells[State.SENT, _ANY_LANE] = connection.scalar(_sent()) or 0
    else:
        runs = _runs(first, span)
        counted.replace(
            overflowing | {State.SENT}, _Cells.of(connection.execute(_sampled(), {"ids": runs}), span / len(runs))
        )
    counts = {state: _count(counted.total(state), state, overflowing, span) for state in State}
    lanes = {
        (lane, state): Count(number, about=state in overflowing)
        for (state, lane), number in counted.cells.items()
        if state not in FINISHED
    }
    since = connection.scalar(_since(), {"ids": counted.oldest})
    return Tally(counts, lanes, max(0.0, (now - since).total_seconds()) if since else None)


def _count(number: int, state: State, overflowing: set[State], span: int) -> Count:
    if state in overflowing:
        return Count(number, about=True) if number > _LIMIT else Count(_LIMIT, at_least=True)
    return Count(number, about=state is State.SENT and span > _LIMIT)


@dataclass(slots=True)
class _Cells:
    """Numbers by state and lane, and the ids of pending messages of which one is the oldest."""

    cells: dict[tuple[State, Lane], int]
    oldest: list[int]

    @classmethod
    def of(cls, rows: Iterable[Any], each: float = 1) -> Self:
        """What the rows of a statement say, each of which stands for ``each`` messages."""
        numbers: dict[tuple[State, Lane], float] = {}
        oldest = []
        for state, destination, topic, number, *first in rows:
            cell = State(state), Lane(destination, topic)
            numbers[cell] = numbers.get(cell, 0) + number * each
            oldest += [one for one in first if one is not None and state == State.PENDING]
        return cls({cell: round(number) for cell, number in numbers.items()}, oldest)

    def total(self, state: State) -> int:
        return sum(number for (of, _), number in self.cells.items() if of is state)

    def replace(self, states: set[State], estimated: "_Cells") -> None:
        """Take over what was estimated of these states."""
        kept = {cell: number for cell, number in self.cells.items() if cell[0] not in states}
        self.cells = kept | {cell: number for cell, number in estimated.cells.items() if cell[0] in states}
        self.oldest += estimated.oldest


def _runs(first: int, span: int) -> list[int]:
    """Ids of runs of rows, one run at a random place of each of as many parts."""
    part = span / _RUNS
    starts = [int(first + part * (number + random.random())) for number in range(_RUNS)]  # noqa: S311 - a sample
    return [start + step for start in starts for step in range(_RUN)]


# --- statements ---------------------------------------------------------------------------------------------------


@cache
def _span() -> Select[Any]:
    ends = (select(end(messages.c.id)).scalar_subquery() for end in (func.min, func.max))
    return select(db_now(), *ends)


@cache
def _counted() -> CompoundSelect[Any]:
    """Unfinished and discarded messages through their indexes, up to the limit of each kind.

    The smallest id is the oldest message's, and that of one that is due: the smallest of all may wait for its time.
    """
    free, keyed, rows = by_due("free"), by_ordering_key("keyed"), by_state("held")
    is_due = case((free.c.available_at <= db_now(), free.c.id))
    # In the index's order: without it, PostgreSQL may read through the finished rows, hoping to meet enough soon.
    unordered_ones = _kind(free, is_due, unordered(free)).order_by(free.c.destination, free.c.topic)
    ordered_ones = _kind(keyed, keyed.c.id, ordered(keyed), state_is(keyed, State.PENDING))
    ordered_ones = ordered_ones.order_by(keyed.c.destination, keyed.c.topic)
    others = [_kind(rows, rows.c.id, held(rows), state_is(rows, state)) for state in sorted(HELD)]
    kinds = [one.limit(bindparam("most")).subquery("kind") for one in (unordered_ones, ordered_ones, *others)]
    return union_all(*(_by_lane(kind, kind.c.is_due) for kind in kinds))


def _kind(rows: FromClause, is_due: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    columns = (rows.c.state, rows.c.destination, rows.c.topic, rows.c.id, is_due.label("is_due"))
    return select(*columns).where(*conditions)


def _by_lane(rows: FromClause, is_due: ColumnElement[Any]) -> Select[Any]:
    lane = (rows.c.state, rows.c.destination, rows.c.topic)
    return select(*lane, func.count(), func.min(rows.c.id), func.min(is_due)).group_by(*lane)


@cache
def _sampled() -> Select[Any]:
    rows = by_id()
    return _by_lane(rows, case((rows.c.available_at <= db_now(), rows.c.id))).where(has_id(rows))


@cache
def _since() -> Select[Any]:
    rows = by_id()
    return select(func.min(waiting_since(rows), type_=Instant())).where(has_id(rows))


@cache
def _sent() -> Select[Any]:
    rows = by_sent("sent")
    return select(func.count()).select_from(rows).where(state_is(rows, State.SENT))
