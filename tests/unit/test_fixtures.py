"""What every other test relies on: the fence, the bare environment, and space that nobody else uses."""

import os
import socket
from pathlib import Path

import pytest
from kombu import Connection
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from tests import services
from tests.conftest import OutsideLoopbackError


@pytest.mark.parametrize("reach", ["connect", "connect_ex"])
@pytest.mark.parametrize("family_and_host", [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")])
def test_fence_refuses_other_machines(reach, family_and_host):
    """A test that would reach another machine fails, and no packet leaves."""
    family, host = family_and_host

    with socket.socket(family) as client, pytest.raises(OutsideLoopbackError):
        getattr(client, reach)((host, 443))


def test_fence_refuses_name_look_ups():
    """Asking for another machine's address is traffic too."""
    with pytest.raises(OutsideLoopbackError):
        socket.getaddrinfo("example.com", 443)


def test_fence_answers_for_invalid_names():
    """Names reserved for it do not resolve, so that tests can meet that error."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("broker.invalid", 443)


def test_fence_lets_loopback_through():
    """Servers of this machine are in reach, by number and by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(("localhost", server.getsockname()[1]), timeout=5)

        assert server.getsockname() == client.getpeername()

        client.close()


def test_environment_is_bare():
    """Settings of the developer's shell never reach a test."""
    assert [] == [name for name in os.environ if name.startswith("OUTBOX_")]


def test_database_is_fresh_each_time(make_database, database_kind):
    """Two databases of one test share nothing, and begin empty."""
    first, second = (create_engine(make_database(database_kind)) for _ in range(2))
    with first.begin() as connection:
        connection.execute(text("CREATE TABLE things (id INTEGER)"))

    assert ["things"] == inspect(first).get_table_names()
    assert [] == inspect(second).get_table_names()

    first.dispose()
    second.dispose()


def test_database_is_dropped_under_open_connections(tmp_path, need, database_kind):
    """A connection that a test left behind, even in a transaction, does not keep its database."""
    need(database_kind)
    with services.fresh_database(database_kind, tmp_path) as url:
        engine = create_engine(url)
        connection = engine.connect()
        connection.execute(text("CREATE TABLE things (id INTEGER)"))

    connection.invalidate()
    connection.close()
    engine.dispose()

    assert not _exists(database_kind, url)


def test_copy_of_a_template_holds_its_rows(engine):
    """A copied database is a migrated one: it knows its own version."""
    assert inspect(engine).has_table("outbox_messages")

    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM outbox_alembic_version")).one()


@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
def test_database_that_a_test_has_altered_is_not_lent_again(migrated_url, database_kind):
    """A column renamed by one test would fail every later one on the same database."""
    url = make_url(migrated_url)
    wiped = [services.wipe(database_kind, url)]
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE outbox_pauses RENAME COLUMN failures TO setbacks"))
    wiped.append(services.wipe(database_kind, url))

    assert [True, False] == wiped


def test_broker_carries_messages(broker_url):
    """What is put on a broker's queue can be taken from it."""
    with Connection(broker_url) as connection, connection.SimpleQueue("things") as queue:
        queue.put("one")

        assert "one" == queue.get(timeout=5).payload


def _exists(kind, url):
    if kind == "sqlite":
        return Path(url.database).exists()
    administrator = create_engine(services.SERVICES[kind].url)
    names = {"postgresql": "SELECT datname FROM pg_database", "mariadb": "SHOW DATABASES"}
    with administrator.connect() as connection:
        found = url.database in connection.scalars(text(names[kind])).all()
    administrator.dispose()
    return found
