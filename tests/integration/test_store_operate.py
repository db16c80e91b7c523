"""What operators do: replay, discard and purge, exactly as the table of transitions allows."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from sqlalchemy import select

from outbox.errors import OperationError
from outbox.outcomes import Fault
from outbox.states import TRANSITIONS, State
from outbox.store.database import Database
from outbox.store.mark import MarkRetry, MarkSent, mark
from outbox.store.operate import Target, discard, find, purge, replay
from outbox.store.purge import count_purgeable
from outbox.table import attempts, audit
from tests.rows import (
    ago,
    audits,
    change,
    ids,
    lease_row,
    locked,
    new_row,
    read_row,
    states,
    take,
    take_ordered,
    write_all,
    write_key,
    write_row,
)

DEEDS = {"replay": replay, "discard": discard}
BY = {"by": "ann", "reason": "fixed downstream"}
DAY_S = 86_400


@pytest.fixture
def database(engine):
    return Database(engine)


def act(database, verb, row_id, *, force):
    """The deed on one row, by its id; refused is 0 rows."""
    try:
        targets = find(database, verb, ids=[row_id], force=force)
    except OperationError:
        return 0
    return DEEDS[verb](database, targets, force=force, **BY)


def target_of(verb, state, *, force):
    """The state that the table of transitions leads to; the same where it has no way."""
    ways = [one for one in TRANSITIONS if (one.verb, one.source) == (verb, state) and (force or not one.forced)]
    return ways[0].target if ways else state


# --- replay and discard -------------------------------------------------------------------------------------------


def test_deeds_are_the_transitions(engine, database):
    """Each deed on each state, forced or not, leads where the table of transitions says and nowhere else."""
    cases = {write_row(engine, state=case[1]): case for case in product(DEEDS, State, (False, True))}
    expected = {row_id: target_of(verb, state, force=force) for row_id, (verb, state, force) in cases.items()}

    done = {row_id: act(database, verb, row_id, force=force) for row_id, (verb, _, force) in cases.items()}

    assert expected == states(engine)
    assert {row_id: int(target != cases[row_id][1]) for row_id, target in expected.items()} == done


def test_replay_starts_afresh(engine, database):
    """A replayed row is due at once, as if never tried, but for what may have been accepted before."""
    row_id = write_row(
        engine,
        state="failed",
        attempts=10,
        crashes=3,
        unknown_outcomes=2,
        available_at=ago(-3600),
        message_id="M",
        sent_at=ago(9),
        posted_at=ago(9),
        confirmed_by="answer",
        last_error_code="Timeout",
    )

    done = replay(database, find(database, "replay", ids=[row_id]), **BY)

    row = read_row(engine, row_id)
    assert 1 == done
    assert ("pending", 0, 0, 2, 1, "Timeout") == tuple(
        row[name] for name in ("state", "attempts", "crashes", "unknown_outcomes", "replays", "last_error_code")
    )
    assert {None} == {row[name] for name in ("message_id", "sent_at", "posted_at", "confirmed_by")}
    assert [row_id] == ids(take(database))


def test_replay_by_either_id(engine, database):
    """A row is named by its row id, as a number or a string, or by its outbox_id."""
    first, second, third = (write_row(engine, state="failed") for _ in range(3))
    names = [first, str(second), read_row(engine, third)["outbox_id"]]

    found = find(database, "replay", ids=names)

    assert [Target(row_id, State.FAILED, 0) for row_id in (first, second, third)] == found


@pytest.mark.parametrize("unknown", ["123456789", "9" * 40, "00000000-0000-0000-0000-000000000000", 7**70])
def test_find_an_unknown_id(engine, database, unknown):
    """An id that no row has is named."""
    write_row(engine, state="failed")

    with pytest.raises(OperationError, match=f"there is no message {unknown}"):
        find(database, "replay", ids=[unknown])


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize(
    ("verb", "state", "problem"),
    [
        ("replay", "pending", "which is pending: it is still to be published"),
        ("discard", "committing", "which is committing: it is still to be published"),
        ("replay", "sent", "which is sent: that needs --force"),
        ("discard", "in_doubt", "which is in_doubt: that needs --force"),
        ("discard", "sent", "which is sent: only failed, in_doubt"),
    ],
)
def test_find_says_why_not(engine, database, verb, state, problem):
    """A refusal names the row, its state, and what would help."""
    row_id = write_row(engine, state=state)

    with pytest.raises(OperationError, match=f"cannot {verb} message {row_id}, {problem}"):
        find(database, verb, ids=[row_id])


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_find_needs_ids_or_a_state(database):
    """All messages at once is never what an operator means, nor a state that the deed cannot leave."""
    with pytest.raises(OperationError, match="nothing to replay: give ids, or a state"):
        find(database, "replay", topic="orders")
    with pytest.raises(OperationError, match="cannot replay messages that are sent: that needs --force"):
        find(database, "replay", state=State.SENT)


def test_find_by_state_and_lane(engine, database):
    """A filter finds the rows of one state, of a topic and of a destination; this is what a dry run counts."""
    ours = write_row(engine, state="failed")
    write_row(engine, state="failed", topic="other")
    write_row(engine, state="failed", destination="second")
    write_row(engine, state="pending")

    everywhere = find(database, "replay", state=State.FAILED)

    assert 3 == len(everywhere)
    assert [Target(ours, State.FAILED, 0)] == find(
        database, "replay", state=State.FAILED, topic="orders", destination="default"
    )


def test_replay_in_chunks(engine, database):
    """Any number of rows is changed chunk by chunk, each in a transaction, with progress."""
    write_all(engine, [new_row(state="failed") for _ in range(1203)])
    progress = []

    done = replay(database, find(database, "replay", state=State.FAILED), on_progress=progress.append, **BY)

    assert (1203, [500, 1000, 1203]) == (done, progress)
    assert {"pending"} == set(states(engine).values())
    assert 1203 == len(audits(engine))


def test_replay_twice_changes_once(engine, database):
    """Of two clicks on the same page one wins, even if the row has failed again in between."""
    row_id = write_row(engine, state="failed")
    seen = find(database, "replay", ids=[row_id])

    first = replay(database, seen, **BY)
    change(engine, row_id, state="failed")
    second = replay(database, seen, **BY)

    assert (1, 0) == (first, second)
    assert ("failed", 1) == (read_row(engine, row_id)["state"], read_row(engine, row_id)["replays"])


def test_replay_and_discard_at_once(engine, database):
    """Eight operators at the same instant: one deed is done and audited."""
    row_id = write_row(engine, state="failed")
    seen = find(database, "replay", ids=[row_id])
    start = threading.Barrier(8)

    def operator(number):
        start.wait()
        return (replay, discard)[number % 2](database, seen, **BY)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(operator, range(8)))

    assert 1 == sum(done)
    assert [("replay", "discard")[done.index(1) % 2]] == [row["action"] for row in audits(engine)]


def test_replay_of_a_target_in_flight(engine, database):
    """Nothing is changed where one of the targets may not be."""
    failed, pending = write_row(engine, state="failed"), write_row(engine)

    with pytest.raises(OperationError, match=f"message {pending}, which is pending: it is still to be published"):
        replay(database, [Target(failed, State.FAILED, 0), Target(pending, State.PENDING, 0)], **BY)

    assert {failed: "failed", pending: "pending"} == states(engine)


def test_replay_leaves_leased_rows(engine, database):
    """A row in somebody's hands is left alone, whatever its state says."""
    row_id = write_row(engine, state="failed")
    lease_row(engine, row_id)

    assert 0 == replay(database, [Target(row_id, State.FAILED, 0)], **BY)


def test_discard_unblocks_its_key(engine, database):
    """What waits behind a failed row goes on when the row is closed."""
    failed, behind = write_key(engine, "h", "failed", "pending")

    discard(database, find(database, "discard", ids=[failed]), **BY)

    assert [behind] == ids(take_ordered(database))


def test_deed_is_audited(engine, database):
    """Who, when, what, on which message, and why; a forced deed is called so."""
    rows = [write_row(engine, state=state, keys="order-7") for state in ("failed", "in_doubt")]

    replay(database, find(database, "replay", ids=rows, force=True), force=True, by="a" * 200, reason="why\nnot")

    outbox_ids = {
        "replay": read_row(engine, rows[0])["outbox_id"],
        "replay --force": read_row(engine, rows[1])["outbox_id"],
    }
    assert outbox_ids == {row["action"]: row["outbox_id"] for row in audits(engine)}
    assert {("a" * 150, "why\nnot", "default", "orders", "order-7")} == {
        (row["by"], row["reason"], row["destination"], row["topic"], row["keys"]) for row in audits(engine)
    }


# --- purge --------------------------------------------------------------------------------------------------------


def test_purge_takes_only_finished_rows(engine, database):
    """However old, a row that is neither sent nor discarded stays."""
    old = {"created_at": ago(30 * DAY_S), "sent_at": ago(30 * DAY_S)}
    rows = {state: write_row(engine, state=state, **old) for state in State}

    deleted = purge(database, 7 * DAY_S)

    kept = {"pending", "committing", "failed", "in_doubt"}
    assert 2 == deleted
    assert {rows[state]: state for state in kept} == states(engine)


def test_purge_keeps_the_retention(engine, database):
    """A row is kept for the retention after it was sent, not after it was written."""
    fresh = write_row(engine, state="sent", created_at=ago(30 * DAY_S), sent_at=ago(6 * DAY_S))
    write_row(engine, state="sent", sent_at=ago(8 * DAY_S))

    expected = count_purgeable(database, 7 * DAY_S)

    assert (1, 1) == (expected, purge(database, 7 * DAY_S))
    assert {fresh: "sent"} == states(engine)


def test_purge_keeps_discarded_rows_after_the_deed(engine, database):
    """A discarded row's retention begins when it was discarded."""
    row_id = write_row(engine, state="failed", created_at=ago(30 * DAY_S))
    discard(database, find(database, "discard", ids=[row_id]), **BY)
    early = purge(database, 7 * DAY_S)
    with engine.begin() as connection:
        connection.execute(audit.update().values(at=ago(8 * DAY_S)))

    assert (0, 1) == (early, purge(database, 7 * DAY_S))


def test_purge_keeps_half_messages_two_days(engine, database):
    """A former half message stays 48 hours, whatever the retention: the broker may still ask about it."""
    young = write_row(engine, state="sent", sent_at=ago(47 * 3600), transaction_check_s=60)
    write_row(engine, state="sent", sent_at=ago(49 * 3600), transaction_check_s=60)
    write_row(engine, state="sent", sent_at=ago(3600))

    assert 2 == purge(database, 60.0)
    assert {young: "sent"} == states(engine)


def test_purge_in_batches(engine, database):
    """Batches are bounded, rows that stay are walked past, and what is young ends the walk."""
    for state, age in (("pending", 9), ("sent", 9), ("failed", 9), ("sent", 9), ("sent", 1), ("sent", 1)):
        write_all(
            engine, [new_row(state=state, created_at=ago(age * DAY_S), sent_at=ago(age * DAY_S)) for _ in range(4)]
        )
    progress = []

    deleted = purge(database, 7 * DAY_S, batch=4, on_progress=progress.append)

    assert (8, [0, 4, 4, 8, 8]) == (deleted, progress)
    assert 16 == len(states(engine))


def test_purge_takes_the_history_along(engine, database):
    """A deleted message leaves no attempts behind, and another's stay."""
    gone, kept = write_row(engine), write_row(engine)
    rows = take(database)
    fault = Fault("Timeout", "no answer", accepted=None)
    mark(database, [MarkRetry(row.id, row.lease_token, 0.0, fault, charge=True, unknown=True) for row in rows])
    change(engine, gone, state="sent", sent_at=ago(9 * DAY_S), created_at=ago(9 * DAY_S))

    purge(database, 7 * DAY_S)

    with engine.connect() as connection:
        assert [kept] == connection.scalars(select(attempts.c.message_row_id)).all()


@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
def test_purge_skips_locked_rows(engine, database):
    """A row that an operator is just replaying is left alone, and nobody waits."""
    row_id = write_row(engine, state="sent", sent_at=ago(9 * DAY_S), created_at=ago(9 * DAY_S))

    with locked(engine, row_id):
        deleted = purge(database, 7 * DAY_S)

    assert (0, 1) == (deleted, purge(database, 7 * DAY_S))


def test_purge_beside_claims_and_replays(engine, database):
    """Purge, forced replays and a relay at once: every row ends sent or deleted, none is lost while pending."""
    write_all(engine, [new_row(state="sent", sent_at=ago(9 * DAY_S), created_at=ago(9 * DAY_S)) for _ in range(300)])

    def replays():
        targets = find(database, "replay", state=State.SENT, force=True)[::3]
        return {one.id for one in targets if replay(database, [one], force=True, **BY)}

    def relays():
        for _ in range(20):
            mark(database, [MarkSent(row.id, row.lease_token, "M") for row in take(database, limit=10)])

    with ThreadPoolExecutor(3) as pool:
        works = [pool.submit(replays), pool.submit(relays), pool.submit(purge, database, 7 * DAY_S, batch=20)]
        replayed, *_ = [work.result() for work in works]
    purge(database, 7 * DAY_S)

    assert replayed == set(states(engine))


def test_purge_nothing(engine, database):
    """An empty outbox is purged in one look."""
    assert 0 == purge(database, 7 * DAY_S)
