"""Ordering keys: the head of each, and what follows it.

Keys are found by a loose index walk, from one to the next however many rows lie between. Nothing is locked here; who
locks looks again whether a row is still due.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
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
    select,
    true,
)

from outbox.states import State
from outbox.store.conditions import due, of_lane, ordered, same_lane, state_is
from outbox.store.dialects import MYSQL, by_id, by_ordering_key, has_id
from outbox.store.lanes import Lane
from outbox.table import messages

__all__ = ["followers", "heads"]

_PAGE_KEYS = 1000
# MariaDB and MySQL begin each step at the key's first row, so that a chain costs the square of its length.
_LONGEST_CHAIN = 100

Condition = ColumnElement[bool]


def heads(connection: Connection, lane: Lane, after_key: str, limit: int, *, skip_failed: bool) -> list[int]:
    """The ids of up to ``limit`` heads that are due, key by key from after ``after_key`` and then from the first.

    A head is a key's first pending row. Unless ``skip_failed``, a failed row before it makes it none.
    """
    find = _find_in_pages if connection.dialect.name in MYSQL else _find_by_walk
    found = find(connection, lane.parameters | {"after": after_key}, limit, skip_failed=skip_failed, wrapped=False)
    if after_key and len(found) < limit:
        parameters = lane.parameters | {"after": "", "last": after_key}
        found += find(connection, parameters, limit - len(found), skip_failed=skip_failed, wrapped=True)
    return found


def followers(
    connection: Connection, lane: Lane, first: Sequence[int], each: int, *, skip_failed: bool
) -> dict[str, list[int]]:
    """The ids of the pending rows right behind each of the rows ``first``, by ordering key, in order.

    Args:
        connection: reads within its transaction.
        lane: whose keys.
        first: one id for each key.
        each: rows of a key at most, the first included.
        skip_failed: whether to look past failed rows.
    """
    by_state = connection.dialect.name in MYSQL
    parameters = {"ids": first, "each": min(each, _LONGEST_CHAIN) if by_state else each}
    rows = connection.execute(_chains(skip_failed=skip_failed, by_state=by_state), lane.parameters | parameters)
    chains: dict[str, list[int]] = {}
    blocked: set[str] = set()
    already = set(first)
    for key, row_id, state in sorted(rows):
        chain = chains.setdefault(key, [])
        if state == State.FAILED:
            blocked.add(key)
        elif key not in blocked and row_id not in already:
            chain.append(row_id)
    return chains


def _key_range(rows: FromClause, *, wrapped: bool) -> list[Condition]:
    after = rows.c.ordering_key > bindparam("after")
    return [after, rows.c.ordering_key <= bindparam("last")] if wrapped else [after]


# --- heads on PostgreSQL, SQLite ----------------------------------------------------------------------------------


def _find_by_walk(
    connection: Connection, parameters: dict[str, Any], limit: int, *, skip_failed: bool, wrapped: bool
) -> list[int]:
    build = _walked_heads_postgresql if connection.dialect.name == "postgresql" else _walked_heads
    statement = build(skip_failed=skip_failed, wrapped=wrapped)
    return list(connection.scalars(statement, parameters | {"limit": limit}))


@cache
def _walked_heads(*, skip_failed: bool, wrapped: bool) -> Select[Any]:
    def first_id(rows: FromClause, *conditions: Condition) -> Select[Any]:
        kind = and_(ordered(rows), state_is(rows, State.PENDING)) if skip_failed else ordered(rows)
        found = select(rows.c.id).where(kind, of_lane(rows), *conditions)
        return found.order_by(rows.c.ordering_key, rows.c.id).limit(1)

    first, here, after, head = (
        by_ordering_key("first"),
        messages.alias("here"),
        by_ordering_key("after"),
        messages.alias("head"),
    )
    start = first_id(first, *_key_range(first, wrapped=wrapped)).scalar_subquery()
    walk = select(start.label("id")).cte("walk", recursive=True)
    beyond = _key_range(after, wrapped=wrapped)[1:]
    step = first_id(after, after.c.ordering_key > here.c.ordering_key, *beyond).correlate(here).scalar_subquery()
    walk = walk.union_all(select(step).select_from(walk.join(here, here.c.id == walk.c.id)))
    # A scalar subquery and no join, so that the walk ends with the last head that is wanted.
    is_due = select(head.c.id).where(head.c.id == walk.c.id, due(head)).correlate(walk).scalar_subquery()
    return select(walk.c.id).where(is_due.is_not(None)).limit(bindparam("limit"))


@cache
def _walked_heads_postgresql(*, skip_failed: bool, wrapped: bool) -> Select[Any]:
    """The same with one row read for each key: a subquery names the row before it, which SQLite cannot do."""

    def first_row(rows: FromClause, *conditions: Condition) -> Select[Any]:
        kind = and_(ordered(rows), state_is(rows, State.PENDING)) if skip_failed else ordered(rows)
        found = select(rows.c.id, rows.c.ordering_key, due(rows).label("is_due"))
        return found.where(kind, of_lane(rows), *conditions).order_by(rows.c.ordering_key, rows.c.id).limit(1)

    first, after = messages.alias("first"), messages.alias("after")
    walk = first_row(first, *_key_range(first, wrapped=wrapped)).cte("walk", recursive=True)
    beyond = _key_range(after, wrapped=wrapped)[1:]
    step = first_row(after, after.c.ordering_key > walk.c.ordering_key, *beyond).lateral("step")
    walk = walk.union_all(select(*step.c).select_from(walk.join(step, true())))
    return select(walk.c.id).where(walk.c.is_due).limit(bindparam("limit"))


# --- heads on MariaDB, MySQL --------------------------------------------------------------------------------------


def _find_in_pages(
    connection: Connection, parameters: dict[str, Any], limit: int, *, skip_failed: bool, wrapped: bool
) -> list[int]:
    """Their recursion ends at a thousand steps, so each page of keys is a statement."""
    found: list[int] = []
    statement = _page_of_heads(skip_failed=skip_failed, wrapped=wrapped)
    while True:
        page = connection.execute(statement, parameters).all()
        found += [row.id for row in page if row.claimable]
        if len(found) >= limit or len(page) < _PAGE_KEYS:
            return found[:limit]
        parameters = parameters | {"after": page[-1].ordering_key}


@cache
def _page_of_heads(*, skip_failed: bool, wrapped: bool) -> Select[Any]:
    rows, head = by_ordering_key("m"), messages.alias("head")
    index_prefix = (rows.c.state, rows.c.destination, rows.c.topic, rows.c.ordering_key)
    pending = and_(state_is(rows, State.PENDING), of_lane(rows), *_key_range(rows, wrapped=wrapped))
    first = select(rows.c.ordering_key, func.min(rows.c.id).label("id")).where(pending).group_by(*index_prefix)
    page = first.order_by(rows.c.ordering_key).limit(_PAGE_KEYS).subquery("page")
    claimable = due(head) if skip_failed else and_(due(head), not_(_behind_failed(head)))
    found = select(page.c.ordering_key, page.c.id, claimable.label("claimable"))
    return found.select_from(page.join(head, head.c.id == page.c.id)).order_by(page.c.ordering_key)


def _behind_failed(row: FromClause) -> Condition:
    failed = by_ordering_key("failed")
    before = and_(failed.c.ordering_key == row.c.ordering_key, failed.c.id < row.c.id)
    return exists().where(state_is(failed, State.FAILED), same_lane(failed, row), before).correlate(row)


# --- followers ----------------------------------------------------------------------------------------------------


@cache
def _chains(*, skip_failed: bool, by_state: bool) -> Select[Any]:
    """From row to row of each key; ``by_state`` where the failed rows stand apart in the index."""
    first, after, found = by_id("first"), by_ordering_key("after"), messages.alias("found")
    start = select(first.c.id, first.c.ordering_key, literal_column("1").label("place")).where(has_id(first))
    chain = start.cte("chain", recursive=True)
    kind = [] if by_state else [ordered(after)]
    kind += [state_is(after, State.PENDING)] if by_state or skip_failed else []
    behind = and_(of_lane(after), after.c.ordering_key == chain.c.ordering_key, after.c.id > chain.c.id)
    step = select(after.c.id).where(*kind, behind).order_by(after.c.id).limit(1).correlate(chain).scalar_subquery()
    more = and_(chain.c.id.is_not(None), chain.c.place < bindparam("each"))
    chain = chain.union_all(select(step, chain.c.ordering_key, chain.c.place + 1).where(more))
    rows = select(found.c.ordering_key, found.c.id, found.c.state).where(found.c.id.in_(select(chain.c.id)))
    return rows.where(not_(_behind_failed(found))) if by_state and not skip_failed else rows
