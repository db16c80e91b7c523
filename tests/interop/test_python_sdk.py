"""The official Python SDK against the emulator."""

import os
import time
from types import SimpleNamespace

import pytest

OF = ("MQ_INST_1", "orders")


@pytest.fixture
def sdk():
    """The SDK's names."""
    try:
        from mq_http_sdk.mq_client import MQClient
        from mq_http_sdk.mq_exception import MQClientNetworkException, MQServerException
        from mq_http_sdk.mq_producer import TopicMessage
    except ImportError:
        reason = "the Python SDK is not installed: pip install mq_http_sdk==1.0.3"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return SimpleNamespace(
        Client=MQClient, Refused=MQServerException, Unanswered=MQClientNetworkException, Message=TopicMessage
    )


@pytest.fixture
def client(sdk, emulator):
    """The SDK's client, whose keep-alive connection is closed in the end."""
    client = sdk.Client(emulator.url, "FAKEAKID", "FAKESECRET", "FAKESTSTOKEN")
    yield client
    client.close_connection()


@pytest.fixture
def publish(sdk, client):
    """A function that publishes; settings are calls on the SDK's message."""

    def publish(body, **settings):
        message = sdk.Message(body, "TagA")
        for name, value in settings.items():
            getattr(message, name)(value)
        producer = client.get_trans_producer if "set_trans_check_immunity_time" in settings else client.get_producer
        group = ["GID_1"] if "set_trans_check_immunity_time" in settings else []
        return producer(*OF, *group).publish_message(message)

    return publish


@pytest.fixture
def consume(sdk, client):
    """A function that consumes what is there; an empty poll is an empty list."""

    def consume(method="consume_message", batch=16):
        try:
            return getattr(client.get_consumer(*OF, "GID_1"), method)(batch)
        except sdk.Refused as error:
            if error.type != "MessageNotExist":
                raise
            return []

    return consume


def bodies(messages):
    return [message.message_body for message in messages]


def test_publish_is_consumed_and_acknowledged(publish, consume, client, emulator):
    """A normal message: published, consumed by a long poll with everything it had, acknowledged."""
    body = "a & b <c> \"d\" 'e' ]]> 中文 \U0001f600"
    published = publish(body, set_message_key="order-1")
    consumer = client.get_consumer(*OF, "GID_1", "TagA||TagB")
    (message,) = consumer.consume_message(3, 3)
    consumer.ack_message([message.receipt_handle])

    assert published.message_id == message.message_id
    assert published.message_body_md5 == message.message_body_md5
    assert "" == published.receipt_handle
    assert (body, "TagA", "order-1") == (message.message_body, message.message_tag, message.get_message_key())
    emulator.advance(301)
    assert [] == consume()


def test_consume_counts_deliveries(publish, consume, emulator):
    """What is not acknowledged comes again after five minutes, counted."""
    publish("a")
    counts = [[message.consumed_times for message in consume()]]
    emulator.advance(300)
    counts.append([message.consumed_times for message in consume()])

    assert [[1], [2]] == [[int(count) for count in batch] for batch in counts]


def test_scheduled_message_comes_at_its_time(publish, consume, emulator):
    """A scheduled message: invisible, then there."""
    publish("later", set_start_deliver_time=int((time.time() + 60) * 1000))
    before = consume()
    emulator.advance(61)

    assert [] == before
    assert ["later"] == bodies(consume())


def test_ordered_messages_come_in_order(publish, consume, client):
    """Ordered messages: the next of a shard only after the acknowledgement."""
    for number in ("1", "2"):
        publish(number, set_sharding_key="a")
    (first,) = consume("consume_message_orderly", 1)
    blocked = consume("consume_message_orderly")
    client.get_consumer(*OF, "GID_1").ack_message([first.receipt_handle])

    assert ("1", []) == (first.message_body, blocked)
    assert ["2"] == bodies(consume("consume_message_orderly"))


def test_partial_ack_names_the_failed_handles(sdk, publish, consume, client):
    """One good handle and one bad: an exception that names the bad one."""
    publish("a")
    (message,) = consume()

    with pytest.raises(sdk.Refused) as caught:
        client.get_consumer(*OF, "GID_1").ack_message([message.receipt_handle, "nonsense"])
    (failure,) = caught.value.sub_errors
    assert ("ReceiptHandleError", "nonsense") == (failure["ErrorCode"], failure["ReceiptHandle"])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_half_message_is_ended_by_its_publish_handle(sdk, publish, consume, client, end):
    """A half message: invisible, then committed and there, or rolled back and gone; its handle works once."""
    handle = publish("half", set_trans_check_immunity_time=10).receipt_handle
    before = consume()
    getattr(client.get_trans_producer(*OF, "GID_1"), end)(handle)

    assert [] == before
    assert bodies(consume()) == (["half"] if end == "commit" else [])
    with pytest.raises(sdk.Refused) as caught:
        getattr(client.get_trans_producer(*OF, "GID_1"), end)(handle)
    assert ["ReceiptHandleError"] == [failure["ErrorCode"] for failure in caught.value.sub_errors]


def test_half_message_is_checked(publish, consume, client, emulator):
    """A half message that was not ended is offered, and ended by the offer's handle."""
    publish("half", set_trans_check_immunity_time=10)
    emulator.advance(11)
    producer = client.get_trans_producer(*OF, "GID_1")
    (offered,) = producer.consume_half_message(3, 3)
    producer.commit(offered.receipt_handle)

    assert ("half", 10) == (offered.message_body, offered.get_trans_check_immunity_time())
    assert ["half"] == bodies(consume())


@pytest.mark.parametrize(
    ("key_id", "secret", "code"),
    [("FAKEAKID", "WRONG", "SignatureDoesNotMatch"), ("OTHERAKID", "FAKESECRET", "InvalidAccessKeyId")],
)
def test_wrong_keys_are_refused(sdk, emulator, key_id, secret, code):
    """A wrong secret or key id is the SDK's server exception of that code, with a request id."""
    stranger = sdk.Client(emulator.url, key_id, secret)
    with pytest.raises(sdk.Refused) as caught:
        stranger.get_producer(*OF).publish_message(sdk.Message("a"))
    stranger.close_connection()

    assert code == caught.value.type
    assert 24 == len(caught.value.req_id)
    assert [] == emulator.ledger()["messages"]


def test_lost_answer_makes_that_sdk_publish_twice(publish, emulator):
    """The Python SDK silently sends again when the connection ends unanswered: the ledger shows what that does."""
    emulator.fault("accept_then_drop", count=1)
    publish("a")

    assert ["a", "a"] == [message["body"] for message in emulator.ledger()["messages"]]


def test_illegal_character_is_malformed_xml(sdk, publish):
    """A control character, which that SDK sends as it is, is refused."""
    with pytest.raises(sdk.Refused) as caught:
        publish("a\x01b")

    assert "MalformedXML" == caught.value.type
