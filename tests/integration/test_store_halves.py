"""Elections, confirmations, offers, canaries, silence, doubt: what each does to its rows on every database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from outbox.errors import ConfigError, OperationError
from outbox.outcomes import Fault
from outbox.settings import Destination
from outbox.states import State
from outbox.store import halves, operate, origin, polls, silence
from outbox.store.claim import claim
from outbox.store.database import Database
from outbox.store.halves import Committed, Election, Standing
from outbox.store.mark import MarkFailed, MarkRetry, mark
from outbox.store.polls import Heard
from outbox.store.purge import purge
from outbox.store.silence import Pace
from outbox.store.topics import TOPIC as NO_CHECKER
from outbox.store.topics import Topic, register, topics
from outbox.table import audit, messages
from outbox.table import checks as marks
from tests.rows import ORDERS, ago, write_row

TOPIC = Topic("default", "orders", "GID_orders")
PACE = Pace(lost_s=120.0, rest_s=0.0)
LOST = Fault("Timeout", "no answer", accepted=None)


@pytest.fixture
def database(engine):
    return Database(engine)


def half_row(engine, **over):
    return write_row(engine, **({"transaction_check_s": 60} | over))


def elected(engine, *, age_s=0.0, heard_s=0.0, **over):
    """A row that is committing the half message ``M``, posted and last heard of so long ago."""
    more = {"posted_at": ago(age_s), "heard_at": ago(heard_s), "state": "committing", "message_id": "M"}
    return half_row(engine, **(more | over))


def row_of(engine, row_id):
    with engine.connect() as connection:
        return connection.execute(select(messages).where(messages.c.id == row_id)).one()


def state_of(engine, row_id):
    row = row_of(engine, row_id)
    return row.state, row.message_id, row.confirmed_by


def election(row_id, replays, message_id, age_s=0.0, *, for_s=60.0):
    return Election(row_id, replays, message_id, ago(age_s), ago(-for_s))


def set_marks(engine, **values):
    with engine.begin() as connection:
        connection.execute(update(marks).values(**values))


def the_canary(engine):
    with engine.connect() as connection:
        return connection.execute(select(marks).where(marks.c.checker == NO_CHECKER)).one()


# --- elections


def test_elect_takes_the_first_of_each_row_in_bulk(database, engine):
    """One statement decides many rows; each knows its winner, and the lease is over with the decision."""
    ids = [half_row(engine) for _ in range(3)]
    claim(database, ORDERS, limit=10, lease_s=60, max_attempts=3)
    first = halves.elect(database, [election(row_id, 0, f"a{row_id}", 4.0) for row_id in ids])
    second = halves.elect(database, [election(row_id, 0, f"b{row_id}", 4.0) for row_id in ids])
    rows = [row_of(engine, row_id) for row_id in ids]

    assert {Standing.WON} == set(first.values())
    assert {Standing.LOST} == set(second.values())
    assert [("committing", f"a{row.id}", None, 1) for row in rows] == [
        (row.state, row.message_id, row.lease_token, row.attempts) for row in rows
    ]
    assert all(timedelta(seconds=3) < row.heard_at - row.posted_at < timedelta(seconds=6) for row in rows)


def test_elect_again_says_the_same(database, engine):
    """Whoever did not hear the answer may ask again: the row itself says who won."""
    row_id = half_row(engine)
    one = election(row_id, 0, "M", 0.0)

    assert [{"M": Standing.WON}] * 2 == [halves.elect(database, [one]) for _ in range(2)]
    assert 1 == row_of(engine, row_id).attempts


def test_elect_of_two_at_once_has_one_winner(database, engine):
    """However many senders and checkers put their half messages forward at the same time, one is elected."""
    row_id = half_row(engine)
    candidates = [election(row_id, 0, f"m{number}", 0.0) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        standings = list(pool.map(lambda one: halves.elect(database, [one])[one.message_id], candidates))

    assert [Standing.LOST] * 7 + [Standing.WON] == sorted(standings, key=lambda one: one.value)


@pytest.mark.parametrize(
    ("over", "replays", "standing"),
    [
        ({"state": "failed"}, 0, Standing.LOST),
        ({"state": "discarded"}, 0, Standing.LOST),
        ({"state": "sent", "message_id": "other"}, 0, Standing.LOST),
        ({"state": "sent", "message_id": "M"}, 0, Standing.OVER),
        ({"state": "in_doubt", "message_id": "M"}, 0, Standing.OVER),
        ({"replays": 1}, 0, Standing.LOST),
        ({"transaction_check_s": None}, 0, Standing.OPEN),
    ],
)
def test_elect_changes_nothing_that_is_decided(database, engine, over, replays, standing):
    """Only an undecided row of the same replay is decided."""
    row_id = half_row(engine, **over)
    before = row_of(engine, row_id)

    assert {"M": standing} == halves.elect(database, [election(row_id, replays, "M", 0.0)])
    assert before == row_of(engine, row_id)


def test_elect_of_a_purged_row_is_lost(database):
    """A row that is gone decides for nobody."""
    assert {"M": Standing.LOST} == halves.elect(database, [election(4711, 0, "M", 0.0)])


def test_give_up_and_retry_leave_an_elected_row_alone(database, engine):
    """A relay that heard nothing of its half message cannot fail a row that somebody elected meanwhile."""
    row_id = half_row(engine)
    (claimed,) = claim(database, ORDERS, limit=1, lease_s=60, max_attempts=1)
    halves.elect(database, [election(row_id, 0, "M", 0.0)])
    lost = mark(database, [MarkFailed(row_id, claimed.lease_token, LOST, unknown=True)])
    also = mark(database, [MarkRetry(row_id, claimed.lease_token, 0.0, LOST, charge=True, unknown=True)])

    assert ({row_id}, {row_id}) == (lost, also)
    assert ("committing", "M", None) == state_of(engine, row_id)


def test_elect_after_its_time_decides_nothing(database, engine):
    """A holder that was stopped longer than it said may hold a half message whose day is over."""
    row_id = half_row(engine)
    late = halves.elect(database, [election(row_id, 0, "M", for_s=-0.1)])

    assert {"M": Standing.OPEN} == late
    assert ("pending", None, None) == state_of(engine, row_id)
    assert {"N": Standing.WON} == halves.elect(database, [election(row_id, 0, "N")])
    assert {"N": Standing.WON} == halves.elect(database, [election(row_id, 0, "N", for_s=-0.1)])


def test_failed_row_is_decided_for_none(database, engine):
    """After a row has failed, the half message whose answer came late is lost: failed means not published."""
    row_id = half_row(engine)
    (claimed,) = claim(database, ORDERS, limit=1, lease_s=60, max_attempts=1)
    mark(database, [MarkFailed(row_id, claimed.lease_token, LOST, unknown=True)])

    assert {"M": Standing.LOST} == halves.elect(database, [election(row_id, 0, "M", 0.0)])
    assert ("failed", None, None) == state_of(engine, row_id)


@pytest.mark.parametrize(
    ("over", "message_id", "after"),
    [
        ({}, "M", ("sent", "M", "answer")),
        ({"state": "in_doubt"}, "M", ("sent", "M", "answer")),
        ({"state": "sent", "confirmed_by": "silence"}, "M", ("sent", "M", "answer")),
        ({}, "m", ("committing", "M", None)),
        ({"state": "discarded"}, "M", ("discarded", "M", None)),
        ({"state": "pending", "message_id": None}, "M", ("pending", None, None)),
    ],
)
def test_confirm_writes_down_only_what_the_row_elected(database, engine, over, message_id, after):
    """A 204 makes the row sent that holds this very MessageId, compared byte by byte, and no other."""
    row_id, other = elected(engine, **over), elected(engine, message_id="another")
    halves.confirm(database, [Committed(row_id, message_id)])

    assert after == state_of(engine, row_id)
    assert ("committing", "another", None) == state_of(engine, other)


# --- offers


def test_offer_is_recorded_with_its_row(database, engine):
    """What a poll brought is written down before anything is answered; a confirmed row remembers since when."""
    waiting, sent, other = (
        elected(engine, heard_s=99),
        elected(engine, state="sent", confirmed_by="answer", heard_s=99, message_id="N"),
        elected(engine, heard_s=99, message_id="another"),
    )
    register(database, TOPIC)
    polls.open_poll(database, "one", TOPIC, for_s=20)
    heard = [
        Heard(row_of(engine, row_id).outbox_id, name) for row_id, name in ((waiting, "M"), (sent, "N"), (other, "M"))
    ]
    polls.close_poll(database, "one", TOPIC, heard)
    rows = [row_of(engine, row_id) for row_id in (waiting, sent, other)]

    assert [True, True, False] == [row.heard_at > ago(30) for row in rows]
    assert [True, False, True] == [row.reoffered_at is None for row in rows]
    assert "closed" == mark_of(engine, "one")


def mark_of(engine, checker):
    with engine.connect() as connection:
        return connection.scalar(select(marks.c.mark).where(marks.c.checker == checker))


def test_row_is_reoffered_long_after_an_hour(database, engine):
    """What the broker asks about for an hour although it confirmed it is committed once more, then not for another."""
    row_id = elected(engine, state="sent", confirmed_by="answer", reoffered_at=ago(3601))
    outbox_id = row_of(engine, row_id).outbox_id
    before = halves.rows_of(database, [outbox_id])[outbox_id].reoffered_long
    halves.confirm(database, [Committed(row_id, "M")])
    after = halves.rows_of(database, [outbox_id, "unknown"])

    assert before
    assert {outbox_id} == set(after)
    assert not after[outbox_id].reoffered_long


@pytest.mark.parametrize(("heard_s", "begins_anew"), [(20.0, False), (1200.0, True)])
def test_hour_of_offers_is_one_without_a_break(database, engine, heard_s, begins_anew):
    """Two odd offers an hour apart are not an hour of offers: committing once more takes the whole of it."""
    row_id = elected(engine, state="sent", confirmed_by="answer", reoffered_at=ago(3700), heard_s=heard_s)
    outbox_id = row_of(engine, row_id).outbox_id
    register(database, TOPIC)
    polls.open_poll(database, "one", TOPIC, for_s=20)
    polls.close_poll(database, "one", TOPIC, [Heard(outbox_id, "M")])

    assert begins_anew is not halves.rows_of(database, [outbox_id])[outbox_id].reoffered_long
    assert row_of(engine, row_id).heard_at > ago(30)


@pytest.mark.parametrize("says", ["", "another"])
def test_offer_counts_by_its_message_id(database, engine, says):
    """Whatever has become of its properties on the way: the half message that the row elected was offered."""
    row_id, canary = silent(database, engine)
    offer_canary(database, canary, Heard(says, "M"))

    assert 0 == silence.settle(database, TOPIC)
    assert row_of(engine, row_id).heard_at > ago(30)


# --- silence


def silent(database, engine, *, canary_s=70.0, **over):
    """A row that waits, and a canary for it that was posted so long ago and is still to be offered."""
    row_id = elected(engine, **({"age_s": 300.0, "heard_s": 200.0} | over))
    register(database, TOPIC)
    canary = silence.plan_canary(database, TOPIC, PACE)
    set_marks(engine, canary_posted_at=ago(canary_s))
    return row_id, canary.outbox_id


def offer_canary(database, canary, *more, checker="one", whole=True):
    polls.open_poll(database, checker, TOPIC, for_s=20)
    polls.close_poll(database, checker, TOPIC, [Heard(canary, "C"), *more], whole=whole)


def test_silence_settles_when_the_canary_was_offered(database, engine):
    """Checking works, and the half message was not offered: so it had been committed. The canary has done its work."""
    row_id, canary = silent(database, engine)
    before = silence.settle(database, TOPIC)
    offer_canary(database, canary)

    assert (0, 1, 0) == (before, silence.settle(database, TOPIC), silence.settle(database, TOPIC))
    assert ("sent", "M", "silence") == state_of(engine, row_id)
    assert the_canary(engine).canary_outbox_id is None


@pytest.mark.parametrize(
    "over",
    [
        {"heard_s": 60.0},
        {"age_s": 100.0},
        {"age_s": 86_200.0},
        {"topic": "invoices"},
        {"state": "in_doubt"},
        {"state": "pending", "message_id": None},
    ],
    ids=str,
)
def test_silence_says_nothing_of_other_rows(database, engine, over):
    """Not of one heard of since, nor too young when the canary was posted, nor over its day, elsewhere or undecided."""
    _, canary = silent(database, engine)
    other = elected(engine, **({"age_s": 300.0, "heard_s": 200.0} | over))
    before = row_of(engine, other)
    offer_canary(database, canary)

    assert 1 == silence.settle(database, TOPIC)
    assert before == row_of(engine, other)


def test_silence_is_broken_by_an_offer_beside_the_canary(database, engine):
    """All of an answer is recorded at once: a half message that comes with the canary was not committed."""
    row_id, canary = silent(database, engine)
    offer_canary(database, canary, Heard(row_of(engine, row_id).outbox_id, "M"))

    assert 0 == silence.settle(database, TOPIC)
    assert ("committing", "M", None) == state_of(engine, row_id)


def test_silence_waits_for_polls_that_were_open(database, engine):
    """A poll that began before the canary was offered may hold the half message; one that begins later cannot."""
    row_id, canary = silent(database, engine)
    polls.open_poll(database, "two", TOPIC, for_s=20)
    offer_canary(database, canary)
    waiting = silence.settle(database, TOPIC)
    polls.close_poll(database, "two", TOPIC, [])
    polls.open_poll(database, "three", TOPIC, for_s=20)

    assert (0, 1) == (waiting, silence.settle(database, TOPIC))
    assert ("sent", "M", "silence") == state_of(engine, row_id)


@pytest.mark.parametrize("how", ["fails", "runs out of time", "is forgotten", "is damaged", "was overdue"])
def test_failed_poll_takes_the_canary(database, engine, how):
    """A half message may have been offered in a poll that failed: the window begins again, with a new canary."""
    row_id, canary = silent(database, engine)
    polls.open_poll(database, "two", TOPIC, for_s=-1 if how in ("runs out of time", "was overdue") else 20)
    if how == "fails":
        polls.fail_poll(database, "two", TOPIC)
    if how == "is forgotten":
        polls.open_poll(database, "two", TOPIC, for_s=20)
        polls.close_poll(database, "two", TOPIC, [])
    if how == "is damaged":
        polls.close_poll(database, "two", TOPIC, [], whole=False)
    if how == "was overdue":
        assert 0 == silence.settle(database, TOPIC)
        polls.close_poll(database, "two", TOPIC, [Heard(canary, "C")])
    offer_canary(database, canary)

    assert [0, 0] == [silence.settle(database, TOPIC) for _ in range(2)]
    assert ("committing", "M", None) == state_of(engine, row_id)
    assert silence.plan_canary(database, TOPIC, PACE).outbox_id != canary


@pytest.mark.parametrize(
    ("over", "wanted"),
    [
        ({}, True),
        ({"age_s": 63.0, "heard_s": 63.0}, False),
        ({"heard_s": 10.0}, False),
        ({"age_s": 86_200.0}, False),
        ({"state": "sent"}, False),
        ({"topic": "invoices"}, False),
    ],
    ids=str,
)
def test_canary_is_planned_only_where_rows_wait(database, engine, over, wanted):
    """It takes a row that is committing beyond its check time, in this topic, and not offered of late."""
    elected(engine, **({"age_s": 300.0, "heard_s": 200.0} | over))
    register(database, TOPIC)
    plans = [silence.plan_canary(database, TOPIC, PACE) for _ in range(2)]

    assert [wanted, False] == [plan is not None for plan in plans]


def test_canary_that_is_never_offered_is_replaced(database, engine):
    """A canary whose POST did not arrive, or that nobody was offered, is given up after a while."""
    _, canary = silent(database, engine, canary_s=181.0)
    fresh = silence.plan_canary(database, TOPIC, PACE)
    silence.drop_canary(database, TOPIC, canary)
    kept = the_canary(engine).canary_outbox_id
    silence.drop_canary(database, TOPIC, fresh.outbox_id)

    assert fresh.outbox_id != canary
    assert (fresh.outbox_id, None) == (kept, the_canary(engine).canary_outbox_id)


@pytest.mark.parametrize(("waiting", "check_s"), [((10,), 60), ((60, 300), 300), ((10, 120), 120)])
def test_canary_is_asked_about_no_sooner_than_the_rows_that_wait(database, engine, waiting, check_s):
    """One that is asked about after a minute would prove nothing of a row that is asked about after five."""
    for one in waiting:
        elected(engine, age_s=600.0, heard_s=500.0, transaction_check_s=one)
    register(database, TOPIC)
    planned = silence.plan_canary(database, TOPIC, PACE)

    assert check_s == planned.check_s == the_canary(engine).canary_check_s


def test_silence_of_a_row_with_a_longer_check_time_is_not_proven(database, engine):
    """However old it seems by the database's clock: its sender may have been stopped before the POST."""
    row_id, canary = silent(database, engine)
    longer = elected(engine, age_s=600.0, heard_s=500.0, transaction_check_s=300)
    offer_canary(database, canary)

    assert 1 == silence.settle(database, TOPIC)
    assert ["sent", "committing"] == [row_of(engine, one).state for one in (row_id, longer)]
    assert 300 == silence.plan_canary(database, TOPIC, PACE).check_s


def rest_s(engine):
    """Seconds until the next canary may be posted."""
    return (the_canary(engine).canary_after - ago(0)).total_seconds()


def test_canaries_that_prove_nothing_come_ever_more_slowly(database, engine):
    """Half a minute, a minute, two, and so on to a quarter of an hour, until one of them proves something."""
    elected(engine, age_s=300.0, heard_s=200.0)
    register(database, TOPIC)
    rests = []
    for _ in range(7):
        planned = silence.plan_canary(database, TOPIC, Pace())
        silence.drop_canary(database, TOPIC, planned.outbox_id)
        assert silence.plan_canary(database, TOPIC, Pace()) is None
        rests.append(rest_s(engine))
        set_marks(engine, canary_after=ago(1))
    planned = silence.plan_canary(database, TOPIC, Pace())
    set_marks(engine, canary_posted_at=ago(70))
    offer_canary(database, planned.outbox_id)
    settled = silence.settle(database, TOPIC)

    assert [30, 60, 120, 240, 480, 900, 900] == [pytest.approx(one, abs=5) for one in rests]
    assert (1, 0) == (settled, the_canary(engine).canary_failures)


def test_canary_that_is_offered_too_early_proves_nothing(database, engine):
    """The row's half message may be hidden still, as after every offer; so a canary has to outlast that."""
    row_id, canary = silent(database, engine)
    polls.open_poll(database, "one", TOPIC, for_s=20)
    polls.close_poll(database, "one", TOPIC, [Heard(canary, "C", early=True)])

    assert (0, None) == (silence.settle(database, TOPIC), the_canary(engine).canary_outbox_id)
    assert ("committing", "M", None) == state_of(engine, row_id)


def test_canary_is_given_to_one_checker(database, engine):
    """Of any number that ask at the same time."""
    elected(engine, age_s=300.0, heard_s=200.0)
    register(database, TOPIC)
    with ThreadPoolExecutor(8) as pool:
        planned = list(pool.map(lambda _: silence.plan_canary(database, TOPIC, Pace()), range(8)))

    assert 1 == sum(one is not None for one in planned)


def test_poll_of_a_killed_checker_holds_up_for_its_time_only(database, engine):
    """Then it has failed, once; the next canary proves what this one could not."""
    row_id, canary = silent(database, engine)
    polls.open_poll(database, "killed", TOPIC, for_s=20)
    offer_canary(database, canary)
    held_up = silence.settle(database, TOPIC)
    with engine.begin() as connection:
        over = update(marks).where(marks.c.checker == "killed").values(open_until=ago(1))
        connection.execute(over)
    failing = silence.settle(database, TOPIC)
    again = silence.plan_canary(database, TOPIC, PACE)
    set_marks(engine, canary_posted_at=ago(70))
    offer_canary(database, again.outbox_id)

    assert (0, 0, "failed") == (held_up, failing, mark_of(engine, "killed"))
    assert 1 == silence.settle(database, TOPIC)
    assert ("sent", "M", "silence") == state_of(engine, row_id)


def test_doubt_comes_with_the_end_of_the_day(database, engine):
    """After a day the broker asks no more: what is not settled by then is for a person, and nothing else is."""
    over, young = elected(engine, age_s=86_400.0), elected(engine, age_s=80_000.0)
    sent = elected(engine, age_s=90_000.0, state="sent", confirmed_by="answer")

    assert (1, 0) == (halves.doubt(database), halves.doubt(database))
    assert ["in_doubt", "committing", "sent"] == [row_of(engine, row_id).state for row_id in (over, young, sent)]


def test_progress_says_what_waits_and_since_when(database, engine):
    """For each topic: rows beyond their check time, and how long ago a poll had a whole answer."""
    silent(database, engine)
    before = silence.progress(database)
    offer_canary(database, "none")
    (after,) = silence.progress(database)

    assert [
        {"destination": "default", "topic": "orders", "group_id": "GID_orders", "unsettled": 1, "checked_s": None}
    ] == before
    assert 0 <= after["checked_s"] < 10
    assert [TOPIC] == topics(database)


def test_register_again_keeps_the_canary(database, engine):
    """Every relay registers its topics as it starts."""
    _, canary = silent(database, engine)
    register(database, TOPIC)

    assert canary == the_canary(engine).canary_outbox_id


# --- operators


@pytest.mark.parametrize("state", ["sent", "in_doubt", "failed"])
def test_replay_opens_a_new_election(database, engine, state):
    """A replayed row is undecided again, under a new count: half messages of the old one are lost for good."""
    row_id = elected(engine, state=state, reoffered_at=ago(5))
    targets = operate.find(database, "replay", ids=[row_id], force=True)
    operate.replay(database, targets, by="me", reason="why", force=True)
    standings = halves.elect(database, [election(row_id, 0, "old", 0.0), election(row_id, 1, "new", 0.0)])
    row = row_of(engine, row_id)

    assert {"old": Standing.LOST, "new": Standing.WON} == standings
    assert ("new", 1, None) == (row.message_id, row.replays, row.reoffered_at)


@pytest.mark.parametrize(
    ("verb", "state"), [("replay", "committing"), ("discard", "committing"), ("replay", "in_doubt")]
)
def test_replay_and_discard_refuse_what_may_be_on_its_way(database, engine, verb, state):
    """A row in flight is refused, force or not; one in doubt needs force."""
    row_id = elected(engine, state=state)

    with pytest.raises(OperationError):
        operate.find(database, verb, ids=[row_id], force=state == "committing")


def test_purge_keeps_former_halves_two_days(database, engine):
    """The broker may ask for up to a day, and late polls may hide an offer: the row must still be there."""
    kept = elected(engine, state="sent", confirmed_by="silence", sent_at=ago(170_000), created_at=ago(180_000))
    gone = elected(engine, state="sent", confirmed_by="silence", sent_at=ago(173_000), created_at=ago(180_000))
    purge(database, 3600)

    assert 1 == len(halves.rows_of(database, [row_of(engine, kept).outbox_id]))
    with engine.connect() as connection:
        assert connection.scalar(select(messages.c.id).where(messages.c.id == gone)) is None


# --- the origin


def destination(**over):
    given = {"endpoint": "https://a.invalid", "group_id": "GID", "access_key_id": "id", "name": "default"}
    return Destination(access_key_secret=SecretStr("secret"), **(given | over))


def test_bind_gives_everyone_the_same_origin(database):
    """However many processes come first together, a database has one origin for all of its destinations."""
    with ThreadPoolExecutor(4) as pool:
        names = pool.map(
            lambda name: origin.bind(database, "prod", destination(name=name)), ["default", "b", "default", "c"]
        )

    assert 1 == len(set(names))


@pytest.mark.parametrize(
    ("environment", "over", "key"),
    [
        ("test", {}, "OUTBOX_ENVIRONMENT"),
        ("prod", {"endpoint": "https://b.invalid"}, "OUTBOX_ENDPOINT"),
        ("prod", {"instance_id": "other"}, "OUTBOX_ENDPOINT"),
        ("prod", {"group_id": "other"}, "OUTBOX_ENDPOINT"),
        ("prod", {"group_id": ""}, "OUTBOX_GROUP_ID"),
    ],
)
def test_bind_refuses_another_place(database, environment, over, key):
    """A copy of the database must not answer for the original's half messages."""
    bound = origin.bind(database, "prod", destination())
    with pytest.raises(ConfigError) as caught:
        origin.bind(database, environment, destination(**over))

    assert key == caught.value.key
    assert bound == origin.bind(database, "prod", destination())


def test_quarantine_gives_a_new_origin_and_doubts_what_may_be_sent(database, engine):
    """Unfinished and failed half messages may have been published by the original; nothing else is touched."""
    old = origin.bind(database, "prod", destination())
    register(database, TOPIC)
    unsure = [elected(engine), half_row(engine), half_row(engine, state="failed")]
    claim(database, ORDERS, limit=1, lease_s=60, max_attempts=3)
    sure = [elected(engine, state="sent"), write_row(engine), write_row(engine, state="failed")]
    held = origin.quarantine(database, "test", by="me", reason="restored")
    new = origin.bind(database, "test", destination(endpoint="https://b.invalid"))
    with engine.connect() as connection:
        acts = connection.execute(select(audit.c.action, audit.c.by)).all()

    assert old != new
    assert [] == topics(database)
    assert 3 == held
    assert [State.IN_DOUBT] * 3 == [row_of(engine, row_id).state for row_id in unsure]
    assert ["sent", "pending", "failed"] == [row_of(engine, row_id).state for row_id in sure]
    assert [None] * 3 == [row_of(engine, row_id).lease_token for row_id in unsure]
    assert [("quarantine", "me")] * 3 == [tuple(act) for act in acts]


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_bind_refuses_a_database_that_forgets(database, engine):
    """An election that the database may forget is none."""
    with engine.begin() as connection:
        name = engine.url.database
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    engine.dispose()

    with pytest.raises(ConfigError, match="synchronous_commit"):
        origin.bind(database, str(uuid4())[:8], destination())
