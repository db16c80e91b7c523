"""Engines and transactions of the outbox's own: isolation, retries, and errors in one line."""

import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine as plain_engine
from sqlalchemy import event, insert, make_url, select, text, update
from sqlalchemy.exc import OperationalError

from outbox.errors import ConfigError, DatabaseError
from outbox.store.database import Database
from outbox.store.engine import create_engine
from outbox.store.lanes import due_lanes
from outbox.table import messages
from tests.rows import change, locked, new_row, read_row, states, take, write_row, write_rows

SERVERS = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])
ISOLATION = {"postgresql": "SHOW transaction_isolation", "mysql": "SELECT @@tx_isolation"}


@pytest.fixture
def database(engine):
    return Database(engine)


@pytest.fixture
def ours(migrated_url):
    """An engine as `create_engine` builds it."""
    engine = create_engine(migrated_url)
    yield engine
    engine.dispose()


# --- engines ------------------------------------------------------------------------------------------------------


@SERVERS
def test_every_transaction_is_read_committed(migrated_url, ours):
    """Our own engine and the application's both run our work at READ COMMITTED."""
    theirs = plain_engine(migrated_url, isolation_level="SERIALIZABLE")
    query = text(ISOLATION[theirs.dialect.name])

    found = [Database(engine).run(lambda one: one.scalar(query)) for engine in (ours, theirs)]
    theirs.dispose()

    assert ["read committed"] * 2 == [level.lower().replace("-", " ") for level in found]


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_engine_counts_found_rows(ours):
    """An UPDATE that finds a row counts it, changed or not: compare-and-set relies on it."""
    row_id = write_row(ours)

    with ours.begin() as connection:
        same = connection.execute(update(messages).where(messages.c.id == row_id).values(topic="orders"))

    assert 1 == same.rowcount


def test_engine_keeps_every_character(ours):
    """Text beyond the basic plane survives, whatever the server's default charset."""
    row_id = write_row(ours, body="🦌 grüße", ordering_key="🦌")

    assert ("🦌 grüße", "🦌") == (read_row(ours, row_id)["body"], read_row(ours, row_id)["ordering_key"])


@SERVERS
def test_engine_bounds_connecting(migrated_url):
    """An attempt to connect ends after ten seconds, unless the URL says otherwise."""
    seen = []
    urls = make_url(migrated_url), make_url(migrated_url).update_query_dict({"connect_timeout": "3"})
    for url in urls:
        engine = create_engine(url)
        event.listen(engine, "do_connect", lambda _dialect, _record, _args, kwargs: seen.append(kwargs))
        engine.connect().close()
        engine.dispose()

    assert ["10", "3"] == [str(one["connect_timeout"]) for one in seen]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "is not a SQLAlchemy URL"),
        ("postgresql+psycopg://u:hunter2@h:port/db", "is not a SQLAlchemy URL"),
        ("oracle://u:hunter2@h/db", "names the database 'oracle'"),
        ("postgresql+nodriver://u:hunter2@h/db", "names the driver 'postgresql\\+nodriver'"),
        ("mysql+mysqlconnector://u:hunter2@h/db", r"needs the driver 'mysql', which is not installed; give .*pymysql"),
        ("sqlite+aiosqlite:///x.db", "names the asynchronous driver 'sqlite\\+aiosqlite'"),
    ],
)
def test_engine_refuses_a_wrong_url(url, problem):
    """A wrong URL is named by its setting, with what would be right and without its password."""
    with pytest.raises(ConfigError, match=f"OUTBOX_DATABASE_URL: .*{problem}|OUTBOX_DATABASE_URL: {problem}") as raised:
        create_engine(url)

    assert "hunter2" not in str(raised.value)
    assert "postgresql+psycopg://" in str(raised.value)


def test_engine_refuses_a_schema_elsewhere():
    """Only PostgreSQL has schemas."""
    with pytest.raises(ConfigError, match="OUTBOX_TABLE_SCHEMA: only PostgreSQL has schemas; leave it out for sqlite"):
        create_engine("sqlite:///x.db", schema="app")


# --- transactions -------------------------------------------------------------------------------------------------


def test_run_commits(engine, database):
    """What the work wrote is there for others, and its result is returned."""
    row_id = database.run(lambda one: one.execute(insert(messages).values(new_row())).inserted_primary_key[0])

    assert {row_id: "pending"} == states(engine)


def test_run_rolls_back_on_an_error(engine, database):
    """An error of the work's own leaves nothing behind and is passed on."""

    def work(connection):
        connection.execute(insert(messages).values(new_row()))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        database.run(work)

    assert {} == states(engine)


@SERVERS
def test_run_again_after_a_deadlock(engine, database):
    """Two transactions that deadlock both succeed: the one that was undone is run again."""
    rows, errors = write_rows(engine, 2), []
    event.listen(engine, "handle_error", lambda context: errors.append(context.original_exception))
    both_hold_one = threading.Barrier(2)

    def cross(order):
        tries = []

        def work(connection):
            tries.append(order)
            for place, row_id in enumerate(order):
                connection.execute(
                    update(messages).where(messages.c.id == row_id).values(replays=messages.c.replays + 1)
                )
                if place == 0 and len(tries) == 1:
                    both_hold_one.wait()

        database.run(work)
        return len(tries)

    with ThreadPoolExecutor(2) as pool:
        tries = list(pool.map(cross, (rows, rows[::-1])))

    assert 1 == len(errors)
    assert [1, 2] == sorted(tries)
    assert [2, 2] == [read_row(engine, row_id)["replays"] for row_id in rows]


def test_run_gives_up_in_the_end(engine):
    """After five tries a transient error is told, with waits between them that are drawn anew and grow."""
    waits, tries = [], []
    database = Database(engine, sleep=waits.append)

    def work(connection):
        tries.append(connection)
        raise OperationalError("", {}, locked_out(engine.dialect.name))

    with pytest.raises(DatabaseError, match="refused: try again"):
        database.run(work)

    assert (5, 4) == (len(tries), len(waits))
    assert all(0 <= wait <= bound for wait, bound in zip(waits, (0.02, 0.08, 0.3, 1.0), strict=True))


def locked_out(dialect):
    """A driver's error for a lost lock, as each database reports it."""
    if dialect == "postgresql":
        import psycopg

        return psycopg.errors.DeadlockDetected("try again")
    if dialect == "mysql":
        import pymysql

        return pymysql.err.OperationalError(1213, "try again")
    import sqlite3

    error = sqlite3.OperationalError("try again")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    return error


@SQLITE
def test_run_waits_for_another_writer(migrated_url, engine, database):
    """On SQLite a transaction waits until the application's has ended, and then sees what it wrote."""
    application = plain_engine(migrated_url)
    writing, done = threading.Event(), threading.Event()

    def write():
        with application.begin() as connection:
            connection.execute(text("DELETE FROM outbox_audit"))
            connection.execute(insert(messages).values(new_row()))
            writing.set()
            done.wait(0.2)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        writing.wait()
        rows = take(database)
        writer.result()
    application.dispose()

    assert 1 == len(rows)


@SQLITE
def test_read_does_not_wait_for_writers(engine, database):
    """On SQLite a look goes on while the application writes."""
    write_row(engine)
    with engine.begin() as connection:
        connection.execute(update(messages).values(topic="other"))
        found = database.read(lambda one: one.scalar(select(messages.c.topic)))

    assert "orders" == found


@SERVERS
def test_run_once_more_after_a_lost_connection(engine, database):
    """A connection that was lost before the commit is replaced, and the work is done once."""
    tries = []

    def work(connection):
        tries.append(connection)
        connection.execute(insert(messages).values(new_row()))
        if len(tries) == 1:
            kill(engine, connection)
        connection.execute(select(messages.c.id))

    database.run(work)

    assert (2, 1) == (len(tries), len(states(engine)))


@SERVERS
def test_run_tells_of_a_connection_lost_twice(engine, database):
    """A second loss is told instead of tried again for ever."""

    def work(connection):
        kill(engine, connection)
        connection.execute(select(messages.c.id))

    with pytest.raises(DatabaseError, match="lost the connection to the database"):
        database.run(work)


@SERVERS
def test_run_does_not_repeat_an_unclear_commit(engine, database):
    """A connection lost during the commit may have committed: nothing is run again, and the caller is told."""
    tries = []

    def work(connection):
        tries.append(connection)
        connection.execute(insert(messages).values(new_row()))
        kill(engine, connection)

    with pytest.raises(DatabaseError, match="lost the connection to the database"):
        database.run(work)

    assert 1 == len(tries)


def kill(engine, connection):
    """End the connection's session from another one."""
    names = {
        "postgresql": ("pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mysql": ("connection_id()", "KILL {}"),
    }
    session, ending = names[engine.dialect.name]
    number = connection.scalar(text(f"SELECT {session}"))
    with engine.connect() as other:
        other.execute(text(ending.format(number)))


# --- errors -------------------------------------------------------------------------------------------------------


def test_error_of_an_unreachable_server():
    """Who cannot be reached is named, without the password."""
    database = Database(create_engine("postgresql+psycopg://u:hunter2@127.0.0.1:1/orders"))

    with pytest.raises(DatabaseError) as raised:
        database.run(lambda _: None)

    assert "cannot reach the database 127.0.0.1:1/orders (postgresql): " in str(raised.value)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_error_of_an_empty_database(database_url):
    """A database without our tables says which command makes them."""
    engine = create_engine(database_url)

    with pytest.raises(DatabaseError, match=r"^run outbox migrate: the database .* lacks what this version needs"):
        take(Database(engine))

    engine.dispose()


def test_error_of_an_older_schema(engine, database):
    """So does one whose tables lack a column of this version's."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE outbox_pauses RENAME COLUMN failures TO setbacks"))

    write_row(engine)
    with pytest.raises(DatabaseError, match=r"^run outbox migrate: "):
        due_lanes(database)


def test_error_is_one_line(database):
    """Whatever a driver says is told in one line."""
    with pytest.raises(DatabaseError, match="refused: ") as raised:
        database.run(lambda one: one.execute(text("SELECT nothing FROM WHERE\n")))

    assert "\n" not in str(raised.value)


def test_error_shows_no_message(ours):
    """Neither the error nor its traceback shows a body, though PostgreSQL repeats the whole row that it refused."""
    row = new_row(state="nowhere", body="the customer's own words")

    with pytest.raises(DatabaseError, match="ck_outbox_messages_state") as raised:
        Database(ours).run(lambda one: one.execute(insert(messages).values(row)))

    assert "own words" not in "".join(traceback.format_exception(raised.value))


def test_error_never_shows_the_password(engine):
    """Not even where the server repeats it."""
    engine.url = engine.url.set(password="hunter2")
    database = Database(engine)

    def work(_):
        raise OperationalError("", {}, engine.dialect.dbapi.OperationalError("bad password hunter2"))

    with pytest.raises(DatabaseError) as raised:
        database.run(work)

    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("password", ["outbox", "postgres", "e"])
def test_error_keeps_words_that_hold_the_password(engine, password):
    """A password such as ``outbox`` is a part of the tables' names, and what is left out would tell it."""
    engine.url = engine.url.set(password=password, database=engine.url.database)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE outbox_messages RENAME TO away"))

    with pytest.raises(
        DatabaseError, match=r'^run outbox migrate: .*\(postgresql\).*relation "outbox_messages" does not'
    ):
        Database(engine).read(lambda one: one.execute(select(messages.c.id)))


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_engine_gives_up_a_server_that_says_nothing(kind):
    """A port that accepts and then is silent is no reason to wait for ever."""
    drivers = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
    timeouts = {"postgresql": "connect_timeout=2", "mysql": "read_timeout=1"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        silent = create_engine(f"{drivers[kind]}://u:p@127.0.0.1:{port}/x?{timeouts[kind]}")
        with pytest.raises(DatabaseError, match="cannot reach the database"):
            Database(silent).read(lambda one: one)


@pytest.mark.parametrize(
    ("kind", "name"), [("postgresql+psycopg", "tcp_user_timeout"), ("mysql+pymysql", "read_timeout")]
)
def test_engine_bounds_silence(kind, name):
    """Unless the URL says otherwise, a server that goes silent is given up after a minute."""
    given = []
    for query in ("", f"?{name}=5000"):
        engine = create_engine(f"{kind}://u:p@127.0.0.1:1/x{query}")
        event.listen(engine, "do_connect", lambda _dialect, _record, _args, options: given.append(options[name]))
        with pytest.raises(DatabaseError):
            Database(engine).read(lambda one: one)

    assert given[0] in {60, 60_000}
    assert "5000" == str(given[-1])


def test_engine_makes_no_file(tmp_path):
    """A mistyped path is told, and no empty database is left there."""
    path = tmp_path / "mistyped.db"

    with pytest.raises(DatabaseError, match=r"^cannot open the database .*mistyped.db .* outbox migrate makes it$"):
        Database(create_engine(f"sqlite:///{path}")).read(lambda one: one)

    assert not path.exists()


def test_error_of_an_exhausted_pool(migrated_url):
    """A pool with no connection left says so."""
    engine = plain_engine(migrated_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with engine.connect(), pytest.raises(DatabaseError, match=r"no connection to the database .* came free in time"):
        Database(engine).run(lambda _: None)

    engine.dispose()


@SERVERS
def test_claim_while_a_row_is_locked_for_long(engine, database):
    """A long transaction of the application's holds up no claim, however small the table is."""
    held, free = write_rows(engine, 2)

    with locked(engine, held):
        rows = take(database)
        change(engine, free, lease_until=None, lease_token=None)

    assert [free] == [row.id for row in rows]
