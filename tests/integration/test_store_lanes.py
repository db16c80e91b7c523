"""Lanes: which have something due, which are paused, and whether anything is left to do."""

from datetime import timedelta

import pytest

from outbox.store.database import Database
from outbox.store.lanes import Lane, due_lanes, left_to_do
from outbox.store.look import paused
from outbox.store.pauses import end_automatic_pause, pause, pause_automatically, resume, win_probe
from tests.rows import ORDERS, ago, audits, change, lease_row, new_row, statements, write_all, write_key, write_row

NOTHING = frozenset()


@pytest.fixture
def database(engine):
    return Database(engine)


def due_lane(database, lane=ORDERS):
    return next(one for one in due_lanes(database) if one.lane == lane)


# --- due lanes ----------------------------------------------------------------------------------------------------


def test_due_lanes_of_an_empty_outbox(database):
    """With nothing pending there is no lane."""
    assert [] == due_lanes(database)


def test_due_lanes_finds_each_lane_once(engine, database):
    """Each lane is named once, by destination and topic, with the kinds of rows that are due."""
    for destination, topic, key in [
        ("second", "a", None),
        ("default", "b", None),
        ("default", "b", None),
        ("default", "b", "k"),
        ("default", "B", "k1"),
        ("default", "B", "k2"),
    ]:
        write_row(engine, destination=destination, topic=topic, ordering_key=key)

    found = [(one.lane, one.unordered, one.ordered) for one in due_lanes(database)]

    assert [
        (Lane("default", "B"), False, True),
        (Lane("default", "b"), True, True),
        (Lane("second", "a"), True, False),
    ] == found


def test_due_lanes_leaves_lanes_that_must_wait(engine, database):
    """Rows in backoff, scheduled or finished make no lane due."""
    write_row(engine, topic="scheduled", available_at=ago(-60))
    write_row(engine, topic="ordered-later", available_at=ago(-60), ordering_key="k")
    for state in ("committing", "sent", "failed", "in_doubt", "discarded"):
        write_row(engine, state=state)
        write_row(engine, state=state, ordering_key="k")

    assert [] == due_lanes(database)


def test_due_lanes_looks_behind_keys_that_must_wait(engine, database):
    """One key in backoff does not hide another that is due."""
    write_key(engine, "a", "pending", available_at=ago(-60))
    write_key(engine, "b", "pending")

    assert [(ORDERS, False, True)] == [(one.lane, one.unordered, one.ordered) for one in due_lanes(database)]


def test_due_lanes_may_name_a_leased_lane(engine, database):
    """Leases are not looked at: no index has them."""
    lease_row(engine, write_row(engine))

    assert [ORDERS] == [one.lane for one in due_lanes(database)]


@pytest.mark.parametrize(("database_kind", "expected"), [("postgresql", 1), ("sqlite", 1), ("mariadb", 2 * 30 + 2)])
def test_due_lanes_in_few_statements(engine, database, expected):
    """Thirty lanes are one statement, but for MariaDB, which walks lane by lane."""
    write_all(engine, [new_row(topic=f"t{number}") for number in range(30)] * 1)

    with statements(engine) as seen:
        found = due_lanes(database)

    assert (30, expected) == (len(found), len(seen))


# --- pauses -------------------------------------------------------------------------------------------------------


def test_pause_automatically(engine, database):
    """The circuit breaker's pause lasts so many seconds by the database's clock, and says how often it failed."""
    write_row(engine)

    pause_automatically(database, ORDERS, for_s=60.0, reason="AccessDenied", failures=3)

    paused = due_lane(database)
    assert (3, False, False) == (paused.automatic.failures, paused.automatic.over, paused.operator_paused)
    assert timedelta(seconds=50) < paused.automatic.until - ago(0) < timedelta(seconds=61)


def test_pause_automatically_keeps_the_worse(engine, database):
    """A relay that knows of fewer failures makes the pause no shorter, and does not forget the failures."""
    write_row(engine)
    pause_automatically(database, ORDERS, for_s=60.0, reason="down", failures=5)
    worse = due_lane(database).automatic

    pause_automatically(database, ORDERS, for_s=1.0, reason="down", failures=1)

    assert worse == due_lane(database).automatic


def test_pause_automatically_follows_the_probe(engine, database):
    """Whoever probed and failed sets the next pause, shorter than what the probe had asked for."""
    write_row(engine)
    pause_automatically(database, ORDERS, for_s=-1.0, reason="down", failures=1)
    win_probe(database, ORDERS, due_lane(database).automatic, for_s=60.0)

    pause_automatically(database, ORDERS, for_s=1.0, reason="down", failures=2)

    paused = due_lane(database).automatic
    assert 2 == paused.failures
    assert paused.until < ago(-2)


def test_win_probe_once(engine, database):
    """Of all relays that see a pause end, one may probe; the lane stays paused meanwhile."""
    write_row(engine)
    pause_automatically(database, ORDERS, for_s=-1.0, reason="down")
    seen = due_lane(database).automatic

    won = [win_probe(database, ORDERS, seen, for_s=11.0) for _ in range(2)]

    assert seen.over
    assert [True, False] == won
    assert not due_lane(database).automatic.over


def test_win_probe_of_a_pause_in_force(engine, database):
    """Nobody probes before the pause is over."""
    write_row(engine)
    pause_automatically(database, ORDERS, for_s=60.0, reason="down")

    assert not win_probe(database, ORDERS, due_lane(database).automatic, for_s=11.0)


def test_end_automatic_pause(engine, database):
    """A success ends the pause; ending it again says that there was none."""
    write_row(engine)
    pause_automatically(database, ORDERS, for_s=60.0, reason="down")

    ended = [end_automatic_pause(database, ORDERS) for _ in range(2)]

    assert [True, False] == ended
    assert due_lane(database).automatic is None


def test_pause_by_an_operator(engine, database):
    """An operator's pause holds until resumed, beside the circuit breaker's, and both acts are audited."""
    write_row(engine)
    pause_automatically(database, ORDERS, for_s=60.0, reason="down")
    pause(database, ORDERS, by="ann", reason="migration")
    paused = due_lane(database)

    resumed = [resume(database, ORDERS, by="bob", reason="done") for _ in range(2)]

    assert (True, 1) == (paused.operator_paused, paused.automatic.failures)
    assert [True, False] == resumed
    assert not due_lane(database).operator_paused
    assert due_lane(database).automatic is not None
    assert [("pause", "ann", "migration"), ("resume", "bob", "done")] == [
        (row["action"], row["by"], row["reason"]) for row in audits(engine)
    ]
    assert {("default", "orders")} == {(row["destination"], row["topic"]) for row in audits(engine)}


def test_pause_by_a_long_name(engine, database):
    """Who paused is cut to what the table holds, in one line, as in the audit."""
    pause(database, ORDERS, by="ann\n" + "x" * 200, reason="migration")

    (seen,) = paused(database)

    assert "ann " + "x" * 146 == seen["by"] == audits(engine)[0]["by"]


def test_pause_until_an_instant(engine, database):
    """An operator's pause may end by itself; a second one replaces the first."""
    write_row(engine)
    pause(database, ORDERS, by="ann", reason="short", until=ago(-60))
    in_force = due_lane(database).operator_paused
    pause(database, ORDERS, by="ann", reason="over", until=ago(1))

    assert in_force
    assert not due_lane(database).operator_paused


def test_pause_of_one_lane_leaves_the_others(engine, database):
    """A pause stops its own lane only."""
    write_row(engine)
    write_row(engine, destination="second")
    pause(database, Lane("second", "orders"), by="ann", reason="moving")

    assert [False, True] == [one.operator_paused for one in due_lanes(database)]


# --- what is left -------------------------------------------------------------------------------------------------


def test_left_to_do_of_finished_rows(engine, database):
    """Nothing is left when nothing is pending."""
    for state in ("committing", "sent", "failed", "in_doubt", "discarded"):
        write_row(engine, state=state)

    assert not left_to_do(database, NOTHING)


@pytest.mark.parametrize("key", [None, "k"])
def test_left_to_do_counts_what_comes_by_itself(engine, database, key):
    """Rows due, in backoff, under another's lease or in an automatic pause will be done without anybody's help."""
    row_id = write_row(engine, ordering_key=key)
    left = [left_to_do(database, NOTHING)]
    pause_automatically(database, ORDERS, for_s=60.0, reason="down")
    left.append(left_to_do(database, NOTHING))
    lease_row(engine, row_id)
    left.append(left_to_do(database, NOTHING))
    change(engine, row_id, lease_until=None, lease_token=None, attempts=1, available_at=ago(-60))
    left.append(left_to_do(database, NOTHING))

    assert [True] * 4 == left


def test_left_to_do_leaves_schedules_alone(engine, database):
    """A row that waits for its deliver_at does not keep a drain waiting; once tried, its backoff does."""
    row_id = write_row(engine, deliver_at=ago(-4_000_000), available_at=ago(-500_000))
    scheduled = left_to_do(database, NOTHING)
    change(engine, row_id, attempts=1, available_at=ago(-5))

    assert not scheduled
    assert left_to_do(database, NOTHING)


@pytest.mark.parametrize("key", [None, "k"])
def test_left_to_do_leaves_operators_pauses_alone(engine, database, key):
    """A drain does not wait for an operator."""
    write_row(engine, ordering_key=key)
    pause(database, ORDERS, by="ann", reason="stop")

    assert not left_to_do(database, NOTHING)


def test_left_to_do_behind_a_failed_head(engine, database):
    """Rows behind a failed head wait for an operator, unless their topic skips failed heads; others do not."""
    write_key(engine, "h", "failed", "pending")
    blocked, skipped = left_to_do(database, NOTHING), left_to_do(database, frozenset({"orders"}))
    write_key(engine, "i", "pending", "failed")

    assert (False, True) == (blocked, skipped)
    assert left_to_do(database, NOTHING)
