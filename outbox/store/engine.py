"""Engines of the outbox's own: how the relay, the commands and the operator's pages reach the database."""

from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from outbox.errors import ConfigError
from outbox.sqlite import prepare_sqlite
from outbox.table import MYSQL

__all__ = ["READ_COMMITTED", "create_engine"]

#: Execution option of engines whose connections are READ COMMITTED from the start.
READ_COMMITTED = "outbox_read_committed"

_CONNECT_TIMEOUT_S = 10
_RECYCLE_S = 1800
_EXTRAS = {"postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
_URLS = "postgresql+psycopg://…, mysql+pymysql://… or sqlite:///…"


def create_engine(url: str | URL, *, schema: str | None = None, pool_size: int = 5) -> Engine:
    """Build an engine whose every transaction is READ COMMITTED; connects to nothing yet.

    A connection that died in the pool is replaced when it is taken, an attempt to connect ends after 10 s, and no error
    shows a parameter, for those are message bodies.

    Args:
        url: a SQLAlchemy URL of PostgreSQL, MariaDB, MySQL or SQLite, with a synchronous driver.
        schema: where the tables are, on PostgreSQL; its search path decides when not given.
        pool_size: connections kept open, at least 1; as many again may be opened for a moment.

    Raises:
        ConfigError: names ``OUTBOX_DATABASE_URL`` or ``OUTBOX_TABLE_SCHEMA``; never shows the URL and its password.
    """
    parsed = _parsed(url)
    _check_schema(parsed, schema)
    schema_map = {"schema_translate_map": {None: schema}} if schema else {}
    options: dict[str, Any] = {"execution_options": {READ_COMMITTED: True} | schema_map}
    if parsed.get_backend_name() == "sqlite":
        engine = _build(parsed, **options)
        prepare_sqlite(engine)
        return engine
    if parsed.get_backend_name() in MYSQL:
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    if "connect_timeout" not in parsed.query:
        options["connect_args"] = {"connect_timeout": _CONNECT_TIMEOUT_S}
    return _build(
        parsed,
        **options,
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_S,
    )


def _parsed(url: str | URL) -> URL:
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
        extra = _EXTRAS.get(url.get_backend_name(), "all")
        raise _wrong(f"needs the driver {error.name!r}: pip install 'rocketmq-outbox[{extra}]'") from None
    except NoSuchModuleError:
        raise _wrong(f"names the driver {url.drivername!r}, which SQLAlchemy does not know") from None
    if engine.dialect.is_async:
        raise _wrong(f"names the asynchronous driver {url.drivername!r}")
    return engine


def _wrong(problem: str) -> ConfigError:
    return ConfigError("OUTBOX_DATABASE_URL", f"{problem}; give {_URLS}")
