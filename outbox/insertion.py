"""How messages become rows of the caller's transaction, on each database, whoever owns the connection."""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Executable,
    Integer,
    Select,
    String,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlalchemy.types import TypeEngine

from outbox.errors import EnqueueError
from outbox.message import Message
from outbox.table import MYSQL, db_now, messages, row_of

__all__ = ["Row", "Target", "insert", "rows_of"]

log = logging.getLogger("outbox")

Row = dict[str, Any]

# MariaDB refuses packets over 16 MiB by default, and one 4 MiB body may double when it is escaped.
_STATEMENT_BYTES = 1_048_576
_STATEMENT_ROWS = 1000
_PURGE_RACES = 3
_KEY = ("destination", "topic", "deduplication_key")
_DUE_AT = "due_at"


class Target(Protocol):
    """Where statements go: a connection within the caller's transaction.

    Attributes:
        dialect: SQLAlchemy's.
        returns_many: whether `fetch` takes a list of rows for one INSERT and answers what all of them return.
    """

    dialect: Dialect
    returns_many: bool

    def fetch(self, statement: Executable, parameters: Any = None, /) -> Sequence[Any]:
        """Execute a statement; its rows, each a sequence of values as SQLAlchemy's types give them."""

    def execute_many(self, statement: Executable, rows: list[Row], /) -> None:
        """Execute a statement once for each row of parameters."""


# --- rows ---------------------------------------------------------------------------------------------------------


def rows_of(many: Sequence[Message], horizon_s: float) -> list[Row]:
    """Messages as rows to `insert`.

    Args:
        many: the messages.
        horizon_s: see `outbox.table.row_of`.

    Raises:
        EnqueueError: one of them is no message.
    """
    return [_parameters(message, horizon_s) for message in many]


def _parameters(message: Message, horizon_s: float) -> Row:
    if not isinstance(message, Message):
        raise EnqueueError(f"got {type(message).__name__} for a message; write enqueue(session, *messages)")
    row = {"deliver_at": None, "transaction_check_s": None} | row_of(message, horizon_s)
    row[_DUE_AT] = row.pop("available_at", None)
    return row


def insert(target: Target, rows: Sequence[Row]) -> tuple[list[int], int]:
    """Insert rows whose deduplication key no row has, and find the first row of each key.

    Returns:
        Each row's id, in the order given, and how many rows are new.
    """
    ids: dict[str, int] = {}
    new = 0
    for chunk in _chunks(rows):
        found, inserted = _insert(target, chunk)
        ids |= found
        new += inserted
    return [ids[row["outbox_id"]] for row in rows], new


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


def _insert(target: Target, rows: list[Row]) -> tuple[dict[str, int], int]:
    """The id for each ``outbox_id``, and how many rows are new."""
    ids: dict[str, int] = {}
    new = 0
    for _ in range(_PURGE_RACES):
        inserted = _insert_new(target, rows)
        new += len(inserted)
        ids |= inserted | _first_ids(target, [row for row in rows if row["outbox_id"] not in inserted])
        # A purge may delete the first row between the two statements; then this one is the first.
        rows = [row for row in rows if row["outbox_id"] not in ids]
        if not rows:
            return ids, new
    raise EnqueueError("rows with the same deduplication_key were deleted again and again while this one was inserted")


def _insert_new(target: Target, rows: list[Row]) -> dict[str, int]:
    """Insert; ids are matched by ``outbox_id``, never by position: no database promises the order of its answer."""
    dialect = target.dialect.name
    if dialect == "postgresql" and (len(rows) > 1 or not target.returns_many):
        answer = target.fetch(_insert_json(), {"rows": _as_json(rows)})
    elif target.returns_many:
        answer = target.fetch(_insert_rows(dialect), rows)
    else:
        ((now,),) = target.fetch(select(db_now()))
        target.execute_many(_insert_placeholders(dialect), [_with_times(row, now) for row in rows])
        ours = messages.c.outbox_id.in_([row["outbox_id"] for row in rows])
        answer = target.fetch(select(*_OUTBOX_ID_AND_ID).where(ours))
    ids: dict[str, int] = dict(map(tuple, answer))
    return {row["outbox_id"]: ids[row["outbox_id"]] for row in rows if row["outbox_id"] in ids}


def _first_ids(target: Target, rows: list[Row]) -> dict[str, int]:
    """The ids of the rows that were there first, as far as they still are."""
    if not rows:
        return {}
    there = {_key(first): first for first in _first_rows(target, rows)}
    pairs = [(row, there[_key(row)]) for row in rows if _key(row) in there]
    _log_deduplicated(target, pairs)
    return {row["outbox_id"]: first["id"] for row, first in pairs}


def _first_rows(target: Target, rows: list[Row]) -> list[Row]:
    names = ("id", "outbox_id", *_KEY, "tag", "properties", "body_bytes")
    same_key = tuple_(*(messages.c[name] for name in _KEY)).in_([_key(row) for row in rows])
    found = _select_latest(target, select(*(messages.c[name] for name in names)).where(same_key))
    return [dict(zip(names, one, strict=True)) for one in found]


def _log_deduplicated(target: Target, pairs: list[tuple[Row, Row]]) -> None:
    """Bodies are read only where all else is equal, so that they are no larger together than what was given."""
    alike = [first["id"] for row, first in pairs if _without_body(row) == _without_body(first)]
    query = select(messages.c.id, messages.c.body).where(messages.c.id.in_(alike))
    bodies = dict(map(tuple, _select_latest(target, query))) if alike else {}
    for row, first in pairs:
        differs = _without_body(row) != _without_body(first) or bodies.get(first["id"]) != row["body"]
        extra = {name: row[name] for name in _KEY} | {"outbox_id": first["outbox_id"], "differs": differs}
        log.log(logging.WARNING if differs else logging.INFO, "outbox.deduplicated", extra=extra)


def _without_body(row: Row) -> tuple[Any, ...]:
    return row["tag"], row["properties"].replace(row["outbox_id"], ""), row["body_bytes"]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in _KEY)


# --- statements ---------------------------------------------------------------------------------------------------

_OUTBOX_ID_AND_ID = (messages.c.outbox_id, messages.c.id)
_CONSTANTS: dict[str, ColumnElement[Any]] = {
    column.name: literal_column(repr(column.default.arg))
    for column in messages.c
    if isinstance(column.default, ScalarElementColumnDefault)
}


@cache
def _insert_rows(dialect: str) -> Any:
    """INSERT of rows unless their deduplication key is there; what all rows have in common is no parameter."""
    values = _computed(bindparam(_DUE_AT, type_=messages.c.available_at.type))
    return _insert_placeholders(dialect).values(values).returning(*_OUTBOX_ID_AND_ID)


@cache
def _insert_placeholders(dialect: str) -> Any:
    """The same without RETURNING; MySQL's drivers send rows together only where all values are placeholders."""
    if dialect in MYSQL:
        # Not INSERT IGNORE, which also truncates what is too long without a word.
        return mysql.insert(messages).on_duplicate_key_update(id=func.last_insert_id(messages.c.id))
    build = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return build(messages).on_conflict_do_nothing(index_elements=_KEY)


def _with_times(row: Row, now: datetime) -> Row:
    given = {name: value for name, value in row.items() if name != _DUE_AT}
    return given | {"available_at": row[_DUE_AT] or now, "created_at": now}


@cache
def _insert_json() -> Any:
    """The same for many rows on PostgreSQL, in one parameter.

    JSON is written in a tenth of the time that psycopg takes for arrays of text, in which it escapes each quote by
    itself, and arrays in a third of the time that as many VALUES take. The place keeps the ids in the order of the
    rows, which neither promises.
    """
    columns = [column(name, _element_type(name)) for name in _parameters(Message("topic", "body"), 0.0)]
    document = cast(bindparam("rows", type_=Text()), postgresql.JSON)
    given = func.json_to_recordset(document).table_valued(*columns, column("place", Integer()))
    given = given.render_derived(name="given", with_types=True)
    values = {one.name: given.c[one.name] for one in columns if one.name != _DUE_AT} | _computed(given.c[_DUE_AT])
    in_order = select(*values.values()).order_by(given.c.place)
    statement = postgresql.insert(messages).from_select(list(values), in_order, include_defaults=False)
    return statement.on_conflict_do_nothing(index_elements=_KEY).returning(*_OUTBOX_ID_AND_ID)


def _as_json(rows: Sequence[Row]) -> str:
    placed = [row | {"place": place} for place, row in enumerate(rows)]
    return json.dumps(placed, ensure_ascii=False, default=datetime.isoformat)


def _computed(due_at: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    return {"available_at": func.coalesce(due_at, db_now()), "created_at": db_now(), **_CONSTANTS}


def _element_type(name: str) -> TypeEngine[Any]:
    kind = messages.c["available_at" if name == _DUE_AT else name].type
    # A cast to VARCHAR(n) would cut off what is too long; the column refuses it.
    return Text() if isinstance(kind, String) else kind


def _select_latest(target: Target, query: Select[Any]) -> Sequence[Any]:
    """At REPEATABLE READ on MariaDB only a locking read sees a row that another transaction has just committed."""
    return target.fetch(query.with_for_update(read=True) if target.dialect.name in MYSQL else query)
