"""A checker's rounds: in turn, in time, in few canaries, and on in spite of what one topic has against it."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event, select

from outbox import Message, enqueue
from outbox.celery.sweep import Sweeper
from outbox.clock import SystemClock
from outbox.errors import ConfigError
from outbox.half import CheckConfig, Checker
from outbox.outcomes import Checked, Ended, Fault, Half, Paused, Sent, Unknown
from outbox.settings import Settings
from outbox.store.database import Database
from outbox.store.topics import TOPIC, Topic, register
from outbox.table import checks, messages
from outbox.wiring import Runtime
from tests.rows import ago, write_row

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])

ORIGIN = "6f1c0f0e-0000-4000-8000-000000000001"
FOREIGN = Half("F", "handle", "body", "", "outbox_id:f|outbox_replay:0|outbox_origin:another|", 0.0, 1010.0, 1000.0)
REFUSED = Fault("AccessDenied", "no permission", accepted=False)


class Hands(SystemClock):
    """A clock whose hands a test moves."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Broker:
    """Answers polls from what it was given by topic, and takes every canary, or as it was told."""

    def __init__(self):
        self.offers = {}
        self.polled = []
        self.ends = []
        self.canaries = []
        self.takes = Sent("C", "handle")
        self.before_answer = lambda: None

    def check(self, topic, limit, wait_s, *, deadline_s):
        self.polled.append(topic)
        self.before_answer()
        answer = self.offers.get(topic, ())
        return Checked(tuple(answer)[:limit]) if isinstance(answer, list | tuple) else answer

    def end(self, topic, receipt_handle, how, *, deadline_s):
        self.ends.append((topic, how))
        return Ended()

    def post_half(self, topic, body, tag, properties, *, replay, origin, deadline_s):
        self.canaries.append(topic)
        return self.takes


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def database(engine):
    return Database(engine)


@pytest.fixture
def clock():
    return Hands()


def place(database, *names, destination="default"):
    for name in names:
        register(database, Topic(destination, name, "GID"))


def checker(database, broker, clock, *, origin=lambda _destination: ORIGIN, **config):
    return Checker(database, {"default": broker}, origin, CheckConfig(**config), clock)


def waiting(engine, **over):
    """A row that waits for silence to be proven."""
    more = {"transaction_check_s": 60, "state": "committing", "message_id": "M", "posted_at": ago(600)}
    return write_row(engine, **(more | {"heard_at": ago(500)} | over))


def undecided(engine, clock, *, age_s):
    """A row that is still to be elected, and its half message as the broker offers it, so old."""
    row_id = write_row(engine, transaction_check_s=10, properties="__TransCheckT:10|outbox_id:row|", outbox_id="row")
    with engine.connect() as connection:
        row = connection.execute(select(messages).where(messages.c.id == row_id)).one()
    ours = f"{row.properties}outbox_replay:0|outbox_origin:{ORIGIN}|"
    return row_id, Half("M", "handle", row.body, row.tag or "", ours, clock.now - age_s, clock.now + 10, clock.now)


def row_of(engine, row_id):
    with engine.connect() as connection:
        return connection.execute(select(messages).where(messages.c.id == row_id)).one()


# --- what cannot be read


def test_half_message_that_cannot_be_read_is_told(database, engine, broker, clock, caplog):
    """Its poll has failed, whatever else it brought: it may have been any row's, so silence proves nothing."""
    place(database, "orders")
    row_id, half = undecided(engine, clock, age_s=20.0)
    broker.offers["orders"] = Checked((half,), damaged=2)
    checking = checker(database, broker, clock)
    checking.round()
    (told,) = [one for one in caplog.records if one.message == "outbox.half_left"]

    assert ("ERROR", "unreadable", "orders", 2) == (told.levelname, told.reason, told.topic, told.halves)
    assert (1, {"unreadable": 2}) == (checking.counts.failed_polls, checking.counts.alarms)
    assert [("orders", "commit")] == broker.ends, "the others are answered all the same"
    assert "sent" == row_of(engine, row_id).state


def test_canary_is_not_posted_where_a_half_message_cannot_be_read(database, engine, broker, clock):
    """It would prove nothing: the answer that brings it may bring one that cannot be read, too."""
    place(database, "orders")
    waiting(engine, topic="orders")
    broker.offers["orders"] = Checked((), damaged=1)
    checker(database, broker, clock).round()

    assert [] == broker.canaries


# --- in turn


def test_topic_with_endless_offers_leaves_time_for_others(database, engine, broker, clock):
    """It is polled some times in a row; then come the others, and what is to be settled, or is in doubt."""
    place(database, "busy", "calm")
    broker.offers["busy"] = [FOREIGN] * 16
    over = waiting(engine, topic="calm", posted_at=ago(90_000))
    round_of = checker(database, broker, clock)
    broker.before_answer = lambda: len(broker.polled) < 1000 or round_of.stop()
    round_of.round()

    assert [*["busy"] * 8, "calm"] == broker.polled
    assert "in_doubt" == row_of(engine, over).state


def test_round_that_ends_early_goes_on_with_the_next_topic(database, broker, clock):
    """A Celery task has thirty seconds: those must not always go to the same topics."""
    place(database, "a", "b", "c")
    ticks = checker(database, broker, clock)
    for _ in range(4):
        polled = len(broker.polled)
        ticks.run(lambda: True, lambda polled=polled: len(broker.polled) > polled)

    assert ["a", "b", "c", "a"] == broker.polled


def test_topic_that_cannot_be_checked_holds_up_no_other(database, broker, clock, caplog):
    """Neither an origin that is refused nor a destination that is unknown ends the checker; each is told of once."""
    place(database, "foreign", destination="another")
    place(database, "refused", destination="refused")
    place(database, "orders")

    def origin(destination):
        if destination == "refused":
            raise ConfigError("OUTBOX_ENVIRONMENT", "not this one")
        return ORIGIN

    looks = Checker(database, {"default": broker, "refused": broker}, origin, clock=clock)
    for _ in range(3):
        looks.round()
    told = [record.topic for record in caplog.records if record.getMessage() == "outbox.check_skipped"]

    assert ["orders"] * 3 == broker.polled
    assert ["foreign", "refused"] == sorted(told)
    assert {"foreign", "refused"} == {topic.topic for topic in looks.counts.skipped}


def test_database_that_is_away_does_not_end_the_checker(migrated_url, broker, clock, caplog):
    """Nothing is asked of the broker meanwhile; the next round tries again."""
    runtime = Runtime(Settings(database_url=migrated_url))
    place(runtime.database, "orders")
    away = iter((True, False))

    def origin(_destination):
        if next(away):
            runtime.database.run(lambda connection: connection.exec_driver_sql("SELECT * FROM nowhere"))
        return ORIGIN

    looks = Checker(runtime.database, {"default": broker}, origin, clock=clock)
    looks.round()
    before = list(broker.polled)
    looks.round()

    assert ([], ["orders"]) == (before, broker.polled)
    assert "outbox.check_failed" in [record.getMessage() for record in caplog.records]


# --- in time


@pytest.mark.parametrize("slow_s", [4.0, 5.5])
def test_handle_is_as_old_as_the_request(database, engine, broker, clock, slow_s):
    """The broker made it somewhere between the request and the answer: five seconds count from the earlier."""
    ended = int(slow_s < 5)
    row_id, half = undecided(engine, clock, age_s=60)
    place(database, "orders")
    broker.offers["orders"] = [half]
    broker.before_answer = lambda: clock.sleep(slow_s)
    counts = checker(database, broker, clock).run(lambda: True)

    assert [("orders", "commit")] * ended == broker.ends
    assert (ended, 1 - ended) == (counts.committed, counts.left)
    assert ("sent" if ended else "committing") == row_of(engine, row_id).state


def test_checker_that_was_stopped_elects_nothing(database, engine, broker, clock):
    """What an answer said may be a day old by the time that it is read: the mark of its poll has run out."""
    row_id, half = undecided(engine, clock, age_s=60)
    place(database, "orders")
    broker.offers["orders"] = [half]

    # As if it had been stopped for eleven seconds between the mark and the election.
    counts = checker(database, broker, clock, request_deadline_s=-11.0).run(lambda: True)

    assert (1, 1) == (counts.offered, counts.left)
    assert [] == broker.ends
    assert ("pending", None) == (row_of(engine, row_id).state, row_of(engine, row_id).message_id)


@pytest.mark.parametrize("ahead_s", [-100.0, 0.0, 11.0])
def test_adopted_half_message_is_not_taken_for_younger(database, engine, broker, clock, ahead_s):
    """Its day ends by the database's clock at the latest when it does: neither a Date that is wrong makes it longer."""
    row_id, half = undecided(engine, clock, age_s=3000)
    place(database, "orders")
    broker.offers["orders"] = [replace(half, answered_at_s=half.answered_at_s + ahead_s)]
    checker(database, broker, clock).run(lambda: True)
    row = row_of(engine, row_id)

    assert "sent" == row.state
    assert ago(3030) < row.posted_at <= ago(3000) + timedelta(seconds=1)


# --- few canaries


@pytest.mark.parametrize("trouble", ["polls fail", "canaries are refused", "canaries are lost", "nothing is offered"])
def test_checking_that_does_not_work_is_not_flooded_with_canaries(database, engine, broker, clock, trouble):
    """However many checkers go round how often: one canary, and then for half a minute none."""
    waiting(engine)
    place(database, "orders")
    if trouble == "polls fail":
        broker.offers["orders"] = Paused(REFUSED)
    if trouble == "canaries are refused":
        broker.takes = Paused(REFUSED)
    if trouble == "canaries are lost":
        broker.takes = Unknown(REFUSED)
    several = [checker(database, broker, clock) for _ in range(3)]
    for _ in range(10):
        for one in several:
            one.round()

    assert (0 if trouble == "polls fail" else 1) == len(broker.canaries)
    assert 30 == len(broker.polled)


def test_polls_that_fail_now_and_then_do_not_multiply_canaries(database, engine, broker, clock):
    """Each failed poll takes the canary away; the next is for later, not for the next round."""
    waiting(engine)
    place(database, "orders")
    one = checker(database, broker, clock)
    for number in range(20):
        broker.offers["orders"] = Paused(REFUSED) if number % 2 else []
        one.round()

    assert 1 == len(broker.canaries)


# --- one in each process


def test_tasks_of_one_process_check_one_after_the_other(migrated_url, emulator):
    """Two ticks at the same time: one checker, one mark, one connection; another process has a mark of its own."""
    given = {"endpoint": emulator.url, "access_key_id": "FAKEAKID", "access_key_secret": "FAKESECRET"}
    settings = Settings(database_url=migrated_url, group_id="GID_orders", **given)
    runtime = Runtime(settings)
    place_id = Topic("default", "orders", "GID_orders")
    register(runtime.database, place_id)
    runtime.database.run(lambda connection: enqueue(connection, Message("orders", "x", transaction_check_s=10)))
    emulator.fault("slow", op="check", seconds=0.3)
    held, most = [], [0]
    event.listen(runtime.database.engine, "checkout", lambda *_: most.append(runtime.database.engine.pool.checkedout()))
    sweeper = Sweeper(runtime, 5.0)
    threads = [threading.Thread(target=lambda: held.append(sweeper.check())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    polled = emulator.ledger()["requests"]
    sweeper.check()
    Sweeper(Runtime(settings), 5.0).check()
    with runtime.database.engine.connect() as connection:
        marks = connection.execute(select(checks.c.checker, checks.c.mark).where(checks.c.checker != TOPIC)).all()

    assert 1 == polled
    assert 1 == max(most)
    assert 2 == len(marks)
    assert {"closed"} == {mark for _, mark in marks}
