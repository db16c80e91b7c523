"""Looking without touching: what the commands and the operator's pages show, as plain values ready for JSON.

Instants are ISO 8601 in UTC with microseconds and a ``Z``, and ``properties`` an object of all as sent.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    MetaData,
    RowMapping,
    Select,
    String,
    Table,
    func,
    inspect,
    literal_column,
    or_,
    select,
    union_all,
)

from outbox.errors import OperationError
from outbox.states import State
from outbox.store import silence
from outbox.store.conditions import held, is_message, ordered, state_is, unordered, waiting_since
from outbox.store.database import Database
from outbox.store.filter import Filter
from outbox.table import Instant, attempts, audit, db_now, messages, pauses

__all__ = [
    "as_message",
    "audited",
    "counts",
    "list_messages",
    "listed",
    "oldest_pending_s",
    "paused",
    "plain",
    "schema_version",
    "show",
    "status",
]

_VERSION = Table("outbox_alembic_version", MetaData(), Column("version_num", String(32)))
_LEASE = frozenset({"lease_until", "lease_token"})


def status(database: Database) -> dict[str, Any]:
    """Everything that ``outbox status --json`` shows: `counts`, and under their names the three functions below.

    And under ``half_messages`` the topics that have any, see `outbox.store.silence.progress`.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return {
        **counts(database),
        "oldest_pending_s": oldest_pending_s(database),
        "paused": paused(database),
        "half_messages": silence.progress(database),
        "schema_version": schema_version(database),
    }


def counts(database: Database) -> dict[str, int]:
    """The number of messages in each state, every state named.

    Finished messages are counted by what is left of all, for no index has them; PostgreSQL and InnoDB count all rows in
    their smallest index.

    Raises:
        DatabaseError: see `Database.run`.
    """
    found: dict[str, int] = dict.fromkeys((*State, "all"), 0)
    for state, number in database.read(lambda connection: connection.execute(_counts()).all()):
        found[state] += number
    total = found.pop("all")
    return {str(state): number for state, number in found.items()} | {"sent": max(0, total - sum(found.values()))}


def oldest_pending_s(database: Database) -> float | None:
    """Seconds that the oldest pending message has waited, None without any.

    A message with ``deliver_at`` waits only from when the broker would take it; before, it does not count.

    Raises:
        DatabaseError: see `Database.run`.
    """
    now, *instants = database.read(lambda connection: connection.execute(_oldest()).one())
    known = [instant for instant in instants if instant is not None]
    return max(0.0, (now - min(known)).total_seconds()) if known else None


def paused(database: Database) -> list[dict[str, Any]]:
    """The pauses in force: ``destination``, ``topic``, ``until`` (None until resumed), ``by`` and ``reason``.

    Raises:
        DatabaseError: see `Database.run`.
    """
    columns = (pauses.c.destination, pauses.c.topic, pauses.c.until, pauses.c.by, pauses.c.reason)
    in_force = or_(pauses.c.until.is_(None), pauses.c.until > db_now())
    query = select(*columns).where(in_force).order_by(*columns[:2], pauses.c.automatic)
    return database.read(lambda connection: [plain(row) for row in connection.execute(query).mappings()])


def schema_version(database: Database, *, is_migrated: bool = False) -> str | None:
    """The revision that `outbox.migrate` left, None where it never ran.

    Args:
        database: the outbox's.
        is_migrated: it did run; so there is one statement instead of two.

    Raises:
        DatabaseError: see `Database.run`.
    """

    def work(connection: Connection) -> str | None:
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        if not (is_migrated or inspect(connection).has_table(_VERSION.name, schemas.get(None))):
            return None
        version: str | None = connection.scalar(select(_VERSION.c.version_num))
        return version

    return database.read(work)


def list_messages(
    database: Database,
    *,
    state: State | None = None,
    destination: str | None = None,
    topic: str | None = None,
    key: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Messages, newest first, as in `show` but without their bodies and histories.

    Args:
        database: the outbox's.
        state: only those in this state.
        destination: only those of this destination.
        topic: only those of this topic.
        key: only those with this key among their keys, compared byte by byte.
        limit: at most so many.

    Raises:
        DatabaseError: see `Database.run`.
    """
    meant = Filter(state=state, destination=destination, topic=topic, key=key)
    query = select(*listed(messages)).where(*meant.conditions(messages)).order_by(messages.c.id.desc()).limit(limit)
    return database.read(lambda connection: [as_message(row) for row in connection.execute(query).mappings()])


def as_seen(database: Database, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Of the rows with these ids, as far as there are any, what an act on them must know: id, state and replays.

    Raises:
        DatabaseError: see `Database.run`.
    """
    columns = (messages.c.id, messages.c.state, messages.c.replays)
    query = select(*columns).where(messages.c.id.in_(ids)).order_by(messages.c.id)
    return database.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])


def listed(rows: FromClause) -> list[ColumnElement[Any]]:
    """The columns of a list: all but the body and the lease."""
    return [column for column in rows.c if column.name not in {"body", *_LEASE}]


def show(database: Database, reference: int | str, *, with_body: bool = True) -> dict[str, Any]:
    """One message: every column but the lease, and ``history``, its attempts that did not end well, oldest first.

    Args:
        database: the outbox's.
        reference: a row id (an int, or a string of digits) or an outbox_id.
        with_body: False leaves the body out.

    Raises:
        OperationError: there is no such message.
        DatabaseError: see `Database.run`.
    """
    columns = [*listed(messages), *([messages.c.body] if with_body else [])]
    query = select(*columns).where(is_message(messages, reference))

    def work(connection: Connection) -> dict[str, Any]:
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise OperationError(f"there is no message {reference}")
        told = (column for column in attempts.c if column.name not in {"id", "message_row_id"})
        history = select(*told).where(attempts.c.message_row_id == row["id"]).order_by(attempts.c.id)
        return as_message(row) | {"history": [plain(attempt) for attempt in connection.execute(history).mappings()]}

    return database.read(work)


def audited(database: Database, *, outbox_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """What operators did, newest first, to one message or to any.

    Raises:
        DatabaseError: see `Database.run`.
    """
    query = select(*(column for column in audit.c if column.name != "id"))
    query = query.where(audit.c.outbox_id == outbox_id) if outbox_id else query
    query = query.order_by(audit.c.id.desc()).limit(limit)
    return database.read(lambda connection: [plain(row) for row in connection.execute(query).mappings()])


# --- statements ---------------------------------------------------------------------------------------------------


@cache
def _counts() -> CompoundSelect[Any]:
    """Unfinished messages through their partial indexes, and all."""
    number, pending = func.count(), literal_column(f"'{State.PENDING}'", String())
    return union_all(
        select(pending, number).where(unordered(messages)),
        select(pending, number).where(ordered(messages), state_is(messages, State.PENDING)),
        select(messages.c.state, number).where(held(messages)).group_by(messages.c.state),
        select(literal_column("'all'", String()), number).select_from(messages),
    )


@cache
def _oldest() -> Select[Any]:
    """The database's time, and since when the oldest message waits: of the unordered ones, and of the ordered."""
    oldest = select(func.min(waiting_since(messages), type_=Instant()))
    of_ordered = oldest.where(ordered(messages), state_is(messages, State.PENDING))
    return select(db_now(), oldest.where(unordered(messages)).scalar_subquery(), of_ordered.scalar_subquery())


# --- values -------------------------------------------------------------------------------------------------------


def as_message(row: RowMapping) -> dict[str, Any]:
    """A message's columns, ready for JSON."""
    properties = dict(pair.split(":", 1) for pair in row["properties"].split("|") if pair)
    return plain(row) | {"properties": properties, "keys": row["keys"] or ""}


def plain(row: RowMapping) -> dict[str, Any]:
    """A row with its instants as text."""
    return {name: _text(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
