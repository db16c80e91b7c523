"""Purge: delete finished messages that are old enough, in bounded batches."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Double,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
)

from outbox.states import FINISHED, State
from outbox.store.conditions import state_is
from outbox.store.database import Database
from outbox.store.dialects import by_id, deletion, has_id
from outbox.table import attempts, audit, db_after, messages

__all__ = ["HALF_MESSAGES_STAY_S", "count_purgeable", "purge"]

#: The broker asks about a half message for up to a day, and must then still find its row.
HALF_MESSAGES_STAY_S = 172_800

_OLDER_S: BindParameter[float] = bindparam("older_s", type_=Double())
_HALF_S: BindParameter[float] = bindparam("half_s", type_=Double())


def purge(
    database: Database,
    older_than_s: float,
    *,
    batch: int = 1000,
    on_progress: Callable[[int], None] = lambda _deleted: None,
) -> int:
    """Delete messages that were sent or discarded more than ``older_than_s`` seconds ago, and their history.

    No other message is ever deleted, and former half messages stay at least 48 hours. It walks along the ids, each
    batch in a transaction of its own; a batch in which nothing is that old ends the walk, since ids grow with time.

    Args:
        database: the outbox's.
        older_than_s: the retention, seconds.
        batch: rows looked at in one transaction.
        on_progress: called after each batch, with the number deleted so far.

    Returns:
        The number of messages deleted.

    Raises:
        DatabaseError: see `Database.run`. What was deleted before stays deleted.
    """
    deleted, last_id, more = 0, 0, True
    while more:
        parameters = _kept(older_than_s) | {"last_id": last_id, "batch": batch}
        last_id, in_batch, more = database.run(partial(_purge_batch, parameters=parameters))
        deleted += in_batch
        on_progress(deleted)
    return deleted


def count_purgeable(database: Database, older_than_s: float) -> int:
    """How many messages `purge` would delete now. It reads every finished message.

    Raises:
        DatabaseError: see `Database.run`.
    """
    query = select(func.count(messages.c.id)).where(_is_finished(messages))
    return database.read(lambda connection: connection.execute(query, _kept(older_than_s)).scalar_one())


def _kept(older_than_s: float) -> dict[str, float]:
    return {"older_s": -older_than_s, "half_s": -max(older_than_s, HALF_MESSAGES_STAY_S)}


def _purge_batch(connection: Connection, parameters: dict[str, Any]) -> tuple[int, int, bool]:
    """The last id looked at, the number deleted, and whether to go on."""
    rows = connection.execute(_next_rows(), parameters).all()
    ids = [row.id for row in rows if row.finished]
    # Looked at again under the lock: an operator may have replayed one since.
    ids = list(connection.scalars(_lock(), parameters | {"ids": ids})) if ids else []
    if ids:
        connection.execute(delete(attempts).where(attempts.c.message_row_id.in_(ids)))
        connection.execute(*deletion(ids, connection.dialect.name))
    full = len(rows) == parameters["batch"]
    return rows[-1].id if rows else 0, len(ids), full and any(row.old for row in rows)


@cache
def _next_rows() -> Select[Any]:
    cutoff = db_after(_OLDER_S)
    old = or_(messages.c.created_at < cutoff, messages.c.sent_at < cutoff)
    found = select(messages.c.id, _is_finished(messages).label("finished"), func.coalesce(old, False).label("old"))
    return found.where(messages.c.id > bindparam("last_id")).order_by(messages.c.id).limit(bindparam("batch"))


@cache
def _lock() -> Select[Any]:
    rows = by_id()
    return select(rows.c.id).where(has_id(rows), _is_finished(rows)).with_for_update(skip_locked=True)


def _is_finished(rows: FromClause) -> ColumnElement[bool]:
    """Sent or discarded, for as long as such a row is kept."""
    discarded = select(func.max(audit.c.at)).where(audit.c.outbox_id == rows.c.outbox_id).correlate(rows)
    finished_at = case((state_is(rows, State.SENT), rows.c.sent_at), else_=discarded.scalar_subquery())
    stays_s = case((rows.c.transaction_check_s.is_not(None), _HALF_S), else_=_OLDER_S)
    since = func.coalesce(finished_at, rows.c.created_at)
    return and_(state_is(rows, *sorted(FINISHED)), since < db_after(stays_s))
