"""Engines of the outbox's own: how the relay, the commands and the operator's pages reach the database."""

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from outbox.errors import ConfigError, DatabaseError
from outbox.sqlite import prepare_sqlite
from outbox.table import MYSQL

__all__ = ["READ_COMMITTED", "create_engine", "make_file", "parsed_url"]

#: Execution option of engines whose connections are READ COMMITTED from the start.
READ_COMMITTED = "outbox_read_committed"

_CONNECT_TIMEOUT_S = 10
_RECYCLE_S = 1800
# A server that has gone silent, which no error tells of.
_SILENT_S = 60
_TIMEOUTS: dict[str, dict[str, int]] = {
    "psycopg": {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000},
    "pymysql": {"read_timeout": _SILENT_S, "write_timeout": _SILENT_S},
    "mysqldb": {"read_timeout": _SILENT_S, "write_timeout": _SILENT_S},
}
_TIMEOUTS["psycopg2"] = _TIMEOUTS["psycopg"]
# A statement prepared while the outbox was empty keeps its plan, which reads the whole table, until somebody analyses
# what has filled it since. Planning each batch anew costs nothing that could be measured.
_OPTIONS: dict[str, dict[str, Any]] = {"psycopg": {"prepare_threshold": None}}
# Of the drivers that come with one.
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}
_URLS = "postgresql+psycopg://…, mysql+pymysql://… or sqlite:///…"


def create_engine(url: str | URL, *, schema: str | None = None, pool_size: int = 5) -> Engine:
    """Build an engine whose every transaction is READ COMMITTED; connects to nothing yet.

    A connection that died in the pool is replaced when it is taken, an attempt to connect ends after 10 s, a server
    that has gone silent is given up after a minute or so, and no error shows a parameter, for those are message bodies.
    What the URL itself says of timeouts wins. A SQLite file that is not there is not made: see `make_file`.

    Args:
        url: a SQLAlchemy URL of PostgreSQL, MariaDB, MySQL or SQLite, with a synchronous driver.
        schema: where the tables are, on PostgreSQL; its search path decides when not given.
        pool_size: connections kept open, at least 1; as many again may be opened for a moment.

    Raises:
        ConfigError: names ``OUTBOX_DATABASE_URL`` or ``OUTBOX_TABLE_SCHEMA``; never shows the URL and its password.
    """
    parsed = parsed_url(url)
    _check_schema(parsed, schema)
    schema_map = {"schema_translate_map": {None: schema}} if schema else {}
    options: dict[str, Any] = {"execution_options": {READ_COMMITTED: True} | schema_map}
    if parsed.get_backend_name() == "sqlite":
        engine = _build(parsed, **options)
        prepare_sqlite(engine)
        event.listen(engine, "do_connect", _refuse_to_make_a_file)
        return engine
    if parsed.get_backend_name() in MYSQL:
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    timeouts = {"connect_timeout": _CONNECT_TIMEOUT_S} | _TIMEOUTS.get(parsed.get_driver_name(), {})
    given = timeouts | _OPTIONS.get(parsed.get_driver_name(), {})
    options["connect_args"] = {name: value for name, value in given.items() if name not in parsed.query}
    return _build(
        parsed,
        **options,
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_S,
    )


def make_file(engine: Engine) -> None:
    """Make the file of a SQLite database that is not there yet, empty; nothing elsewhere.

    Only a migration does. Else each command with a mistyped path would leave an empty file behind.

    Raises:
        DatabaseError: it cannot be made.
    """
    path = _missing_file(str(engine.url.database)) if engine.dialect.name == "sqlite" else None
    if path is not None:
        try:
            path.touch()
        except OSError as error:
            raise DatabaseError(f"cannot make the database {path}: {error.strerror}") from None


def _refuse_to_make_a_file(_dialect: Any, _record: Any, arguments: Any, _options: Any) -> None:
    if _missing_file(str(arguments[0])) is not None:
        raise sqlite3.OperationalError("there is no such file; outbox migrate makes it")


def _missing_file(name: str) -> Path | None:
    """The path, where the name is one of a file that is not there. Names with a scheme have rules of their own."""
    if name in {"", "None"} or name.startswith((":memory:", "file:")):
        return None
    path = Path(name)
    return None if path.exists() else path


def parsed_url(url: str | URL) -> URL:
    """A URL of one of the databases that the outbox knows. Raises `ConfigError` for any other text."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _wrong("is not a SQLAlchemy URL") from None
    if parsed.get_backend_name() not in ("postgresql", "sqlite", *MYSQL):
        raise _wrong(f"names the database {parsed.get_backend_name()!r}")
    return parsed


def _check_schema(url: URL, schema: str | None) -> None:
    if schema and url.get_backend_name() != "postgresql":
        problem = f"only PostgreSQL has schemas; leave it out for {url.get_backend_name()}"
        raise ConfigError("OUTBOX_TABLE_SCHEMA", problem)


def _build(url: URL, **options: Any) -> Engine:
    try:
        engine = sqlalchemy.create_engine(url, hide_parameters=True, **options)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(url.get_driver_name())
        cure = f": pip install 'rocketmq-outbox[{extra}]'" if extra else ", which is not installed"
        raise _wrong(f"needs the driver {error.name!r}{cure}") from None
    except NoSuchModuleError:
        raise _wrong(f"names the driver {url.drivername!r}, which SQLAlchemy does not know") from None
    except (TypeError, ValueError) as error:
        # Of an option, such as connect_timeout=soon, which is read before there is a connection.
        raise _wrong(f"has an option that the driver {url.drivername} cannot use ({error})") from None
    if engine.dialect.is_async:
        raise _wrong(f"names the asynchronous driver {url.drivername!r}")
    return engine


def _wrong(problem: str) -> ConfigError:
    return ConfigError("OUTBOX_DATABASE_URL", f"{problem}; give {_URLS}")
