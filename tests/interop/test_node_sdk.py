"""The official Node SDK against the emulator; found where `npm ci` installs it here, or where NODE_SDK_MODULES says."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = Path(os.environ.get("NODE_SDK_MODULES", HERE / "node_modules"))
OF = ["MQ_INST_1", "orders"]


@pytest.fixture(scope="module")
def node():
    """A process that drives the SDK."""
    if shutil.which("node") is None or not (MODULES / "@aliyunmq" / "mq-http-sdk").is_dir():
        reason = "the Node SDK is not installed: npm ci --prefix tests/interop"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    environment = {**os.environ, "NODE_PATH": str(MODULES)}
    with subprocess.Popen(
        ["node", str(HERE / "node_sdk.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def call(node, emulator):
    """A function that calls a method of a producer or consumer, and returns what the SDK returns."""

    def call(member, method, *args, group=None, settings=None, secret="FAKESECRET", tag=None):
        command = {
            "client": [emulator.url, "FAKEAKID", secret, "FAKESTSTOKEN"],
            "member": member,
            "of": [*OF, *([group] if group else []), *([tag] if tag else [])],
            "call": method,
            "args": args,
            "settings": settings,
        }
        node.stdin.write(json.dumps(command) + "\n")
        node.stdin.flush()
        return json.loads(node.stdout.readline())

    return call


@pytest.fixture
def publish(call):
    """A function that publishes by a producer; settings are calls on the SDK's message properties."""
    return lambda body, tag="TagA", *settings: call("getProducer", "publishMessage", body, tag, settings=settings)


@pytest.fixture
def publish_half(call):
    """A function that publishes a half message and returns its receipt handle."""

    def publish_half():
        settings = [["transCheckImmunityTime", 10]]
        answer = call("getTransProducer", "publishMessage", "half", "TagA", group="GID_1", settings=settings)
        assert answer["code"] == 201
        return answer["body"]["ReceiptHandle"]

    return publish_half


@pytest.fixture
def consume(call):
    """A function that consumes what is there and returns the bodies and handles."""

    def consume(method="consumeMessage", **how):
        answer = call("getConsumer", method, 16, group="GID_1", **how)
        return [(one["MessageBody"], one["ReceiptHandle"]) for one in answer.get("body", [])]

    return consume


def test_publish_is_consumed_and_acknowledged(publish, consume, call, emulator):
    """A normal message: published, consumed with everything it had, acknowledged."""
    body = "a & b <c> \"d\" 'e' 中文 \U0001f600"
    published = publish(body, "TagA", ["messageKey", "order-1"], ["putProperty", "a", "1"])
    (message,) = call("getConsumer", "consumeMessage", 3, 3, group="GID_1", tag="TagA||TagB")["body"]
    acked = call("getConsumer", "ackMessage", [message["ReceiptHandle"]], group="GID_1")

    assert 201 == published["code"]
    assert published["body"]["MessageId"] == message["MessageId"]
    assert published["body"]["MessageBodyMD5"] == message["MessageBodyMD5"]
    assert (body, "TagA") == (message["MessageBody"], message["MessageTag"])
    assert {"a": "1"} == message["Properties"]
    assert "order-1" == message["MessageKey"]
    assert 204 == acked["code"]
    emulator.advance(301)
    assert [] == consume()


def test_consume_of_nothing_is_message_not_exist(call):
    """An empty poll is the SDK's MessageNotExist."""
    assert {"error": "MessageNotExist"} == call("getConsumer", "consumeMessage", 3, group="GID_1")


def test_scheduled_message_comes_at_its_time(publish, consume, emulator):
    """A scheduled message: invisible, then there."""
    publish("later", "TagA", ["startDeliverTime", int((time.time() + 60) * 1000)])
    before = consume()
    emulator.advance(61)

    assert [] == before
    assert ["later"] == [body for body, _ in consume()]


def test_ordered_messages_come_in_order(publish, consume, call):
    """Ordered messages: the next of a shard only after the acknowledgement."""
    for number in ("1", "2"):
        publish(number, "TagA", ["shardingKey", "a"])
    (first,) = call("getConsumer", "consumeMessageOrderly", 1, group="GID_1")["body"]
    blocked = consume("consumeMessageOrderly")
    call("getConsumer", "ackMessage", [first["ReceiptHandle"]], group="GID_1")

    assert ("1", []) == (first["MessageBody"], blocked)
    assert ["2"] == [body for body, _ in consume("consumeMessageOrderly")]


def test_partial_ack_names_the_failed_handles(publish, consume, call):
    """One good handle and one bad: 404, and the bad one is named."""
    publish("a")
    ((_, handle),) = consume()
    answer = call("getConsumer", "ackMessage", [handle, "nonsense"], group="GID_1")

    assert 404 == answer["code"]
    (failure,) = answer["body"]
    assert ("ReceiptHandleError", "nonsense") == (failure["ErrorCode"], failure["ReceiptHandle"])


@pytest.mark.parametrize(("end", "bodies"), [("commit", ["half"]), ("rollback", [])])
def test_half_message_is_ended_by_its_publish_handle(publish_half, consume, call, end, bodies):
    """A half message: invisible, then committed and there, or rolled back and gone."""
    handle = publish_half()
    before = consume()
    first, second = (call("getTransProducer", end, handle, group="GID_1") for _ in range(2))

    assert [] == before
    assert (204, 404) == (first["code"], second["code"])
    assert bodies == [body for body, _ in consume()]


def test_half_message_is_checked(publish_half, consume, call, emulator):
    """A half message that was not ended is offered, and ended by the offer's handle."""
    publish_half()
    emulator.advance(11)
    (offered,) = call("getTransProducer", "consumeHalfMessage", 3, 3, group="GID_1")["body"]
    committed = call("getTransProducer", "commit", offered["ReceiptHandle"], group="GID_1")

    assert ("half", 204) == (offered["MessageBody"], committed["code"])
    assert ["half"] == [body for body, _ in consume()]


def test_wrong_keys_are_refused(call, emulator):
    """A wrong secret is the SDK's SignatureDoesNotMatch, and nothing is accepted."""
    answer = call("getProducer", "publishMessage", "a", "TagA", secret="WRONG")

    assert {"error": "SignatureDoesNotMatch"} == answer
    assert [] == emulator.ledger()["messages"]


def test_broken_cdata_is_malformed_xml(publish):
    """That SDK's own defect, ]]> inside CDATA, is told as the service tells it."""
    assert {"error": "MalformedXML"} == publish("a ]]> b")
