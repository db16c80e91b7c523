"""A database inside the simulation: SQLite with a virtual clock, whose every call may switch threads or fail.

Writers wait for each other in virtual time; readers see what is committed. A lost connection loses its transaction,
unless it was lost after the commit was done.
"""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event

from outbox import prepare_sqlite
from outbox.migrate import upgrade
from outbox.table import metadata
from tests.reliability.sim_chaos import Chaos
from tests.reliability.sim_clock import Killed

__all__ = ["HISTORY", "SimDatabase"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Rows that were deleted, and every change of a row's state or MessageId, for those who judge the schedule.
HISTORY = """
CREATE TABLE sim_gone AS SELECT * FROM outbox_messages WHERE 0;
CREATE TABLE sim_changes (
    outbox_id TEXT, replays INTEGER, old_state TEXT, new_state TEXT, old_message_id TEXT, new_message_id TEXT,
    old_replays INTEGER, confirmed_by TEXT
);
CREATE TRIGGER sim_delete AFTER DELETE ON outbox_messages WHEN (SELECT armed FROM sim_armed)
BEGIN INSERT INTO sim_gone SELECT OLD.*; END;
CREATE TRIGGER sim_change AFTER UPDATE ON outbox_messages
WHEN OLD.state <> NEW.state OR OLD.message_id IS NOT NEW.message_id OR OLD.replays <> NEW.replays
BEGIN
    INSERT INTO sim_changes VALUES
    (NEW.outbox_id, NEW.replays, OLD.state, NEW.state, OLD.message_id, NEW.message_id, OLD.replays, NEW.confirmed_by);
END;
"""


class Lost(sqlite3.OperationalError):
    """The connection to the database is gone."""


class Busy(sqlite3.OperationalError):
    """The database undid the transaction because of another one."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


class SimDatabase:
    """One file for many schedules, emptied for each.

    Attributes:
        engine: what the simulated processes share; SQLAlchemy's pool holds their connections.
        raw: a connection that is not part of the simulation, in autocommit mode.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "simulated.sqlite"
        self.chaos: Chaos | None = None
        self._now: Callable[[], float] = lambda: 0.0
        self._writer: Any = None
        self._on_change: Callable[[Any], None] = lambda _change: None
        self._judged = 0
        self.engine = self._build(path)
        upgrade(self.engine)
        self.raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.raw.row_factory = sqlite3.Row
        columns = ", ".join(f"OLD.{row['name']}" for row in self.raw.execute("PRAGMA table_info(outbox_messages)"))
        self.raw.execute("PRAGMA synchronous = OFF")
        self.raw.execute("CREATE TABLE sim_armed (armed INTEGER)")
        self.raw.execute("INSERT INTO sim_armed VALUES (0)")
        self.raw.executescript(HISTORY.replace("SELECT OLD.*", f"SELECT {columns}"))
        self._tables = [*(table.name for table in metadata.tables.values()), "sim_gone", "sim_changes"]

    def enter(
        self, chaos: Chaos, now: Callable[[], float], on_change: Callable[[Any], None] = lambda _change: None
    ) -> None:
        """Begin a schedule, with empty tables; ``on_change`` is told of each row's change at once when it is done."""
        self.leave()
        self._on_change, self._judged = on_change, 0
        self._writer, self._now = None, now
        for statement in ("BEGIN", "UPDATE sim_armed SET armed = 0"):
            self.raw.execute(statement)
        for table in self._tables:
            self.raw.execute(f"DELETE FROM {table}")
        for statement in ("DELETE FROM sqlite_sequence", "UPDATE sim_armed SET armed = 1", "COMMIT"):
            self.raw.execute(statement)
        self.chaos = chaos

    def leave(self) -> None:
        """End a schedule: calls are calls again."""
        self.chaos = None

    def close(self) -> None:
        """Close the file."""
        self.leave()
        self.raw.close()
        self.engine.dispose()

    # --- the engine ---

    def _build(self, path: Path) -> Engine:
        engine = sqlalchemy.create_engine(f"sqlite:///{path}", hide_parameters=True, pool_size=60)
        prepare_sqlite(engine)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "handle_error", self._handle_error)
        dialect: Any = engine.dialect
        self._execute, self._commit = dialect.do_execute, dialect.do_commit
        self._rollback, self._close = dialect.do_rollback, dialect.do_close
        self._terminate = dialect.do_terminate
        dialect.do_execute, dialect.do_commit = self._do_execute, self._do_commit
        dialect.do_rollback, dialect.do_close = self._do_rollback, self._do_close
        dialect.do_terminate = self._do_terminate
        return engine

    def _connected(self, connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.create_function("strftime", -1, self._strftime, deterministic=True)

    def _strftime(self, _form: str, _now: str, shift: str = "+0 seconds") -> str:
        at = _EPOCH + timedelta(seconds=self._now() + float(shift.split(maxsplit=1)[0]))
        return at.strftime("%Y-%m-%d %H:%M:%S.%f")

    @staticmethod
    def _handle_error(context: Any) -> None:
        if isinstance(context.original_exception, Lost):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False

    # --- the calls ---

    def _do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        chaos = self.chaos
        if chaos is not None:
            connection = cursor.connection
            if statement == "BEGIN IMMEDIATE":
                chaos.pass_by("begin")
                self._maybe_down(chaos)
                chaos.clock.wait_until(self._has_no_writer)
                self._writer = connection
            elif statement != "BEGIN":
                if self._writer is not connection:
                    chaos.pass_by("read")
                self._maybe_down(chaos)
                if chaos.strikes("db_busy"):
                    raise Busy("database is locked")
                if chaos.strikes("db_lost"):
                    raise Lost("server closed the connection unexpectedly")
            if chaos.log is not None:
                chaos.note(" ".join(statement.split())[:150] + f"  {str(parameters)[:200]}")
        self._execute(cursor, statement, parameters, context)

    def _has_no_writer(self) -> bool:
        return self._writer is None

    def _maybe_down(self, chaos: Chaos) -> None:
        now = chaos.clock.now
        if chaos.strikes("db_down"):
            chaos.down_until = now + chaos.long()
        if now < chaos.down_until:
            raise Lost("could not connect to server")

    def _do_commit(self, connection: Any) -> None:
        chaos, raw = self.chaos, connection.dbapi_connection
        if chaos is None or raw is not self._writer:
            self._commit(connection)
            return
        try:
            chaos.pass_by("commit")
        except Killed:
            self._undo(raw)
            raise
        if chaos.strikes("commit_lost"):
            self._undo(raw)
            raise Lost("server closed the connection unexpectedly")
        self._commit(connection)
        self._release(raw)
        self._tell()
        if chaos.log is not None:
            chaos.note("COMMIT")
        chaos.pass_by("committed")
        if chaos.strikes("commit_done_then_lost"):
            raise Lost("server closed the connection unexpectedly")

    def _tell(self) -> None:
        for change in self.raw.execute("SELECT rowid, * FROM sim_changes WHERE rowid > ?", (self._judged,)).fetchall():
            self._judged = change["rowid"]
            self._on_change(change)

    def _do_rollback(self, connection: Any) -> None:
        self._rollback(connection)
        self._release(getattr(connection, "dbapi_connection", connection))

    def _do_close(self, connection: Any) -> None:
        self._close(connection)
        self._release(connection)

    def _do_terminate(self, connection: Any) -> None:
        self._terminate(connection)
        self._release(connection)

    def _undo(self, raw: Any) -> None:
        raw.rollback()
        self._release(raw)

    def _release(self, raw: Any) -> None:
        if raw is self._writer:
            self._writer = None
