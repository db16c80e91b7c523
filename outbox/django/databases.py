"""Django's databases as SQLAlchemy knows them: the URL by which the relay connects for itself, and the dialect."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy import URL, Dialect
from sqlalchemy.dialects.mysql import mysqldb, pymysql
from sqlalchemy.dialects.postgresql import psycopg, psycopg2
from sqlalchemy.dialects.sqlite import pysqlite

from outbox.errors import ConfigError

__all__ = ["dialect_of", "opened_by_tests", "url_of"]

_DIALECTS: Mapping[str, Any] = {
    "postgresql+psycopg": psycopg.dialect,
    "postgresql+psycopg2": psycopg2.dialect,
    "mysql+mysqldb": mysqldb.dialect,
    "mysql+pymysql": pymysql.dialect,
    "sqlite": pysqlite.dialect,
}
# What Django itself makes of OPTIONS, and the driver does not know.
_DJANGOS = frozenset(
    {"assume_role", "charset", "init_command", "isolation_level", "pool", "server_side_binding", "sql_mode", "ssl"}
    | {"transaction_mode"}
)


def opened_by_tests(connection: BaseDatabaseWrapper) -> list[bool]:
    """Of each ``atomic`` block that is open, the outermost first: whether a ``TestCase`` opened it around a test."""
    return [getattr(block, "_from_testcase", False) for block in connection.atomic_blocks]


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """The dialect in which statements for a cursor of Django's are written.

    Raises:
        ConfigError: there is none that the outbox knows.
    """
    return _dialect(_driver(connection), getattr(connection, "mysql_is_mariadb", None))


@cache
def _dialect(driver: str, is_mariadb: bool | None) -> Dialect:
    options = {} if is_mariadb is None else {"is_mariadb": is_mariadb}
    made: Dialect = _DIALECTS[driver](paramstyle="pyformat", **options)
    return made


def url_of(connection: BaseDatabaseWrapper) -> URL:
    """The URL of the database that a connection of Django's leads to, as ``DATABASES`` says, or as a test has set it.

    Raises:
        ConfigError: it is of a kind that the outbox does not know.
    """
    driver = _driver(connection)
    given = connection.settings_dict
    options = {
        name: str(value)
        for name, value in given.get("OPTIONS", {}).items()
        if name not in _DJANGOS and isinstance(value, str | int | float)
    }
    return _URLS[connection.vendor](driver, given, options)


def _driver(connection: BaseDatabaseWrapper) -> str:
    if connection.vendor == "sqlite":
        return "sqlite"
    module = getattr(getattr(connection, "Database", None), "__name__", "").lower()
    driver = f"{connection.vendor}+{module}"
    if driver not in _DIALECTS:
        problem = f"{connection.alias} is a database of the kind {connection.vendor}"
        raise ConfigError("DATABASES", f"{problem}; the outbox needs PostgreSQL, MariaDB, MySQL or SQLite")
    return driver


def _postgresql_url(driver: str, given: Mapping[str, Any], options: dict[str, str]) -> URL:
    host = str(given["HOST"])
    role = given.get("OPTIONS", {}).get("assume_role")
    if role:
        # Whoever Django's connections become after they are open, ours are as well; libpq reads spaces as separators.
        escaped = str(role).replace("\\", "\\\\").replace(" ", "\\ ")
        options = options | {"options": f"{options.get('options', '')} -c role={escaped}".strip()}
    if "/" in host or "," in host:
        # A socket's directory, or several hosts, which a URL can hold only behind its question mark.
        options, host = options | {"host": host}, ""
    return _server_url(driver, given, host, options)


def _mysql_url(driver: str, given: Mapping[str, Any], options: dict[str, str]) -> URL:
    host = str(given["HOST"])
    secured = given.get("OPTIONS", {}).get("ssl", {})
    options |= {f"ssl_{name}": str(value) for name, value in secured.items()} if isinstance(secured, Mapping) else {}
    if host.startswith("/"):
        options, host = options | {"unix_socket": host}, ""
    return _server_url(driver, given, host, options)


def _server_url(driver: str, given: Mapping[str, Any], host: str, options: dict[str, str]) -> URL:
    port = int(given["PORT"]) if given["PORT"] else None
    user, password, name = (str(given[key]) or None for key in ("USER", "PASSWORD", "NAME"))
    return URL.create(driver, user, password, host or None, port, name, options)


def _sqlite_url(driver: str, given: Mapping[str, Any], options: dict[str, str]) -> URL:
    name = str(given["NAME"])
    if name.startswith("file:"):
        options |= {"uri": "true"}
    return URL.create(driver, database=name, query={key: options[key] for key in ("timeout", "uri") if key in options})


_URLS: Mapping[str, Callable[[str, Mapping[str, Any], dict[str, str]], URL]] = {
    "postgresql": _postgresql_url,
    "mysql": _mysql_url,
    "sqlite": _sqlite_url,
}
