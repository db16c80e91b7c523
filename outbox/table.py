"""The outbox's tables, and how a message becomes a row.

Every instant is the database's, in UTC with microseconds. ``lease_until`` and ``lease_token`` stand in no index, so
that a claim is a HOT update on PostgreSQL; ``available_at`` is indexed and changes only on a retry.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler, TypeCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from outbox.message import Message
from outbox.states import State

__all__ = [
    "attempts",
    "audit",
    "checks",
    "db_after",
    "db_now",
    "messages",
    "meta",
    "metadata",
    "new_outbox_id",
    "outbox_ids_from",
    "pauses",
    "row_of",
]

MYSQL = ("mysql", "mariadb")
#: Key of an index's ``info``: the names of the dialects that have it.
DATABASES = "databases"


class ExactVarchar(mysql.VARCHAR):
    """A string that MariaDB and MySQL compare byte by byte, trailing spaces included.

    Their default collations take ``Order-7`` and ``order-7`` for one key. The binary collation that does not pad has
    another name on each server.
    """

    __visit_name__ = "exact_varchar"


@compiles(ExactVarchar, *MYSQL)
def _compile_exact_varchar(element: ExactVarchar, compiler: TypeCompiler, **_: Any) -> str:
    mariadb = getattr(compiler.dialect, "is_mariadb", False)
    collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    return f"VARCHAR({element.length}) CHARACTER SET utf8mb4 COLLATE {collation}"


def exact(length: int) -> TypeEngine[str]:
    """A string type of at most ``length`` characters that every database compares byte by byte."""
    kind = String(length).with_variant(String(length, collation="C"), "postgresql")
    return kind.with_variant(ExactVarchar(length), *MYSQL)


class Instant(TypeDecorator[datetime]):
    """An instant: an aware UTC datetime in Python, microseconds in every database."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the base class's signature
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock at the start of the statement, UTC, microseconds.

    On PostgreSQL the stable ``statement_timestamp()``: a volatile clock could not bound an index scan.
    """

    type = Instant()
    inherit_cache = True


@compiles(db_now)
def _compile_now(_element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "statement_timestamp()"


@compiles(db_now, *MYSQL)
def _compile_now_mysql(_element: db_now, _compiler: SQLCompiler, **_: Any) -> str:
    return "utc_timestamp(6)"


@compiles(db_now, "sqlite")
def _compile_now_sqlite(_element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite's clock has milliseconds; six digits keep every stored instant comparable as text. Through the compiler,
    # which doubles percent signs for a cursor that takes them for parameters.
    return compiler.process(literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')"), **kw)


class db_after(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The instant so many seconds after `db_now`; the number may be negative, and may be an expression."""

    type = Instant()
    inherit_cache = True


@compiles(db_after)
def _compile_after(element: db_after, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"statement_timestamp() + make_interval(secs => {seconds})"


@compiles(db_after, *MYSQL)
def _compile_after_mysql(element: db_after, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"timestampadd(MICROSECOND, ({seconds}) * 1000000, utc_timestamp(6))"


@compiles(db_after, "sqlite")
def _compile_after_sqlite(element: db_after, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.6f seconds', {seconds}))"


def _quoted(states: Any) -> str:
    return ", ".join(f"'{state}'" for state in states)


def _partial(name: str, *columns: str, where: str) -> Index:
    """An index over some of the rows: PostgreSQL and SQLite have it, MariaDB and MySQL do not."""
    return _index(
        name, *columns, databases=("postgresql", "sqlite"), postgresql_where=text(where), sqlite_where=text(where)
    )


def _full(name: str, *columns: str) -> Index:
    """The index that serves MariaDB and MySQL where the others have a partial one: the state leads instead."""
    return _index(name, *columns, databases=MYSQL)


def _index(name: str, *columns: str, databases: Any, **options: Any) -> Index:
    return Index(name, *columns, info={DATABASES: databases}, **options).ddl_if(dialect=databases)


_ID = BigInteger().with_variant(Integer(), "sqlite")
_OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "sqlite_autoincrement": True}

metadata = MetaData()

messages = Table(
    "outbox_messages",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("outbox_id", exact(36), nullable=False),
    Column("destination", exact(64), nullable=False),
    Column("topic", exact(64), nullable=False),
    Column("tag", exact(64)),
    Column("keys", Text),
    Column("properties", Text, nullable=False),
    Column("ordering_key", exact(255)),
    Column("deduplication_key", exact(255)),
    Column("deliver_at", Instant),
    Column("transaction_check_s", Integer),
    Column("body", Text().with_variant(mysql.LONGTEXT(), *MYSQL), nullable=False),
    Column("body_bytes", Integer, nullable=False),
    Column("state", exact(16), nullable=False, default=State.PENDING.value),
    Column("available_at", Instant, nullable=False, default=db_now()),
    Column("lease_until", Instant),
    Column("lease_token", exact(36)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("crashes", Integer, nullable=False, default=0),
    Column("unknown_outcomes", Integer, nullable=False, default=0),
    Column("message_id", exact(128)),
    Column("posted_at", Instant),
    Column("sent_at", Instant),
    Column("confirmed_by", exact(16)),
    # The elected half message was last heard of (elected, or offered for a check); offered first although confirmed.
    Column("heard_at", Instant),
    Column("reoffered_at", Instant),
    Column("last_error_code", exact(64)),
    Column("last_error", Text),
    Column("replays", Integer, nullable=False, default=0),
    Column("created_at", Instant, nullable=False, default=db_now()),
    CheckConstraint(f"state IN ({_quoted(State)})", name="ck_outbox_messages_state"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="ck_outbox_messages_lease"),
    UniqueConstraint("outbox_id", name="uq_outbox_messages_outbox_id"),
    UniqueConstraint("destination", "topic", "deduplication_key", name="uq_outbox_messages_deduplication_key"),
    _partial(
        "ix_outbox_messages_due",
        *("destination", "topic", "available_at", "id"),
        where="state = 'pending' AND ordering_key IS NULL",
    ),
    _partial(
        "ix_outbox_messages_ordered",
        *("destination", "topic", "ordering_key", "id"),
        where="state IN ('pending', 'failed') AND ordering_key IS NOT NULL",
    ),
    _partial("ix_outbox_messages_held", "state", "id", where="state NOT IN ('pending', 'sent')"),
    _partial("ix_outbox_messages_sent", "sent_at", where="state = 'sent'"),
    _full("ix_outbox_messages_state_due", "state", "destination", "topic", "ordering_key", "available_at", "id"),
    _full("ix_outbox_messages_state_ordered", "state", "destination", "topic", "ordering_key", "id"),
    _full("ix_outbox_messages_state_sent", "state", "sent_at"),
    **_OPTIONS,
)

pauses = Table(
    "outbox_pauses",
    metadata,
    Column("destination", exact(64), primary_key=True),
    Column("topic", exact(64), primary_key=True),
    # The circuit breaker's pause and an operator's may hold one lane at the same time.
    Column("automatic", Boolean, primary_key=True),
    Column("until", Instant),
    Column("by", exact(150), nullable=False),
    Column("reason", Text, nullable=False),
    Column("failures", Integer, nullable=False, default=0),
    Column("created_at", Instant, nullable=False, default=db_now()),
    **_OPTIONS,
)

attempts = Table(
    "outbox_attempts",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("message_row_id", BigInteger, nullable=False),
    Column("at", Instant, nullable=False, default=db_now()),
    Column("code", exact(64), nullable=False),
    Column("http_status", Integer),
    Column("request_id", exact(64)),
    Column("text", Text, nullable=False),
    Column("outcome_known", Boolean, nullable=False),
    Index("ix_outbox_attempts_message_row_id", "message_row_id", "id"),
    **_OPTIONS,
)

audit = Table(
    "outbox_audit",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False, default=db_now()),
    Column("by", exact(150), nullable=False),
    Column("action", exact(32), nullable=False),
    Column("outbox_id", exact(36)),
    Column("destination", exact(64)),
    Column("topic", exact(64)),
    Column("keys", Text),
    Column("reason", Text, nullable=False),
    Index("ix_outbox_audit_outbox_id", "outbox_id"),
    **_OPTIONS,
)

meta = Table(
    "outbox_meta",
    metadata,
    # Always 1: two processes that come first together must agree on one origin.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("origin", exact(36), nullable=False),
    Column("environment", exact(64), nullable=False),
    # JSON: by destination, the endpoint, instance id and group id that half messages were first posted with.
    Column("bindings", Text, nullable=False),
    Column("created_at", Instant, nullable=False, default=db_now()),
    **_OPTIONS,
)

checks = Table(
    "outbox_checks",
    metadata,
    Column("checker", exact(64), primary_key=True),
    Column("destination", exact(64), primary_key=True),
    Column("topic", exact(64), primary_key=True),
    Column("group_id", exact(64), primary_key=True),
    Column("mark", exact(16), nullable=False),
    Column("marked_at", Instant, nullable=False, default=db_now()),
    Column("open_until", Instant),
    Column("succeeded_at", Instant),
    Column("canary_outbox_id", exact(36)),
    Column("canary_check_s", Integer),
    Column("canary_posted_at", Instant),
    Column("canary_offered_at", Instant),
    # None is posted before that, and how many in a row have proven nothing.
    Column("canary_after", Instant),
    Column("canary_failures", Integer, nullable=False, default=0),
    CheckConstraint("mark IN ('open', 'failed', 'closed')", name="ck_outbox_checks_mark"),
    **_OPTIONS,
)


def new_outbox_id() -> str:
    """A UUID of version 7 (RFC 9562): ordered by time, so that the unique index grows at one end only."""
    stamp = int(time.time() * 1000).to_bytes(6, "big")
    value = int.from_bytes(stamp + os.urandom(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    return str(UUID(int=value & ~(0x3 << 62) | (0x2 << 62)))


def outbox_ids_from(instant: datetime) -> str:
    """A lower bound of the outbox_ids made from this millisecond on, and of no earlier one; by the enqueuer's clock."""
    digits = f"{int(instant.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def row_of(message: Message, horizon_s: float) -> dict[str, Any]:
    """The columns to insert for one message; what is not named has its default.

    Args:
        message: checked by its own construction.
        horizon_s: seconds ahead of now that the broker takes a scheduled message; a later one waits in the outbox.
    """
    outbox_id = new_outbox_id()
    row = {
        "outbox_id": outbox_id,
        "destination": message.destination,
        "topic": message.topic,
        "tag": message.tag,
        "keys": " ".join(message.keys) or None,
        "properties": message.properties_as_sent(outbox_id),
        "ordering_key": message.ordering_key,
        "deduplication_key": message.deduplication_key,
        "body": message.body,
        "body_bytes": message.body_bytes,
    }
    if message.transaction_check_s is not None:
        row["transaction_check_s"] = message.transaction_check_s
    if message.deliver_at is not None:
        row |= {"deliver_at": message.deliver_at, "available_at": message.deliver_at - timedelta(seconds=horizon_s)}
    return row
