"""What a checker answers to each half message: the whole table, and what a half message must say of itself."""

import itertools
from dataclasses import replace

import pytest

from outbox.half import Adopt, Commit, Leave, Offer, Rollback, decide, offer_of
from outbox.outcomes import Half
from outbox.retry import half_deadline_s, half_margin_s
from outbox.states import State
from outbox.store.halves import HalfRow

ORIGIN = "6f1c0f0e-0000-4000-8000-000000000001"
ROW_PROPERTIES = "KEYS:order-7|__TransCheckT:60|colour:red|outbox_id:row-1|"
HALF_PROPERTIES = f"{ROW_PROPERTIES}outbox_replay:1|outbox_origin:{ORIGIN}|"
ROW = HalfRow(
    id=1,
    outbox_id="row-1",
    destination="default",
    topic="orders",
    tag="created",
    properties=ROW_PROPERTIES,
    body="body",
    state=State.PENDING,
    message_id=None,
    replays=1,
    confirmed_by=None,
    transaction_check_s=60,
    reoffered_long=False,
)
OLD_S = 66.0


def half(age_s=OLD_S, **over):
    given = {
        "message_id": "M",
        "receipt_handle": "handle",
        "body": "body",
        "tag": "created",
        "properties": HALF_PROPERTIES,
        "published_at_s": 1000.0,
        "offered_again_at_s": 1010.0 + age_s,
        "answered_at_s": 1000.0 + age_s,
    }
    return Half(**(given | over))


def offer(age_s=OLD_S, **over) -> Offer:
    return offer_of(half(age_s, **over), "default", "orders")


def decided(state, message_id, confirmed_by=None, *, long=False):
    return replace(ROW, state=state, message_id=message_id, confirmed_by=confirmed_by, reoffered_long=long)


# State, MessageId, confirmed by, offered for an hour: every way in which a row can stand.
ANSWERS = {
    (State.PENDING, None, None): Adopt(),
    (State.COMMITTING, "M", None): Commit(),
    (State.COMMITTING, "other", None): Rollback(),
    (State.IN_DOUBT, "M", None): Commit(),
    (State.IN_DOUBT, "other", None): Rollback(),
    (State.IN_DOUBT, None, None): Leave("odd"),
    (State.SENT, "M", "silence"): Commit(),
    (State.SENT, "M", "answer"): Leave("ended"),
    (State.SENT, "other", "silence"): Rollback(),
    (State.SENT, "other", "answer"): Rollback(),
    (State.FAILED, None, None): Rollback(),
    (State.DISCARDED, None, None): Rollback(),
    (State.DISCARDED, "M", None): Rollback(),
    (State.DISCARDED, "other", None): Rollback(),
}


@pytest.mark.parametrize(("standing", "answer"), ANSWERS.items(), ids=str)
def test_decide_answers_by_how_the_row_stands(standing, answer):
    """The same replay, old enough, the row's own content: the row's state and MessageId alone decide."""
    assert answer == decide(decided(*standing), offer(), ORIGIN)


def test_decide_never_commits_what_is_not_elected():
    """Over every state, MessageId, confirmation, age and replay: only the row's own MessageId is committed, and old."""
    committed = [
        (row.message_id, age_s, replay)
        for state, message_id, by, long in itertools.product(
            State, (None, "M", "x"), (None, "answer", "silence"), (0, 1)
        )
        for age_s, replay in itertools.product((-200.0, 0.0, 59.0, 65.0, OLD_S, 1e6), (0, 1, 2))
        for row in [decided(state, message_id, by, long=bool(long))]
        if decide(row, half_of_replay(replay, age_s), ORIGIN) == Commit()
    ]

    assert {("M", OLD_S, 1)} == set(committed)


def half_of_replay(replay, age_s):
    return offer(age_s, properties=HALF_PROPERTIES.replace("replay:1", f"replay:{replay}"))


def test_decide_commits_a_confirmed_one_after_an_hour_of_offers():
    """A broker that goes on asking about what it has confirmed may have lost it: losing is worse than twice."""
    assert Commit() == decide(decided(State.SENT, "M", "answer", long=True), offer(), ORIGIN)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("replay", "answer"), [(0, Rollback()), (2, Leave("newer"))])
def test_decide_by_the_replay_before_the_state(state, replay, answer):
    """An older replay's half message can never be sent; one of a newer replay tells of a restored database."""
    assert answer == decide(decided(state, "M"), half_of_replay(replay, OLD_S), ORIGIN)


def test_decide_rolls_back_where_the_row_is_gone():
    """A row is deleted only when it is finished, and long after: its half messages left over are for nobody."""
    assert Rollback() == decide(None, offer(), ORIGIN)


@pytest.mark.parametrize("row", [ROW, None, decided(State.COMMITTING, "M"), decided(State.FAILED, None)])
@pytest.mark.parametrize("age_s", [0.0, 30.0, 60.0, 65.0])
def test_decide_leaves_the_young_to_their_sender(row, age_s):
    """Up to the check time and its margin the sender may still be at it, whatever the row says."""
    assert Leave("young") == decide(row, offer(age_s), ORIGIN)


@pytest.mark.parametrize(
    "over",
    [
        {"answered_at_s": None},
        {"answered_at_s": 1000.0 + OLD_S + 3600},
        {"answered_at_s": 1000.0 + OLD_S - 3600},
        {"published_at_s": 0.0, "answered_at_s": 1e6, "offered_again_at_s": 1e6 + 10},
    ],
)
def test_decide_leaves_what_has_no_believable_age(over):
    """A Date that the time of the next offer does not bear out says nothing about an age."""
    assert Leave("undated") == decide(ROW, offer(**over), ORIGIN)


@pytest.mark.parametrize(
    "properties",
    [
        "",
        ROW_PROPERTIES,
        HALF_PROPERTIES.replace(ORIGIN, "another"),
        HALF_PROPERTIES.replace("outbox_id:row-1|", ""),
        HALF_PROPERTIES.replace("outbox_replay:1", "outbox_replay:x"),
    ],
)
def test_decide_leaves_what_is_not_this_databases(properties):
    """Another origin's half message is another's to answer for, and what names none of ours is not ours."""
    assert Leave("foreign") == decide(ROW, offer(properties=properties), ORIGIN)


@pytest.mark.parametrize(
    "over",
    [
        {"body": "another"},
        {"tag": ""},
        {"properties": HALF_PROPERTIES.replace("red", "blue")},
        {"properties": HALF_PROPERTIES.replace("colour:red|", "")},
        {"properties": f"{HALF_PROPERTIES}more:1|"},
        {"properties": HALF_PROPERTIES.replace("__TransCheckT:60", "__TransCheckT:10")},
        {"properties": HALF_PROPERTIES.replace("row-1", "row-2")},
    ],
    ids=str,
)
@pytest.mark.parametrize("row", [ROW, decided(State.COMMITTING, "M")])
def test_decide_never_touches_what_differs_from_its_row(row, over):
    """Anyone who may write to the topic can post a half message with our ids: it must be the row, byte for byte."""
    assert Leave("altered") == decide(row, offer(**over), ORIGIN)


@pytest.mark.parametrize("destination_and_topic", [("other", "orders"), ("default", "other")])
def test_decide_never_touches_what_stands_elsewhere(destination_and_topic):
    """The row says which topic of which destination its half messages are in."""
    assert Leave("altered") == decide(ROW, offer_of(half(), *destination_and_topic), ORIGIN)


def test_decide_knows_what_the_broker_adds():
    """Names that begin with two underscores, and KEYS where the row has none, are the broker's own to add or drop."""
    row = replace(ROW, properties=ROW_PROPERTIES.replace("KEYS:order-7|", ""))
    without = HALF_PROPERTIES.replace("__TransCheckT:60|", "").replace("order-7", "request-id")

    assert Adopt() == decide(row, offer(properties=f"{without}__BORNHOST:1|"), ORIGIN)


@pytest.mark.parametrize("age_s", [0.0, OLD_S])
@pytest.mark.parametrize("row", [None, ROW])
def test_decide_rolls_back_every_canary(row, age_s):
    """A canary is offered, and with that has done what it is for."""
    canary = f"__TransCheckT:60|outbox_canary:1|outbox_id:c|outbox_replay:0|outbox_origin:{ORIGIN}|"

    assert Rollback() == decide(row, offer(age_s, properties=canary), ORIGIN)


@pytest.mark.parametrize("check_s", [10, 30, 60, 300])
def test_margin_keeps_sender_and_checker_apart(check_s):
    """The margin is a tenth of the check time, at most five seconds; a request takes at most a quarter."""
    assert half_margin_s(check_s) == min(5, check_s / 10)
    assert half_deadline_s(10, check_s) == min(10, check_s / 4)


def test_offer_never_shows_its_handle_or_body():
    """A receipt handle is a capability, and a body is private: neither stands in any log by accident."""
    shown = repr(half(body="secret body")) + repr(offer(body="secret body"))

    assert "secret" not in shown
    assert "'handle'" not in shown


@pytest.mark.parametrize(("age_s", "is_early"), [(54.0, True), (55.5, False), (60.0, False), (600.0, False)])
def test_offer_is_early_before_its_check_time(age_s, is_early):
    """By more than a Date's rounding."""
    assert is_early is offer(age_s).is_early


@pytest.mark.parametrize("over", [{"answered_at_s": None}, {"properties": "outbox_id:row-1|"}])
def test_offer_whose_age_is_unknown_may_be_early(over):
    """What cannot be dated proves nothing."""
    assert offer(600.0, **over).is_early


@pytest.mark.parametrize(("ahead_s", "youngest_s", "oldest_s"), [(0, 66, 76), (11, 66, 77), (-100, -34, 76)])
def test_offer_is_of_an_age_between_two(ahead_s, youngest_s, oldest_s):
    """A Date that is wrong makes it neither older, where it may be early, nor younger, where its day may be over."""
    skewed = offer(66.0, answered_at_s=1066.0 + ahead_s)

    assert (youngest_s, oldest_s) == (skewed.age_s, skewed.oldest_s)


@pytest.mark.parametrize(
    ("ahead_s", "decision"), [(11.9, Leave("young")), (0, Leave("young")), (12.1, Leave("undated"))]
)
def test_decide_is_not_hurried_by_a_date_that_is_fast(ahead_s, decision):
    """A half message that was offered at once seems as old as the Date is ahead: its sender is still at it."""
    young = offer(1.0, answered_at_s=1001.0 + ahead_s, properties=HALF_PROPERTIES.replace("60", "10"))
    row = replace(ROW, properties=ROW_PROPERTIES.replace("60", "10"), transaction_check_s=10)

    assert decision == decide(row, young, ORIGIN)
