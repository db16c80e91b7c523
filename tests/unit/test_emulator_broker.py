from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from outbox.emulator.broker import Broker, TopicKey
from outbox.emulator.clock import BrokerClock
from outbox.emulator.publication import Publication
from outbox.emulator.rejection import Rejection
from outbox.emulator.stored import Failure, Rules

ORDERS = TopicKey("MQ_INST_1", "orders")
START = 1_700_000_000.0


class FakeWall:
    """A wall clock that stands still; the broker's own clock is what these tests advance."""

    def __call__(self):
        return START


@pytest.fixture
def clock():
    return BrokerClock(FakeWall())


@pytest.fixture
def broker(clock):
    return Broker(clock)


def publish(broker, body="hello", key=ORDERS, quirks=(), tag=None, **properties):
    """Publish; returns the MessageId, or the publish handle of a half message."""
    pairs = "|".join(f"{name}:{value}" for name, value in properties.items())
    fields = {"MessageBody": body, "Properties": pairs, "MessageTag": tag}
    publication = Publication.of({name: text for name, text in fields.items() if text}, broker._clock.now())
    message, handle = broker.publish(key, publication, "A" * 24, quirks)
    return handle or message.message_id


def consume(broker, group="GID_1", limit=16, **how):
    return broker.consume(ORDERS, group, limit, **how)


def bodies(deliveries):
    return [delivery.message.body for delivery in deliveries]


def visible(broker):
    return {entry["body"]: entry["visible"] for entry in broker.ledger()}


def test_consume_starts_every_group_at_the_beginning(broker):
    """A group that comes later gets what was published before it came."""
    for body in ("a", "b"):
        publish(broker, body)

    first = bodies(consume(broker, "GID_1"))
    publish(broker, "c")

    assert ["a", "b"] == first
    assert ["c"] == bodies(consume(broker, "GID_1"))
    assert ["a", "b", "c"] == bodies(consume(broker, "GID_2"))


def test_consume_keeps_instances_apart(broker):
    """A topic belongs to its instance: the same name elsewhere is another topic."""
    publish(broker, "elsewhere", TopicKey("MQ_INST_2", "orders"))

    assert [] == consume(broker)


def test_consume_passes_over_other_tags(broker):
    """A group gets the tags it asks for; what it did not ask for is behind it for good."""
    for tag in ("TagA", "TagB", None, "TagC"):
        publish(broker, tag or "untagged", tag=tag)

    taken = consume(broker, tags={"TagA", "TagC"})

    assert ["TagA", "TagC"] == bodies(taken)
    assert [] == consume(broker)


def test_consume_redelivers_after_five_minutes(broker, clock):
    """What is not acknowledged is handed out again, with a new handle and the first time it was had."""
    publish(broker)
    (first,) = consume(broker)

    clock.advance(299.9)
    too_early = consume(broker)
    clock.advance(0.1)
    (second,) = consume(broker)

    assert [] == too_early
    assert (first.message, first.first_at, 2) == (second.message, second.first_at, second.times)
    assert first.handle != second.handle
    assert START + 600 == pytest.approx(second.next_at)


def test_consume_redelivers_no_more_than_asked_for(broker, clock):
    """What is due again comes first, within the limit, and the rest of it before anything new."""
    for body in ("a", "b", "c"):
        publish(broker, body)
    consume(broker)
    publish(broker, "new")
    clock.advance(300)

    assert ["a", "b"] == bodies(consume(broker, limit=2))
    assert ["c", "new"] == bodies(consume(broker, limit=2))


def test_acknowledge_ends_redelivery(broker, clock):
    """An acknowledged message does not come back to its group."""
    publish(broker)
    (delivery,) = consume(broker)

    failed = broker.acknowledge(ORDERS, "GID_1", [delivery.handle])
    clock.advance(301)

    assert [] == failed
    assert [] == consume(broker)


def test_acknowledge_tells_late_from_unknown_handles(broker, clock):
    """A handle that expired or was replaced is MessageNotExist; one that is unknown or used is ReceiptHandleError."""
    publish(broker)
    (first,) = consume(broker)
    clock.advance(300)
    expired = broker.acknowledge(ORDERS, "GID_1", [first.handle])
    (second,) = consume(broker)

    assert [Failure(first.handle, "MessageNotExist")] == expired
    assert [Failure(first.handle, "MessageNotExist")] == broker.acknowledge(ORDERS, "GID_1", [first.handle])
    assert [Failure(second.handle, "ReceiptHandleError")] == broker.acknowledge(ORDERS, "GID_2", [second.handle])
    assert [Failure("other", "ReceiptHandleError")] == broker.acknowledge(ORDERS, "GID_1", [second.handle, "other"])
    assert [Failure(second.handle, "ReceiptHandleError")] == broker.acknowledge(ORDERS, "GID_1", [second.handle])


@pytest.mark.parametrize(("ordered", "pause_s"), [(False, 300), (True, 60)])
def test_consume_gives_up_after_288_redeliveries(broker, clock, ordered, pause_s):
    """A message that was handed to a group 288 times again is a dead letter, for that group alone."""
    message_id = publish(broker)
    deliveries, given_up = [], []
    for _ in range(300):
        deliveries += consume(broker, ordered=ordered)
        clock.advance(pause_s)
        given_up.append(len(broker.dead_letters()))

    assert list(range(1, 290)) == [delivery.times for delivery in deliveries]
    assert [0] * 288 + [1] * 12 == given_up, "given up as soon as its last time is over, whoever asks"
    (dead,) = broker.dead_letters()
    assert ("GID_1", "orders", message_id) == (dead["group"], dead["topic"], dead["message_id"])
    assert 1 == len(consume(broker, "GID_2"))


def test_consume_in_order_waits_for_every_acknowledgement(broker, clock):
    """The next batch of a shard comes only when all of the last one is acknowledged; a minute later it comes again."""
    for body in ("a1", "a2", "a3"):
        publish(broker, body, __SHARDINGKEY="a")
    first, second = consume(broker, limit=2, ordered=True)

    broker.acknowledge(ORDERS, "GID_1", [first.handle])
    blocked = consume(broker, ordered=True)
    clock.advance(60)
    again = consume(broker, ordered=True)
    broker.acknowledge(ORDERS, "GID_1", [again[0].handle])

    assert [] == blocked
    assert ["a2"] == bodies(again)
    assert second.message is again[0].message
    assert ["a3"] == bodies(consume(broker, ordered=True))


def test_consume_in_order_mixes_shards(broker):
    """A shard that is blocked does not block the others, and each keeps its own order."""
    for body in ("a1", "b1", "a2", "b2", "c1"):
        publish(broker, body, __SHARDINGKEY=body[0])

    first = consume(broker, limit=1, ordered=True)
    rest = consume(broker, ordered=True)

    assert ["a1"] == bodies(first)
    assert ["b1", "b2", "c1"] == bodies(rest)


def test_consume_in_order_lets_shards_take_turns(broker):
    """A long shard does not keep a consumer of small batches from the others."""
    for body in ("a1", "a2", "a3", "b1"):
        publish(broker, body, __SHARDINGKEY=body[0])

    served = []
    for _ in range(3):
        (delivery,) = consume(broker, limit=1, ordered=True)
        broker.acknowledge(ORDERS, "GID_1", [delivery.handle])
        served.append(delivery.message.body)

    assert ["a1", "b1", "a2"] == served


def test_schedule_shows_message_at_its_time(broker, clock):
    """A scheduled message is invisible, and counted as such, until its time; a past time means at once."""
    publish(broker, "later", __STARTDELIVERTIME=int((START + 60) * 1000))
    publish(broker, "past", __STARTDELIVERTIME=int((START - 60) * 1000))
    before = bodies(consume(broker)), visible(broker)

    clock.advance(60)

    assert (["past"], {"later": 0, "past": 1}) == before
    assert {"later": 1, "past": 1} == visible(broker)
    assert ["later"] == bodies(consume(broker))


def test_half_is_invisible_until_committed(broker):
    """Only a commit makes a half message visible, once."""
    handle = publish(broker, "half", __TransCheckT=10)
    before = consume(broker), visible(broker)

    failed = broker.end(ORDERS, [handle], commit=True)

    assert ([], {"half": 0}) == before
    assert [] == failed
    assert {"half": 1} == visible(broker)
    assert ["half"] == bodies(consume(broker))


def test_rollback_forgets_half(broker, clock):
    """A half message that was rolled back is neither visible nor offered."""
    handle = publish(broker, "half", __TransCheckT=10)

    failed = broker.end(ORDERS, [handle], commit=False)
    clock.advance(11)

    assert [] == failed
    assert [] == broker.check(ORDERS, 16)
    assert {"half": 0} == visible(broker)


def test_check_offers_after_check_time_then_every_ten_seconds(broker, clock):
    """A half message is first offered when its check time has passed, and then every ten seconds, counted."""
    publish(broker, "half", __TransCheckT=30)
    offers = []
    for _ in range(60):
        offers += [(clock.now() - START, delivery.times) for delivery in broker.check(ORDERS, 16)]
        clock.advance(1)

    assert [(30, 1), (40, 2), (50, 3)] == offers


def test_check_gives_up_after_a_day(broker, clock):
    """A half message that nobody ended is dropped after a day, and its handles with it."""
    publish(broker, "half", __TransCheckT=10)
    clock.advance(86399)
    (last,) = broker.check(ORDERS, 16)
    clock.advance(1)

    assert [] == broker.check(ORDERS, 16)
    assert [Failure(last.handle, "MessageNotExist")] == broker.end(ORDERS, [last.handle], commit=True)
    assert {"half": 0} == visible(broker)


def test_end_takes_each_handle_once(broker):
    """A handle is for single use, whichever way it was used."""
    handle = publish(broker, "half", __TransCheckT=10)
    broker.end(ORDERS, [handle], commit=True)

    assert [Failure(handle, "ReceiptHandleError")] == broker.end(ORDERS, [handle], commit=True)
    assert [Failure(handle, "ReceiptHandleError")] == broker.end(ORDERS, [handle], commit=False)
    assert {"half": 1} == visible(broker)


def test_end_refuses_handles_out_of_time(broker, clock):
    """The publish handle works until the first check is due, an offered one until the next offer."""
    published = publish(broker, "half", __TransCheckT=10)
    clock.advance(10)
    late = broker.end(ORDERS, [published], commit=True)
    (offered,) = broker.check(ORDERS, 16)
    clock.advance(10)
    too_late = broker.end(ORDERS, [offered.handle], commit=True)
    (again,) = broker.check(ORDERS, 16)

    assert [Failure(published, "MessageNotExist")] == late
    assert [Failure(offered.handle, "MessageNotExist")] == too_late
    assert [] == broker.end(ORDERS, [again.handle], commit=True)


def test_early_check_offers_young_halves_once(broker, clock):
    """An early check comes before its time and leaves the publish handle alive."""
    handle = publish(broker, "half", __TransCheckT=300)

    offered = broker.check(ORDERS, 16, ["early_check"])
    again = broker.check(ORDERS, 16, ["early_check"])

    assert ["half"] == bodies(offered)
    assert [] == again
    assert [] == broker.end(ORDERS, [handle], commit=True)


def test_repeated_check_offers_committed_half_again(broker, clock):
    """A broker that forgot a commit offers the half again, and delivers it twice if that is committed too."""
    handle = publish(broker, "half", __TransCheckT=10)
    broker.end(ORDERS, [handle], commit=True)
    clock.advance(10)

    (offered,) = broker.check(ORDERS, 16, ["repeated_check"])
    failed = broker.end(ORDERS, [offered.handle], commit=True)

    assert [] == failed
    assert {"half": 2} == visible(broker)
    assert [] == broker.check(ORDERS, 16)


def test_hostile_broker_commits_a_used_handle_again(broker, clock):
    """With the quirk a live handle delivers as often as it is committed; a dead one still does not."""
    handle = publish(broker, "half", __TransCheckT=10)
    for _ in range(2):
        broker.end(ORDERS, [handle], commit=True, quirks=["hostile"])
    clock.advance(10)

    assert [Failure(handle, "MessageNotExist")] == broker.end(ORDERS, [handle], commit=True, quirks=["hostile"])
    assert {"half": 2} == visible(broker)


def test_commit_delivers_twice_on_demand(broker):
    """With the quirk one commit makes the message visible twice."""
    handle = publish(broker, "half", __TransCheckT=10)

    broker.end(ORDERS, [handle], commit=True, quirks=["commit_delivers_twice"])

    assert ["half", "half"] == bodies(consume(broker))
    assert {"half": 2} == visible(broker)


def test_same_message_id_keeps_a_twin(broker, clock):
    """With the quirk a publish is kept twice under one MessageId, as by a gateway that sends it again."""
    handle = publish(broker, "half", quirks=["same_message_id"], __TransCheckT=10)
    broker.end(ORDERS, [handle], commit=True)
    clock.advance(10)

    (twin,) = broker.check(ORDERS, 16)

    assert [twin.message.message_id] * 2 == [entry["message_id"] for entry in broker.ledger()]
    assert [1, 0] == [entry["visible"] for entry in broker.ledger()]


def test_amnesia_loses_what_was_accepted(broker, clock):
    """With the quirk a half message is answered for and then never offered, nor can it be committed."""
    handle = publish(broker, "half", quirks=["amnesia"], __TransCheckT=10)
    clock.advance(10)

    assert [] == broker.check(ORDERS, 16)
    assert [Failure(handle, "ReceiptHandleError")] == broker.end(ORDERS, [handle], commit=True)
    assert {"half": 0} == visible(broker)


def test_strict_topics_refuse_other_kinds(clock):
    """A strict topic takes its own kind of message alone; an unknown topic takes none, and gives none."""
    broker = Broker(clock, {"orders": "transactional"})

    with pytest.raises(Rejection, match=r"TopicNotExist: .*takes transactional messages, not normal ones"):
        publish(broker)
    with pytest.raises(Rejection, match="TopicNotExist"):
        publish(broker, key=TopicKey("", "others"))
    with pytest.raises(Rejection, match="TopicNotExist"):
        broker.consume(TopicKey("", "others"), "GID_1", 1)
    publish(broker, __TransCheckT=10)
    assert 1 == len(broker.ledger())


def test_strict_topics_refuse_unknown_kind(clock):
    """A kind of message that does not exist is told at once, with those that do."""
    with pytest.raises(ValueError, match="topic 'orders': 'delayed' is none of normal, ordered, scheduled"):
        Broker(clock, {"orders": "delayed"})


def test_next_delivery_names_the_first_event(broker, clock):
    """A poll is told when time alone will bring it something: a schedule, a redelivery, a check."""
    assert broker.next_delivery(ORDERS, "GID_1", ordered=False) is None
    assert broker.next_check(ORDERS) is None

    publish(broker)
    consume(broker)
    redelivery = broker.next_delivery(ORDERS, "GID_1", ordered=False)
    publish(broker, __STARTDELIVERTIME=int((START + 60) * 1000))
    publish(broker, __TransCheckT=20)

    assert START + 300 == pytest.approx(redelivery)
    assert START + 60 == pytest.approx(broker.next_delivery(ORDERS, "GID_1", ordered=False))
    assert START + 20 == pytest.approx(broker.next_check(ORDERS))


def test_consume_in_order_keeps_order_through_small_batches(broker, clock):
    """What a small batch leaves over of a redelivery comes after it, never before."""
    for body in ("a1", "a2", "a3"):
        publish(broker, body, __SHARDINGKEY="a")
    consume(broker, limit=2, ordered=True)
    clock.advance(60)
    again = consume(broker, limit=1, ordered=True)
    blocked = consume(broker, ordered=True)
    due = broker.next_delivery(ORDERS, "GID_1", ordered=True)
    clock.advance(60)
    (third,) = consume(broker, limit=1, ordered=True)
    broker.acknowledge(ORDERS, "GID_1", [third.handle])

    assert (["a1"], []) == (bodies(again), blocked)
    assert START + 120 == pytest.approx(due)
    assert broker.next_delivery(ORDERS, "GID_1", ordered=False) is None
    assert ("a1", 3) == (third.message.body, third.times)
    assert ["a2"] == bodies(consume(broker, ordered=True))


def test_next_check_forgets_what_was_ended(broker):
    """A half message that was ended keeps no poll awake."""
    handle = publish(broker, __TransCheckT=10)
    publish(broker, __TransCheckT=20)
    broker.end(ORDERS, [handle], commit=True)

    assert START + 20 == pytest.approx(broker.next_check(ORDERS))


def test_rules_change_the_times(clock):
    """The times of redelivery and checks are configurable."""
    broker = Broker(clock, rules=Rules(redelivery_s=1, offer_every_s=2))
    publish(broker)
    publish(broker, "half", __TransCheckT=10)
    (delivery,) = consume(broker)
    clock.advance(10)
    (offer,) = broker.check(ORDERS, 16)

    assert START + 1 == delivery.next_at
    assert START + 12 == offer.next_at


class HalfMachine(RuleBasedStateMachine):
    """Whatever is done with handles at whatever time, a half message is visible at most once, and as it was ended."""

    def __init__(self):
        super().__init__()
        self.clock = BrokerClock(FakeWall())
        self.broker = Broker(self.clock)
        self.handles = []
        self.ended = {}

    @rule(check_s=st.sampled_from([10, 60, 300]))
    def publish_half(self, check_s):
        handle = publish(self.broker, f"half-{len(self.broker.ledger())}", __TransCheckT=check_s)
        self.handles.append(handle)

    @rule(limit=st.integers(1, 3))
    def check(self, limit):
        offered = self.broker.check(ORDERS, limit)
        self.handles += [delivery.handle for delivery in offered]

        assert not {delivery.message.message_id for delivery in offered} & self.ended.keys()

    @rule(seconds=st.sampled_from([1, 5, 10, 100, 86400]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(data=st.data(), commit=st.booleans())
    def end(self, data, commit):
        if self.handles:
            handle = data.draw(st.sampled_from(self.handles))
            message_id = handle.partition("-")[0]
            failed = self.broker.end(ORDERS, [handle], commit=commit)

            assert message_id not in self.ended or failed
            if not failed:
                self.ended[message_id] = commit

    @invariant()
    def visible_is_what_was_committed(self):
        committed = Counter(message_id for message_id, commit in self.ended.items() if commit)

        assert committed == Counter({entry["message_id"]: entry["visible"] for entry in self.broker.ledger()})


HalfMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestHalves = HalfMachine.TestCase


class OrderMachine(RuleBasedStateMachine):
    """Whatever is acknowledged at whatever time, a shard begins with its first message that is not acknowledged."""

    def __init__(self):
        super().__init__()
        self.clock = BrokerClock(FakeWall())
        self.broker = Broker(self.clock)
        self.unacknowledged = {"a": [], "b": []}
        self.handles = {}

    @rule(shard=st.sampled_from("ab"), count=st.integers(1, 3))
    def publish_to_shard(self, shard, count):
        for _ in range(count):
            body = f"{shard}{len(self.broker.ledger())}"
            publish(self.broker, body, __SHARDINGKEY=shard)
            self.unacknowledged[shard].append(body)

    @rule(limit=st.sampled_from([1, 2, 16]))
    def consume_in_order(self, limit):
        deliveries = consume(self.broker, limit=limit, ordered=True)
        self.handles |= {delivery.handle: delivery.message.body for delivery in deliveries}

        for shard, waiting in self.unacknowledged.items():
            taken = [body for body in bodies(deliveries) if body.startswith(shard)]
            assert waiting[: len(taken)] == taken

    @rule(seconds=st.sampled_from([30, 60]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule(data=st.data())
    def acknowledge(self, data):
        if self.handles:
            handle = data.draw(st.sampled_from(list(self.handles)))
            body = self.handles[handle]
            if not self.broker.acknowledge(ORDERS, "GID_1", [handle]):
                self.unacknowledged[body[0]].remove(body)


OrderMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestOrder = OrderMachine.TestCase
