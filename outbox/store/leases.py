"""What claiming a row does to it, whichever way the row was found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    case,
    literal_column,
    select,
    update,
)

from outbox.outcomes import Fault
from outbox.states import State
from outbox.store.conditions import due
from outbox.store.dialects import by_id, has_id
from outbox.store.history import add_history
from outbox.table import db_after, db_now, messages

__all__ = [
    "INLINE_BODY_BYTES",
    "POISON_CRASHES",
    "ClaimedRow",
    "Terms",
    "hand_over",
    "lease",
    "lease_update",
    "lock",
    "rows_to_lease",
]

#: Bodies up to this size come with the claim, larger ones when their turn to be published comes.
INLINE_BODY_BYTES = 32_768
#: A row that so many processes did not survive is claimed alone.
POISON_CRASHES = 2

_CRASHED = Fault("Crashed", "the process that held this row alone ended without a mark", accepted=None)


@dataclass(slots=True)
class ClaimedRow:
    """A row under our lease: what it takes to publish it.

    Attributes:
        body: None when it is larger than `INLINE_BODY_BYTES`; `outbox.store.claim.read_body` reads it.
        body_bytes: size of the body in UTF-8 bytes.
        attempts: charged so far.
        available_at: since when it has been due.
        claimed_at: by the database's clock, just before the lease began.
        alone: two or more processes that held it crashed, so it is the only row of its claim.
    """

    id: int
    outbox_id: str
    destination: str
    topic: str
    tag: str | None
    properties: str = field(repr=False)
    ordering_key: str | None
    deliver_at: datetime | None
    transaction_check_s: int | None
    body: str | None = field(repr=False)
    body_bytes: int
    attempts: int
    unknown_outcomes: int
    replays: int
    available_at: datetime
    claimed_at: datetime
    lease_token: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What a claim asks for: a lease of ``lease_s`` seconds under ``token``, and when a row has crashed too often."""

    token: str
    lease_s: float
    max_attempts: int


def rows_to_lease(rows: FromClause) -> Select[Any]:
    """What to read of a row before it is leased, with its counts as the lease will leave them.

    The first sixteen columns are a `ClaimedRow`'s.
    """
    crashed, crashed_alone = _crashed(rows), _crashed_alone(rows)
    names = ("id", "outbox_id", "destination", "topic", "tag", "properties", "ordering_key", "deliver_at")
    return select(
        *(rows.c[name] for name in names),
        rows.c.transaction_check_s,
        case((rows.c.body_bytes <= INLINE_BODY_BYTES, rows.c.body)).label("body"),
        rows.c.body_bytes,
        (rows.c.attempts + crashed_alone).label("attempts"),
        (rows.c.unknown_outcomes + crashed).label("unknown_outcomes"),
        rows.c.replays,
        rows.c.available_at,
        db_now().label("claimed_at"),
        (rows.c.crashes + crashed).label("crashes"),
        crashed_alone.label("crashed_alone"),
    )


def lease_update(rows: Any) -> Update:
    """The UPDATE of a lease, without its WHERE; parameters ``lease_s`` and ``token``.

    The assignments stand in an order that suits MariaDB and MySQL too, which let a later one see the earlier ones.
    """
    crashed, crashed_alone = _crashed(rows), _crashed_alone(rows)
    return update(rows).ordered_values(
        (rows.c.attempts, rows.c.attempts + crashed_alone),
        (rows.c.unknown_outcomes, rows.c.unknown_outcomes + crashed),
        (rows.c.crashes, rows.c.crashes + crashed),
        (rows.c.lease_until, db_after(bindparam("lease_s"))),
        (rows.c.lease_token, bindparam("token")),
    )


def lock(connection: Connection, ids: Sequence[int]) -> dict[int, Row[Any]]:
    """Lock those of the rows that are still due and that nobody else has locked."""
    rows = connection.execute(_due_among(), {"ids": sorted(ids)}) if ids else ()
    return {row.id: row for row in rows}


def lease(connection: Connection, terms: Terms, rows: Sequence[Row[Any]]) -> None:
    """Lease rows that this transaction has locked."""
    if rows:
        parameters = {"lease_s": terms.lease_s, "token": terms.token, "ids": [row.id for row in rows]}
        connection.execute(_lease_among(), parameters)


def hand_over(connection: Connection, terms: Terms, rows: Sequence[Row[Any]]) -> list[ClaimedRow] | None:
    """Leased rows as the relay takes them; None when one was out of attempts and became ``failed`` instead."""
    if rows and rows[0].crashed_alone and rows[0].attempts >= terms.max_attempts:
        connection.execute(_bury(), {"row_id": rows[0].id})
        add_history(connection, [(rows[0].id, _CRASHED)])
        return None
    return [_claimed(row, terms.token) for row in rows]


def _claimed(row: Row[Any], token: str) -> ClaimedRow:
    values: tuple[Any, ...] = (*row[:16], token, row.crashes >= POISON_CRASHES)
    return ClaimedRow(*values)


@cache
def _due_among() -> Select[Any]:
    rows = by_id()
    return rows_to_lease(rows).where(has_id(rows), due(rows)).with_for_update(skip_locked=True)


@cache
def _lease_among() -> Update:
    rows = by_id()
    return lease_update(rows).where(has_id(rows))


@cache
def _bury() -> Update:
    failed = update(messages).values(
        state=State.FAILED.value,
        lease_until=None,
        lease_token=None,
        last_error_code=_CRASHED.code,
        last_error=_CRASHED.text,
    )
    return failed.where(messages.c.id == bindparam("row_id"))


def _crashed(rows: FromClause) -> Any:
    """1 where the row is taken over: a lease that nobody ended with a mark."""
    return _one_where(rows.c.lease_token.is_not(None))


def _crashed_alone(rows: FromClause) -> Any:
    """1 where the lease that nobody ended was of this row alone."""
    return _one_where(and_(rows.c.lease_token.is_not(None), rows.c.crashes >= literal_column(str(POISON_CRASHES))))


def _one_where(condition: ColumnElement[bool]) -> Any:
    return case((condition, literal_column("1")), else_=literal_column("0"))
