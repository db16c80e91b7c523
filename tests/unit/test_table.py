"""The tables as each database gets them, MySQL 8 included, and the statements that it would run."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from outbox.message import Message
from outbox.store.dialects import by_due, by_id, by_ordering_key, has_id, marked
from outbox.store.keys import _chains, _page_of_heads
from outbox.store.leases import _due_among, _lease_among
from outbox.store.mark import _sent
from outbox.table import (
    DATABASES,
    Instant,
    attempts,
    audit,
    db_after,
    db_now,
    messages,
    metadata,
    new_outbox_id,
    pauses,
    row_of,
)

MYSQL_8 = mysql.dialect(is_mariadb=False)
MARIADB = mysql.dialect(is_mariadb=True)
POSTGRESQL = postgresql.dialect()
SQLITE = sqlite.dialect()
HORIZON_S = 3_452_400


def compiled(element, dialect):
    return re.sub(r"\s+", " ", str(element.compile(dialect=dialect)))


def column_ddl(name, dialect):
    """One column's line of CREATE TABLE outbox_messages."""
    ddl = str(CreateTable(messages).compile(dialect=dialect))
    return next(line.strip(" \t,") for line in ddl.splitlines() if re.match(rf"\s+`?{name}`? ", line))


# --- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (MYSQL_8, "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"),
        (MARIADB, "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"),
        (POSTGRESQL, 'VARCHAR(255) COLLATE "C"'),
        (SQLITE, "VARCHAR(255)"),
    ],
)
def test_keys_compare_byte_by_byte(dialect, text):
    """Every database compares keys exactly: neither case nor trailing spaces are ignored."""
    assert f"ordering_key {text}" == column_ddl("ordering_key", dialect)


@pytest.mark.parametrize(
    ("dialect", "body", "instant"),
    [
        (MYSQL_8, "LONGTEXT", "DATETIME(6)"),
        (POSTGRESQL, "TEXT", "TIMESTAMP WITH TIME ZONE"),
        (SQLITE, "TEXT", "DATETIME"),
    ],
)
def test_columns_hold_bodies_and_microseconds(dialect, body, instant):
    """A body of 4 MiB fits, and an instant keeps its microseconds."""
    assert f"{body} NOT NULL" == column_ddl("body", dialect).split(" ", 1)[1]
    assert f"available_at {instant} NOT NULL" == column_ddl("available_at", dialect)


def test_sqlite_uses_no_id_twice():
    """Without AUTOINCREMENT, SQLite gives a purged row's id to the next."""
    for table in (messages, attempts, audit):
        assert "PRIMARY KEY AUTOINCREMENT" in compiled(CreateTable(table), SQLITE)


def test_lease_stands_in_no_index():
    """A claim changes no index."""
    indexed = {column.name for index in messages.indexes for column in index.columns}

    assert not {"lease_until", "lease_token", "attempts", "crashes", "unknown_outcomes"} & indexed


def test_indexes_of_each_database():
    """Each kind of row has a partial index, where the database has those; elsewhere the state leads."""
    ours = {index.name: index for index in messages.indexes}
    partial = {name for name, index in ours.items() if "mysql" not in index.info[DATABASES]}

    assert {f"ix_outbox_messages_{name}" for name in ("due", "ordered", "held", "sent")} == partial
    assert all(
        " WHERE state " in compiled(CreateIndex(ours[name]), dialect)
        for name in partial
        for dialect in (POSTGRESQL, SQLITE)
    )
    assert all("(state, " in compiled(CreateIndex(ours[name]), MYSQL_8) for name in set(ours) - partial)


def test_every_constraint_has_a_name():
    """Whatever naming convention the application uses, ours are found again."""
    constraints = [one for table in metadata.tables.values() for one in table.constraints]
    unnamed = [one for one in constraints if one.name is None and type(one).__name__ != "PrimaryKeyConstraint"]

    assert [] == unnamed


def test_tables_carry_the_outboxs_name():
    """In a database that is not ours alone, every table says whose it is."""
    assert {f"outbox_{name}" for name in ("messages", "pauses", "attempts", "audit", "meta", "checks")} == set(
        metadata.tables
    )
    assert ["destination", "topic", "automatic"] == [column.name for column in pauses.primary_key]


# --- statements on MySQL 8, for which no server is at hand --------------------------------------------------------


def test_mysql_hints():
    """Where MySQL has the choice of an index, it is told which."""
    due, keyed, row = by_due("d"), by_ordering_key("k"), by_id("m")

    assert "FROM outbox_messages AS d FORCE INDEX (ix_outbox_messages_state_due)" in compiled(select(due.c.id), MYSQL_8)
    assert "AS k FORCE INDEX (ix_outbox_messages_state_ordered)" in compiled(select(keyed.c.id), MYSQL_8)
    assert (
        "SELECT m.id FROM JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT PATH '$')) AS picked"
        " STRAIGHT_JOIN outbox_messages AS m FORCE INDEX (PRIMARY) ON m.id = picked.id WHERE m.id = picked.id"
        == compiled(select(row.c.id).where(has_id(row)), MYSQL_8)
    )


@pytest.mark.parametrize("dialect", [MYSQL_8, MARIADB])
def test_mysql_locks_without_waiting(dialect):
    """Both servers know SKIP LOCKED, and neither is asked for OF."""
    assert compiled(_due_among(), dialect).endswith(" FOR UPDATE SKIP LOCKED")


def test_mysql_sets_in_order():
    """MySQL sees the assignments to the left: counts come before the token that they depend on."""
    update = compiled(_lease_among(), MYSQL_8)
    places = [
        update.index(f"{name}=") for name in ("attempts", "unknown_outcomes", "crashes", "lease_until", "lease_token")
    ]

    assert sorted(places) == places


def test_mysql_marks_from_one_parameter():
    """Marks come as one JSON parameter, row after row looked up by primary key."""
    update = compiled(_sent("mysql"), MYSQL_8)

    assert update.startswith("UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (given_id BIGINT PATH '$.id', ")
    assert "STRAIGHT_JOIN outbox_messages AS m FORCE INDEX (PRIMARY) ON m.id = v.given_id SET " in update
    assert "message_id=v.given_message_id" in update
    assert marked("mysql") is marked("mysql")


def test_mysql_states_are_literals():
    """States are written out in every statement, so that an index that leads with them is used."""
    statements = [
        _page_of_heads(skip_failed=False, wrapped=False),
        _chains(skip_failed=False, by_state=True),
        _due_among(),
    ]

    assert all("state = 'pending'" in compiled(statement, MYSQL_8) for statement in statements)


# --- instants -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "now", "later"),
    [
        (POSTGRESQL, "statement_timestamp()", "statement_timestamp() + make_interval(secs => %(param_1)s)"),
        (MYSQL_8, "utc_timestamp(6)", "timestampadd(MICROSECOND, (%s) * 1000000, utc_timestamp(6))"),
        (
            SQLITE,
            "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
            "strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.6f seconds', ?))",
        ),
    ],
)
def test_clock_of_each_database(dialect, now, later):
    """All times are the database's own, in UTC."""
    assert (now, later) == (compiled(db_now(), dialect), compiled(db_after(1.5), dialect))


@pytest.mark.parametrize(("dialect", "aware"), [(POSTGRESQL, True), (MYSQL_8, False), (SQLITE, False)])
def test_instant_both_ways(dialect, aware):
    """An instant of any zone is stored in UTC and read as the same instant."""
    given = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=8)))

    stored = Instant().process_bind_param(given, dialect)
    read = Instant().process_result_value(stored, dialect)

    assert aware == (stored.tzinfo is not None)
    assert given == read
    assert UTC == read.tzinfo


def test_instant_of_nothing():
    """NULL stays NULL."""
    assert Instant().process_bind_param(None, SQLITE) is None
    assert Instant().process_result_value(None, SQLITE) is None


# --- rows ---------------------------------------------------------------------------------------------------------


def test_outbox_id_is_ordered_by_time():
    """A UUID of version 7: unique, and later ones sort later."""
    early = [new_outbox_id() for _ in range(100)]
    time.sleep(0.002)
    late = new_outbox_id()

    assert 100 == len(set(early))
    assert max(early) < late
    assert {(7, "specified in RFC 4122")} == {(UUID(one).version, UUID(one).variant) for one in early}


def test_row_of_a_message():
    """A row is its message, ready to send: properties as they go out, and the size of the body in bytes."""
    message = Message("orders", "grüße", tag="created", keys=["order-7", "k3"], ordering_key="k", deduplication_key="d")

    row = row_of(message, HORIZON_S)

    assert {
        "destination": "default",
        "topic": "orders",
        "tag": "created",
        "keys": "order-7 k3",
        "ordering_key": "k",
        "deduplication_key": "d",
        "body": "grüße",
        "body_bytes": 7,
    }.items() <= row.items()
    assert f"KEYS:order-7 k3|__SHARDINGKEY:k|outbox_id:{row['outbox_id']}|" == row["properties"]
    assert set(row) <= set(messages.c.keys())


def test_row_without_keys():
    """No keys are NULL, not an empty string."""
    assert row_of(Message("orders", "x"), HORIZON_S)["keys"] is None


def test_row_of_a_scheduled_message():
    """A scheduled message is due as soon as the broker would take it, by its horizon."""
    at = datetime(2031, 5, 1, tzinfo=UTC)

    row = row_of(Message("orders", "x", deliver_at=at), HORIZON_S)

    assert (at, at - timedelta(seconds=HORIZON_S)) == (row["deliver_at"], row["available_at"])
