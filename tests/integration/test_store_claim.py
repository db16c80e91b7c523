"""Claims of rows without an ordering key: one contract, on every database."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, insert, text

from outbox.states import State
from outbox.store.claim import INLINE_BODY_BYTES, Place, read_body
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.mark import MarkSent, mark
from outbox.table import db_after, messages
from tests.rows import (
    ago,
    change,
    expire_leases,
    history,
    ids,
    lease_row,
    locked,
    new_row,
    read_row,
    statements,
    states,
    take,
    write_row,
    write_rows,
)

with_row_locks = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])


@pytest.fixture
def database(engine):
    return Database(engine)


def crashed(engine, times, **over):
    """A row that as many processes did not survive, the last one's lease included."""
    row_id = write_row(engine, crashes=times - 1, **over)
    lease_row(engine, row_id, seconds=-1)
    return row_id


def test_claim_returns_what_publishing_takes(engine, database):
    """A claimed row carries its message, its counts and the token of its lease."""
    row_id = write_row(engine, body="grüße", body_bytes=7, tag=None, attempts=3, unknown_outcomes=2, replays=1)

    (row,) = take(database)

    stored = read_row(engine, row_id)
    assert ("grüße", 7, None, 3, 2, 1) == (
        row.body,
        row.body_bytes,
        row.tag,
        row.attempts,
        row.unknown_outcomes,
        row.replays,
    )
    assert (row_id, stored["outbox_id"], "default", "orders", stored["properties"]) == (
        row.id,
        row.outbox_id,
        row.destination,
        row.topic,
        row.properties,
    )
    assert stored["lease_token"] == row.lease_token
    assert not row.alone


def test_claim_changes_no_state(engine, database):
    """A claim is a lease on a pending row, by the database's clock, and charges nothing."""
    row_id = write_row(engine)

    take(database, lease_s=60.0)

    with engine.connect() as connection:
        left = connection.scalar(
            messages.select()
            .with_only_columns(messages.c.id)
            .where(messages.c.lease_until > db_after(55), messages.c.lease_until < db_after(61))
        )
    assert row_id == left
    assert ("pending", 0, 0, 0) == tuple(
        read_row(engine, row_id)[name] for name in ("state", "attempts", "crashes", "unknown_outcomes")
    )


def test_claim_takes_those_due_longest_first(engine, database):
    """Rows come in the order in which they became due, as many as asked for."""
    late, early, middle = (write_row(engine, available_at=ago(age)) for age in (10, 30, 20))

    assert [early, middle] == ids(take(database, limit=2))
    assert [late] == ids(take(database, limit=2))


def test_claim_takes_only_pending_rows(engine, database):
    """No row leaves another state by a claim."""
    for state in set(State) - {State.PENDING}:
        write_row(engine, state=state)

    assert [] == take(database)


def test_claim_skips_rows_not_due(engine, database):
    """A row in backoff, or scheduled beyond the horizon, is left until its time."""
    write_row(engine, available_at=ago(-30))

    assert [] == take(database)


def test_claim_skips_leased_rows(engine, database):
    """A row under a lease is nobody else's."""
    write_rows(engine, 3)

    first, second = take(database, limit=2), take(database)

    assert [2, 1] == [len(first), len(second)]
    assert not set(ids(first)) & set(ids(second))


def test_claim_keeps_to_its_lane(engine, database):
    """Another topic, another destination and ordered rows are not touched, and case counts."""
    write_row(engine, topic="Orders")
    write_row(engine, destination="second")
    write_row(engine, ordering_key="k")
    ours = write_row(engine)

    assert [ours] == ids(take(database))


def test_claim_behind_a_paused_lane(engine, database):
    """Rows of one topic, however many, stand in nobody else's way."""
    write_rows(engine, 2000, topic="paused", available_at=ago(3600))
    ours = write_row(engine)

    assert [ours] == ids(take(database, limit=500))


def test_claim_gives_each_claim_its_own_token(engine, database):
    """Two claims never share a token, so that a late mark of the first cannot pass for the second's."""
    write_rows(engine, 2)

    tokens = {row.lease_token for _ in range(2) for row in take(database, limit=1)}

    assert 2 == len(tokens)


def test_claim_takes_over_an_expired_lease(engine, database):
    """A lease that ended without a mark makes the row due again, counted as a crash and as an unknown outcome."""
    write_row(engine)
    (first,) = take(database)
    expire_leases(engine)

    (second,) = take(database)

    assert first.id == second.id
    assert first.lease_token != second.lease_token
    assert (1, 0) == (second.unknown_outcomes, second.attempts)
    assert (1, 1, 0) == tuple(read_row(engine, first.id)[name] for name in ("crashes", "unknown_outcomes", "attempts"))


def test_claim_of_a_released_row_counts_no_crash(engine, database):
    """A row whose lease was ended by a mark did not crash."""
    row_id = write_row(engine, crashes=1)

    (row,) = take(database)

    assert not row.alone
    assert 1 == read_row(engine, row_id)["crashes"]


def test_claim_leaves_large_bodies_behind(engine, database):
    """A body comes along up to 32 KiB; a larger one is read when its turn comes."""
    small, large = "s" * INLINE_BODY_BYTES, "l" * (INLINE_BODY_BYTES + 1)
    for body in (small, large):
        write_row(engine, body=body, body_bytes=len(body))

    first, second = take(database)

    assert (small, None) == (first.body, second.body)
    assert large == read_body(database, second)


def test_read_body_without_the_lease(engine, database):
    """Whoever lost the lease reads no body, and so publishes nothing."""
    write_row(engine, body_bytes=INLINE_BODY_BYTES + 1)
    (row,) = take(database)
    expire_leases(engine)
    take(database)

    assert read_body(database, row) is None


@with_row_locks
def test_claim_skips_locked_rows(engine, database):
    """A claim never waits for another transaction's lock."""
    first, second = write_rows(engine, 2)

    with locked(engine, first):
        claimed = ids(take(database))

    assert [second] == claimed
    assert [first] == ids(take(database))


@with_row_locks
def test_claim_finds_a_row_that_commits_late(engine, database):
    """Ids are not the order of commits: the row of a slow transaction is claimed although larger ids went before."""
    with engine.connect() as slow:
        transaction = slow.begin()
        early = slow.execute(insert(messages).values(new_row())).inserted_primary_key[0]
        late = write_row(engine)
        (claimed,) = take(database)
        mark(database, [MarkSent(claimed.id, claimed.lease_token, "M")])
        transaction.commit()

    assert late == claimed.id > early
    assert [early] == ids(take(database))


def test_claim_behind_a_place(engine, database):
    """Behind a row come those due later, and of those due at the same instant the ones with larger ids."""
    at_once = write_rows(engine, 3, available_at=ago(60))
    longest = write_row(engine, available_at=ago(90))
    shortest = write_row(engine, available_at=ago(30))
    before = read_row(engine, at_once[1])

    behind = take(database, behind=Place(before["available_at"], before["id"]))

    assert [at_once[2], shortest] == ids(behind)
    assert [longest, *at_once[:2]] == ids(take(database))


def test_claim_behind_its_own_last_row(engine, database):
    """Batch by batch, each behind the last row of the one before, every row is claimed once."""
    written = write_rows(engine, 25, available_at=ago(60))
    rows, claimed = take(database, limit=10), []
    while rows:
        claimed += ids(rows)
        rows = take(database, limit=10, behind=Place(rows[-1].available_at, rows[-1].id))

    assert written == claimed


def test_claim_by_many_at_once(engine, database):
    """Sixteen claimers of 3,000 rows hold each row exactly once, and leave none."""
    write_rows(engine, 3000)
    claimed = Counter()
    mutex = threading.Lock()
    start = threading.Barrier(16)

    def relay(_):
        start.wait()
        while rows := take(database, limit=100):
            with mutex:
                claimed.update(ids(rows))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(relay, range(16)))

    assert {1} == set(claimed.values())
    assert 3000 == len(claimed)


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_claim_and_enqueue_do_not_deadlock(engine, database):
    """At READ COMMITTED no gap is locked: claims, marks and inserts side by side meet no error 1213 or 1205."""
    errors = []
    event.listen(engine, "handle_error", lambda context: errors.append(str(context.original_exception)))
    enqueued = threading.Event()

    def enqueue(_):
        for _ in range(20):
            write_rows(engine, 5)

    def relay(_):
        while (rows := take(database, limit=20)) or not enqueued.is_set():
            mark(database, [MarkSent(row.id, row.lease_token, "M") for row in rows])

    with ThreadPoolExecutor(8) as pool:
        relays = [pool.submit(relay, number) for number in range(4)]
        list(pool.map(enqueue, range(4)))
        enqueued.set()
        [one.result() for one in relays]

    assert [] == errors
    assert {"sent": 400} == Counter(states(engine).values())


# --- rows that crash ----------------------------------------------------------------------------------------------


def test_claim_takes_a_poison_row_alone(engine, database):
    """The row due longest comes alone when two processes did not survive it; the others come after."""
    poison = crashed(engine, 2, available_at=ago(60))
    others = write_rows(engine, 2)[1:]

    (alone,) = take(database)

    assert (poison, True, 2) == (alone.id, alone.alone, read_row(engine, poison)["crashes"])
    assert others == ids(take(database))


def test_claim_leaves_a_younger_poison_row_out(engine, database):
    """A batch of healthy rows takes no poison row along; it comes when it is the one due longest."""
    healthy = write_row(engine, available_at=ago(60))
    poison = crashed(engine, 3)

    assert [healthy] == ids(take(database))
    assert [poison] == ids(take(database))


def test_claim_after_one_crash_is_not_alone(engine, database):
    """One crash says nothing about which row of the batch it was."""
    write_rows(engine, 3)
    take(database)
    expire_leases(engine)

    rows = take(database)

    assert 3 == len(rows)
    assert not any(row.alone for row in rows)


def test_claim_charges_a_crash_while_alone(engine, database):
    """What a row did while it was alone is its own fault: one attempt."""
    poison = crashed(engine, 2)
    (first,) = take(database)
    expire_leases(engine)

    (second,) = take(database)

    assert (0, 1) == (first.attempts, second.attempts)
    assert (1, 3, 2) == tuple(read_row(engine, poison)[name] for name in ("attempts", "crashes", "unknown_outcomes"))


def test_claim_buries_a_row_out_of_attempts(engine, database):
    """A row that crashed alone for the last time is failed, its outcome unknown; the next rows are claimed instead."""
    poison = crashed(engine, 3, attempts=9, available_at=ago(60))
    healthy = write_row(engine)

    claimed = take(database, max_attempts=10)

    row, (attempt,) = read_row(engine, poison), history(engine, poison)
    assert [healthy] == ids(claimed)
    assert ("failed", "Crashed", 10, None, None) == tuple(
        row[name] for name in ("state", "last_error_code", "attempts", "lease_token", "lease_until")
    )
    assert ("Crashed", False) == (attempt["code"], attempt["outcome_known"])


def test_claim_spares_the_innocents_of_a_crashing_batch(engine, database):
    """However often a batch crashes with one bad row in it, only that row ever fails."""
    bad, *innocents = write_rows(engine, 5)
    for _ in range(40):
        rows = take(database, max_attempts=3)
        if not any(row.id == bad for row in rows):
            mark(database, [MarkSent(row.id, row.lease_token, "M") for row in rows])
        expire_leases(engine)

    assert {bad: "failed"} | dict.fromkeys(innocents, "sent") == states(engine)


# --- cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("database_kind", "expected"), [("postgresql", 1), ("mariadb", 3), ("sqlite", 2)])
def test_claim_in_few_statements(engine, database, expected):
    """A batch of 500 is one statement on PostgreSQL, two on SQLite, three on MariaDB."""
    write_rows(engine, 500)

    with statements(engine) as seen:
        rows = take(database)

    assert (500, expected) == (len(rows), len(seen))


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_claim_locks_only_what_it_leases(engine, database):
    """On MariaDB a claim locks no row that it passes over, such as those that other relays hold."""
    write_rows(engine, 3000)
    assert 2000 == len(take(database, limit=2000))
    memory, query = [], "SELECT trx_lock_memory_bytes FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = "

    def listen(connection, _cursor, statement, *_):
        if "outbox_messages" in statement:
            time.sleep(0.15)  # the server renews what it tells after a tenth of a second
            with connection.connection.cursor() as cursor:
                cursor.execute(f"{query} connection_id()")
                memory.extend(int(row[0]) for row in cursor.fetchall())

    event.listen(engine, "after_cursor_execute", listen)
    one = take(database, limit=1)

    assert 1 == len(one)
    assert max(memory) < 2000


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_claim_looks_past_rows_that_others_have_locked(engine, database):
    """A claim whose first candidates are locked goes on to those behind them, until it has what it was asked for."""
    written = write_rows(engine, 3000)

    with locked(engine, *written[:20], written[21]):
        claimed = take(database, limit=5)

    assert [written[20], *written[22:26]] == ids(claimed)


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_claim_updates_in_place(engine, database):
    """On PostgreSQL a claim touches no index: its row versions stay on their pages."""
    write_rows(engine, 200)
    take(database)
    changed = text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'outbox_messages'")

    engine.dispose()
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        updated, in_place = connection.execute(changed).one()

    assert (200, 200) == (updated, in_place)


def test_change_needs_token_and_time_together(engine):
    """No row can hold half a lease."""
    row_id = write_row(engine)

    with pytest.raises(Exception, match="ck_outbox_messages_lease"):
        change(engine, row_id, lease_token="alone")


def test_lane_names_are_compared_byte_by_byte(engine, database):
    """A lane that differs by case is another lane."""
    write_row(engine, topic="ORDERS")

    assert [] == take(database, lane=Lane("default", "orders"))
