"""The outbox's database: one short transaction at a time, and its errors in one line."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from outbox.errors import DatabaseError
from outbox.sqlite import BEGIN, prepare_sqlite
from outbox.store.dialects import is_not_migrated, is_transient
from outbox.store.engine import READ_COMMITTED

__all__ = ["Database", "one_line"]

T = TypeVar("T")

log = logging.getLogger("outbox")

# Upper bounds of the waits between tries, in seconds: five tries in all.
_WAITS_S = (0.02, 0.08, 0.3, 1.0)
_SAID_CHARACTERS = 300


class Database:
    """One engine, and how the outbox runs its transactions on it. Threads may share it.

    Args:
        engine: any engine, such as the application's own; a SQLite one is prepared, see `outbox.prepare_sqlite`.
        sleep: waits so many seconds between two tries.
    """

    def __init__(self, engine: Engine, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self.engine = engine
        self._sleep = sleep
        self._writer = self._reader = _read_committed(engine)
        if engine.dialect.name == "sqlite":
            prepare_sqlite(engine)
            # Two transactions that have both read cannot both go on to write; so ours lock before they read.
            self._writer = engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call ``work`` within one READ COMMITTED transaction (on SQLite BEGIN IMMEDIATE) and commit it.

        ``work`` is called again, with a new transaction, after a deadlock, a serialization failure or a lock wait that
        timed out (five times in all, with jitter), and once after a connection that was lost before the commit. It must
        therefore have no effects but those on its connection.

        Raises:
            DatabaseError: one line without the password: the database is unreachable, not migrated, or refused. When
                the connection was lost *during* the commit, the transaction may have been committed.
        """
        return self._transact(self._writer, work)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Same as `run`, for work that writes nothing: on SQLite it does not wait for writers."""
        return self._transact(self._reader, work)

    def _transact(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        waits = iter(_WAITS_S)
        reconnects = iter((0.0,))
        while True:
            attempt = _Attempt(engine)
            try:
                return attempt.run(work)
            except DBAPIError as error:
                lost = error.connection_invalidated and not attempt.committing
                wait = next(waits if is_transient(error) else reconnects if lost else iter(()), None)
                if wait is None:
                    log.debug("outbox.statement_failed", extra={"statement": error.statement})
                    # Without the driver's error, which may repeat the row that the server refused.
                    raise DatabaseError(_explained(error, engine.url, connected=attempt.connected)) from None
                self._sleep(random.uniform(0, wait))  # noqa: S311 - jitter is no secret
            except PoolTimeoutError as error:
                raise DatabaseError(f"no connection to {_named(engine.url)} came free in time") from error


class _Attempt:
    """One try, and how far it came."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.connected = False
        self.committing = False

    def run(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            self.connected = True
            with connection.begin() as transaction:
                result = work(connection)
                self.committing = True
                transaction.commit()
                return result


def _read_committed(engine: Engine) -> Engine:
    ours = engine.get_execution_options().get(READ_COMMITTED)
    if ours or engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="READ COMMITTED")


def _explained(error: DBAPIError, url: URL, *, connected: bool) -> str:
    database, said = _named(url), _first_line(error)
    if not connected:
        explained = f"cannot reach {database}: {said}"
    elif error.connection_invalidated:
        explained = f"lost the connection to {database}: {said}"
    elif is_not_migrated(error):
        explained = f"run outbox migrate: {database} lacks what this version needs ({said})"
    else:
        explained = f"{database} refused: {said}"
    return explained.replace(str(url.password), "***") if url.password else explained


def _named(url: URL) -> str:
    server = "" if url.host is None else f"{url.host}/" if url.port is None else f"{url.host}:{url.port}/"
    return f"the database {server}{url.database or ''} ({url.get_backend_name()})"


def _first_line(error: DBAPIError) -> str:
    """What the driver says; some put a number before it."""
    said = [part for part in getattr(error.orig, "args", ()) if isinstance(part, str) and part]
    return one_line(said[-1].split("\n", 1)[0], _SAID_CHARACTERS) if said else type(error.orig).__name__


def one_line(text: str, limit: int) -> str:
    """``text`` without characters that do not print, at most ``limit`` characters long."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit]
