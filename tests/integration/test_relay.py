"""The relay over real databases: what each outcome does to its row, its key and its lane."""

import itertools
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, select

from outbox import Message
from outbox.outcomes import Fault, Paused, Refused
from outbox.retry import Policy
from outbox.store import pauses as pausing
from outbox.store.claim import claim
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.table import pauses
from tests import relaying
from tests.relaying import (
    DOWN,
    LOST,
    ODD,
    WRONG,
    Scripted,
    change,
    drained,
    history,
    make_relay,
    relay_once,
    rows,
    write,
)
from tests.virtual_clock import VirtualClock

publishers_kind = relaying.publishers_kind

ORDERS = Lane("default", "orders")
BUSY = Paused(Fault("ServiceUnavailable", "later", 503, "req-3", accepted=None), 30.0)
ALTERED = Refused(Fault("BodyMismatch", "altered", 201, "req-4", accepted=True))

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])


def held_pauses(engine):
    with engine.connect() as connection:
        return list(connection.execute(select(pauses)))


def orders(count, **more):
    return [Message("orders", str(n), **more) for n in range(count)]


def test_relay_makes_of_each_outcome_exactly_its_row(engine):
    """State, attempts, unknown outcomes and error are what the outcome says, and only failures have a history."""
    answers = {"odd": ODD, "wrong": WRONG, "altered": ALTERED, "down": DOWN, "busy": BUSY, "lost": LOST}
    write(engine, *(Message(topic, topic) for topic in ("good", *answers)))
    counts = relay_once(engine, Scripted(lambda topic, _body: answers.get(topic)))
    found = {row.topic: row for row in rows(engine)}
    seen = {t: (r.state, r.attempts, r.unknown_outcomes, r.last_error_code, r.last_error) for t, r in found.items()}
    told = {
        topic: [(h.code, h.http_status, h.request_id, h.outcome_known) for h in history(engine, row.id)]
        for topic, row in found.items()
    }

    assert seen == {
        "good": ("sent", 1, 0, None, None),
        "odd": ("pending", 1, 0, "SomethingNew", "try again"),
        "wrong": ("failed", 1, 0, "InvalidArgument", "never"),
        "altered": ("failed", 1, 1, "BodyMismatch", "altered"),
        "down": ("pending", 0, 0, "ConnectionRefused", "nobody listens"),
        "busy": ("pending", 0, 1, "ServiceUnavailable", "later"),
        "lost": ("pending", 1, 1, "Timeout", "no answer"),
    }
    assert told == {
        "good": [],
        "odd": [("SomethingNew", 400, "req-1", True)],
        "wrong": [("InvalidArgument", 400, "req-2", True)],
        "altered": [("BodyMismatch", 201, "req-4", True)],
        "down": [("ConnectionRefused", None, None, True)],
        "busy": [("ServiceUnavailable", 503, "req-3", False)],
        "lost": [("Timeout", None, None, False)],
    }
    assert (counts.sent, counts.failed, counts.retried, counts.lost) == (1, 2, 4, 0)
    assert {row.lease_token for row in rows(engine)} == {None}
    assert (found["good"].message_id, found["good"].confirmed_by) == ("0" * 31 + "1", "answer")
    assert {row.topic for row in held_pauses(engine)} == {"down", "busy"}


def test_relay_waits_as_long_as_the_backoff_says(engine):
    """A charged row is due again after its backoff, by the database's clock."""
    write(engine, Message("orders", "x"))
    relay_once(engine, Scripted(lambda *_: ODD))
    (row,) = rows(engine)

    assert 990 < (row.available_at - datetime.now(UTC)).total_seconds() <= 1000


def test_relay_fails_a_row_out_of_attempts(engine):
    """The third of three attempts fails the row, and its history tells of all three."""
    write(engine, Message("orders", "x"))
    publisher = Scripted(lambda *_: ODD)
    relay_once(engine, publisher, ending=drained(engine), policy=Policy(max_attempts=3, base_s=0.01))
    (row,) = rows(engine)

    assert (row.state, row.attempts, row.last_error_code) == ("failed", 3, "SomethingNew")
    assert len(history(engine, row.id)) == len(publisher.posts) == 3


# --- ordering keys ------------------------------------------------------------------------------------------------


def test_relay_leaves_followers_untouched_behind_a_failure(engine):
    """When the head of a key does not get through, its followers stay pending, unleased and uncharged."""
    write(engine, *orders(4, ordering_key="a"), Message("orders", "other", ordering_key="b"))
    publisher = Scripted(lambda _topic, body: ODD if body == "1" else None)
    relay_once(engine, publisher)
    of_key = rows(engine, ordering_key="a")

    assert sorted(publisher.bodies("orders")) == ["0", "1", "other"]
    assert [row.state for row in of_key] == ["sent", "pending", "pending", "pending"]
    assert [row.attempts for row in of_key] == [1, 1, 0, 0]
    assert {row.lease_token for row in of_key} == {None}


def test_relay_publishes_each_key_in_order(engine):
    """Whatever is retried in between, each key's rows go out in the order of their ids."""
    keys = ["a", "b", "c", "d"]
    many = [Message("orders", f"{key}{n:02}", ordering_key=key) for n in range(25) for key in keys]
    write(engine, *many)
    times = itertools.count()
    publisher = Scripted(lambda *_: ODD if next(times) % 7 == 3 else None)
    policy = Policy(max_attempts=100, base_s=0.01)
    relay_once(engine, publisher, ending=drained(engine), policy=policy, batch_size=10)
    first = list(dict.fromkeys(publisher.bodies("orders")))

    assert {row.state for row in rows(engine)} == {"sent"}
    for key in keys:
        assert [body for body in first if body[0] == key] == [f"{key}{n:02}" for n in range(25)]


@pytest.mark.parametrize(("skipped", "sent"), [(frozenset(), ["0"]), (frozenset({"orders"}), ["0", "2", "3"])])
@on_sqlite
def test_failed_head_blocks_its_key_unless_skipped(engine, skipped, sent):
    """A failed row holds up those behind it, or does not, as the setting says for its topic."""
    write(engine, *orders(4, ordering_key="a"))
    publisher = Scripted(lambda _topic, body: WRONG if body == "1" else None)
    ending = drained(engine, skip=skipped)
    relay_once(engine, publisher, ending=ending, skip_failed_heads=skipped)

    assert [row.body for row in rows(engine, state="sent")] == sent
    assert not ending.stalled


# --- lanes --------------------------------------------------------------------------------------------------------


@on_sqlite
def test_relay_goes_round_robin_over_its_lanes(engine):
    """Of twenty lanes with work each has its turn before any has its second."""
    write(engine, *(Message(f"lane-{lane}", str(n)) for lane in range(20) for n in range(15)))
    publisher = Scripted()
    relay_once(engine, publisher, batch_size=5, concurrency=1)
    topics = [topic for topic, _body in publisher.posts]

    assert len({*topics[:100]}) == len({*topics[100:200]}) == 20
    assert len(topics) == 300


@on_postgresql
def test_paused_lane_costs_the_others_nothing(engine):
    """Thousands of rows in a paused lane are not claimed, and add no statement."""
    database = Database(engine)
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[3]))
    used = []
    for paused_rows in (0, 5000):
        write(engine, *(Message("paused", "x") for _ in range(paused_rows)), Message("other", "x"))
        pausing.pause(database, Lane("default", "paused"), by="Ann", reason="a test")
        statements.clear()
        publisher = Scripted()
        relay_once(engine, publisher)
        used.append(len(statements))

        assert publisher.posts == [("other", "x")]
    assert used[0] == used[1]
    assert not any(row.lease_token for row in rows(engine, topic="paused"))


def test_operators_pause_holds_until_resumed(engine):
    """An operator's pause is respected and costs the rows nothing."""
    database, publisher = Database(engine), Scripted()
    write(engine, *orders(3))
    pausing.pause(database, ORDERS, by="Ann", reason="a test")
    relay_once(engine, publisher)
    while_paused = len(publisher.posts)
    pausing.resume(database, ORDERS, by="Ann", reason="done")
    relay_once(engine, publisher)

    assert (while_paused, len(publisher.posts)) == (0, 3)
    assert [row.attempts for row in rows(engine)] == [1, 1, 1]


@on_sqlite
def test_five_lost_answers_pause_the_lane(engine):
    """The rows that met a lost answer pay for it; the sixth is not tried."""
    write(engine, *orders(10))
    publisher = Scripted(lambda *_: LOST)
    relay_once(engine, publisher, concurrency=1)

    assert len(publisher.posts) == 5
    assert [row.attempts for row in rows(engine)] == [1] * 5 + [0] * 5
    assert ["Timeout: no answer"] == [pause.reason for pause in held_pauses(engine)]


@on_sqlite
def test_twenty_refusals_pause_the_lane(engine):
    """A bad deploy fails twenty rows and leaves the rest."""
    write(engine, *orders(30))
    relay_once(engine, Scripted(lambda *_: WRONG), concurrency=1)

    assert [row.state for row in rows(engine)] == ["failed"] * 20 + ["pending"] * 10
    assert ["orders"] == [pause.topic for pause in held_pauses(engine)]


def test_success_ends_the_pause(engine):
    """Once a probe gets through, the pause is gone and the lane drains, uncharged for the trouble."""
    write(engine, *orders(50))
    tries = itertools.count()
    publisher = Scripted(lambda *_: DOWN if next(tries) < 2 else None)
    relay_once(engine, publisher, ending=drained(engine), concurrency=1)

    assert {(row.state, row.attempts) for row in rows(engine)} == {("sent", 1)}
    assert [] == held_pauses(engine)


@on_sqlite
def test_failed_probe_lengthens_the_pause(engine):
    """One row probes; when it fails the lane rests longer, and a lost answer charges it nothing."""
    database = Database(engine)
    write(engine, *orders(10))
    pausing.pause_automatically(database, ORDERS, for_s=-1, reason="x", failures=3)
    publisher = Scripted(lambda *_: LOST)
    relay_once(engine, publisher)
    (pause,) = held_pauses(engine)

    assert len(publisher.posts) == 1
    assert pause.failures == 4
    assert sorted((row.attempts, row.unknown_outcomes) for row in rows(engine)) == [(0, 0)] * 9 + [(0, 1)]


@on_sqlite
def test_probe_is_not_spent_without_a_row(engine):
    """A lane whose rows are all leased keeps its right to probe: it does not stay quiet for a probe that never was."""
    database = Database(engine)
    write(engine, *orders(1))
    claim(database, ORDERS, limit=10, lease_s=60, max_attempts=10)
    pausing.pause_automatically(database, ORDERS, for_s=-1, reason="x")
    (before,) = held_pauses(engine)
    relay_once(engine, Scripted())
    (after,) = held_pauses(engine)

    assert before.until == after.until


@on_sqlite
@pytest.mark.parametrize("seed", range(8))
def test_one_relay_of_two_wins_the_probe(engine, seed):
    """However two relays interleave at the end of a pause, one row is tried, and whoever lost gives its row back."""
    write(engine, *orders(10))
    pausing.pause_automatically(
        Database(engine), ORDERS, for_s=-1, reason="x", failures=9
    )  # the next is 4 s at least, by the database's clock
    with VirtualClock(seed) as clock:
        publisher = Scripted(lambda *_: DOWN, sleep_s=0.1, clock=clock)
        relays = [make_relay(engine, publisher, clock) for _ in range(2)]
        tasks = [
            clock.start(f"relay-{n}", "claimer", lambda relay=relay: relay.run(drained(engine, clock, 0.3)))
            for n, relay in enumerate(relays)
        ]
        for task in tasks:
            task.join()

    assert len(publisher.posts) == 1
    assert not any(row.lease_token for row in rows(engine))


@on_sqlite
@pytest.mark.parametrize("seed", range(8))
def test_nothing_starts_in_a_lane_after_its_pause(engine, seed):
    """However the stages interleave: after a fault of the endpoint's, nothing claimed before is published any more."""
    write(engine, *orders(60))
    with VirtualClock(seed) as clock:
        publisher = Scripted(lambda *_: DOWN, sleep_s=0.01, clock=clock)
        make_relay(engine, publisher, clock, concurrency=4, batch_size=10).run(drained(engine, clock, 0.3))

    assert len(publisher.posts) <= 4
    assert {(row.attempts, row.lease_token) for row in rows(engine)} == {(0, None)}


@on_sqlite
def test_trouble_in_one_lane_leaves_the_others_alone(engine):
    """While one topic is refused its keys, another drains."""
    write(engine, *orders(50), *(Message("other", str(n)) for n in range(50)))
    publisher = Scripted(lambda topic, _body: DOWN if topic == "orders" else None)
    relay_once(engine, publisher, batch_size=10)

    assert {(row.topic, row.state) for row in rows(engine)} == {("orders", "pending"), ("other", "sent")}
    assert {row.attempts for row in rows(engine, topic="orders")} == {0}


# --- destinations, deletion ---------------------------------------------------------------------------------------


@on_sqlite
def test_each_destination_has_its_own_publisher(engine):
    """A row goes where its destination says."""
    write(engine, Message("orders", "here"), Message("orders", "there", destination="second"))
    publishers = {"default": Scripted(), "second": Scripted()}
    relay_once(engine, publishers)

    assert [["here"], ["there"]] == [publishers[name].bodies("orders") for name in ("default", "second")]


@on_sqlite
def test_unknown_destination_is_left_to_other_relays(engine, caplog):
    """A destination that this relay does not know: its rows stay untouched, unpaused, and the log says so once."""
    write(engine, Message("orders", "x", destination="nowhere"), Message("orders", "y"))
    with VirtualClock() as clock:
        publisher, ending = Scripted(clock=clock), drained(engine, clock, timeout_s=5)
        make_relay(engine, publisher, clock).run(ending)
    row, known = rows(engine)
    said = [record for record in caplog.records if record.message == "outbox.destination_unknown"]

    assert (row.state, row.attempts, row.lease_token, known.state) == ("pending", 0, None, "sent")
    assert [("nowhere", "orders")] == [(record.destination, record.topic) for record in said]
    assert ([], True) == (held_pauses(engine), ending.stalled)


def test_sent_rows_may_be_deleted(engine):
    """With keep_sent off, a sent row is gone and a failed one is kept."""
    write(engine, Message("orders", "good"), Message("orders", "bad"))
    relay_once(engine, Scripted(lambda _topic, body: WRONG if body == "bad" else None), keep_sent=False)

    assert ["bad"] == [row.body for row in rows(engine)]


# --- bodies and leases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_large_bodies_stay_within_their_budget(engine):
    """The bodies in flight at once never exceed the budget, and one that is larger than all of it goes alone."""
    mega = 1_000_000
    write(engine, *(Message("orders", "x" * mega) for _ in range(20)), Message("orders", "y" * (4 * mega)))
    publisher = Scripted(sleep_s=0.01)
    relay_once(engine, publisher, bytes_in_flight=int(3.5 * mega))

    assert 2 * mega <= publisher.most_bytes <= 4 * mega
    assert {row.state for row in rows(engine)} == {"sent"}


@on_sqlite
def test_row_whose_lease_is_nearly_over_goes_back(engine):
    """With slow requests, rows late in a batch are given back uncharged and sent under another claim."""
    write(engine, *orders(6))
    with VirtualClock() as clock:
        publisher = Scripted(sleep_s=9.0, clock=clock)
        counts = make_relay(engine, publisher, clock, concurrency=1, lease_s=30.0).run(drained(engine, clock, 60))

    assert counts.released > 0
    assert counts.sent == len(publisher.posts) == 6
    assert {(row.state, row.attempts, row.crashes) for row in rows(engine)} == {("sent", 1, 0)}


@on_sqlite
def test_row_that_lost_its_lease_before_its_body_was_read_is_left(engine):
    """A large body is read under the lease; when another relay has taken the row over, it is not published here."""
    large = "x" * 40_000
    write(engine, Message("orders", "small"), Message("orders", large))

    def take_over(_topic, body):
        if body == "small":
            change(engine, "orders", lease_token="another's")

    publisher = Scripted(take_over)
    counts = relay_once(engine, publisher, concurrency=1)

    assert ["small"] == publisher.bodies("orders")
    assert (counts.sent, counts.lost) == (0, 1)
    assert {(row.state, row.lease_token) for row in rows(engine)} == {("pending", "another's")}


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_suspect_is_published_with_nothing_else_in_hand(engine):
    """A row that two processes did not survive takes nobody along: no other row is leased while it is published."""
    many = [Message(f"lane-{n % 3}", str(n), ordering_key="key" if n % 3 == 0 else None) for n in range(30)]
    write(engine, *many)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outbox_messages SET crashes = 2 WHERE body IN ('4', '5', '6', '7')")
    leased = []

    def look(_topic, body):
        if body in ("4", "5", "6", "7"):
            leased.append([row.body for row in rows(engine) if row.lease_token])

    relay_once(engine, Scripted(look, sleep_s=0.005), ending=drained(engine), batch_size=5)

    assert [["4"], ["5"], ["6"], ["7"]] == sorted(leased)
    assert {(row.state, row.attempts) for row in rows(engine)} == {("sent", 1)}
