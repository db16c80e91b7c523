"""The tally: how many messages are where, counted as far as that is cheap, estimated beyond."""

import pytest

from outbox.states import State
from outbox.store import tally as module
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.look import counts, oldest_pending_s
from outbox.store.tally import Count, tally
from tests.rows import ORDERS, ago, new_row, statements, write_all, write_key, write_row, write_rows

INVOICES = Lane("default", "invoices")


@pytest.fixture
def database(engine):
    return Database(engine)


def test_tally_is_exact_for_few(engine, database):
    """With few messages each state is counted, ordered rows and unordered ones."""
    for number, state in enumerate(State, start=1):
        write_all(
            engine, [new_row(state=state, sent_at=ago(9) if state is State.SENT else None) for _ in range(number)]
        )
        write_key(engine, "k", state)

    found = tally(database)

    assert {State(state): Count(number) for state, number in counts(database).items()} == found.counts


def test_tally_by_lane(engine, database):
    """Unfinished rows are told by lane; finished ones are not."""
    write_rows(engine, 3)
    write_row(engine, topic="invoices", state="failed")
    write_row(engine, topic="invoices", ordering_key="k")
    write_row(engine, topic="invoices", state="discarded")
    write_row(engine, topic="invoices", state="sent")

    found = tally(database)

    assert {
        (ORDERS, State.PENDING): Count(3),
        (INVOICES, State.FAILED): Count(1),
        (INVOICES, State.PENDING): Count(1),
    } == found.lanes


def test_tally_of_nothing(database):
    """Without any message all is zero, and nothing waits."""
    found = tally(database)

    assert dict.fromkeys(State, Count(0)) == found.counts
    assert ({}, None) == (found.lanes, found.oldest_pending_s)


@pytest.mark.parametrize(
    ("ages", "columns", "age_s"),
    [
        ({"created_at": 500}, {}, 500),
        ({"created_at": 500, "available_at": -60}, {"attempts": 3}, 500),
        ({"created_at": 500}, {"ordering_key": "k"}, 500),
        ({"created_at": 9000, "deliver_at": -9_000_000, "available_at": -60}, {}, 100),
        ({"created_at": 9000, "deliver_at": -3_000_000, "available_at": 400}, {}, 400),
        ({"created_at": 9000}, {"state": "failed"}, 100),
    ],
    ids=["due", "backoff", "ordered", "early", "scheduled", "failed"],
)
def test_tally_oldest_pending(engine, database, ages, columns, age_s):
    """The oldest pending message is that of the command line's status."""
    write_row(engine, **columns, **{name: ago(seconds) for name, seconds in ages.items()})
    write_row(engine, created_at=ago(100), available_at=ago(100))

    found = tally(database).oldest_pending_s

    assert age_s - 1 < found < age_s + 30
    assert abs(oldest_pending_s(database) - found) < 5


def test_tally_estimates_many(engine, database, monkeypatch):
    """Beyond the limit numbers are estimates from a sample, and say so; what is few stays exact."""
    monkeypatch.setattr(module, "_LIMIT", 20)
    monkeypatch.setattr(module, "_RUNS", 20)
    monkeypatch.setattr(module, "_RUN", 5)
    write_all(engine, [new_row(state="sent", sent_at=ago(9)) for _ in range(300)])
    write_all(engine, [new_row(created_at=ago(700)) for _ in range(100)])
    write_row(engine, state="failed")

    found = tally(database)

    sent, pending = found.counts[State.SENT], found.counts[State.PENDING]
    assert Count(1) == found.counts[State.FAILED]
    assert (True, True) == (sent.about, pending.about)
    assert 200 < sent.number < 400
    assert 50 < pending.number < 150
    assert pending.number == found.lanes[ORDERS, State.PENDING].number
    assert found.oldest_pending_s > 600


def test_tally_admits_what_the_sample_missed(engine, database, monkeypatch):
    """Where more were counted than the sample tells, there are at least so many."""
    monkeypatch.setattr(module, "_LIMIT", 20)
    monkeypatch.setattr(module, "_runs", lambda first, _span: [first])
    write_all(engine, [new_row(state="sent", sent_at=ago(9)) for _ in range(50)])
    write_all(engine, [new_row(state="failed") for _ in range(30)])

    assert Count(20, at_least=True) == tally(database).counts[State.FAILED]


def test_tally_asks_little(engine, database):
    """Four statements, whatever there is."""
    write_rows(engine, 50)
    with statements(engine) as sent:
        tally(database)

    assert len(sent) <= 4
