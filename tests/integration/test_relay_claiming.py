"""What a relay claims between two looks: onwards, and after the next look from the beginning again."""

import pytest
from sqlalchemy import event, insert, text

from outbox.outcomes import Fault
from outbox.relay import Forever
from outbox.relay.claiming import Claimer
from outbox.retry import Policy
from outbox.states import State
from outbox.store.database import Database
from outbox.store.mark import MarkRetry, MarkSent, Release, mark
from outbox.store.operate import Target, replay
from outbox.table import messages
from tests.relaying import Scripted, drained, make_relay, wait_until
from tests.rows import ago, change, expire_leases, ids, new_row, states, write_key, write_row, write_rows
from tests.virtual_clock import VirtualClock

with_row_locks = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])

ODD = Fault("SomethingNew", "try again", 400, "req-1")


@pytest.fixture
def database(engine):
    return Database(engine)


@pytest.fixture
def clock():
    with VirtualClock() as clock:
        yield clock


@pytest.fixture
def claimer(database, clock):
    return Claimer(database, clock, lease_s=60.0, policy=Policy(), skip_failed_heads=frozenset())


def look(claimer):
    """The only lane that is due."""
    (due,) = claimer.look()
    return due


def sent(database, rows):
    return mark(database, [MarkSent(row.id, row.lease_token, "M") for row in rows])


def test_claims_go_on_behind_the_last_row(engine, claimer):
    """Until the next look, a row that comes in front of those claimed is left; then it is the first."""
    written = write_rows(engine, 30, available_at=ago(60))
    due = look(claimer)
    first = claimer.claim(due, 10)
    early = write_row(engine, available_at=ago(90))
    second = claimer.claim(due, 10)

    assert (written[:10], written[10:20]) == (ids(first), ids(second))
    assert [early, *written[20:]] == ids(claimer.claim(look(claimer), 100))


def test_look_ages_after_a_second(engine, claimer, clock):
    """Where looking takes no time, another look is due after a second."""
    write_rows(engine, 2)
    due = look(claimer)
    claimer.claim(due, 1)
    clock.sleep(0.9)
    young = claimer.is_look_old()
    clock.sleep(0.2)

    assert (young, claimer.is_look_old()) == (False, True)


def test_look_lasts_longer_where_looking_takes_long(engine, claimer, clock):
    """Looks and claims from the beginning take about a tenth of the time; claims onwards do not count."""
    write_rows(engine, 30)
    event.listen(engine, "before_cursor_execute", lambda *_: clock.sleep(0.06))
    began = clock.monotonic()
    due = look(claimer)
    looked = clock.monotonic()
    claimer.claim(due, 1)
    spent_s = clock.monotonic() - began
    claimer.claim(due, 1)
    clock.sleep(looked + min(10 * spent_s, 3.0) - clock.monotonic() - 0.01)
    young = claimer.is_look_old()
    clock.sleep(0.02)

    assert 0.1 < spent_s
    assert (young, claimer.is_look_old()) == (False, True)


def test_look_lasts_three_seconds_at_most(engine, claimer, clock):
    """However long looking takes, a lane that is new waits no longer."""
    write_rows(engine, 2)
    event.listen(engine, "before_cursor_execute", lambda *_: clock.sleep(30.0))
    look(claimer)
    young = claimer.is_look_old()
    clock.sleep(3.1)

    assert (young, claimer.is_look_old()) == (False, True)


def test_relay_gets_on_however_long_looking_takes(engine):
    """A look that took half a minute is still good for a claim."""
    write_rows(engine, 5)

    with VirtualClock() as clock:
        event.listen(engine, "before_cursor_execute", lambda *_: clock.sleep(30.0))
        counts = make_relay(engine, Scripted(), clock, lease_s=300.0).run(drained(engine, clock, 600))

    assert 5 == counts.sent


@pytest.mark.parametrize(("looking_s", "at_least", "at_most"), [(0.05, 55, 61), (0.5, 16, 18), (30.0, 1, 2)])
def test_idle_relay_rests_longer_where_looking_takes_long(engine, looking_s, at_least, at_most):
    """Looks of an idle relay in a minute: one a second, about a tenth of the time at most, or one in three seconds."""
    looks = []

    with VirtualClock() as clock:

        def look_slowly(_connection, _cursor, statement, *_):
            if "outbox_pauses" in statement:
                looks.append(clock.monotonic())
                clock.sleep(looking_s)

        event.listen(engine, "before_cursor_execute", look_slowly)
        relay = make_relay(engine, Scripted(), clock)
        task = clock.start("idle", "claimer", lambda: relay.run(Forever()))
        clock.sleep(60.0)
        relay.stop()
        task.join()

    assert at_least <= len(looks) <= at_most


# --- nothing is lost by going on ----------------------------------------------------------------------------------


@with_row_locks
def test_row_that_commits_late_is_claimed_after_the_next_look(engine, database, claimer):
    """Ids and clocks are not the order of commits."""
    write_rows(engine, 2, available_at=ago(60))
    with engine.connect() as slow:
        transaction = slow.begin()
        late = slow.execute(insert(messages).values(new_row(available_at=ago(90)))).inserted_primary_key[0]
        due = look(claimer)
        sent(database, claimer.claim(due, 1))
        transaction.commit()
    sent(database, claimer.claim(due, 10))

    assert [late] == ids(claimer.claim(look(claimer), 10))


def give_back(_engine, database, row):
    mark(database, [Release(row.id, row.lease_token)])


def retry_later(engine, database, row):
    mark(database, [MarkRetry(row.id, row.lease_token, 0.0, ODD, charge=True, unknown=False)])
    change(engine, row.id, available_at=ago(0))


def lose_the_lease(engine, _database, _row):
    expire_leases(engine)


def fail_and_replay(engine, database, row):
    change(engine, row.id, state="failed", lease_until=None, lease_token=None)
    replay(database, [Target(row.id, State.FAILED, 0)], by="ann", reason="a test")


@pytest.mark.parametrize("come_back", [give_back, retry_later, lose_the_lease, fail_and_replay])
def test_row_that_comes_back_is_claimed_after_the_next_look(engine, database, claimer, come_back):
    """A row given back, retried, taken from a dead process or replayed is found, wherever it stands by then."""
    written = write_rows(engine, 10, available_at=ago(60))
    due = look(claimer)
    first, *others = claimer.claim(due, 5)
    sent(database, others)
    come_back(engine, database, first)
    sent(database, [row for row in claimer.claim(due, 100) if row.id != first.id])
    expire_leases(engine)

    assert written[0] == first.id
    assert [first.id] == ids(claimer.claim(look(claimer), 100))


def test_ordering_keys_are_always_claimed_from_their_beginning(engine, database, claimer):
    """Rows of a key that were given back are the next ones claimed, never those behind them."""
    written = [write_key(engine, "k", "pending")[0] for _ in range(4)]
    due = look(claimer)
    first = claimer.claim(due, 2)
    mark(database, [Release(row.id, row.lease_token) for row in first])

    assert written[:2] == ids(first) == ids(claimer.claim(due, 2))


def test_relay_with_a_backlog_finds_what_comes_in_front_of_it(engine):
    """With minutes of work at hand, a row that comes first in its lane is published within seconds."""
    write_rows(engine, 400, body="old", available_at=ago(60))
    seen = []

    with VirtualClock() as clock:

        def answer(_topic, body):
            seen.append((clock.monotonic(), body))
            if len(seen) == 20:
                write_row(engine, body="early", available_at=ago(90))

        publisher = Scripted(answer, sleep_s=0.25, clock=clock)
        make_relay(engine, publisher, clock, batch_size=10, concurrency=2).run(drained(engine, clock))

    written_at, found_at = seen[19][0], next(at for at, body in seen if body == "early")
    assert found_at - written_at < 6.0 < seen[-1][0] - written_at
    assert {"sent"} == set(states(engine).values())


# --- what it is for -----------------------------------------------------------------------------------------------


@on_postgresql
def test_open_transaction_elsewhere_does_not_make_claims_read_more(engine, database, claimer):
    """Index entries of rows sent meanwhile are not read again by each claim, although none can be removed."""
    write_rows(engine, 2500, available_at=ago(60))
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as elsewhere:
        elsewhere.execute(text("SELECT count(*) FROM outbox_messages")).one()
        due = look(claimer)
        for _ in range(20):
            sent(database, claimer.claim(due, 100))
        elsewhere.rollback()
    engine.dispose()

    assert 2000 == sum(state == "sent" for state in states(engine).values())
    assert wait_until(lambda: entries_read(engine) >= 2000)
    assert entries_read(engine) < 2 * 2500


def entries_read(engine):
    """Entries of the index of due rows that scans have returned, those of dead rows included."""
    query = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_outbox_messages_due'"
    with engine.connect() as connection:
        return connection.scalar(text(query))
