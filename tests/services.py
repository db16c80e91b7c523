"""The servers that tests talk to: where they are, whether they answer, and fresh space on each.

Each is named by an environment variable, or looked for where `docker compose up -d` and a plain installation put it.
"""

import os
import random
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import amqp
import redis
from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from outbox.migrate import VERSION_TABLE, head
from outbox.table import metadata

DATABASES = ("sqlite", "postgresql", "mariadb")
BROKERS = ("rabbitmq", "redis")


@dataclass(frozen=True)
class Service:
    """A server that some tests need, its name in docker-compose.yml, and the question that shows it is up."""

    url: URL
    compose: str
    probe: Callable[[URL], None]


@cache
def answers(name: str) -> bool:
    """Whether the service can be used; asked once by each process."""
    service = SERVICES[name]
    try:
        service.probe(service.url)
    except (OSError, SQLAlchemyError, amqp.AMQPError, redis.RedisError):
        return False
    return True


@contextmanager
def fresh_database(kind: str, directory: Path, template: URL | None = None) -> Iterator[URL]:
    """A database of its own name, empty or a copy of *template*; dropped after, whoever still uses it."""
    name = f"outbox_test_{uuid.uuid4().hex[:16]}"
    create, drop = _DATABASE_MAKERS[kind]
    url = create(name, directory, template)
    try:
        yield url
    finally:
        drop(url)


def wipe(kind: str, url: URL) -> bool:
    """Empty a migrated database and end whatever still uses it; False where a test has changed its schema.

    Ids begin at 1 again.
    """
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        end_sessions, empty = _WIPERS[kind]
        end_sessions(connection)
        if not _is_as_migrated(connection):
            return False
        empty(connection, sorted(metadata.tables))
    return True


def _is_as_migrated(connection: Connection) -> bool:
    """Every schema counts but the servers' own: a test may have made one, or renamed a single column."""
    others = "database()" if connection.dialect.name == "mysql" else "'pg_catalog', 'information_schema'"
    which = f"table_schema {'IN' if connection.dialect.name == 'mysql' else 'NOT IN'} ({others})"
    found = connection.execute(text(f"SELECT table_name, column_name FROM information_schema.columns WHERE {which}"))
    declared = {(table.name, column.name) for table in metadata.tables.values() for column in table.columns}
    if {(table, column) for table, column in found} != declared | {(VERSION_TABLE, "version_num")}:
        return False
    return connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")) == head()


def _end_postgresql_sessions(connection: Connection) -> None:
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


def _end_mariadb_sessions(connection: Connection) -> None:
    others = text("SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()")
    for session in connection.scalars(others).all():
        with suppress(OperationalError):  # it may have ended by itself
            connection.execute(text(f"KILL {session}"))


def _empty_postgresql(connection: Connection, tables: list[str]) -> None:
    connection.exec_driver_sql(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
    connection.exec_driver_sql("SELECT pg_stat_reset()")
    connection.exec_driver_sql(f"ALTER DATABASE {connection.engine.url.database} RESET ALL")


def _empty_mariadb(connection: Connection, tables: list[str]) -> None:
    for table in tables:
        connection.exec_driver_sql(f"TRUNCATE TABLE {table}")


@contextmanager
def fresh_broker(kind: str) -> Iterator[str]:
    """A broker URL that nobody else uses: a RabbitMQ virtual host, or a Redis database number."""
    with _BROKER_MAKERS[kind](SERVICES[kind].url) as url:
        yield url.render_as_string(hide_password=False)


def _create_sqlite(name: str, directory: Path, template: URL | None) -> URL:
    path = directory / f"{name}.db"
    if template is not None:
        shutil.copyfile(template.database, path)
    else:
        path.touch()
    return URL.create("sqlite", database=str(path))


def _drop_sqlite(url: URL) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{url.database}{suffix}").unlink(missing_ok=True)


def _create_postgresql(name: str, _directory: Path, template: URL | None) -> URL:
    with _administer("postgresql") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template.database if template else 'template0'}"))
    return SERVICES["postgresql"].url.set(database=name)


def _drop_postgresql(url: URL) -> None:
    with _administer("postgresql") as connection:
        connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))


def _create_mariadb(name: str, _directory: Path, template: URL | None) -> URL:
    with _administer("mariadb") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        if template is not None:
            _copy_mariadb_tables(connection, str(template.database), name)
    return SERVICES["mariadb"].url.set(database=name)


def _copy_mariadb_tables(connection: Connection, source: str, target: str) -> None:
    """The tables' own DDL is replayed: CREATE TABLE LIKE would leave the foreign keys out."""
    tables = connection.exec_driver_sql(f"SHOW TABLES FROM {source}").scalars().all()
    connection.exec_driver_sql(f"USE {target}")
    connection.exec_driver_sql("SET foreign_key_checks = 0")
    for table in tables:
        ddl = connection.exec_driver_sql(f"SHOW CREATE TABLE {source}.{table}").one()[1]
        connection.exec_driver_sql(ddl.replace("%", "%%"))
        connection.exec_driver_sql(f"INSERT INTO {target}.{table} SELECT * FROM {source}.{table}")


def _drop_mariadb(url: URL) -> None:
    """Sessions left over are killed first: the drop would wait for their locks."""
    with _administer("mariadb") as connection:
        left_over = text("SELECT id FROM information_schema.processlist WHERE db = :name")
        for session in connection.scalars(left_over, {"name": url.database}).all():
            with suppress(OperationalError):  # it may have ended by itself
                connection.execute(text(f"KILL {session}"))
        connection.execute(text(f"DROP DATABASE {url.database}"))


@contextmanager
def _administer(name: str) -> Iterator[Connection]:
    url = SERVICES[name].url
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        yield connection


@contextmanager
def _rabbitmq_virtual_host(url: URL) -> Iterator[URL]:
    """Where rabbitmqctl is out of reach, as beside a container, tests share the virtual host and name their queues."""
    name = f"outbox_test_{uuid.uuid4().hex[:16]}"
    if not _rabbitmqctl("add_vhost", name):
        yield url
        return
    try:
        _rabbitmqctl("set_permissions", "-p", name, str(url.username), ".*", ".*", ".*")
        yield url.set(database=name)
    finally:
        _rabbitmqctl("delete_vhost", name)


def _rabbitmqctl(*arguments: str) -> bool:
    if not shutil.which("rabbitmqctl"):
        return False
    return subprocess.run(["rabbitmqctl", "-q", *arguments], check=False, capture_output=True).returncode == 0


@contextmanager
def _redis_number(url: URL) -> Iterator[URL]:
    """Only an empty database is taken, and a lease in it tells other test processes that it is."""
    number = next(number for number in random.sample(range(1, 16), 15) if _lease_redis(url, number))
    try:
        yield url.set(database=str(number))
    finally:
        with _redis(url, number) as client:
            client.flushdb()


def _lease_redis(url: URL, number: int) -> bool:
    with _redis(url, number) as client:
        return client.dbsize() == 0 and bool(client.set("outbox-test-lease", 1, nx=True, ex=600))


def _redis(url: URL, number: int = 0) -> redis.Redis:
    return redis.Redis(url.host, url.port or 6379, number, url.password, socket_connect_timeout=3)


def _probe_database(name: str) -> Callable[[URL], None]:
    def probe(_url: URL) -> None:
        with _administer(name):
            pass

    return probe


def _probe_rabbitmq(url: URL) -> None:
    with amqp.Connection(f"{url.host}:{url.port or 5672}", url.username, url.password, connect_timeout=3):
        pass


def _probe_redis(url: URL) -> None:
    with _redis(url) as client:
        client.ping()


def _service(name: str, default: str, compose: str, probe: Callable[[URL], None]) -> Service:
    # Read at import: each test starts without any of the project's environment variables.
    return Service(make_url(os.environ.get(f"OUTBOX_TEST_{name.upper()}_URL") or default), compose, probe)


SERVICES = {
    "postgresql": _service(
        "postgresql",
        "postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
        "postgres",
        _probe_database("postgresql"),
    ),
    "mariadb": _service("mariadb", "mysql+pymysql://root@127.0.0.1:3306/", "mariadb", _probe_database("mariadb")),
    "rabbitmq": _service("rabbitmq", "amqp://guest:guest@127.0.0.1:5672//", "rabbitmq", _probe_rabbitmq),
    "redis": _service("redis", "redis://127.0.0.1:6379/0", "redis", _probe_redis),
}
_DATABASE_MAKERS = {
    "sqlite": (_create_sqlite, _drop_sqlite),
    "postgresql": (_create_postgresql, _drop_postgresql),
    "mariadb": (_create_mariadb, _drop_mariadb),
}
_WIPERS = {
    "postgresql": (_end_postgresql_sessions, _empty_postgresql),
    "mariadb": (_end_mariadb_sessions, _empty_mariadb),
}
_BROKER_MAKERS = {"rabbitmq": _rabbitmq_virtual_host, "redis": _redis_number}
