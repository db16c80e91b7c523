"""Migrations: what they make is what the code declares, whoever runs them and however often."""

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Column, Integer, MetaData, Table, inspect, make_url, text

import outbox.migrate
from outbox.errors import DatabaseError
from outbox.migrate import VERSION_TABLE, current, downgrade, head, include_object, sql, upgrade
from outbox.states import State
from outbox.store.database import Database
from outbox.store.engine import create_engine
from outbox.store.lanes import due_lanes
from outbox.store.look import status
from outbox.store.mark import MarkSent, mark
from outbox.table import DATABASES, metadata
from tests.rows import locked, take, take_ordered, write_key, write_row

ROOT = Path(__file__).parents[2]
# Processes, since the threads of one migrate one after the other anyway; they are forked warm, to begin together.
MIGRATE_IN_FOUR_PROCESSES = """
import os, sys
from outbox.migrate import upgrade
from outbox.store.engine import create_engine

hold, go = os.pipe()
children = []
for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
        os.close(go)
        os.read(hold, 1)
        upgrade(create_engine(sys.argv[1]))
        os._exit(0)
os.close(go)
print([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.fixture
def empty(database_url):
    """An engine of ours on a database without a table."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def differences(engine, declared=metadata):
    """What Alembic would change to make the database as declared; partial indexes exist on some databases only."""

    def is_ours(item, name, type_, reflected, _compare_to):
        declared_elsewhere = type_ == "index" and not reflected and engine.dialect.name not in databases_of(item)
        return name != VERSION_TABLE and not declared_elsewhere

    def databases_of(index):
        return index.info.get(DATABASES, engine.dialect.name)

    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts={"include_object": is_ours}), declared)


def tables(engine, schema=None):
    return set(inspect(engine).get_table_names(schema=schema))


def test_upgrade_makes_what_is_declared(empty):
    """The migrated schema and the declared one are the same, down to types, indexes and constraints."""
    upgrade(empty)

    assert [] == differences(empty)
    assert head() == current(empty)


def test_upgrade_makes_the_constraints_declared(empty):
    """Alembic compares no CHECK constraints: the states, the lease and the marks of checks."""
    upgrade(empty)

    names = {one["name"]: one["sqltext"] for one in inspect(empty).get_check_constraints("outbox_messages")}
    assert {"ck_outbox_messages_state", "ck_outbox_messages_lease"} == set(names)
    assert all(f"'{state}'" in names["ck_outbox_messages_state"] for state in State)
    assert len(State) == names["ck_outbox_messages_state"].count("'") / 2


@pytest.mark.parametrize("database_kind", ["postgresql", "sqlite"])
def test_upgrade_makes_partial_indexes(empty):
    """Nor does it compare an index's condition, which keeps finished rows out."""
    upgrade(empty)

    indexes = {one["name"]: one["dialect_options"] for one in inspect(empty).get_indexes("outbox_messages")}
    where = {name: str(options.get(f"{empty.dialect.name}_where", "")) for name, options in indexes.items()}
    assert {f"ix_outbox_messages_{name}" for name in ("due", "ordered", "held", "sent")} <= set(where)
    assert "ordering_key IS NULL" in where["ix_outbox_messages_due"]
    assert "ordering_key IS NOT NULL" in where["ix_outbox_messages_ordered"]
    assert all("state" in condition for condition in where.values() if condition)


def test_upgrade_down_and_up(empty):
    """Down takes every table of ours away, and up makes them again."""
    upgrade(empty)
    downgrade(empty, "base")
    left = tables(empty)

    upgrade(empty)

    assert {VERSION_TABLE} == left
    assert [] == differences(empty)


def test_upgrade_twice(empty):
    """A second run changes nothing and keeps every row."""
    upgrade(empty)
    write_row(empty)

    upgrade(empty)

    assert 1 == len(take(Database(empty)))
    assert [] == differences(empty)


def test_upgrade_by_several_at_once(empty, database_url):
    """Migrations that start together wait for each other, and all succeed."""
    engines = [create_engine(database_url) for _ in range(4)]
    start = threading.Barrier(4)

    def migrate(engine):
        start.wait()
        upgrade(engine)
        engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, engines))

    assert [] == differences(empty)
    assert head() == current(empty)


def test_upgrade_by_several_processes_at_once(empty, database_url):
    """The lock is the database's: processes that know nothing of each other wait for each other, too."""
    ran = subprocess.run(
        [sys.executable, "-c", MIGRATE_IN_FOUR_PROCESSES, database_url], capture_output=True, text=True, check=False
    )

    assert ("[0, 0, 0, 0]\n", "") == (ran.stdout, ran.stderr)
    assert [] == differences(empty)
    assert head() == current(empty)


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_upgrade_after_one_that_was_cut_short(empty):
    """Where each CREATE commits by itself, the next run goes on where the last one stopped."""
    upgrade(empty)
    with empty.begin() as connection:
        connection.execute(text("DROP TABLE outbox_checks"))
        connection.execute(text("DROP INDEX ix_outbox_audit_outbox_id ON outbox_audit"))
        connection.execute(text(f"DELETE FROM {VERSION_TABLE}"))

    upgrade(empty)

    assert [] == differences(empty)


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_upgrade_waits_for_another_only_so_long(empty, monkeypatch):
    """A migration that another one keeps out says so."""
    monkeypatch.setattr(outbox.migrate, "_LOCK_WAIT_S", 0)
    with empty.connect() as connection:
        connection.execute(text("SELECT GET_LOCK(LEFT(CONCAT('outbox_migrate.', DATABASE()), 64), 0)"))

        with pytest.raises(DatabaseError, match="another migration of this database has been running"):
            upgrade(empty)


@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
def test_upgrade_beside_a_running_worker(empty):
    """A run on a current database waits for nobody's rows."""
    upgrade(empty)
    row_id = write_row(empty)

    with locked(empty, row_id):
        upgrade(empty)

    assert head() == current(empty)


def test_upgrade_of_a_newer_database(empty):
    """A database that a newer version has migrated is left alone, and said to be newer."""
    upgrade(empty)
    with empty.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(DatabaseError, match=r"cannot migrate: .*9999.*older version of rocketmq-outbox"):
        upgrade(empty)


def test_current_of_an_empty_database(empty):
    """A database that was never migrated has no revision."""
    assert current(empty) is None


def test_sql_runs_on_an_empty_database(empty):
    """What --sql prints makes the same schema when somebody else runs it."""
    printed = sql(empty)

    run_script(empty, printed)

    assert [] == differences(empty)
    assert head() == current(empty)
    upgrade(empty)


def run_script(engine, script):
    if engine.dialect.name == "sqlite":
        subprocess.run([sys.executable, "-c", RUN_SQLITE, engine.url.database], input=script, text=True, check=True)
        return
    statements = [one for one in script.split(";\n") if one.strip()]
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))


RUN_SQLITE = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())"


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "mariadb", "sqlite"])
def test_sql_without_a_server(kind):
    """The SQL can be printed without a connection; where MySQL and MariaDB cannot be told apart, it says for which."""
    urls = {"sqlite": "sqlite://", "postgresql": "postgresql+psycopg://u:p@127.0.0.1:1/x"}
    engine = create_engine(urls.get(kind, f"{kind}+pymysql://u:p@127.0.0.1:1/x"))

    printed = sql(engine)

    assert "CREATE TABLE" in printed
    assert (kind == "mysql") == printed.startswith("-- For MySQL, since no server answered.")
    assert (kind == "mysql") == ("utf8mb4_0900_bin" in printed)
    assert (kind == "mariadb") == ("utf8mb4_nopad_bin" in printed)


def test_upgrade_with_a_percent_in_the_password(empty, database_url, database_kind):
    """A password may hold what Alembic's configuration takes for interpolation."""
    url = make_url(database_url)
    if database_kind == "mariadb":
        name = url.database[-16:]
        with empty.begin() as connection:
            connection.exec_driver_sql(f"CREATE USER '{name}'@'%%' IDENTIFIED BY '100%%25 sure%%(x)s'")
            connection.exec_driver_sql(f"GRANT ALL ON {url.database}.* TO '{name}'@'%%'")
        url = url.set(username=name)
    engine = create_engine(url if database_kind == "sqlite" else url.set(password="100%25 sure%(x)s"))

    upgrade(engine)

    engine.dispose()
    if database_kind == "mariadb":
        with empty.begin() as connection:
            connection.exec_driver_sql(f"DROP USER '{name}'@'%%'")
    assert head() == current(empty)


def test_upgrade_with_a_percent_in_the_path(tmp_path):
    """So may the path of a SQLite file."""
    (tmp_path / "100%(x)s").mkdir()
    engine = create_engine(URL.create("sqlite", database=str(tmp_path / "100%(x)s" / "outbox.db")))

    upgrade(engine)

    assert head() == current(engine)
    engine.dispose()


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_schema_of_the_operators_choice(database_url):
    """With OUTBOX_TABLE_SCHEMA everything happens in that schema, which is made where it is missing."""
    engine = create_engine(database_url, schema="Message Outbox")
    printed = sql(engine)
    upgrade(engine)
    upgrade(engine)
    database = Database(engine)
    write_row(engine)
    write_key(engine, "k", "pending", "pending")

    (row,) = take(database)
    lost = mark(database, [MarkSent(row.id, row.lease_token, "M")])

    assert set() == tables(engine)
    assert "outbox_messages" in tables(engine, "Message Outbox")
    assert 'CREATE SCHEMA IF NOT EXISTS "Message Outbox"' in printed
    assert (frozenset(), 2, 1) == (lost, len(take_ordered(database)), len(due_lanes(database)))
    assert (head(), head(), 1) == (current(engine), status(database)["schema_version"], status(database)["sent"])
    engine.dispose()


def test_host_autogenerate_keeps_our_tables(empty):
    """With include_object, the application's own Alembic neither drops nor changes a table of ours."""
    upgrade(empty)
    theirs = MetaData()
    Table("shop_orders", theirs, Column("id", Integer, primary_key=True))

    def changes(**options):
        with empty.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection, opts=options), theirs)
        return {(change[0], change[1].name) for change in found}

    without, guarded = changes(), changes(include_object=include_object)

    assert ("remove_table", "outbox_messages") in without
    assert {("add_table", "shop_orders")} == guarded


@pytest.mark.parametrize("inside", [True, False])
def test_migrations_are_found_by_path(tmp_path, inside):
    """In a wheel they lie inside the package, in a checkout beside it; no copy is ever made."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "outbox", tmp_path / "outbox", ignore=ignored)
    place = tmp_path / "outbox" if inside else tmp_path
    shutil.copytree(ROOT / "migrations", place / "migrations", ignore=ignored)
    program = "import outbox.migrate as m; print(m.__file__, m.head())"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert [str(tmp_path / "outbox" / "migrate.py"), head()] == done.stdout.split()
