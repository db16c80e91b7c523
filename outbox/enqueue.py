"""Enqueue: INSERT messages in the caller's own transaction. It never commits, and it never touches the network.

The row exists exactly if the caller's transaction commits; everything else follows from that.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, Executable
from sqlalchemy.orm import Session, scoped_session

from outbox.after_commit import after_commit, call_after_commit
from outbox.errors import EnqueueError
from outbox.insertion import Row, insert, rows_of
from outbox.message import Message
from outbox.settings import Settings
from outbox.sqlite import is_prepared

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

__all__ = ["after_commit", "configure", "enqueue", "enqueue_async"]

_SETTINGS = ("OUTBOX_DELIVER_HORIZON_S", "OUTBOX_TABLE_SCHEMA")
# By dialect, which an engine keeps for its life and shares with whatever is derived from it by execution options.
_configured: WeakKeyDictionary[Dialect, Settings] = WeakKeyDictionary()


def configure(engine: "Engine | AsyncEngine", settings: Settings) -> None:
    """Have `enqueue` on this engine follow ``settings`` instead of the environment.

    Only ``table_schema`` and ``deliver_horizon_s`` matter there. A later call for the same engine replaces the first.
    """
    _configured[engine.dialect] = settings


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
    settings = _configured.get(connection.dialect) or _from_env()
    rows = rows_of(many, settings.deliver_horizon_s)
    ids, new = insert(_Target(connection, settings.table_schema), rows)
    if new:
        call_after_commit(target, connection)
    return ids


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


class _Target:
    """The caller's connection, as `outbox.insertion` writes through it."""

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self.dialect = connection.dialect
        self.returns_many = connection.dialect.insert_executemany_returning
        self._connection = connection
        self._options: dict[str, Any] = {"schema_translate_map": {None: schema}} if schema else {}

    def fetch(self, statement: Executable, parameters: Any = None) -> Sequence[Any]:
        return self._connection.execute(statement, parameters, execution_options=self._options).all()

    def execute_many(self, statement: Executable, rows: list[Row]) -> None:
        self._connection.execute(statement, rows, execution_options=self._options)


@cache
def _from_env() -> Settings:
    return Settings.from_env({key: os.environ[key] for key in _SETTINGS if key in os.environ})
