"""An engine on Django's own connection, inside the transaction that is open there: for tests, which never commit.

Each of its transactions is a savepoint. Whoever rolls back the transaction around them takes all of it back.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from outbox.django.databases import url_of
from outbox.sqlite import declare_prepared
from outbox.store.engine import READ_COMMITTED

__all__ = ["shared_engine"]

_SAVEPOINT = "outbox_shared"
_WAIT_S = 30


def shared_engine(connection: BaseDatabaseWrapper) -> Engine:
    """The engine; threads may share it, and wait for each other: there is one connection.

    Args:
        connection: of Django's, with a transaction open.
    """
    # A pool that gives it to one thread after the other is what makes the sharing safe.
    engine = create_engine(
        url_of(connection).set(query={}),
        creator=lambda: _Borrowed(connection.connection),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=_WAIT_S,
        hide_parameters=True,
        execution_options={READ_COMMITTED: True},
        **({"use_native_hstore": False} if connection.vendor == "postgresql" else {}),
    )
    if connection.vendor == "sqlite":
        event.listen(engine, "connect", lambda _borrowed, record: declare_prepared(record))
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    borrowed: Any = connection.connection.driver_connection
    borrowed.begin()


class _Borrowed:
    """The driver's connection, but that it ends no transaction that it has not begun, and closes nothing."""

    def __init__(self, driver_connection: Any) -> None:
        self._lent = driver_connection
        self._is_open = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lent, name)

    def cursor(self, *args: Any, **options: Any) -> Any:
        return _Texts(self._lent.cursor(*args, **options))

    def begin(self) -> None:
        self._execute(f"SAVEPOINT {_SAVEPOINT}")
        self._is_open = True

    def commit(self) -> None:
        self._end()

    def rollback(self) -> None:
        if self._is_open:
            self._execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        self._end()

    def close(self) -> None:
        """Stay open: it is Django's."""

    def create_function(self, *_: Any, **__: Any) -> None:
        """Leave Django's own functions alone."""

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")

    def _execute(self, statement: str) -> None:
        cursor = self._lent.cursor()
        cursor.execute(statement)
        cursor.close()


class _Texts:
    """A cursor that gives SQLite's instants as the texts that they are; Django has had sqlite3 convert them."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def fetchone(self) -> Any:
        row = self._cursor.fetchone()
        return row if row is None else self._row(row)

    def fetchmany(self, *size: int) -> list[Any]:
        return [self._row(row) for row in self._cursor.fetchmany(*size)]

    def fetchall(self) -> list[Any]:
        return [self._row(row) for row in self._cursor.fetchall()]

    def _row(self, row: Sequence[Any]) -> Sequence[Any]:
        if not type(self._cursor).__module__.startswith("sqlite3"):
            return row
        return tuple(one.isoformat(" ", "microseconds") if isinstance(one, datetime) else one for one in row)
