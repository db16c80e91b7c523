"""Brings a database to the schema of this version, by Alembic, with a version table of the outbox's own.

Alembic is handed a connection, never a URL: in its configuration a ``%``, as in a password, means something else. The
migrations are found by path, beside the package in a checkout and inside it in a wheel.
"""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Dialect, Engine, inspect, text
from sqlalchemy.schema import CreateSchema, SchemaItem

from outbox.errors import DatabaseError
from outbox.store.database import Database
from outbox.store.engine import make_file
from outbox.table import MYSQL, metadata

__all__ = ["VERSION_TABLE", "current", "downgrade", "head", "include_object", "sql", "statements", "upgrade"]

#: Not Alembic's usual name: the application may have migrations of its own in the same database.
VERSION_TABLE = "outbox_alembic_version"

T = TypeVar("T")

_ADVISORY_LOCK = int.from_bytes(b"outbox", "big")
_LOCK_WAIT_S = 60
_OURS = frozenset({VERSION_TABLE, *(table.name for table in metadata.tables.values())})
# Alembic hands its environment through module globals.
_ONE_AT_A_TIME = Lock()


def upgrade(engine: Engine) -> None:
    """Bring the database to the schema of this version; nothing happens when it is there already.

    Safe to run twice, by several processes at once (they wait for each other), and while workers of the release before
    this one run. With the engine's schema (``OUTBOX_TABLE_SCHEMA``), that schema is created where it is missing.

    Raises:
        DatabaseError: one line: unreachable, no permission, or already at a revision that this version does not know.
    """

    def work(connection: Connection) -> None:
        schema = _schema(engine)
        if schema and not inspect(connection).has_schema(schema):
            connection.execute(CreateSchema(schema, if_not_exists=True))
        _run(command.upgrade, connection, "head")

    make_file(engine)
    _locked(engine, work)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the schema back to ``revision``; ``"base"`` drops every table of ours, with what is in it.

    Raises:
        DatabaseError: as for `upgrade`, or there is no such revision.
    """
    _locked(engine, lambda connection: _run(command.downgrade, connection, revision))


def current(engine: Engine) -> str | None:
    """The database's revision, None for one that was never migrated.

    Raises:
        DatabaseError: it is unreachable.
    """
    options = {"version_table": VERSION_TABLE, "version_table_schema": _schema(engine)}
    return Database(engine).read(lambda one: MigrationContext.configure(one, opts=options).get_current_revision())


def head() -> str:
    """The revision that this version of the package needs."""
    return str(ScriptDirectory.from_config(_config(None)).get_current_head())


def sql(engine: Engine) -> str:
    """The SQL that `upgrade` would run on an empty database, for somebody else to run.

    It connects to a ``mysql+…`` URL only, to tell MariaDB from MySQL, which need different collations. Where nothing
    answers there, the statements are MySQL's, and a comment says so; ``mariadb+…`` makes them MariaDB's.
    """
    out = StringIO()
    if engine.dialect.name == "mysql":
        try:
            Database(engine).read(lambda _connection: None)
        except DatabaseError:
            out.write("-- For MySQL, since no server answered. For MariaDB give the URL as mariadb+pymysql://…\n\n")
    config = _config(_schema(engine), out)
    options = {"is_mariadb": getattr(engine.dialect, "is_mariadb", None)} if engine.dialect.name in MYSQL else {}
    config.attributes |= {"dialect": engine.dialect.name, "dialect_opts": {"paramstyle": "named"} | options}
    if schema := _schema(engine):
        create = CreateSchema(schema, if_not_exists=True).compile(dialect=engine.dialect)
        out.write(f"{create};\n\n")
    with _ONE_AT_A_TIME:
        command.upgrade(config, "head", sql=True)
    return out.getvalue()


def statements(dialect: Dialect, revisions: str) -> list[str]:
    """The statements, and no transaction around them, for a host that runs migrations of its own.

    Args:
        dialect: of the database, which knows MariaDB from MySQL.
        revisions: from which to which, as ``"base:0001"``, or back, as ``"0001:base"``.
    """
    out = _Statements()
    config = _config(None, out)
    options = {"is_mariadb": getattr(dialect, "is_mariadb", None)} if dialect.name in MYSQL else {}
    config.attributes |= {
        "dialect": dialect.name,
        "dialect_opts": {"paramstyle": "named"} | options,
        "transactional_ddl": False,
    }
    back = revisions.endswith(":base")
    with _ONE_AT_A_TIME:
        (command.downgrade if back else command.upgrade)(config, revisions, sql=True)
    return out.found


class _Statements(StringIO):
    """What Alembic prints, statement by statement: it writes each in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def write(self, text: str, /) -> int:
        statement = text.strip().removesuffix(";")
        if statement and not statement.startswith("--"):
            self.found.append(statement)
        return len(text)


def include_object(
    _object: SchemaItem,
    name: str | None,
    type_: Literal[
        "schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint", "check_constraint"
    ],
    _reflected: bool,
    _compare_to: SchemaItem | None,
) -> bool:
    """For the application's own Alembic: leave the outbox's tables alone.

    Without it, ``alembic revision --autogenerate`` finds tables that the application's metadata does not have, and
    drops them. Give it to ``context.configure(include_object=…)``, or to Flask-Migrate's
    ``Migrate(app, db, include_object=…)``.
    """
    return not (type_ == "table" and name in _OURS)


def _locked(engine: Engine, work: Callable[[Connection], None]) -> None:
    """Run ``work`` in a transaction that no other migration of this database runs beside."""

    def alone(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if connection.dialect.name in MYSQL:
            _with_named_lock(connection, work)
        else:
            # SQLite's transaction has locked the database as it began.
            work(connection)

    try:
        Database(engine).run(alone)
    except CommandError as error:
        raise DatabaseError(f"cannot migrate: {error}; is this an older version of rocketmq-outbox?") from error


def _with_named_lock(connection: Connection, work: Callable[[Connection], None]) -> None:
    # Of the session, not of the transaction: each CREATE ends a transaction here.
    name = "LEFT(CONCAT('outbox_migrate.', DATABASE()), 64)"
    if not connection.scalar(text(f"SELECT GET_LOCK({name}, {_LOCK_WAIT_S})")):
        raise DatabaseError(f"another migration of this database has been running for {_LOCK_WAIT_S} s")
    try:
        work(connection)
    finally:
        connection.execute(text(f"SELECT RELEASE_LOCK({name})"))


def _run(verb: Callable[[Config, str], None], connection: Connection, revision: str) -> None:
    config = _config(_schema(connection))
    config.attributes["connection"] = connection
    with _ONE_AT_A_TIME:
        verb(config, revision)


def _config(schema: str | None, out: StringIO | None = None) -> Config:
    config = Config(output_buffer=out)
    config.set_main_option("script_location", str(_directory()).replace("%", "%%"))
    config.attributes["schema"] = schema
    return config


def _directory() -> Path:
    here = Path(__file__).parent
    places = (here / "migrations", here.parent / "migrations")
    return next((place for place in places if (place / "env.py").is_file()), places[0])


def _schema(of: Engine | Connection) -> str | None:
    schemas: dict[Any, str | None] = of.get_execution_options().get("schema_translate_map") or {}
    return schemas.get(None)
