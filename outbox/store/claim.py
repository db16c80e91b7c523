"""Claim: take due rows for a while, under a random lease token.

A claim changes no state. It sets ``lease_until`` and ``lease_token``, which stand in no index, and commits; an expired
lease is due again by itself. Rows that another transaction has locked are skipped, never waited for.

A row whose lease ended without a mark was in the hands of a process that died, perhaps because of it: taking it over
adds one to ``crashes`` and to ``unknown_outcomes``. From two crashes on a row is claimed alone, so that it takes nobody
along, and only what it did while alone is held against it: one attempt, and ``failed`` when none is left.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, FromClause, Row, Select, and_, any_, bindparam, case, func, select

from outbox.states import State
from outbox.store.conditions import due, of_lane, state_is, unordered
from outbox.store.database import Database
from outbox.store.dialects import MYSQL, by_due, is_behind
from outbox.store.keys import followers, heads
from outbox.store.lanes import Lane
from outbox.store.leases import (
    INLINE_BODY_BYTES,
    POISON_CRASHES,
    ClaimedRow,
    Terms,
    hand_over,
    lease,
    lease_update,
    lock,
    rows_to_lease,
)
from outbox.table import messages

__all__ = ["INLINE_BODY_BYTES", "ClaimedRow", "Place", "claim", "claim_ordered", "read_body"]


class Place(NamedTuple):
    """Where a row without an ordering key stands in its lane."""

    available_at: datetime
    id: int

    @property
    def parameters(self) -> dict[str, Any]:
        """The place as parameters of a statement."""
        return {"behind_at": self.available_at, "behind_id": self.id}


def claim(
    database: Database, lane: Lane, *, limit: int, lease_s: float, max_attempts: int, behind: Place | None = None
) -> list[ClaimedRow]:
    """Lease up to ``limit`` due rows of the lane that have no ordering key, those due longest first.

    When the one due longest has two crashes, it comes alone; otherwise such rows are left out. A row that used up its
    last attempt by crashing alone becomes ``failed`` and is not among them. One statement on PostgreSQL.

    Args:
        database: the outbox's.
        lane: whose rows.
        limit: at least 1.
        lease_s: seconds from now, by the database's clock, until the rows are due again by themselves.
        max_attempts: charged attempts at which a row fails.
        behind: look only at rows that stand behind this place. It saves reading what is left of rows sent before, but
            rows may become due before any place at any time: ids and clocks are not the order of commits.

    Raises:
        DatabaseError: see `Database.run`. Rows of an unclear commit come back when their lease ends.
    """
    terms = Terms(str(uuid4()), lease_s, max_attempts)
    lock_due = _lock_from_first_free if database.engine.dialect.name in MYSQL else _lock_at_once

    def at_once(connection: Connection) -> list[ClaimedRow] | None:
        parameters = lane.parameters | _place(behind) | {"limit": limit, "lease_s": lease_s, "token": terms.token}
        rows = connection.execute(_claim_at_once(onwards=behind is not None), parameters).all()
        return hand_over(connection, terms, rows)

    def step_by_step(connection: Connection) -> list[ClaimedRow] | None:
        rows = _without_poison(lock_due(connection, lane, limit, behind))
        lease(connection, terms, rows)
        return hand_over(connection, terms, rows)

    return _claimed(database, at_once if database.engine.dialect.name == "postgresql" else step_by_step)


def claim_ordered(
    database: Database,
    lane: Lane,
    *,
    limit: int,
    lease_s: float,
    max_attempts: int,
    after_key: str,
    skip_failed_heads: bool,
) -> list[ClaimedRow]:
    """Lease up to ``limit`` due rows of the lane that have ordering keys.

    Of each key come its head, which is its first unfinished row, and the rows that follow the head without a gap: up to
    the first one that is locked, leased, not due, or has two crashes. Whoever cannot have the head has nothing of the
    key. When the oldest head has two crashes, it comes alone.

    Args:
        database: the outbox's.
        lane: whose rows.
        limit: at least 1; shared evenly among the keys.
        lease_s: seconds, as for `claim`.
        max_attempts: as for `claim`.
        after_key: keys are taken in their order from after this one, and round again from the first; "" for the first.
        skip_failed_heads: whether a key goes on past its failed rows; otherwise a failed row blocks those behind it.

    Returns:
        Rows of one key stand together, in the order of their ids; the last row's key is the next ``after_key``.

    Raises:
        DatabaseError: see `Database.run`. Rows of an unclear commit come back when their lease ends.
    """
    terms = Terms(str(uuid4()), lease_s, max_attempts)

    def work(connection: Connection) -> list[ClaimedRow] | None:
        ids = heads(connection, lane, after_key, limit, skip_failed=skip_failed_heads)
        locked = lock(connection, ids)
        first_rows = _without_poison(
            [locked[row_id] for row_id in ids if row_id in locked], oldest=min(locked, default=0)
        )
        rows = _with_followers(connection, lane, first_rows, limit, skip_failed=skip_failed_heads)
        lease(connection, terms, rows)
        return hand_over(connection, terms, rows)

    return _claimed(database, work)


def read_body(database: Database, row: ClaimedRow) -> str | None:
    """The body of a row too large to come with its claim; None when the lease is no longer ours.

    Raises:
        DatabaseError: see `Database.run`.
    """
    held = and_(messages.c.id == row.id, messages.c.lease_token == row.lease_token, state_is(messages, State.PENDING))
    return database.read(lambda connection: connection.scalar(select(messages.c.body).where(held)))


def _claimed(database: Database, work: Callable[[Connection], list[ClaimedRow] | None]) -> list[ClaimedRow]:
    while (rows := database.run(work)) is None:
        continue
    return rows


def _lock_at_once(connection: Connection, lane: Lane, limit: int, behind: Place | None) -> Sequence[Row[Any]]:
    parameters = lane.parameters | _place(behind) | {"limit": limit}
    return connection.execute(_due_rows(onwards=behind is not None), parameters).all()


def _lock_from_first_free(connection: Connection, lane: Lane, limit: int, behind: Place | None) -> Sequence[Row[Any]]:
    """Find the first free row without a lock, and lock from there.

    A locking read of MariaDB or MySQL keeps memory for every row that it passes over: leased rows, and the remains of
    rows sent that no purge of theirs has removed. Sixteen of them at once behind a hundred thousand such rows have
    filled a buffer pool of 128 MB with locks, and then MariaDB 10.11 aborts.
    """
    parameters = lane.parameters | _place(behind) | {"limit": 1}
    first = connection.execute(_due_places(onwards=behind is not None), parameters).one_or_none()
    return _lock_at_once(connection, lane, limit, Place(first.available_at, first.id - 1)) if first else []


def _place(behind: Place | None) -> dict[str, Any]:
    return behind.parameters if behind else {}


def _is_poison(row: Row[Any]) -> bool:
    return bool(row.crashes >= POISON_CRASHES)


def _without_poison(rows: Sequence[Row[Any]], oldest: int | None = None) -> Sequence[Row[Any]]:
    """The oldest row alone if it has two crashes, else all rows that have not. The first is the oldest unless named."""
    first = next((row for row in rows if oldest in (None, row.id)), None)
    return [first] if first and _is_poison(first) else [row for row in rows if not _is_poison(row)]


def _with_followers(
    connection: Connection, lane: Lane, first_rows: Sequence[Row[Any]], limit: int, *, skip_failed: bool
) -> list[Row[Any]]:
    each = limit // max(1, len(first_rows))
    if not first_rows or each == 1 or _is_poison(first_rows[0]):
        return list(first_rows)
    chains = followers(connection, lane, [row.id for row in first_rows], each, skip_failed=skip_failed)
    locked = lock(connection, [row_id for chain in chains.values() for row_id in chain])

    def can_go_along(row_id: int) -> bool:
        return row_id in locked and not _is_poison(locked[row_id])

    found: list[Row[Any]] = []
    for head in first_rows:
        found.append(head)
        found += (locked[row_id] for row_id in takewhile(can_go_along, chains.get(head.ordering_key, ())))
    return found


@cache
def _due_rows(*, onwards: bool) -> Select[Any]:
    """Due rows of a lane, locked; ``onwards`` those behind a place."""
    rows = by_due("due")
    return _those_due_longest(rows, rows_to_lease(rows), onwards=onwards).with_for_update(skip_locked=True)


@cache
def _due_places(*, onwards: bool) -> Select[Any]:
    """The same, of which nothing but their places is read, and nothing locked."""
    rows = by_due("due")
    return _those_due_longest(rows, select(rows.c.available_at, rows.c.id), onwards=onwards)


def _those_due_longest(rows: FromClause, found: Select[Any], *, onwards: bool) -> Select[Any]:
    found = found.where(unordered(rows), of_lane(rows), due(rows))
    found = found.where(is_behind(rows)) if onwards else found
    return found.order_by(rows.c.available_at, rows.c.id).limit(bindparam("limit"))


@cache
def _claim_at_once(*, onwards: bool) -> Select[Any]:
    """Lock, choose and lease in one statement of PostgreSQL's; `_without_poison` in SQL."""
    # Materialised, so that nothing can make it lock a second set of rows.
    picked = _due_rows(onwards=onwards).cte("picked").prefix_with("MATERIALIZED")
    order = (picked.c.available_at, picked.c.id)
    oldest, place = func.first_value(picked.c.crashes).over(order_by=order), func.row_number().over(order_by=order)
    ranked = select(picked.c.id, picked.c.crashes, oldest.label("oldest"), place.label("place")).subquery("ranked")
    alone, others = ranked.c.place == 1, ranked.c.crashes < POISON_CRASHES
    chosen = select(ranked.c.id).where(case((ranked.c.oldest >= POISON_CRASHES, alone), else_=others))
    # An array is looked up through the primary key, however many rows the planner expects.
    ids = any_(func.array(chosen.scalar_subquery()))
    leased = lease_update(messages).where(messages.c.id == ids).returning(messages.c.id).cte("leased")
    return select(picked).where(picked.c.id.in_(select(leased.c.id))).order_by(*order)
