"""The outbox's database: one short transaction at a time, and its errors in one line."""

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from outbox.errors import ConfigError, DatabaseError
from outbox.sqlite import BEGIN, prepare_sqlite
from outbox.store.dialects import is_not_migrated, is_transient
from outbox.store.engine import READ_COMMITTED

__all__ = ["Database", "one_line"]

T = TypeVar("T")

log = logging.getLogger("outbox")

# Upper bounds of the waits between tries, in seconds: five tries in all.
_WAITS_S = (0.02, 0.08, 0.3, 1.0)
_SAID_CHARACTERS = 300
_SHORTEST_MASKED = 4


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
            ConfigError: the driver cannot make anything of the URL.
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
            except (TypeError, ValueError, OSError) as error:
                if attempt.connected:
                    raise
                raise _refused_by_driver(error, engine.url) from None


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
    database, said = _named(url), _without_password(_first_line(error), url)
    if not connected and url.get_backend_name() == "sqlite":
        return f"cannot open {database}: {said}"
    if not connected:
        return _unreachable(url, said)
    if error.connection_invalidated:
        return f"lost the connection to {database}: {said}"
    if is_not_migrated(error):
        return f"run outbox migrate: {database} lacks what this version needs ({said})"
    return f"{database} refused: {said}"


def _refused_by_driver(error: TypeError | ValueError | OSError, url: URL) -> ConfigError | DatabaseError:
    """What a driver raises in its own name, before there is a connection, of what the URL told it."""
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return DatabaseError(_unreachable(url, f"{named}{error.strerror or type(error).__name__}"))
    said = _without_password(one_line(str(error), _SAID_CHARACTERS), url)
    problem = f"the driver {url.drivername} cannot use it: {said}"
    return ConfigError("OUTBOX_DATABASE_URL", f"{problem}; check the host, and what stands after the question mark")


def _unreachable(url: URL, said: str) -> str:
    return f"cannot reach {_named(url)}: {said}; check OUTBOX_DATABASE_URL, and that the server runs"


def _without_password(text: str, url: URL) -> str:
    """No driver is known to repeat a password, and one such as ``outbox`` is a part of names that must be told."""
    password = str(url.password or "")
    if len(password) < _SHORTEST_MASKED:
        return text
    return re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "***", text)


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
