"""Which lanes have something to do, and whether any has something left.

A lane is found by a loose index walk: from each lane straight to the next, however many rows lie between them.
PostgreSQL and SQLite walk within one statement. MariaDB and MySQL look up "the lane after this one" in an index only
where "this one" is a constant, so there each step is a statement.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)

from outbox.states import State
from outbox.store.conditions import of_lane, operator_paused, ordered, same_lane, state_is, unordered
from outbox.store.database import Database
from outbox.store.dialects import MYSQL, by_due, by_ordering_key
from outbox.table import db_now, messages, pauses

__all__ = ["AutomaticPause", "DueLane", "Lane", "due_lanes", "left_to_do"]


@dataclass(frozen=True, slots=True)
class Lane:
    """One destination and topic."""

    destination: str
    topic: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The lane as parameters of a statement; their names are no column's, or an UPDATE would set it."""
        return {"lane_destination": self.destination, "lane_topic": self.topic}


@dataclass(frozen=True, slots=True)
class AutomaticPause:
    """The circuit breaker's pause of a lane, as it was read.

    Attributes:
        until: the database's instant from which one relay may probe.
        failures: failures in a row that led to it.
        over: whether ``until`` had passed when it was read.
    """

    until: datetime
    failures: int
    over: bool


@dataclass(frozen=True, slots=True)
class DueLane:
    """A lane with rows that are due now.

    Attributes:
        lane: which.
        unordered: whether rows without an ordering key are due.
        ordered: whether rows with one are due; all of them may stand behind a failed head.
        operator_paused: an operator's pause is in force: claim nothing.
        automatic: the circuit breaker's pause, None when the lane is well.
    """

    lane: Lane
    unordered: bool
    ordered: bool
    operator_paused: bool
    automatic: AutomaticPause | None


def due_lanes(database: Database) -> list[DueLane]:
    """Every lane with a pending row whose ``available_at`` has come, paused or not, by destination and topic.

    Leases are not looked at, since no index has them: a lane whose due rows are all leased may be among them. One
    statement on PostgreSQL and SQLite; two a lane and two more on MariaDB and MySQL.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return database.read(_step_by_step if database.engine.dialect.name in MYSQL else _at_once)


def left_to_do(database: Database, skip_failed_heads: frozenset[str]) -> bool:
    """Whether a pending row is left that will become due by itself.

    Rows in backoff, under another's lease or in an automatic pause count. Rows that wait for their ``deliver_at``, rows
    in an operator's pause and ordered rows behind a failed head do not.

    Args:
        database: the outbox's.
        skip_failed_heads: topics whose ordering keys go on past a failed head.

    Raises:
        DatabaseError: see `Database.run`.
    """
    parameters = {"skipped": sorted(skip_failed_heads)}
    return database.read(lambda connection: connection.scalar(_left_statement(), parameters) is not None)


def _merged(found: Iterable[Sequence[Any]], held: Iterable[Any]) -> list[DueLane]:
    """``found``: destination, topic, whether the due rows have ordering keys; ``held``: pauses."""
    kinds: dict[Lane, set[bool]] = {}
    for destination, topic, is_ordered in found:
        kinds.setdefault(Lane(destination, topic), set()).add(bool(is_ordered))
    pause = {(Lane(row.destination, row.topic), bool(row.automatic)): row for row in held}
    return [
        DueLane(
            lane,
            unordered=False in kind,
            ordered=True in kind,
            operator_paused=(lane, False) in pause and not pause[lane, False].over,
            automatic=_automatic(pause.get((lane, True))),
        )
        for lane, kind in sorted(kinds.items(), key=lambda item: (item[0].destination, item[0].topic))
    ]


def _automatic(pause: Any) -> AutomaticPause | None:
    return AutomaticPause(pause.until, pause.failures, over=bool(pause.over)) if pause else None


_PAUSE = (pauses.c.automatic, pauses.c.until, pauses.c.failures, (pauses.c.until <= db_now()).label("over"))


# --- PostgreSQL, SQLite -------------------------------------------------------------------------------------------


def _at_once(connection: Connection) -> list[DueLane]:
    rows = connection.execute(_due_statement()).all()
    return _merged([row[:3] for row in rows], [row for row in rows if row.automatic is not None])


@cache
def _due_statement() -> Select[Any]:
    row, keyed = messages.alias("head"), by_ordering_key("keyed")
    # The first row of a lane in this index is the one that has been due longest.
    walk = _lane_walk("unordered", unordered, by_due, "available_at")
    unordered_lanes = _lanes(walk, row, row.c.available_at <= db_now(), literal_column("0"))
    some_due = exists().where(_pending_with_key(keyed), same_lane(keyed, row), keyed.c.available_at <= db_now())
    walk = _lane_walk("ordered", _pending_with_key, by_ordering_key, "ordering_key")
    ordered_lanes = _lanes(walk, row, some_due.correlate(row), literal_column("1"))
    lanes = union_all(unordered_lanes, ordered_lanes).subquery("lanes")
    # Sorted afterwards: asked for an order, SQLite reads all messages in that order instead of walking.
    return select(*lanes.c, *_PAUSE).select_from(lanes.outerjoin(pauses, same_lane(lanes, pauses)))


def _lane_walk(
    name: str, kind: Callable[[FromClause], ColumnElement[bool]], through: Callable[[str], FromClause], rank: str
) -> CTE:
    """The id of each lane's first row in an index, lane after lane."""

    def first_id(rows: FromClause, *conditions: ColumnElement[bool]) -> Select[Any]:
        columns = (rows.c.destination, rows.c.topic, rows.c[rank], rows.c.id)
        return select(rows.c.id).where(kind(rows), *conditions).order_by(*columns).limit(1)

    walk = select(first_id(through("first")).scalar_subquery().label("id")).cte(name, recursive=True)
    here, after = messages.alias("here"), through("after")
    # Not (destination, topic) > (…): SQLite uses only the first column of such a comparison.
    of_destination = first_id(after, after.c.destination == here.c.destination, after.c.topic > here.c.topic)
    of_next_destination = first_id(after, after.c.destination > here.c.destination)
    step = func.coalesce(*(one.correlate(here).scalar_subquery() for one in (of_destination, of_next_destination)))
    return walk.union_all(select(step).select_from(walk.join(here, here.c.id == walk.c.id)))


def _lanes(walk: CTE, row: FromClause, condition: ColumnElement[bool], is_ordered: ColumnElement[Any]) -> Select[Any]:
    # Not a join: SQLite reads all messages to build a Bloom filter for it.
    lanes = select(row.c.destination, row.c.topic, is_ordered.label("is_ordered"))
    return lanes.where(row.c.id.in_(select(walk.c.id)), condition)


def _pending_with_key(rows: FromClause) -> ColumnElement[bool]:
    return and_(ordered(rows), state_is(rows, State.PENDING))


# --- MariaDB, MySQL -----------------------------------------------------------------------------------------------


def _step_by_step(connection: Connection) -> list[DueLane]:
    held = connection.execute(select(pauses.c.destination, pauses.c.topic, *_PAUSE)).all()
    return _merged(_found_step_by_step(connection), held)


def _found_step_by_step(connection: Connection) -> Iterator[tuple[str, str, bool]]:
    lane = Lane("", "")
    while (first := connection.execute(_lane_after(), lane.parameters).one_or_none()) is not None:
        lane = Lane(first.destination, first.topic)
        if first.unordered_due:
            yield lane.destination, lane.topic, False
        if connection.scalar(_ordered_due(), lane.parameters):
            yield lane.destination, lane.topic, True


@cache
def _lane_after() -> Select[Any]:
    # Nulls come first in the index: a lane's first row is the unordered one that has been due longest, if there is any.
    rows = by_due("first")
    destination: BindParameter[str] = bindparam("lane_destination")
    further = and_(rows.c.destination == destination, rows.c.topic > bindparam("lane_topic"))
    after = or_(rows.c.destination > destination, further)
    unordered_due = and_(rows.c.ordering_key.is_(None), rows.c.available_at <= db_now()).label("unordered_due")
    first = select(rows.c.destination, rows.c.topic, unordered_due).where(state_is(rows, State.PENDING), after)
    return first.order_by(rows.c.destination, rows.c.topic, rows.c.ordering_key, rows.c.available_at).limit(1)


@cache
def _ordered_due() -> Select[Any]:
    rows = by_ordering_key("keyed")
    return select(rows.c.id).where(_pending_with_key(rows), of_lane(rows), rows.c.available_at <= db_now()).limit(1)


# --- what is left -------------------------------------------------------------------------------------------------


@cache
def _left_statement() -> Select[Any]:
    free, keyed = by_due("free"), by_ordering_key("keyed")
    waiting = and_(free.c.deliver_at.is_not(None), free.c.attempts == 0, free.c.available_at > db_now())
    return select(
        func.coalesce(
            _any(free, "available_at", unordered(free), not_(waiting)),
            _any(keyed, "ordering_key", _pending_with_key(keyed), not_(_behind_failed_head(keyed))),
        )
    )


def _any(rows: FromClause, rank: str, *conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    found = select(rows.c.id).where(*conditions, not_(operator_paused(rows)))
    # The whole order is this index's and no other's: without it, PostgreSQL may read through the finished rows, hoping
    # to meet one soon.
    order = (rows.c.destination, rows.c.topic, rows.c[rank], rows.c.id)
    return found.order_by(*order).limit(1).scalar_subquery()


def _behind_failed_head(row: FromClause) -> ColumnElement[bool]:
    failed = by_ordering_key("failed")
    before = and_(failed.c.ordering_key == row.c.ordering_key, failed.c.id < row.c.id)
    head = exists().where(ordered(failed), state_is(failed, State.FAILED), same_lane(failed, row), before)
    return and_(row.c.topic.not_in(bindparam("skipped", expanding=True)), head.correlate(row))
