"""Series: each minute of the last hour, counted, or estimated where there is too much to count."""

from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import insert

from outbox.store import series as module
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.series import MINUTES, rates
from outbox.table import attempts
from tests.rows import ORDERS, ago, new_row, outbox_id_at, statements, write_all, write_row

INVOICES = Lane("default", "invoices")


@pytest.fixture
def database(engine):
    return Database(engine)


def at(seconds, **over):
    """A row that was created so many seconds ago."""
    return new_row(outbox_id=outbox_id_at(ago(seconds)), created_at=ago(seconds), **over)


def fail(engine, seconds, **over):
    """A row that failed so many seconds ago, after an earlier attempt."""
    row_id = write_row(engine, **at(seconds + 100, state="failed", **over))
    tries = [{"message_row_id": row_id, "at": ago(seconds + late), "code": "Timeout", "text": "no"} for late in (60, 0)]
    with engine.begin() as connection:
        connection.execute(insert(attempts), [one | {"outcome_known": True} for one in tries])
    return row_id


def total(lines):
    return sum(sum(line) for line in lines.values())


def test_rates_cover_the_hour(database):
    """Sixty minutes, each beginning a minute after the one before, the last of them the present one."""
    minutes = rates(database).minutes

    assert MINUTES == len(minutes)
    assert {timedelta(minutes=1)} == {later - minute for minute, later in pairwise(minutes)}
    assert minutes[-1] <= ago(0) < minutes[-1] + timedelta(seconds=65)


def test_rates_of_each_minute(engine, database):
    """What was enqueued, sent and failed counts in its minute and lane; what was before the hour does not."""
    sent_at = ago(300)
    write_all(engine, [at(600) for _ in range(3)])
    write_all(engine, [at(600, topic="invoices", state="sent", sent_at=sent_at) for _ in range(2)])
    write_all(engine, [at(7200, state="sent", sent_at=ago(300)), at(9000, state="sent", sent_at=ago(8000))])
    fail(engine, 120, topic="invoices")

    found = rates(database)

    assert found.exact
    assert {ORDERS: 3, INVOICES: 3} == {lane: sum(line) for lane, line in found.enqueued.items()}
    assert {ORDERS: 1, INVOICES: 2} == {lane: sum(line) for lane, line in found.sent.items()}
    assert {INVOICES: 1} == {lane: sum(line) for lane, line in found.failed.items()}
    (minute,) = [minute for minute, number in zip(found.minutes, found.sent[INVOICES], strict=True) if number]
    assert minute <= sent_at < minute + timedelta(minutes=1)


def test_rates_of_a_replayed_row(engine, database):
    """A row that was replayed, and is no longer failed, has not failed."""
    row_id = fail(engine, 120)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE outbox_messages SET state = 'pending' WHERE id = {row_id}")

    assert {} == rates(database).failed


@pytest.fixture
def many(engine, monkeypatch):
    """More than is counted: 1200 rows over the last twenty minutes, all of them sent at once."""
    monkeypatch.setattr(module, "_LIMIT", 100)
    rows = [at(seconds, state="sent", sent_at=ago(seconds)) for seconds in range(1200)]
    write_all(engine, rows)


def test_rates_estimate_many(database, many, monkeypatch):
    """Where there is too much to count, a part of each minute stands for all of it."""
    monkeypatch.setattr(module, "_MOMENT_S", (7.5, 7.5))

    found = rates(database)

    assert not found.exact
    for lines in (found.enqueued, found.sent):
        assert 1000 < total(lines) < 1400
        assert not any(lines[ORDERS][:38])


def test_rates_estimate_from_whole_minutes(database, many, monkeypatch):
    """Moments that leave nothing out make an estimate exact."""
    monkeypatch.setattr(module, "_MOMENT_S", (30, 30))

    found = rates(database)

    assert 1195 <= total(found.sent) <= 1200
    assert 60 == found.sent[ORDERS][-3]


def test_rates_ask_little(database, many):
    """Nine statements at most, an estimate included."""
    with statements(database.engine) as sent:
        rates(database)

    assert len(sent) <= 9
