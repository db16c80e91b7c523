"""What is true of a row, in SQL. The words of the partial indexes' own conditions stand here, beside nothing else's."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    String,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
)

from outbox.states import State
from outbox.table import db_now, pauses

__all__ = [
    "HELD",
    "due",
    "has_key",
    "held",
    "is_message",
    "of_lane",
    "operator_paused",
    "ordered",
    "row_id",
    "same_lane",
    "state_is",
    "unordered",
    "waiting_since",
]

#: States that rows wait in for somebody, or are closed in: neither pending nor sent.
HELD = frozenset({State.COMMITTING, State.FAILED, State.IN_DOUBT, State.DISCARDED})

_LARGEST_ID = 2**63 - 1
_ID_DIGITS = len(str(_LARGEST_ID))
_OUTBOX_ID_CHARACTERS = 36


def state_is(rows: FromClause, *states: State) -> ColumnElement[bool]:
    """The states as SQL literals: with parameters, no planner recognises a partial index."""
    literals = [literal_column(f"'{state}'", String()) for state in states]
    return rows.c.state == literals[0] if len(literals) == 1 else rows.c.state.in_(literals)


def unordered(rows: FromClause) -> ColumnElement[bool]:
    """Pending, without an ordering key: the index of due rows."""
    return and_(state_is(rows, State.PENDING), rows.c.ordering_key.is_(None))


def ordered(rows: FromClause) -> ColumnElement[bool]:
    """Pending or failed, with an ordering key: the index of ordering keys."""
    return and_(state_is(rows, State.PENDING, State.FAILED), rows.c.ordering_key.is_not(None))


def held(rows: FromClause) -> ColumnElement[bool]:
    """In one of the states `HELD`, in the words of the index of these; SQLite uses it only where they stand."""
    return not_(state_is(rows, State.PENDING, State.SENT))


def due(rows: FromClause) -> ColumnElement[bool]:
    """A pending row that may be claimed now: its time has come, and nobody holds a lease that has not ended."""
    free = or_(rows.c.lease_until.is_(None), rows.c.lease_until < db_now())
    return and_(state_is(rows, State.PENDING), rows.c.available_at <= db_now(), free)


def has_key(rows: FromClause, key: str) -> ColumnElement[bool]:
    """Rows with this key among their keys, compared byte by byte."""
    # REPLACE compares so on every database; LIKE, and MariaDB's default collation, do not.
    joined = literal(" ") + rows.c["keys"] + literal(" ")
    return func.length(func.replace(joined, f" {key} ", "")) < func.length(joined)


def waiting_since(rows: FromClause) -> ColumnElement[Any]:
    """Since when a pending row waits: a scheduled one from when the broker would take it, and null before."""
    scheduled = rows.c.deliver_at.is_not(None)
    is_early = and_(scheduled, rows.c.attempts == 0, rows.c.available_at > db_now())
    began_later = and_(scheduled, rows.c.available_at > rows.c.created_at)
    return case((is_early, null()), (began_later, rows.c.available_at), else_=rows.c.created_at)


def of_lane(rows: FromClause) -> ColumnElement[bool]:
    """Rows of one lane, which the parameters of `outbox.store.lanes.Lane.parameters` name."""
    return and_(rows.c.destination == bindparam("lane_destination"), rows.c.topic == bindparam("lane_topic"))


def same_lane(rows: FromClause, others: FromClause) -> ColumnElement[bool]:
    """Rows of the lane that a row of ``others`` is of."""
    return and_(rows.c.destination == others.c.destination, rows.c.topic == others.c.topic)


def operator_paused(rows: FromClause) -> ColumnElement[bool]:
    """Rows in a lane that an operator has paused."""
    in_force = or_(pauses.c.until.is_(None), pauses.c.until > db_now())
    return exists().where(same_lane(pauses, rows), not_(pauses.c.automatic), in_force).correlate(rows)


def is_message(rows: FromClause, reference: int | str) -> ColumnElement[bool]:
    """The row that an operator's reference names, by its row id or its ``outbox_id``."""
    found = row_id(reference)
    return rows.c.outbox_id == outbox_id(reference) if found is None else rows.c.id == found


def row_id(reference: int | str) -> int | None:
    """The row id that an operator's reference is; None for an ``outbox_id``, which has hyphens."""
    text = str(reference)
    if not text.isascii() or not text.isdecimal():
        return None
    digits = text.lstrip("0") or "0"
    # Python refuses to read thousands of digits.
    return min(int(digits), _LARGEST_ID) if len(digits) <= _ID_DIGITS else _LARGEST_ID


def outbox_id(reference: int | str) -> str:
    """The ``outbox_id`` as stored: some tools write a UUID in capitals. Blank, as no row's is, for what is none."""
    # Not as it is: PostgreSQL would refuse to compare a NUL.
    text = str(reference).lower()
    return text if text.isascii() and text.isprintable() and len(text) <= _OUTBOX_ID_CHARACTERS else ""
