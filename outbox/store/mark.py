"""Mark: write down what came of each publish, under the lease token of the claim.

A row whose lease another process has taken over since is left as it is: the publish may turn out to be a duplicate,
and the caller is told.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Update, and_, delete, select, update

from outbox.outcomes import Fault
from outbox.states import State
from outbox.store.conditions import state_is
from outbox.store.database import Database, one_line
from outbox.store.dialects import MESSAGE_ID_CHARACTERS, Marked, by_id, deletion, has_id, marked
from outbox.store.history import CODE_CHARACTERS, TEXT_CHARACTERS, add_history
from outbox.table import attempts, db_after, db_now

__all__ = ["Mark", "MarkFailed", "MarkRetry", "MarkSent", "Release", "mark"]


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class MarkSent:
    """The broker has it: ``sent``, and one attempt more."""

    id: int
    lease_token: str
    message_id: str


@dataclass(frozen=True, slots=True)
class MarkRetry:
    """Still ``pending``, due again ``delay_s`` seconds from now.

    Attributes:
        charge: it costs an attempt.
        unknown: the broker may have taken the message; counted in ``unknown_outcomes``.
    """

    id: int
    lease_token: str
    delay_s: float
    fault: Fault
    charge: bool
    unknown: bool


@dataclass(frozen=True, slots=True)
class MarkFailed:
    """``failed``, and one attempt more. ``unknown``: the broker may have taken the message all the same."""

    id: int
    lease_token: str
    fault: Fault
    unknown: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Given back without a publish: uncharged, and due at once."""

    id: int
    lease_token: str


Mark = MarkSent | MarkRetry | MarkFailed | Release


def mark(database: Database, marks: Sequence[Mark], *, keep_sent: bool = True) -> frozenset[int]:
    """Write down any number of outcomes in one transaction; one statement for each kind on PostgreSQL and SQLite.

    Retries and failures also go to the message's history.

    Args:
        database: the outbox's.
        marks: at most one for a row.
        keep_sent: False deletes a row when it is sent.

    Returns:
        Ids of rows that were left as they are, because the lease was lost.

    Raises:
        DatabaseError: see `Database.run`. After an unclear commit, marking again reports rows as lost that were marked.
    """

    def work(connection: Connection) -> frozenset[int]:
        changed: set[int] = set()
        for kind, statement in _STATEMENTS.items():
            of_kind = [one for one in marks if isinstance(one, kind)]
            if of_kind and kind is MarkSent and not keep_sent:
                changed |= _delete(connection, of_kind)
            elif of_kind:
                changed |= _update(connection, of_kind, statement)
        unhappy = [one for one in marks if isinstance(one, MarkRetry | MarkFailed) and one.id in changed]
        add_history(connection, [(one.id, one.fault) for one in unhappy])
        return frozenset(one.id for one in marks) - changed

    return database.run(work) if marks else frozenset()


def _update(connection: Connection, marks: Sequence[Mark], statement: Callable[[str], Update]) -> set[int]:
    """The ids of the rows that ``statement`` changed."""
    dialect = connection.dialect.name
    if connection.dialect.update_returning:
        these = marked(dialect)
        ours = and_(these.rows.c.lease_token == these.given["token"], state_is(these.rows, State.PENDING))
        changed = statement(dialect).where(ours).returning(these.rows.c.id)
        return set(connection.scalars(changed, {"marks": _as_json(marks)}))
    held = _held(connection, marks)
    if held:
        connection.execute(statement(dialect), {"marks": _as_json(held)})
    return {one.id for one in held}


def _delete(connection: Connection, marks: Sequence[Mark]) -> set[int]:
    ids = {one.id for one in _held(connection, marks)}
    connection.execute(delete(attempts).where(attempts.c.message_row_id.in_(ids)))
    connection.execute(*deletion(ids, connection.dialect.name))
    return ids


def _held(connection: Connection, marks: Sequence[Mark]) -> list[Mark]:
    """The marks whose lease is still ours, with their rows locked."""
    held = connection.execute(_pending_by_id(), {"ids": [one.id for one in marks]})
    tokens = {row.id: row.lease_token for row in held}
    return [one for one in marks if tokens.get(one.id) == one.lease_token]


# --- statements ---------------------------------------------------------------------------------------------------


def _as_json(marks: Iterable[Mark]) -> str:
    return json.dumps([_parameters(one) for one in marks])


def _parameters(one: Mark) -> dict[str, Any]:
    row: dict[str, Any] = {"id": one.id, "token": one.lease_token}
    match one:
        case MarkSent(message_id=message_id):
            row["message_id"] = message_id[:MESSAGE_ID_CHARACTERS]
        case MarkRetry(delay_s=delay_s, charge=charge, unknown=unknown, fault=fault):
            row |= {"delay_s": delay_s, "charge": int(charge), "unknown": int(unknown)} | _fault(fault)
        case MarkFailed(unknown=unknown, fault=fault):
            row |= {"unknown": int(unknown)} | _fault(fault)
    return row


def _fault(fault: Fault) -> dict[str, Any]:
    return {"code": one_line(fault.code, CODE_CHARACTERS), "text": one_line(fault.text, TEXT_CHARACTERS)}


@cache
def _pending_by_id() -> Select[Any]:
    rows = by_id()
    return select(rows.c.id, rows.c.lease_token).where(has_id(rows), state_is(rows, State.PENDING)).with_for_update()


def _ending_lease(these: Marked, **values: Any) -> Update:
    return update(these.rows).where(these.condition).values(lease_until=None, lease_token=None, **values)


@cache
def _sent(dialect: str) -> Update:
    these = marked(dialect)
    return _ending_lease(
        these,
        state=State.SENT.value,
        message_id=these.given["message_id"],
        sent_at=db_now(),
        confirmed_by="answer",
        attempts=these.rows.c.attempts + 1,
    )


@cache
def _retry(dialect: str) -> Update:
    these = marked(dialect)
    return _ending_lease(
        these,
        available_at=db_after(these.given["delay_s"]),
        attempts=these.rows.c.attempts + these.given["charge"],
        **_faulty(these),
    )


@cache
def _failed(dialect: str) -> Update:
    these = marked(dialect)
    return _ending_lease(these, state=State.FAILED.value, attempts=these.rows.c.attempts + 1, **_faulty(these))


@cache
def _released(dialect: str) -> Update:
    return _ending_lease(marked(dialect))


def _faulty(these: Marked) -> dict[str, Any]:
    return {
        "unknown_outcomes": these.rows.c.unknown_outcomes + these.given["unknown"],
        "last_error_code": these.given["code"],
        "last_error": these.given["text"],
    }


_STATEMENTS: dict[type[Mark], Callable[[str], Update]] = {
    MarkSent: _sent,
    MarkRetry: _retry,
    MarkFailed: _failed,
    Release: _released,
}
