"""Looking: counts, lists and details, as plain values ready for JSON."""

import json

import pytest
from sqlalchemy import text

from outbox.errors import OperationError
from outbox.outcomes import Fault
from outbox.states import State
from outbox.store.database import Database
from outbox.store.look import audited, counts, list_messages, oldest_pending_s, show, status
from outbox.store.mark import MarkRetry, MarkSent, mark
from outbox.store.operate import find, replay
from outbox.store.pauses import pause, pause_automatically
from outbox.table import messages
from tests.rows import ORDERS, ago, new_row, read_row, take, write_all, write_key, write_row

TIMEOUT = Fault("Timeout", "no answer within 10 s", accepted=None)


@pytest.fixture
def database(engine):
    return Database(engine)


def test_status_of_an_empty_outbox(database):
    """Every state has its count, nothing waits, nothing is paused, and the schema has a version."""
    assert {
        "pending": 0,
        "committing": 0,
        "sent": 0,
        "failed": 0,
        "in_doubt": 0,
        "discarded": 0,
        "oldest_pending_s": None,
        "paused": [],
        "half_messages": [],
        "schema_version": "0001",
    } == status(database)


def test_status_without_migrations_of_ours(engine, database):
    """Where another tool made the tables, the version is unknown, and the rest is not."""
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE outbox_alembic_version"))

    assert status(database)["schema_version"] is None


def test_counts_by_state(engine, database):
    """Messages are counted in every state, with ordering keys and without."""
    for number, state in enumerate(State, start=1):
        write_all(engine, [new_row(state=state) for _ in range(number)])
        write_key(engine, "k", state)

    assert {state: number + 1 for number, state in enumerate(State, start=1)} == counts(database)


def test_oldest_pending_counts_from_creation(engine, database):
    """The oldest pending message counts, ordered or not, in backoff or not; finished ones do not."""
    write_row(engine, state="sent", created_at=ago(9000))
    write_row(engine, created_at=ago(100), available_at=ago(-60), attempts=3)
    first = oldest_pending_s(database)
    write_row(engine, created_at=ago(500), ordering_key="k")

    assert 99 < first < 130
    assert 499 < oldest_pending_s(database) < 530


def test_oldest_pending_leaves_schedules_alone(engine, database):
    """A scheduled message waits only from when the broker would take it."""
    write_row(engine, created_at=ago(90_000), deliver_at=ago(-5_000_000), available_at=ago(-60))
    scheduled = oldest_pending_s(database)
    write_row(engine, created_at=ago(90_000), deliver_at=ago(-3_000_000), available_at=ago(40))

    assert scheduled is None
    assert 39 < oldest_pending_s(database) < 70


def test_status_names_pauses_in_force(engine, database):
    """Pauses that last are listed, the operators' and the circuit breaker's; those that are over are not."""
    pause(database, ORDERS, by="ann", reason="migration")
    pause_automatically(database, ORDERS, for_s=60.0, reason="Timeout: no answer")
    pause_automatically(database, ORDERS.__class__("default", "over"), for_s=-1.0, reason="Timeout: no answer")

    operators, automatic = status(database)["paused"]

    assert {"destination": "default", "topic": "orders", "until": None, "by": "ann", "reason": "migration"} == operators
    assert ("circuit breaker", "Timeout: no answer") == (automatic["by"], automatic["reason"])
    assert automatic["until"].endswith("Z")


def test_show_every_column_but_the_lease(engine, database):
    """A message is shown whole, with instants in UTC, its properties as an object, and nothing of its lease."""
    row_id = write_row(
        engine,
        body="grüße",
        keys="order-7 customer-3",
        properties="KEYS:order-7 customer-3|shop:köln|outbox_id:x|",
        created_at=ago(0).replace(year=2026, month=1, day=2, hour=3, minute=4, second=5, microsecond=60),
    )
    take(database)

    shown = show(database, row_id)

    assert {column.name for column in messages.c} - {"lease_until", "lease_token"} | {"history"} == set(shown)
    assert ("grüße", "order-7 customer-3", "pending", row_id) == tuple(
        shown[name] for name in ("body", "keys", "state", "id")
    )
    assert {"KEYS": "order-7 customer-3", "shop": "köln", "outbox_id": "x"} == shown["properties"]
    assert ("2026-01-02T03:04:05.000060Z", None, []) == (shown["created_at"], shown["sent_at"], shown["history"])
    assert shown == json.loads(json.dumps(shown))


def test_show_history(engine, database):
    """The attempts that did not end well come oldest first."""
    row_id = write_row(engine)
    for fault in (TIMEOUT, Fault("InternalError", "try later", 500, "req-9", accepted=None)):
        (row,) = take(database)
        mark(database, [MarkRetry(row_id, row.lease_token, 0.0, fault, charge=True, unknown=True)])

    first, second = show(database, row_id)["history"]

    assert {"code": "Timeout", "http_status": None, "request_id": None, "outcome_known": False} == {
        name: first[name] for name in ("code", "http_status", "request_id", "outcome_known")
    }
    assert ("InternalError", 500, "req-9", "try later") == tuple(
        second[name] for name in ("code", "http_status", "request_id", "text")
    )
    assert first["at"].endswith("Z")


def test_show_by_any_id(engine, database):
    """A message is found by its row id, as a number or a string, and by its outbox_id."""
    row_id = write_row(engine)
    outbox_id = read_row(engine, row_id)["outbox_id"]

    assert {row_id} == {show(database, reference)["id"] for reference in (row_id, str(row_id), outbox_id)}


@pytest.mark.parametrize("reference", ["77", "no-such-id", 10**30])
def test_show_an_unknown_id(database, reference):
    """An id that no message has is named."""
    with pytest.raises(OperationError, match=f"there is no message {reference}"):
        show(database, reference)


def test_list_newest_first(engine, database):
    """The newest come first, as many as asked for, without their bodies."""
    rows = [write_row(engine) for _ in range(3)]

    listed = list_messages(database, limit=2)

    assert [rows[2], rows[1]] == [row["id"] for row in listed]
    assert not {"body", "history", "lease_token", "lease_until"} & set(listed[0])
    assert {"outbox_id", "properties"} < set(listed[0])


def test_list_filters(engine, database):
    """State, topic and destination narrow the list."""
    ours = write_row(engine, state="failed")
    write_row(engine, state="failed", topic="other")
    write_row(engine, state="failed", destination="second")
    write_row(engine)

    listed = list_messages(database, state=State.FAILED, topic="orders", destination="default")

    assert [ours] == [row["id"] for row in listed]


def test_list_by_key(engine, database):
    """A message is found by one whole key of its keys, byte by byte."""
    both, one = write_row(engine, keys="order-7 customer_3"), write_row(engine, keys="order-7")
    write_row(engine, keys="Order-7")
    write_row(engine, keys="order-77 customerX3")
    write_row(engine)

    assert [one, both] == [row["id"] for row in list_messages(database, key="order-7")]
    assert [both] == [row["id"] for row in list_messages(database, key="customer_3")]
    assert [] == list_messages(database, key="%")


def test_audited_newest_first(engine, database):
    """The audit is read newest first, of all messages or of one."""
    rows = [write_row(engine, state="failed") for _ in range(3)]
    for row_id in rows:
        replay(database, find(database, "replay", ids=[row_id]), by="ann", reason=str(row_id))
    outbox_id = read_row(engine, rows[0])["outbox_id"]

    newest = audited(database, limit=2)

    assert [str(rows[2]), str(rows[1])] == [act["reason"] for act in newest]
    assert [(outbox_id, "replay", "ann")] == [
        (act["outbox_id"], act["action"], act["by"]) for act in audited(database, outbox_id=outbox_id)
    ]
    assert newest[0]["at"].endswith("Z")


def test_looks_leave_leases_alone(engine, database):
    """No look stands in a claim's way or changes a row."""
    row_id = write_row(engine)
    (row,) = take(database)

    status(database)
    show(database, row_id)

    assert frozenset() == mark(database, [MarkSent(row_id, row.lease_token, "M")])
