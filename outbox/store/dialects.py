"""The seam between the databases: what PostgreSQL, MariaDB/MySQL and SQLite cannot say in the same words."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Double,
    Executable,
    FromClause,
    SmallInteger,
    String,
    Table,
    bindparam,
    column,
    delete,
    literal_column,
    text,
    true,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Alias
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from outbox.table import MYSQL, Instant, exact, messages

__all__ = [
    "MESSAGE_ID_CHARACTERS",
    "MYSQL",
    "Changes",
    "Marked",
    "as_mark",
    "by_due",
    "by_id",
    "by_ordering_key",
    "by_sent",
    "by_state",
    "deletion",
    "has_id",
    "is_behind",
    "is_not_migrated",
    "is_transient",
    "marked",
    "minute_of",
    "upsert",
]


# --- index hints --------------------------------------------------------------------------------------------------


class _ByDue(Alias):
    inherit_cache = True
    index = "ix_outbox_messages_due"
    index_mysql = "ix_outbox_messages_state_due"


class _ByOrderingKey(Alias):
    inherit_cache = True
    index = "ix_outbox_messages_ordered"
    index_mysql = "ix_outbox_messages_state_ordered"


class _ByState(Alias):
    inherit_cache = True
    index = "ix_outbox_messages_held"
    index_mysql = "ix_outbox_messages_state_due"


class _BySent(Alias):
    inherit_cache = True
    index = "ix_outbox_messages_sent"
    index_mysql = "ix_outbox_messages_state_sent"


def by_due(name: str) -> FromClause:
    """The messages under an alias, to be read through the index of due unordered rows.

    SQLite and MariaDB, left alone, now and then read finished rows instead. PostgreSQL takes no hints and needs none.
    """
    return _ByDue._construct(messages, name=name)  # noqa: SLF001 - SQLAlchemy's way of building an alias's subclass


def by_ordering_key(name: str) -> FromClause:
    """The messages under an alias, to be read through the index of unfinished ordered rows; see `by_due`."""
    return _ByOrderingKey._construct(messages, name=name)  # noqa: SLF001 - as above


def by_state(name: str) -> FromClause:
    """The messages under an alias, to be read through the index of those neither pending nor sent; see `by_due`."""
    return _ByState._construct(messages, name=name)  # noqa: SLF001 - as above


def by_sent(name: str) -> FromClause:
    """The messages under an alias, to be read through the index of when they were sent; see `by_due`."""
    return _BySent._construct(messages, name=name)  # noqa: SLF001 - as above


@compiles(_ByDue)
@compiles(_ByOrderingKey)
@compiles(_ByState)
@compiles(_BySent)
def _compile_alias(element: Any, compiler: Any, **kw: Any) -> str:
    return str(compiler.visit_alias(element, **kw))


@compiles(_ByDue, "sqlite")
@compiles(_ByOrderingKey, "sqlite")
@compiles(_ByState, "sqlite")
@compiles(_BySent, "sqlite")
def _compile_alias_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return f"{compiler.visit_alias(element, **kw)} INDEXED BY {element.index}"


@compiles(_ByDue, *MYSQL)
@compiles(_ByOrderingKey, *MYSQL)
@compiles(_ByState, *MYSQL)
@compiles(_BySent, *MYSQL)
def _compile_alias_mysql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"{compiler.visit_alias(element, **kw)} FORCE INDEX ({element.index_mysql})"


# --- a place in an index ------------------------------------------------------------------------------------------


class _IsBehind(FunctionElement[Any]):
    inherit_cache = True
    # As for `_HasId`.
    type = NullType()


def is_behind(rows: FromClause) -> ColumnElement[Any]:
    """Rows that stand, in the index of due rows, behind the place of `outbox.store.claim.Place.parameters`."""
    columns = (messages.c.available_at, messages.c.id)
    place = [bindparam(f"behind_{name}", type_=column.type) for name, column in zip(("at", "id"), columns, strict=True)]
    return _IsBehind(rows.c.available_at, rows.c.id, *place)


@compiles(_IsBehind)
def _compile_is_behind(element: _IsBehind, compiler: SQLCompiler, **kw: Any) -> str:
    at, row_id, place_at, place_id = (compiler.process(one, **kw) for one in element.clauses)
    return f"({at}, {row_id}) > ({place_at}, {place_id})"


@compiles(_IsBehind, *MYSQL)
def _compile_is_behind_mysql(element: _IsBehind, compiler: SQLCompiler, **kw: Any) -> str:
    # They look up no such pair in an index, but both of these ranges.
    at, row_id, place_at, place_id = (compiler.process(one, **kw) for one in element.clauses)
    return f"({at} > {place_at} OR ({at} = {place_at} AND {row_id} > {place_id}))"


# --- many rows in one parameter -----------------------------------------------------------------------------------
#
# Five hundred rows in one statement and one parameter: a driver's executemany sends a statement for each instead.
#
# On MariaDB and MySQL the parameter comes first and each of its rows is looked up by primary key. Left to choose, they
# read all of a small table rather than a list of ids, and so wait for whatever row somebody else has just locked.


class _Ids(TypeDecorator[Sequence[int]]):
    """A list of ids: an array on PostgreSQL, JSON elsewhere."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        array = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.ARRAY(BigInteger) if array else String())

    def process_bind_param(self, value: Sequence[int] | None, dialect: Dialect) -> Any:
        ids = list(value or ())
        return ids if dialect.name == "postgresql" else json.dumps(ids)


class _ById(Alias):
    inherit_cache = True


class _HasId(FunctionElement[Any]):
    inherit_cache = True
    # A Boolean would become "… = 1" on SQLite, and no index serves that.
    type = NullType()


def by_id(name: str = "m") -> Any:
    """The messages under an alias, to be read or updated through their primary key; goes with `has_id`."""
    return _ById._construct(messages, name=name)  # noqa: SLF001 - as above


def has_id(rows: FromClause) -> ColumnElement[Any]:
    """Rows whose id is in the parameter ``ids``, a sequence of ints."""
    return _HasId(rows.c.id, bindparam("ids", type_=_Ids()))


def deletion(ids: Iterable[int], dialect: str) -> tuple[Executable, dict[str, Any]]:
    """The statement, with its parameters, that deletes messages."""
    if dialect in MYSQL:
        picked = "JSON_TABLE(:ids, '$[*]' COLUMNS (id BIGINT PATH '$')) AS picked"
        rows = "outbox_messages AS m FORCE INDEX (PRIMARY) ON m.id = picked.id"
        return text(f"DELETE m FROM {picked} STRAIGHT_JOIN {rows}"), {"ids": json.dumps(list(ids))}
    return delete(messages).where(has_id(messages)), {"ids": list(ids)}


@compiles(_ById)
def _compile_by_id(element: Any, compiler: Any, **kw: Any) -> str:
    return str(compiler.visit_alias(element, **kw))


@compiles(_ById, *MYSQL)
def _compile_by_id_mysql(element: Any, compiler: Any, **kw: Any) -> str:
    alias = compiler.visit_alias(element, **kw)
    ids = compiler.process(bindparam("ids", type_=_Ids()))
    picked = f"JSON_TABLE({ids}, '$[*]' COLUMNS (id BIGINT PATH '$')) AS picked"
    return f"{picked} STRAIGHT_JOIN {alias} FORCE INDEX (PRIMARY) ON {element.name}.id = picked.id"


@compiles(_HasId)
def _compile_has_id(element: _HasId, compiler: SQLCompiler, **kw: Any) -> str:
    row_id, ids = (compiler.process(one, **kw) for one in element.clauses)
    return f"{row_id} = ANY ({ids})"


@compiles(_HasId, "sqlite")
def _compile_has_id_sqlite(element: _HasId, compiler: SQLCompiler, **kw: Any) -> str:
    row_id, ids = (compiler.process(one, **kw) for one in element.clauses)
    return f"{row_id} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - constants


@compiles(_HasId, *MYSQL)
def _compile_has_id_mysql(element: _HasId, compiler: SQLCompiler, **kw: Any) -> str:
    # The join has seen to it.
    row_id, _ids = element.clauses
    return f"{compiler.process(row_id, **kw)} = picked.id"


MESSAGE_ID_CHARACTERS = 128

_MARK_COLUMNS: dict[str, Any] = {
    "id": BigInteger(),
    "token": String(36),
    "message_id": exact(MESSAGE_ID_CHARACTERS),
    "replays": BigInteger(),
    "posted_at": Instant(),
    "until": Instant(),
    "delay_s": Double(),
    "charge": SmallInteger(),
    "unknown": SmallInteger(),
    "code": String(64),
    "text": String(512),
}


def as_mark(dialect: str, instant: datetime) -> str:
    """An instant as it stands in the parameter ``marks``, see `Marked`."""
    utc = instant.astimezone(UTC)
    return utc.isoformat() if dialect == "postgresql" else f"{utc:%Y-%m-%d %H:%M:%S.%f}"


class _MarkRows(FunctionElement[Any]):
    inherit_cache = True


class _ByMark(Alias):
    inherit_cache = True


@dataclass(frozen=True, slots=True)
class Marked:
    """The messages that are in the parameter ``marks``, a JSON array of objects.

    Attributes:
        rows: the messages, to be updated through their primary key.
        given: the objects' values by name, as expressions; what an object lacks is NULL.
        condition: joins them.
    """

    rows: Any
    given: Mapping[str, ColumnElement[Any]]
    condition: ColumnElement[bool]


@cache
def marked(dialect: str) -> Marked:
    """See `Marked`."""
    if dialect in MYSQL:
        given = {name: literal_column(f"v.given_{name}", kind) for name, kind in _MARK_COLUMNS.items()}
        return Marked(_ByMark._construct(messages, name="m"), given, true())  # noqa: SLF001 - as above
    rows = messages.alias("m")
    columns = [column(name, kind) for name, kind in _MARK_COLUMNS.items()]
    values = _MarkRows(bindparam("marks", type_=String())).table_valued(*columns).alias("v")
    return Marked(rows, {one.name: one for one in values.c}, rows.c.id == values.c.id)


@compiles(_MarkRows)
def _compile_mark_rows(element: _MarkRows, compiler: SQLCompiler, **kw: Any) -> str:
    names = ", ".join(f'"{name}" {_type(compiler, kind)}' for name, kind in _MARK_COLUMNS.items())
    return f"(SELECT * FROM json_to_recordset(CAST({_parameter(element, compiler, kw)} AS json)) AS r ({names}))"  # noqa: S608 - constants


@compiles(_MarkRows, "sqlite")
def _compile_mark_rows_sqlite(element: _MarkRows, compiler: SQLCompiler, **kw: Any) -> str:
    names = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in _MARK_COLUMNS)
    return f"(SELECT {names} FROM json_each({_parameter(element, compiler, kw)}))"  # noqa: S608 - constants


@compiles(_ByMark, *MYSQL)
def _compile_by_mark(element: Any, compiler: Any, **kw: Any) -> str:
    alias = compiler.visit_alias(element, **kw)
    kinds = {name: _type(compiler, kind) for name, kind in _MARK_COLUMNS.items()}
    # SQLAlchemy does not say whose column it sets, so that the names must differ.
    names = ", ".join(f"given_{name} {kind} PATH '$.{name}'" for name, kind in kinds.items())
    marks = compiler.process(bindparam("marks", type_=String()))
    values = f"JSON_TABLE({marks}, '$[*]' COLUMNS ({names})) AS v"
    return f"{values} STRAIGHT_JOIN {alias} FORCE INDEX (PRIMARY) ON {element.name}.id = v.given_id"


def _parameter(element: _MarkRows, compiler: SQLCompiler, kw: dict[str, Any]) -> str:
    return compiler.process(element.clauses, **(kw | {"asfrom": False}))


def _type(compiler: SQLCompiler, kind: Any) -> str:
    return str(compiler.dialect.type_compiler_instance.process(kind))


# --- instants -----------------------------------------------------------------------------------------------------


class minute_of(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The beginning of the minute that an instant is in."""

    type = Instant()
    inherit_cache = True


@compiles(minute_of)
def _compile_minute(element: minute_of, compiler: SQLCompiler, **kw: Any) -> str:
    return f"date_trunc('minute', {compiler.process(element.clauses, **kw)})"


@compiles(minute_of, *MYSQL)
def _compile_minute_mysql(element: minute_of, compiler: SQLCompiler, **kw: Any) -> str:
    instant = compiler.process(element.clauses, **kw)
    return f"timestampadd(MICROSECOND, -microsecond({instant}), timestampadd(SECOND, -second({instant}), {instant}))"


@compiles(minute_of, "sqlite")
def _compile_minute_sqlite(element: minute_of, compiler: SQLCompiler, **kw: Any) -> str:
    return f"substr({compiler.process(element.clauses, **kw)}, 1, 16) || ':00.000000'"


# --- upsert -------------------------------------------------------------------------------------------------------

#: From the columns that an upsert would have inserted to the changes of the row that is already there, in order.
Changes = Callable[[Any], list[tuple[str, Any]]]


def upsert(dialect: str, table: Table, row: Mapping[str, Any], changes: Changes) -> Executable:
    """Insert ``row``; where its primary key is taken, make ``changes`` to the row that is there instead.

    MariaDB and MySQL make them one after the other, so that a later one sees what an earlier one has done.
    """
    if dialect in MYSQL:
        into_mysql = mysql.insert(table).values(row)
        return into_mysql.on_duplicate_key_update(changes(into_mysql.inserted))
    into = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table).values(row)
    return into.on_conflict_do_update(index_elements=table.primary_key.columns, set_=dict(changes(into.excluded)))


# --- errors -------------------------------------------------------------------------------------------------------

# Serialization failure, deadlock; SQLSTATE on PostgreSQL, error number on MariaDB and MySQL.
_TRANSIENT = frozenset({"40001", "40P01", 1213, 1205})
# Undefined table, column, schema; on MariaDB and MySQL table, column, index.
_NOT_MIGRATED = frozenset({"42P01", "42703", "3F000", 1146, 1054, 1176})
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def is_transient(error: DBAPIError) -> bool:
    """Whether the database undid the transaction because of another one, so that it may succeed when run again."""
    primary_code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return _code(error) in _TRANSIENT or primary_code in _SQLITE_BUSY


def is_not_migrated(error: DBAPIError) -> bool:
    """Whether a table, column or index of ours is missing."""
    text = str(error.orig)
    return _code(error) in _NOT_MIGRATED or text.startswith(("no such table", "no such column", "no such index"))


def _code(error: DBAPIError) -> Any:
    number = next(iter(getattr(error.orig, "args", ())), None)
    if isinstance(number, int):  # PyMySQL 2 has a SQLSTATE besides, but one that says less
        return number
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
