import re
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import RemoteDisconnected

import pytest

from outbox.emulator import Emulator
from tests.emulator_api import ApiClient, connect, raw_request

HALF = b"<Message><MessageBody>half</MessageBody><Properties>__TransCheckT:10</Properties></Message>"


@pytest.fixture
def client(emulator):
    with ApiClient(emulator.url) as client:
        yield client


def test_publish_answers_as_documented(client, emulator):
    """201, MessageId, the body's MD5 in upper case, no handle for a normal message."""
    reply = client.publish("orders", "hello world", "TagA", {"KEYS": "order-1"})

    assert (201, "text/xml;charset=utf-8") == (reply.status, reply.headers["Content-Type"])
    assert re.fullmatch("[0-9A-F]{32}", reply.text("MessageId"))
    assert "5EB63BBBE01EEED093CB22BB8F5ACDC3" == reply.text("MessageBodyMD5")
    assert reply.text("ReceiptHandle") is None
    assert "2015-06-06" == reply.headers["x-mq-version"]


def test_answer_names_its_request_id_in_lower_case(client, emulator):
    """The official Python SDK finds the header in lower case only; its first 8 digits are the time."""
    with connect(emulator.url) as bare:
        bare.sendall(raw_request(client, "GET", client.target("orders", consumer="G", numOfMessages=1)))
        answer = bare.recv(65536)

    (request_id,) = re.findall(rb"\r\nx-mq-request-id: ([0-9A-F]{24})\r\n", answer)
    assert abs(int(request_id[:8], 16) - time.time()) < 60
    assert b"<RequestId>" + request_id + b"</RequestId>" in answer


def test_error_has_the_four_children_and_the_namespace_of_the_java_sdk(client):
    """Every SDK can read an <Error>: Code, Message, RequestId, HostId, namespace without the last slash."""
    reply = client.send("GET", "/nowhere")

    assert 400 == reply.status
    assert "{http://mq.aliyuncs.com/doc/v1}Error" == reply.root.tag
    assert ["Code", "Message", "RequestId", "HostId"] == [child.tag.partition("}")[2] for child in reply.root]
    assert all(child.text for child in reply.root)


def test_consume_delivers_what_was_published(client, emulator):
    """Body, tag and properties arrive as they were sent, with the times of the delivery."""
    body = "a & b <c> \"d\" 'e' ]]> 中文 \U0001f600\r\n\ttab"
    published = client.publish("orders", body, "TagA", {"KEYS": "order-1", "a": "ü"})
    (message,) = client.consume("orders").messages

    assert body == message["MessageBody"]
    assert ("TagA", "KEYS:order-1|a:ü|") == (message["MessageTag"], message["Properties"])
    assert published.text("MessageId") == message["MessageId"]
    assert published.text("MessageBodyMD5") == message["MessageBodyMD5"]
    assert "1" == message["ConsumedTimes"]
    publish, first, following = (int(message[f"{name}Time"]) for name in ("Publish", "FirstConsume", "NextConsume"))
    assert publish <= first
    assert 300_000 == following - first


def test_consume_answers_404_when_there_is_nothing(client):
    """Nothing to consume is MessageNotExist, the normal case of a poll."""
    reply = client.consume("orders")

    assert (404, "MessageNotExist") == (reply.status, reply.code)


@pytest.mark.parametrize("limit", [1, 16])
def test_consume_hands_out_a_batch(client, limit):
    """No more than numOfMessages is handed out."""
    for number in range(17):
        client.publish("orders", str(number))

    assert [str(number) for number in range(limit)] == client.consume("orders", limit=limit).bodies


def test_consume_filters_by_either_tag(client):
    """tag=A||B asks for either; * and nothing ask for all."""
    for tag in ("A", "B", "C", None):
        client.publish("orders", tag or "none", tag)

    assert ["A", "B"] == client.consume("orders", "GID_1", tag="A||B").bodies
    assert ["A", "B", "C", "none"] == client.consume("orders", "GID_2", tag="*").bodies
    assert ["A", "B", "C", "none"] == client.consume("orders", "GID_3").bodies


def test_consume_takes_the_php_sdk_s_wait(client):
    """waitseconds=-1 means no wait."""
    started = time.monotonic()

    assert [] == client.consume("orders", wait=-1).messages
    assert time.monotonic() - started < 0.5


def test_poll_ends_when_a_message_comes(client, emulator):
    """A long poll is answered as soon as somebody publishes."""
    with ThreadPoolExecutor(1) as pool, ApiClient(emulator.url) as poller:
        polled = pool.submit(poller.consume, "orders", wait=30)
        time.sleep(0.1)
        client.publish("others", "not this")
        client.publish("orders", "this")

        assert ["this"] == polled.result(5).bodies


def test_poll_gives_up_in_time(client):
    """A long poll without a message ends with MessageNotExist after waitseconds."""
    started = time.monotonic()

    assert [] == client.consume("orders", wait=1).messages
    assert 0.9 < time.monotonic() - started < 2


def test_poll_ends_when_time_brings_something(client, emulator):
    """A long poll sees schedules, redeliveries and checks that come due, also when the clock is moved."""
    client.publish("orders", "scheduled", properties={"__STARTDELIVERTIME": int((time.time() + 3600) * 1000)})
    client.publish("halves", "half", properties={"__TransCheckT": 300})
    with ThreadPoolExecutor(2) as pool, ApiClient(emulator.url) as one, ApiClient(emulator.url) as two:
        consumed, checked = pool.submit(one.consume, "orders", wait=30), pool.submit(two.check, "halves", wait=30)
        time.sleep(0.1)
        emulator.advance(3600)

        assert ["scheduled"] == consumed.result(5).bodies
        assert ["half"] == checked.result(5).bodies


def test_poll_wakes_by_itself_when_a_schedule_is_due(client):
    """Nothing else need happen for a scheduled message to end a poll."""
    at = time.time() + 0.5
    client.publish("orders", "scheduled", properties={"__STARTDELIVERTIME": int(at * 1000)})

    assert ["scheduled"] == client.consume("orders", wait=10).bodies
    assert at - 0.01 <= time.time() <= at + 1


def test_poll_that_meets_a_defect_ends(client, emulator, caplog):
    """Should the emulator itself fail during a poll, its client is hung up on, and the log has the reason."""
    emulator._site.broker.next_check = None

    with pytest.raises(RemoteDisconnected):
        client.check("orders", wait=5)
    assert ["outbox.emulator.failed"] == [record.message for record in caplog.records]


def test_poll_of_a_client_that_left_takes_nothing(client, emulator):
    """A message that is published after the poller hung up is not lost to its group."""
    with connect(emulator.url) as bare:
        target = client.target("orders", consumer="GID_1", numOfMessages=16, waitseconds=30)
        bare.sendall(raw_request(client, "GET", target))
        time.sleep(0.1)
    time.sleep(0.1)
    client.publish("orders", "kept")

    assert ["kept"] == client.consume("orders").bodies


def test_ack_answers_204_and_partial_failure_404(client):
    """204 when all handles had effect; otherwise 404 with <Errors> that name those that had not."""
    client.publish("orders", "a")
    client.publish("orders", "b")
    first, second = (message["ReceiptHandle"] for message in client.consume("orders").messages)

    acked = client.end("orders", [first])
    partly = client.end("orders", [second, first, "nonsense"])

    assert (204, b"") == (acked.status, acked.body)
    assert "Content-Length" not in acked.headers
    assert 404 == partly.status
    assert [("ReceiptHandleError", first), ("ReceiptHandleError", "nonsense")] == partly.failures


def test_ack_in_time_ends_redelivery(client, emulator):
    """What is acknowledged stays away, what is not comes back after five minutes and counts."""
    client.publish("orders", "acked")
    client.publish("orders", "forgotten")
    first, _ = client.consume("orders").messages
    client.end("orders", [first["ReceiptHandle"]])

    emulator.advance(301)
    (again,) = client.consume("orders").messages

    assert ("forgotten", "2") == (again["MessageBody"], again["ConsumedTimes"])


def test_consume_in_order_blocks_a_shard(client, emulator):
    """trans=order: the next messages of a shard come when all earlier ones are acknowledged."""
    for body in ("a1", "a2", "b1"):
        client.publish("orders", body, properties={"__SHARDINGKEY": body[0]})
    (first,) = client.consume("orders", limit=1, trans="order").messages
    others = client.consume("orders", trans="order").bodies
    client.end("orders", [first["ReceiptHandle"]])
    following = client.consume("orders", trans="order").bodies
    emulator.advance(60)
    again = client.consume("orders", trans="order").bodies

    assert ("a1", ["b1"], ["a2"]) == (first["MessageBody"], others, following)
    assert {"a2", "b1"} == set(again)


def test_half_is_committed_by_its_publish_handle(client):
    """A half message has a handle; the commit makes it visible, and the handle is then used."""
    half = client.publish("orders", "half", properties={"__TransCheckT": 10})
    handle = half.text("ReceiptHandle")
    before = client.consume("orders").messages

    committed = client.end("orders", [handle], "commit")
    again = client.end("orders", [handle], "commit")

    assert [] == before
    assert (204, b"") == (committed.status, committed.body)
    assert (404, [("ReceiptHandleError", handle)]) == (again.status, again.failures)
    assert ["half"] == client.consume("orders").bodies


def test_half_is_offered_and_rolled_back(client, emulator):
    """After its check time a half message is offered with a new handle, by which it may be rolled back."""
    published = client.publish("orders", "half", "TagA", {"__TransCheckT": 10, "KEYS": "k"}).text("ReceiptHandle")
    early = client.check("orders").messages
    emulator.advance(10)
    late = client.end("orders", [published], "commit")
    (offered,) = client.check("orders").messages
    rolled_back = client.end("orders", [offered["ReceiptHandle"]], "rollback")
    emulator.advance(10)

    assert [] == early
    assert [("MessageNotExist", published)] == late.failures
    assert ("half", "TagA", "__TransCheckT:10|KEYS:k|") == (
        offered["MessageBody"],
        offered["MessageTag"],
        offered["Properties"],
    )
    assert 10_000 == pytest.approx(int(offered["NextConsumeTime"]) - int(offered["FirstConsumeTime"]), abs=1)
    assert 204 == rolled_back.status
    assert [] == client.check("orders").messages
    assert [0] == [message["visible"] for message in emulator.ledger()["messages"]]


def test_default_instance_has_no_ns(emulator):
    """Without an instance id the parameter is left out, and the topic is another one."""
    with ApiClient(emulator.url, ns="") as default, ApiClient(emulator.url, ns="MQ_INST_1") as named:
        default.publish("orders", "default")
        named.publish("orders", "named")

        assert ["default"] == default.consume("orders").bodies
        assert ["named"] == named.consume("orders").bodies
    assert ["", "MQ_INST_1"] == [message["ns"] for message in emulator.ledger()["messages"]]


def test_publish_takes_four_mebibytes_but_no_more(client, emulator):
    """The largest body is taken, however much longer its escaped form is; one byte more is InvalidArgument."""
    largest = "&" * (4 * 1024 * 1024)

    assert 201 == client.publish("orders", largest).status
    assert "InvalidArgument" == client.publish("orders", largest + "a").code
    assert [len(largest)] == [len(message["body"]) for message in emulator.ledger()["messages"]]


def test_strict_topics_answer_404():
    """A strict topic of another kind, or an unknown one, is TopicNotExist."""
    with Emulator(strict_topics={"orders": "normal"}) as emulator, ApiClient(emulator.url) as client:
        replies = [
            client.publish("orders", "a"),
            client.publish("orders", "a", properties={"__SHARDINGKEY": "a"}),
            client.publish("others", "a"),
        ]

        assert [(201, None), (404, "TopicNotExist"), (404, "TopicNotExist")] == [(r.status, r.code) for r in replies]


def test_every_known_key_is_let_in():
    """Several keys may be known, as while they are rotated."""
    with (
        Emulator(keys={"old": "a", "new": "b"}) as emulator,
        ApiClient(emulator.url, "old", "a") as old,
        ApiClient(emulator.url, "new", "b") as new,
        ApiClient(emulator.url, "new", "a") as wrong,
    ):
        assert [201, 201, 403] == [client.publish("orders", "x").status for client in (old, new, wrong)]


@pytest.mark.parametrize(
    ("configured", "sent", "status"),
    [(None, None, 201), (None, "any", 201), ("STS", "STS", 201), ("STS", "other", 403), ("STS", None, 403)],
)
def test_security_token_is_asked_for_when_configured(configured, sent, status):
    """Any token passes unless one is configured; then only that one does."""
    with Emulator(security_token=configured) as emulator, ApiClient(emulator.url) as client:
        headers = client.signed("POST", client.target("orders"), HALF)
        headers |= {"security-token": sent} if sent else {}

        assert status == client.send("POST", client.target("orders"), HALF, headers).status


def test_connection_is_kept_alive(client, emulator):
    """Requests in a row share a connection; HTTP/1.0 and Connection: close end it."""
    request = raw_request(client, "POST", client.target("orders"), HALF)
    with connect(emulator.url) as bare:
        for _ in range(3):
            bare.sendall(request)
            assert b"Connection: keep-alive" in bare.recv(65536)
        bare.sendall(raw_request(client, "POST", client.target("orders"), HALF, "Connection: close"))
        last = bare.recv(65536)

        assert b"Connection: close" in last
        assert b"" == bare.recv(1)


def test_pipelined_requests_are_answered_in_order(client, emulator):
    """Requests that follow a long poll on its connection wait for its answer."""
    client.publish("orders", "scheduled", properties={"__STARTDELIVERTIME": int((time.time() + 0.3) * 1000)})
    poll = client.target("orders", consumer="GID_1", numOfMessages=1, waitseconds=10)
    publish = raw_request(client, "POST", client.target("orders"), HALF)
    with connect(emulator.url) as bare:
        bare.sendall(raw_request(client, "GET", poll) + publish + publish)
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 3 or not answers.endswith(b"</Message>"):
            answers += bare.recv(65536)

    assert [b"200", b"201", b"201"] == re.findall(rb"HTTP/1.1 (\d+)", answers)


def test_expect_continue_is_answered_before_the_body(client, emulator):
    """The Java SDK waits for 100 Continue before it sends a body."""
    request = raw_request(client, "POST", client.target("orders"), HALF, "Expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    with connect(emulator.url) as bare:
        bare.sendall(head + b"\r\n\r\n")
        interim = bare.recv(65536)
        bare.sendall(body)
        final = bare.recv(65536)

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == interim
    assert final.startswith(b"HTTP/1.1 201 Created\r\n")


def test_request_may_come_byte_by_byte(client, emulator):
    """Where a request is cut into packets does not matter."""
    with connect(emulator.url) as bare:
        for byte in raw_request(client, "POST", client.target("orders"), HALF):
            bare.sendall(bytes([byte]))

        assert bare.recv(65536).startswith(b"HTTP/1.1 201 Created\r\n")


def test_offer_of_another_protocol_is_declined(client, emulator):
    """A client that would rather upgrade (Java's own, curl --http2) is answered in HTTP/1.1, its body is read."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    at_once = raw_request(client, "POST", client.target("orders"), HALF, *offer)
    patient = raw_request(client, "POST", client.target("orders"), HALF, *offer, "Expect: 100-continue")
    head, _, body = patient.partition(b"\r\n\r\n")
    with connect(emulator.url) as bare:
        bare.sendall(at_once)
        first = bare.recv(65536)
        bare.sendall(head + b"\r\n\r\n")
        interim = bare.recv(65536)
        bare.sendall(body)
        second = bare.recv(65536)

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == interim
    assert [b"HTTP/1.1 201 Created"] * 2 == [answer[:20] for answer in (first, second)]


@pytest.mark.parametrize(
    "sent",
    [b"SSH-2.0-OpenSSH\r\n", b"GET / HTTP/1.1\r\nA: " + b"a" * 2_000_000, b"GET / HTTP/1.1\r\nA b\r\n\r\n"],
    ids=["another protocol", "endless header", "bad header"],
)
def test_what_is_not_http_is_refused(emulator, sent):
    """Other protocols and heads without end are answered with 400, and the connection ends."""
    with connect(emulator.url) as bare:
        bare.sendall(sent)

        assert bare.recv(65536).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_body_without_end_is_refused(client, emulator):
    """A body of more than 32 MiB is not read to its end."""
    head = raw_request(client, "POST", client.target("orders")).replace(b"Length: 0", b"Length: 99999999")
    with connect(emulator.url) as bare:
        bare.sendall(head)

        with pytest.raises(OSError, match=r"reset|Broken"):
            bare.sendall(b"a" * 99_999_999)
