"""The relay while its database is away, while a part of it is broken, and how it ends."""

import logging
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox import Message
from outbox.relay import Forever
from outbox.retry import Policy
from outbox.store import pauses as pausing
from outbox.store.claim import claim
from outbox.store.database import Database
from outbox.store.lanes import Lane
from tests import relaying
from tests.relaying import (
    ODD,
    WRONG,
    NoJitter,
    Once,
    Scripted,
    drained,
    make_relay,
    relay_once,
    rows,
    wait_until,
    write,
)
from tests.virtual_clock import VirtualClock

publishers_kind = relaying.publishers_kind

ORDERS = Lane("default", "orders")
AWAY_S = 5.0

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])
on_two = pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])


def rename(engine, source, target):
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {source} RENAME TO {target}"))


class Outage:
    """Makes every statement of the outbox's fail, for some virtual seconds."""

    def __init__(self, engine, clock):
        self._engine = engine
        self._clock = clock
        self.over = False

    def begin(self, for_s=AWAY_S):
        rename(self._engine, "outbox_messages", "away")

        def end():
            self._clock.sleep(for_s)
            rename(self._engine, "away", "outbox_messages")
            self.over = True

        self._clock.start("operator", "outage", end)


@on_two
def test_marks_wait_for_the_database(engine):
    """What was published while the database was away is marked when it is back, and published once."""
    write(engine, *(Message("orders", str(n)) for n in range(20)))
    with VirtualClock() as clock:
        outage = Outage(engine, clock)
        publisher = Scripted(lambda _topic, body: outage.begin() if body == "0" else None)
        counts = make_relay(engine, publisher, clock).run(drained(engine, clock))

    assert outage.over
    assert (counts.sent, counts.lost) == (20, 0)
    assert sorted(map(int, publisher.bodies("orders"))) == list(range(20))
    assert {(row.state, row.attempts, row.crashes) for row in rows(engine)} == {("sent", 1, 0)}


@on_sqlite
def test_marks_are_given_up_with_their_lease(engine):
    """A database that stays away longer than the lease gets no marks: the rows come back when their lease ends."""
    write(engine, Message("orders", "x"))
    with VirtualClock() as clock:
        outage = Outage(engine, clock)
        publisher = Scripted(lambda *_: outage.begin(20))
        counts = make_relay(engine, publisher, clock, lease_s=10.0, request_deadline_s=1.0).run(
            drained(engine, clock, 15)
        )

    assert (counts.sent, counts.lost) == (0, 1)
    assert len(publisher.posts) == 1


@on_two
def test_claims_go_on_after_an_outage(engine, caplog):
    """A database that cannot be asked is asked again."""
    write(engine, Message("orders", "x"))
    publisher = Scripted()
    with VirtualClock() as clock:
        Outage(engine, clock).begin()
        make_relay(engine, publisher, clock).run(drained(engine, clock))
        elapsed = clock.now

    assert len(publisher.posts) == 1
    assert AWAY_S <= elapsed <= AWAY_S + 2
    assert "outbox.claim_failed" in caplog.messages


@on_sqlite
def test_drain_gives_up_on_a_database_that_stays_away(engine):
    """Without an answer there is no progress: the drain ends stalled."""
    with VirtualClock() as clock:
        Outage(engine, clock).begin(100)
        ending = drained(engine, clock, timeout_s=30)
        make_relay(engine, Scripted(), clock).run(ending)
        elapsed = clock.now

    assert ending.stalled
    assert 30 <= elapsed <= 33


@on_sqlite
def test_large_body_that_cannot_be_read_costs_nothing(engine):
    """A database that fails between claim and publish is no fault of the row's."""
    large = "x" * 40_000
    write(engine, Message("orders", "small"), Message("orders", large))
    with VirtualClock() as clock:
        outage = Outage(engine, clock)
        publisher = Scripted(lambda _topic, body: outage.begin(0.2) if body == "small" else None)
        make_relay(engine, publisher, clock, concurrency=1).run(Once())
    small, unread = rows(engine)

    assert ["small"] == publisher.bodies("orders")
    assert (small.state, unread.state, unread.attempts) == ("sent", "pending", 0)
    assert unread.last_error_code == "BodyUnreadable"


@on_postgresql
def test_killed_sessions_lose_nothing(engine):
    """Now and then the server ends all of the relay's sessions: each row is sent, every duplicate was counted."""
    write(engine, *(Message("orders", str(n)) for n in range(200)))
    ours = "datname = current_database() AND pid <> pg_backend_pid()"

    def end_sessions(_topic, body):
        if int(body) % 40 == 7:
            # One who ends sessions may have been ended by another.
            with suppress(OperationalError), engine.connect() as connection:
                connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"))

    publisher = Scripted(end_sessions, sleep_s=0.002)
    # Rows of a claim whose commit was cut come back with the end of their lease.
    relay_once(engine, publisher, ending=drained(engine), batch_size=20, lease_s=1.0, request_deadline_s=0.3)
    found = rows(engine)

    assert {row.state for row in found} == {"sent"}
    assert {*publisher.bodies("orders")} == {row.body for row in found}
    assert len(publisher.posts) - 200 <= sum(row.unknown_outcomes for row in found)


# --- defects ------------------------------------------------------------------------------------------------------


@on_sqlite
def test_publisher_that_raises_costs_its_row_an_attempt(engine, caplog):
    """A defect of a client's charges the row that met it, and the others go on."""
    write(engine, *(Message("orders", str(n)) for n in range(5)))

    def fail(_topic, body):
        if body == "1":
            raise ZeroDivisionError

    relay_once(engine, Scripted(fail), concurrency=1)
    found = rows(engine)

    assert [row.state for row in found] == ["sent", "pending", "sent", "sent", "sent"]
    assert (found[1].attempts, found[1].unknown_outcomes, found[1].last_error_code) == (1, 1, "PublisherBroke")
    assert "outbox.publish_broke" in caplog.messages


@pytest.mark.parametrize(
    ("defect", "raised"),
    [(lambda *_: object(), AttributeError), (lambda *_: (_ for _ in ()).throw(SystemExit), SystemExit)],
    ids=["marker", "publisher"],
)
@on_sqlite
def test_relay_ends_when_a_stage_dies(engine, defect, raised, caplog):
    """A thread that a defect ends does not leave the others waiting for ever: the relay ends and says why."""
    write(engine, *(Message("orders", str(n)) for n in range(5)))
    with VirtualClock() as clock:
        relay = make_relay(engine, Scripted(defect), clock)
        with pytest.raises(raised):
            relay.run(Forever())

    assert "outbox.relay_broke" in caplog.messages


@on_sqlite
def test_relay_gives_its_rows_back_when_the_claimer_dies(engine):
    """An error out of the ending comes out of run, after the rows in hand were given back."""
    write(engine, *(Message("orders", str(n)) for n in range(40)))

    class Broken:
        def rest_s(self, finished):
            raise ZeroDivisionError

    with VirtualClock() as clock:
        publisher = Scripted(sleep_s=1.0, clock=clock)
        relay = make_relay(engine, publisher, clock, request_deadline_s=0.5, concurrency=2)
        with pytest.raises(ZeroDivisionError):
            relay.run(Broken())

    assert not any(row.lease_token for row in rows(engine))


@on_sqlite
def test_broken_progress_bar_stops_nothing(engine, caplog):
    """What on_progress raises is logged, and the relay goes on."""
    write(engine, *(Message("orders", str(n)) for n in range(5)))
    told = []

    def on_progress(counts):
        told.append(counts.sent)
        raise BrokenPipeError

    make_relay(engine, Scripted(), on_progress=on_progress).run(drained(engine))

    assert told[-1] == 5
    assert "outbox.progress_broke" in caplog.messages


@on_sqlite
def test_relay_runs_once(engine):
    """A relay that has run refuses to run again; its board is closed for good."""
    relay = make_relay(engine, Scripted())
    relay.run(Once())

    with pytest.raises(RuntimeError, match="once"):
        relay.run(Once())


# --- endings ------------------------------------------------------------------------------------------------------


@on_sqlite
def test_drain_stalls_without_progress(engine):
    """Rows that stay in backoff longer than the timeout end the drain, which says that it stalled."""
    write(engine, Message("orders", "x"))
    with VirtualClock() as clock:
        ending = drained(engine, clock, timeout_s=30)
        make_relay(engine, Scripted(lambda *_: ODD), clock).run(ending)
        elapsed = clock.now

    assert ending.stalled
    assert 30 <= elapsed <= 32


@on_sqlite
def test_drain_stalls_while_requests_hang(engine):
    """Lanes enough to have one probed at any time: the drain ends all the same when no row reaches an end."""
    write(engine, *(Message(f"lane-{lane}", str(n)) for lane in range(30) for n in range(3)))
    with VirtualClock() as clock:
        # Longer than the pauses, whose time is the database's and passes hardly at all.
        publisher = Scripted(lambda *_: ODD, sleep_s=9.0, clock=clock)
        ending = drained(engine, clock, timeout_s=40)
        policy = Policy(max_attempts=10_000, base_s=0.0)
        make_relay(engine, publisher, clock, concurrency=4, policy=policy).run(ending)
        elapsed = clock.now

    assert ending.stalled
    assert 40 <= elapsed <= 60
    assert not any(row.lease_token for row in rows(engine))


def test_drain_waits_for_backoffs_and_leases(engine):
    """Rows that will be due by themselves are waited for: in backoff, or under the lease of a relay that died."""
    write(engine, Message("orders", "held"))
    claim(Database(engine), ORDERS, limit=10, lease_s=0.6, max_attempts=10)
    write(engine, Message("orders", "odd"))
    tries = []

    def odd_once(_topic, body):
        tries.append(body)
        return ODD if tries == ["odd"] else None

    ending = drained(engine)
    relay_once(engine, Scripted(odd_once), ending=ending, policy=Policy(max_attempts=3, base_s=0.3))

    assert not ending.stalled
    assert [("held", "sent", 1, 1), ("odd", "sent", 2, 0)] == [
        (row.body, row.state, row.attempts, row.crashes) for row in rows(engine)
    ]


@on_two
def test_drain_does_not_wait_for_people_or_schedules(engine):
    """Schedules, operators' pauses and keys behind a failed head are left, at once."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    write(engine, Message("later", "scheduled", deliver_at=tomorrow))
    write(
        engine,
        Message("paused", "held up"),
        *(Message("orders", str(n), ordering_key="a") for n in range(2)),
        Message("orders", "free"),
    )
    pausing.pause(Database(engine), Lane("default", "paused"), by="Ann", reason="a test")
    with VirtualClock() as clock:
        ending = drained(engine, clock)
        make_relay(engine, Scripted(lambda _topic, body: WRONG if body == "0" else None), clock).run(ending)
        elapsed = clock.now

    assert not ending.stalled
    assert elapsed < 1
    assert {"free"} == {row.body for row in rows(engine, state="sent")}


@contextmanager
def running(relay):
    """The relay for ever, in a thread; stopped after."""
    thread = threading.Thread(target=relay.run, args=(Forever(),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        relay.stop()
        thread.join(15)
        assert not thread.is_alive()


@on_sqlite
def test_wake_has_an_idle_relay_look_at_once(engine, monkeypatch):
    """Between two looks of an idle relay a second passes, unless it is woken."""
    monkeypatch.setattr("outbox.relay.endings.LOOK_S", 60.0)
    publisher = Scripted()
    relay = make_relay(engine, publisher)
    with running(relay):
        write(engine, Message("orders", "first"))
        relay.wake()
        first = wait_until(lambda: len(publisher.posts) == 1)
        assert wait_until(lambda: rows(engine)[0].state == "sent")
        write(engine, Message("orders", "second"))
        relay.wake()
        second = wait_until(lambda: len(publisher.posts) == 2)

    assert first
    assert second


@on_two
def test_stop_finishes_what_is_in_flight_and_gives_back_the_rest(engine):
    """After a stop nothing new starts; what was in flight is marked; no lease is left."""
    write(engine, *(Message("orders", str(n), ordering_key="a" if n % 2 else None) for n in range(100)))
    publisher = Scripted(sleep_s=0.05)
    relay = make_relay(engine, publisher, concurrency=4)
    with running(relay):
        assert wait_until(lambda: len(publisher.posts) >= 8)
    states = [row.state for row in rows(engine)]

    assert 8 <= len(publisher.posts) == states.count("sent") < 100
    assert states.count("pending") == 100 - states.count("sent")
    assert {(row.lease_token, row.crashes) for row in rows(engine)} == {(None, 0)}


@on_sqlite
def test_relay_claims_no_more_than_it_has_room_for(engine):
    """While requests hang, no more than two batches are held, however long that lasts."""
    write(engine, *(Message("orders", str(n)) for n in range(100)))
    with VirtualClock() as clock:
        held = []

        def look(_topic, _body):
            clock.sleep(5)
            held.append(sum(row.lease_token is not None for row in rows(engine)))

        counts = make_relay(engine, Scripted(look), clock, batch_size=10, concurrency=2).run(drained(engine, clock, 60))

    assert max(held) <= 20 + 2
    assert counts.sent == 100


@on_sqlite
def test_stop_before_run_ends_at_once(engine):
    """A signal that comes before the relay runs is not forgotten."""
    write(engine, Message("orders", "x"))
    publisher = Scripted()
    relay = make_relay(engine, publisher)
    relay.stop()
    relay.run(Forever())

    assert [] == publisher.posts


@on_sqlite
def test_log_never_shows_a_body(engine, caplog):
    """Events name rows, codes and counts."""
    write(engine, Message("orders", "s3cret-body"), Message("odd", "s3cret-body"))
    with caplog.at_level(logging.DEBUG, "outbox"):
        relay_once(engine, Scripted(lambda topic, _body: ODD if topic == "odd" else None), NoJitter())

    assert {"outbox.claimed", "outbox.sent", "outbox.retried"} <= set(caplog.messages)
    assert not any("s3cret" in str(vars(record)) for record in caplog.records)
