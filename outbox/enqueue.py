"""Enqueue: INSERT messages in the caller's own transaction. It never commits, and it never touches the network.

The row exists exactly if the caller's transaction commits; everything else follows from that.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    String,
    Text,
    bindparam,
    column,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlalchemy.types import TypeEngine

from outbox.after_commit import after_commit, call_after_commit
from outbox.errors import EnqueueError
from outbox.message import Message
from outbox.settings import Settings
from outbox.sqlite import is_prepared
from outbox.table import MYSQL, db_now, messages, row_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

__all__ = ["after_commit", "enqueue", "enqueue_async"]

log = logging.getLogger("outbox")

Row = dict[str, Any]

# MariaDB refuses packets over 16 MiB by default, and one 4 MiB body may double when it is escaped.
_STATEMENT_BYTES = 1_048_576
_STATEMENT_ROWS = 1000
_PURGE_RACES = 3
_KEY = ("destination", "topic", "deduplication_key")
_SETTINGS = ("OUTBOX_DELIVER_HORIZON_S", "OUTBOX_TABLE_SCHEMA")


def enqueue(session: Session | scoped_session[Any] | Connection, *many: Message) -> list[int]:
    """Insert messages in the transaction of ``session``; they are published after it commits, and only then.

    Args:
        session: a Session, a scoped session such as Flask-SQLAlchemy's ``db.session``, or a Connection. Its transaction
            is joined (and begun if need be), never committed; a savepoint rolled back takes its rows along.
        many: the messages; any number in few statements.

    Returns:
        The row ids in the order given, in which new ones also ascend. A message whose ``deduplication_key`` already has
        a row on its destination and topic inserts nothing and gets that row's id.

    Raises:
        EnqueueError: the connection commits each statement by itself, or is a SQLite one without `prepare_sqlite`.
        ConfigError: ``OUTBOX_TABLE_SCHEMA`` or ``OUTBOX_DELIVER_HORIZON_S`` is wrong; no other setting is looked at.
        sqlalchemy.exc.SQLAlchemyError: as the database raised it.
    """
    target = session() if isinstance(session, scoped_session) else session
    connection = target.connection() if isinstance(target, Session) else target
    _check_transactional(connection)
    rows = [_parameters(message) for message in many]
    ids: dict[str, int] = {}
    new = 0
    for chunk in _chunks(rows):
        found, inserted = _insert(connection, chunk)
        ids |= found
        new += inserted
    if new:
        call_after_commit(target, connection)
    return [ids[row["outbox_id"]] for row in rows]


async def enqueue_async(session: "AsyncSession | AsyncConnection", *many: Message) -> list[int]:
    """Same as `enqueue`, for an AsyncSession or an AsyncConnection."""
    return await session.run_sync(enqueue, *many)


def _check_transactional(connection: object) -> None:
    if not isinstance(connection, Connection):
        hint = "use enqueue_async" if hasattr(connection, "run_sync") else "give a Session or a Connection"
        raise EnqueueError(f"got {type(connection).__name__}; {hint}")
    if connection.dialect.name == "sqlite":
        if not is_prepared(connection):
            raise EnqueueError(
                "this SQLite engine begins no transaction before a savepoint, so a rolled-back row could survive;"
                " call outbox.prepare_sqlite(engine) once, where the engine is made"
            )
    elif _commits_by_itself(connection):
        raise EnqueueError("the connection is in AUTOCOMMIT mode; enqueue where your own change is, in one transaction")


def _commits_by_itself(connection: Connection) -> bool:
    driver_connection = connection.connection.dbapi_connection
    return driver_connection is not None and connection.dialect.detect_autocommit_setting(driver_connection)


# --- rows ---------------------------------------------------------------------------------------------------------


def _parameters(message: Message) -> Row:
    if not isinstance(message, Message):
        raise EnqueueError(f"got {type(message).__name__} for a message; write enqueue(session, *messages)")
    row = {"deliver_at": None, "transaction_check_s": None} | row_of(message, _settings().deliver_horizon_s)
    row["due_at"] = row.pop("available_at", None)
    return row


def _chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    room = _STATEMENT_BYTES
    for row in rows:
        size = row["body_bytes"] + 2 * len(row["properties"].encode())
        if chunk and (size > room or len(chunk) == _STATEMENT_ROWS):
            yield chunk
            chunk, room = [], _STATEMENT_BYTES
        chunk.append(row)
        room -= size
    if chunk:
        yield chunk


def _insert(connection: Connection, rows: list[Row]) -> tuple[dict[str, int], int]:
    """Insert the rows whose deduplication key no row has, and find the first row of each key.

    Returns:
        The id for each ``outbox_id``, and how many rows are new.
    """
    ids: dict[str, int] = {}
    new = 0
    for _ in range(_PURGE_RACES):
        inserted = _insert_new(connection, rows)
        new += len(inserted)
        ids |= inserted | _first_ids(connection, [row for row in rows if row["outbox_id"] not in inserted])
        # A purge may delete the first row between the two statements; then this one is the first.
        rows = [row for row in rows if row["outbox_id"] not in ids]
        if not rows:
            return ids, new
    raise EnqueueError("rows with the same deduplication_key were deleted again and again while this one was inserted")


def _insert_new(connection: Connection, rows: list[Row]) -> dict[str, int]:
    """Insert; ids are matched by ``outbox_id``, never by position: no database promises the order of its answer."""
    dialect = connection.dialect
    if dialect.name == "postgresql" and len(rows) > 1:
        arrays = {name: [row[name] for row in rows] for name in rows[0]}
        answer = _execute(connection, _insert_arrays(), arrays)
    elif dialect.insert_executemany_returning:
        answer = _execute(connection, _insert_rows(dialect.name), rows)
    else:
        now = _execute(connection, select(db_now())).scalar_one()
        _execute(connection, _insert_placeholders(), [_with_times(row, now) for row in rows])
        ours = messages.c.outbox_id.in_([row["outbox_id"] for row in rows])
        answer = _execute(connection, select(*_OUTBOX_ID_AND_ID).where(ours))
    ids: dict[str, int] = dict(answer.all())
    return {row["outbox_id"]: ids[row["outbox_id"]] for row in rows if row["outbox_id"] in ids}


def _first_ids(connection: Connection, rows: list[Row]) -> dict[str, int]:
    """The ids of the rows that were there first, as far as they still are."""
    if not rows:
        return {}
    there = {_key(first): first for first in _first_rows(connection, rows)}
    pairs = [(row, there[_key(row)]) for row in rows if _key(row) in there]
    _log_deduplicated(connection, pairs)
    return {row["outbox_id"]: first["id"] for row, first in pairs}


def _first_rows(connection: Connection, rows: list[Row]) -> Sequence[Mapping[str, Any]]:
    names = ("id", "outbox_id", *_KEY, "tag", "properties", "body_bytes")
    same_key = tuple_(*(messages.c[name] for name in _KEY)).in_([_key(row) for row in rows])
    return _select_latest(connection, select(*(messages.c[name] for name in names)).where(same_key))


def _log_deduplicated(connection: Connection, pairs: list[tuple[Row, Mapping[str, Any]]]) -> None:
    """Bodies are read only where all else is equal, so that they are no larger together than what was given."""
    alike = [first["id"] for row, first in pairs if _without_body(row) == _without_body(first)]
    query = select(messages.c.id, messages.c.body).where(messages.c.id.in_(alike))
    bodies = {found["id"]: found["body"] for found in _select_latest(connection, query)} if alike else {}
    for row, first in pairs:
        differs = _without_body(row) != _without_body(first) or bodies.get(first["id"]) != row["body"]
        extra = {name: row[name] for name in _KEY} | {"outbox_id": first["outbox_id"], "differs": differs}
        log.log(logging.WARNING if differs else logging.INFO, "outbox.deduplicated", extra=extra)


def _without_body(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["tag"], row["properties"].replace(row["outbox_id"], ""), row["body_bytes"]


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in _KEY)


# --- statements ---------------------------------------------------------------------------------------------------

_OUTBOX_ID_AND_ID = (messages.c.outbox_id, messages.c.id)
_DUE_AT = "due_at"
_CONSTANTS: dict[str, ColumnElement[Any]] = {
    column.name: literal_column(repr(column.default.arg))
    for column in messages.c
    if isinstance(column.default, ScalarElementColumnDefault)
}


@cache
def _insert_rows(dialect: str) -> Any:
    """INSERT of rows unless their deduplication key is there; what all rows have in common is no parameter."""
    values = _computed(bindparam(_DUE_AT, type_=messages.c.available_at.type))
    if dialect in MYSQL:
        return _insert_placeholders().values(values).returning(*_OUTBOX_ID_AND_ID)
    build = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = build(messages).values(values).on_conflict_do_nothing(index_elements=_KEY)
    return statement.returning(*_OUTBOX_ID_AND_ID)


@cache
def _insert_placeholders() -> Any:
    """The same for MySQL, without RETURNING; its drivers send rows together only where all values are placeholders."""
    # Not INSERT IGNORE, which also truncates what is too long without a word.
    return mysql.insert(messages).on_duplicate_key_update(id=func.last_insert_id(messages.c.id))


def _with_times(row: Row, now: datetime) -> Row:
    given = {name: value for name, value in row.items() if name != _DUE_AT}
    return given | {"available_at": row[_DUE_AT] or now, "created_at": now}


@cache
def _insert_arrays() -> Any:
    """The same for many rows on PostgreSQL: one array a column, a third of the time that as many VALUES take.

    The ordinality keeps the ids in the order of the rows, which VALUES does not promise.
    """
    types = {name: _element_type(name) for name in _parameters(Message("topic", "body"))}
    arrays = [bindparam(name, type_=postgresql.ARRAY(kind)) for name, kind in types.items()]
    columns = [column(name, kind) for name, kind in types.items()]
    given = func.unnest(*arrays).table_valued(*columns, with_ordinality="place").render_derived()
    values = {name: given.c[name] for name in types if name != _DUE_AT} | _computed(given.c[_DUE_AT])
    in_order = select(*values.values()).order_by(given.c.place)
    statement = postgresql.insert(messages).from_select(list(values), in_order, include_defaults=False)
    return statement.on_conflict_do_nothing(index_elements=_KEY).returning(*_OUTBOX_ID_AND_ID)


def _computed(due_at: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    return {"available_at": func.coalesce(due_at, db_now()), "created_at": db_now(), **_CONSTANTS}


def _element_type(name: str) -> TypeEngine[Any]:
    kind = messages.c["available_at" if name == _DUE_AT else name].type
    # A cast to VARCHAR(n) would cut off what is too long; the column refuses it.
    return Text() if isinstance(kind, String) else kind


def _select_latest(connection: Connection, query: Select[Any]) -> Sequence[Mapping[str, Any]]:
    """At REPEATABLE READ on MariaDB only a locking read sees a row that another transaction has just committed."""
    seen = query.with_for_update(read=True) if connection.dialect.name in MYSQL else query
    found: Sequence[Mapping[str, Any]] = _execute(connection, seen).mappings().all()
    return found


def _execute(connection: Connection, statement: Executable, parameters: Any = None) -> Any:
    schema = _settings().table_schema
    options = {"schema_translate_map": {None: schema}} if schema else {}
    return connection.execute(statement, parameters, execution_options=options)


@cache
def _settings() -> Settings:
    return Settings.from_env({key: os.environ[key] for key in _SETTINGS if key in os.environ})
