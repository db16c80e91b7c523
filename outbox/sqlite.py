"""Makes SQLite's transactions real.

Python's sqlite3 module begins no transaction before a SELECT or a SAVEPOINT, so that a row written inside a savepoint
survives the rollback of what stands around it. The remedy is the one that SQLAlchemy documents: sqlite3 begins nothing
by itself any more, and every transaction of SQLAlchemy's begins with a BEGIN.
"""

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, event

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["BEGIN", "declare_prepared", "is_prepared", "prepare_sqlite"]

#: Name of a connection's execution option: the statement that begins its transactions; ``"BEGIN"`` where not given.
BEGIN = "outbox_sqlite_begin"

_PREPARED = "outbox_prepared"
_BUSY_TIMEOUT_MS = 10_000


def prepare_sqlite(engine: "Engine | AsyncEngine") -> None:
    """Have every transaction of ``engine`` begin with a BEGIN, in WAL mode; call it once, where the engine is made.

    WAL lets the relay read and write while the application reads. A connection waits at least 10 s for another's write
    to end before it raises "database is locked". A second call changes nothing; connections that the pool already
    holds are prepared when they are next used.

    Args:
        engine: a SQLite engine, of sqlite3 or of aiosqlite.
    """
    sync_engine = engine if isinstance(engine, Engine) else engine.sync_engine
    if not event.contains(sync_engine, "begin", _begin):
        event.listen(sync_engine, "checkout", _prepare)
        event.listen(sync_engine, "begin", _begin)


def is_prepared(connection: Connection) -> bool:
    """Whether `prepare_sqlite` has seen to this connection."""
    return _PREPARED in connection.info


def declare_prepared(record: Any) -> None:
    """Have a pool's connection left as it is, in whose transactions somebody else sees to all this."""
    record.info[_PREPARED] = True


def _prepare(driver_connection: Any, record: Any, _proxy: Any) -> None:
    # At each checkout, since a connection that was in AUTOCOMMIT mode comes back with sqlite3's own BEGINs.
    driver_connection.isolation_level = None
    if _PREPARED not in record.info:
        cursor = driver_connection.cursor()
        cursor.execute("PRAGMA busy_timeout")
        (timeout_ms,) = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {max(timeout_ms, _BUSY_TIMEOUT_MS)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()
        record.info[_PREPARED] = True


def _begin(connection: Connection) -> None:
    connection.info[_PREPARED] = True
    driver_connection: Any = connection.connection.driver_connection
    # An application that already follows SQLAlchemy's recipe has a listener of its own.
    if not driver_connection.in_transaction:
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))
