"""SQLite's transactions made real: for the application's engine, and for ours."""

import asyncio

import pytest
from sqlalchemy import create_engine, event, insert, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from outbox.sqlite import is_prepared, prepare_sqlite
from outbox.store.database import Database
from outbox.table import messages
from tests.rows import new_row, states, take

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def bare(migrated_url):
    """An engine as an application makes it, without `prepare_sqlite`."""
    engine = create_engine(migrated_url)
    yield engine
    engine.dispose()


def write_in_savepoint(engine):
    """Write a row inside a savepoint, and roll back what stands around it."""
    with engine.connect() as connection, connection.begin() as outer:
        with connection.begin_nested():
            connection.execute(insert(messages).values(new_row()))
        outer.rollback()


def test_unprepared_engine_keeps_what_was_rolled_back(bare):
    """This is why: without preparation a row survives the rollback around its savepoint."""
    write_in_savepoint(bare)

    assert 1 == len(states(bare))


def test_prepare_makes_the_outer_rollback_count(bare):
    """With it, what is rolled back is gone."""
    prepare_sqlite(bare)

    write_in_savepoint(bare)

    assert {} == states(bare)


def test_prepare_is_seen(bare):
    """A connection tells whether it is prepared, before and within its transaction."""
    with bare.connect() as connection:
        before = is_prepared(connection)
    prepare_sqlite(bare)
    with bare.connect() as connection:
        after = [is_prepared(connection)]
        connection.execute(text("SELECT 1"))
        after.append(is_prepared(connection))

    assert not before
    assert [True, True] == after


def test_prepare_twice_is_once(bare):
    """A second call adds no second BEGIN."""
    prepare_sqlite(bare)
    prepare_sqlite(bare)

    with bare.begin() as connection:
        found = connection.scalar(text("SELECT 1"))

    assert 1 == found


def test_prepare_beside_the_documented_recipe(bare):
    """An application that already follows SQLAlchemy's recipe keeps its own BEGIN."""

    @event.listens_for(bare, "connect")
    def _connect(driver_connection, _record):
        driver_connection.isolation_level = None

    @event.listens_for(bare, "begin")
    def _begin(connection):
        connection.exec_driver_sql("BEGIN")

    prepare_sqlite(bare)

    write_in_savepoint(bare)

    assert {} == states(bare)


def test_prepare_reaches_connections_in_use(bare):
    """A connection that was taken before is prepared with its next transaction."""
    with bare.connect() as connection:
        prepare_sqlite(bare)
        connection.execute(text("SELECT 1"))
        prepared = is_prepared(connection)

    assert prepared


def test_prepare_after_autocommit(bare):
    """A connection that was in AUTOCOMMIT mode comes back without sqlite3's own BEGINs."""
    prepare_sqlite(bare)
    with bare.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT 1"))

    write_in_savepoint(bare)

    assert {} == states(bare)


def test_prepare_sets_wal_and_patience(migrated_url):
    """The relay reads beside a writer, and waits ten seconds for one, or as long as the application said."""
    found = []
    for seconds in (1, 30):
        engine = create_engine(migrated_url, connect_args={"timeout": seconds})
        prepare_sqlite(engine)
        with engine.connect() as connection:
            found.append(tuple(connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "busy_timeout")))
        engine.dispose()

    assert [("wal", 10_000), ("wal", 30_000)] == found


def test_prepare_an_asynchronous_engine(migrated_url):
    """An AsyncEngine of aiosqlite is prepared through its synchronous side."""

    async def written():
        engine = create_async_engine(migrated_url.replace("sqlite:", "sqlite+aiosqlite:"))
        prepare_sqlite(engine)
        async with engine.connect() as connection:
            outer = await connection.begin()
            async with connection.begin_nested():
                await connection.execute(insert(messages).values(new_row()))
            await outer.rollback()
            found = await connection.run_sync(is_prepared)
            rows = (await connection.execute(messages.select())).all()
        await engine.dispose()
        return found, rows

    assert (True, []) == asyncio.run(written())


def test_database_prepares_its_engine(bare):
    """The outbox's own transactions lock before they read, on the application's engine, too."""
    begun = []
    database = Database(bare)
    event.listen(bare, "before_cursor_execute", lambda *args: begun.append(args[2]))

    take(database)
    database.read(lambda one: one.execute(text("SELECT 1")))

    assert ["BEGIN IMMEDIATE", "BEGIN"] == [statement for statement in begun if statement.startswith("BEGIN")]


def test_database_in_memory(database_kind):
    """An outbox in memory works, for an application's own tests."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    database = Database(engine)
    messages.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(messages).values(new_row()))

    rows = take(database)
    engine.dispose()

    assert 1 == len(rows)
