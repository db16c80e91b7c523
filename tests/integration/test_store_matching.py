"""What operators do to what a page has shown, and to everything that a filter means; and how the audit tells it."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import select

from outbox.errors import OperationError
from outbox.states import State
from outbox.store import matching, operate
from outbox.store.audit import acts
from outbox.store.database import Database
from outbox.store.filter import Filter
from outbox.store.lanes import Lane
from outbox.store.matching import act_on_matching, act_on_seen, seen
from outbox.store.operate import Outcome, Refusal, Target, act, view_body
from outbox.store.pauses import pause
from outbox.table import audit
from tests.rows import (
    ORDERS,
    audits,
    change,
    lease_row,
    new_row,
    read_row,
    states,
    write_all,
    write_key,
    write_row,
    write_rows,
)

BY = {"by": "ann", "reason": "fixed downstream"}


@pytest.fixture
def database(engine):
    return Database(engine)


def failed(row_id, replays=0):
    return Target(row_id, State.FAILED, replays)


# --- rows that were selected --------------------------------------------------------------------------------------


def test_act_tells_of_each_row(engine, database):
    """Rows that are as they were seen are changed; of each other it is said why not."""
    done, sent, leased, pending, other = write_rows(engine, 5, state="failed")
    change(engine, sent, state="sent")
    change(engine, pending, state="pending")
    lease_row(engine, leased)
    change(engine, other, state="in_doubt")
    targets = [failed(row_id) for row_id in (done, sent, leased, 999)]
    targets += [Target(pending, State.PENDING, 0), Target(other, State.IN_DOUBT, 0)]

    outcome = act(database, "replay", targets, **BY)

    assert (done,) == outcome.done
    assert (
        Refusal(sent, "is sent by now"),
        Refusal(leased, "is in flight; wait until that has ended"),
        Refusal(999, "is not there any more"),
        Refusal(pending, "is in flight; wait until that has ended"),
        Refusal(other, "is in_doubt, which replay leaves alone unless it is forced"),
    ) == outcome.refused
    assert [read_row(engine, done)["outbox_id"]] == [one["outbox_id"] for one in audits(engine)]


def test_act_says_what_no_force_allows(engine, database):
    """A state that a deed never leaves is named without a hint at force."""
    row_id = write_row(engine, state="discarded")

    outcome = act(database, "replay", [Target(row_id, State.DISCARDED, 0)], **BY, force=True)

    assert (Refusal(row_id, "is discarded, which replay leaves alone"),) == outcome.refused


def test_act_twice_on_what_was_seen_once(engine, database):
    """A second click does nothing, even if the row has failed again meanwhile."""
    row_id = write_row(engine, state="failed")
    act(database, "replay", [failed(row_id)], **BY)
    at_once = act(database, "replay", [failed(row_id)], **BY)
    change(engine, row_id, state="failed")

    later = act(database, "replay", [failed(row_id)], **BY)

    assert (Refusal(row_id, "has been replayed meanwhile, and is pending now"),) == at_once.refused
    assert Outcome((), (Refusal(row_id, "has been replayed meanwhile, and is failed now"),)) == later
    assert 1 == len(audits(engine))


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_act_by_two_operators_at_once(engine, database, verb):
    """Of two operators who act on the same rows at the same time one wins each row, and the other is told."""
    rows = write_rows(engine, 40, state="failed")
    deed = partial(act, database, verb, [failed(row_id) for row_id in rows], reason="both")

    with ThreadPoolExecutor(2) as operators:
        outcomes = list(operators.map(lambda by: deed(by=by), ["ann", "ben"]))

    done = [row_id for one in outcomes for row_id in one.done]
    assert rows == sorted(done)
    assert [40, 40] == [len(one.done) + len(one.refused) for one in outcomes]
    assert 40 == len(audits(engine))


# --- everything that matches --------------------------------------------------------------------------------------


@pytest.fixture
def chunks_of_two(monkeypatch):
    monkeypatch.setattr(operate, "CHUNK", 2)
    monkeypatch.setattr(matching, "CHUNK", 2)


@pytest.mark.parametrize(("verb", "state"), [("replay", "pending"), ("discard", "discarded")])
def test_act_on_matching_goes_through_all(engine, database, chunks_of_two, verb, state):
    """All rows that match are changed, chunk by chunk, ordered ones too, and no others."""
    ours = write_rows(engine, 5, state="failed", topic="invoices")
    ours += write_key(engine, "k", "failed", topic="invoices")
    theirs = write_row(engine, state="failed")

    progress = act_on_matching(database, verb, Filter(State.FAILED, topic="invoices"), **BY)

    assert (6, (), None) == (progress.done, progress.refused, progress.after)
    assert dict.fromkeys(ours, state) | {theirs: "failed"} == states(engine)
    assert [2, 2, 2] == [one.rows for one in acts(database)[0]]


def test_act_on_matching_goes_on(engine, database, chunks_of_two):
    """When time is up it says where to go on; nothing is done twice, and newer rows than those looked at stay."""
    rows = write_rows(engine, 5, state="failed")
    newer = write_row(engine, state="failed")
    meant = Filter(State.FAILED)

    after, done = 0, []
    while after is not None:
        progress = act_on_matching(database, "replay", meant, **BY, after=after, upto=rows[-1], for_s=0)
        after = progress.after
        done.append(progress.done)

    assert [2, 2, 1] == done
    assert "failed" == states(engine)[newer]


def test_act_on_matching_leaves_rows_in_flight(engine, database):
    """A row under a lease is left alone, and named."""
    row_id = write_row(engine, state="failed")
    lease_row(engine, row_id)

    progress = act_on_matching(database, "replay", Filter(State.FAILED), **BY)

    assert (0, (Refusal(row_id, "is in flight; wait until that has ended"),)) == (progress.done, progress.refused)


@pytest.mark.parametrize(
    ("meant", "says"),
    [
        (Filter(topic="orders"), "nothing to replay: give ids, or a state"),
        (Filter(State.SENT), "that needs --force"),
        (Filter(State.PENDING), "still to be published"),
        (Filter(State.DISCARDED), "only failed, in_doubt, sent"),
    ],
)
def test_act_on_matching_refuses_a_state(engine, database, meant, says):
    """Without a state, or with one that the deed may not leave, nothing is done."""
    for state in State:
        write_row(engine, state=state)
    before = states(engine)

    with pytest.raises(OperationError, match=says):
        act_on_matching(database, "replay", meant, **BY)

    assert before == states(engine)


def test_act_on_matching_by_force(engine, database):
    """Sent rows that match are replayed by force, which the audit tells."""
    row_id = write_row(engine, state="sent", message_id="M")

    progress = act_on_matching(database, "replay", Filter(State.SENT, message_id="M"), **BY, force=True)

    assert 1 == progress.done
    assert {row_id: "pending"} == states(engine)
    assert ["replay --force"] == [one["action"] for one in audits(engine)]


def test_act_on_seen_does_what_was_seen(engine, database, chunks_of_two):
    """Rows that come into the state later, whatever their ids, are left alone, and so is what changed meanwhile."""
    later, *rows = write_rows(engine, 6, state="failed")
    change(engine, later, state="pending")
    found = seen(database, Filter(State.FAILED), most=10)
    change(engine, later, state="failed")
    newer = write_row(engine, state="failed")
    change(engine, rows[0], state="sent")

    first = act_on_seen(database, "discard", found, **BY, for_s=0)
    rest = act_on_seen(database, "discard", found[2:], **BY)

    assert [failed(row_id) for row_id in rows] == found
    assert (1, (Refusal(rows[0], "is sent by now"),), rows[1]) == (first.done, first.refused, first.after)
    assert (3, (), None) == (rest.done, rest.refused, rest.after)
    assert {later, newer} == {row_id for row_id, state in states(engine).items() if state == "failed"}


def test_seen_ends_at_most(engine, database):
    """So many rows are read and no more, only those that match, sent ones too."""
    ours = write_rows(engine, 3, state="sent", topic="invoices")
    write_row(engine, state="sent")
    meant = Filter(State.SENT, topic="invoices")

    assert 2 == len(seen(database, meant, most=2))
    assert [Target(row_id, State.SENT, 0) for row_id in ours] == seen(database, meant, most=9)


# --- bodies -------------------------------------------------------------------------------------------------------


def test_view_body_is_audited(engine, database):
    """Who sees a body stands in the audit, by either of the row's ids."""
    row_id = write_row(engine, body="grüße", keys="order-7")
    outbox_id = read_row(engine, row_id)["outbox_id"]

    bodies = [view_body(database, reference, by="ann", reason="why") for reference in (row_id, outbox_id)]

    assert ["grüße"] * 2 == bodies
    assert [("view_body", outbox_id, "order-7", "ann", "why")] * 2 == [
        tuple(one[name] for name in ("action", "outbox_id", "keys", "by", "reason")) for one in audits(engine)
    ]


def test_view_body_of_an_unknown_row(engine, database):
    """There is nothing to see, and nothing to write down."""
    with pytest.raises(OperationError, match="there is no message 77"):
        view_body(database, 77, by="ann", reason="why")

    assert [] == audits(engine)


# --- the audit ----------------------------------------------------------------------------------------------------


def test_acts_tell_a_chunk_as_one(engine, database):
    """Rows that were changed in one transaction are one act, with what they have in common."""
    orders = write_rows(engine, 3, state="failed")
    invoices = write_all(engine, [new_row(state="failed", topic="invoices", keys="k") for _ in range(2)])[3:]
    act(database, "replay", [failed(row_id) for row_id in orders], **BY)
    act(database, "discard", [failed(row_id) for row_id in invoices], by="ben", reason="superseded")
    pause(database, ORDERS, by="ann", reason="maintenance")

    found, before = acts(database)

    assert before is None
    assert [
        ("ann", "pause", "maintenance", 1, "orders"),
        ("ben", "discard", "superseded", 2, "invoices"),
        ("ann", "replay", "fixed downstream", 3, "orders"),
    ] == [(one.by, one.action, one.reason, one.rows, one.topic) for one in found]
    assert [None, None, None] == [one.outbox_id for one in found]
    assert [None, "k", None] == [one.keys for one in found]


def test_acts_of_several_lanes(engine, database):
    """An act on rows of several lanes names none of them."""
    rows = [write_row(engine, state="failed", topic=topic) for topic in ("orders", "invoices")]
    act(database, "replay", [failed(row_id) for row_id in rows], **BY)

    (found,) = acts(database)[0]

    assert (2, "default", None) == (found.rows, found.destination, found.topic)


def test_acts_page_by_page(engine, database):
    """Pages follow each other without a gap."""
    for number in range(5):
        pause(database, Lane("default", f"topic-{number}"), by="ann", reason=str(number))

    first, before = acts(database, limit=2)
    second, before = acts(database, limit=2, before=before)
    last, end = acts(database, limit=2, before=before)

    assert ["4", "3", "2", "1", "0"] == [one.reason for one in (*first, *second, *last)]
    assert end is None


def test_acts_on_one_row(engine, database):
    """What was done to one row is found by its outbox_id."""
    rows = write_rows(engine, 2, state="failed")
    act(database, "replay", [failed(row_id) for row_id in rows], **BY)
    outbox_id = read_row(engine, rows[0])["outbox_id"]

    (found,) = acts(database, outbox_id=outbox_id)[0]

    assert (1, outbox_id, "replay") == (found.rows, found.outbox_id, found.action)


def test_audit_rows_of_a_chunk_share_an_instant(engine, database):
    """It is the database's instant, the same for all of them."""
    rows = write_rows(engine, 30, state="failed")
    act(database, "replay", [failed(row_id) for row_id in rows], **BY)

    with engine.connect() as connection:
        assert 1 == len(connection.execute(select(audit.c.at).distinct()).all())
