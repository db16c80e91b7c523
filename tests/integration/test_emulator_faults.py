import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead, RemoteDisconnected
from xml.etree import ElementTree as ET

import psutil
import pytest

from outbox.emulator import FaultError
from tests.emulator_api import ApiClient, connect, raw_request
from tests.emulator_process import emulator_process

BODY = b"<Message><MessageBody>hello</MessageBody></Message>"


@pytest.fixture
def client(emulator):
    with ApiClient(emulator.url) as client:
        yield client


def accepted(emulator):
    return [message["body"] for message in emulator.ledger()["messages"]]


def visible(emulator):
    return [message["visible"] for message in emulator.ledger()["messages"]]


def publish_half(client):
    return client.publish("orders", "half", properties={"__TransCheckT": 10}).text("ReceiptHandle")


def read_to_end(emulator, client, *headers):
    """All bytes of the answer to one publish, until the connection ends."""
    request = raw_request(client, "POST", client.target("orders"), BODY, *headers)
    with connect(emulator.url) as bare:
        bare.sendall(request)
        data = b""
        while piece := bare.recv(65536):
            data += piece
    return data


@pytest.mark.parametrize(
    ("name", "fields", "answer"),
    [
        ("refuse", {}, (403, "AccessDenied")),
        ("refuse", {"code": "SignatureDoesNotMatch"}, (403, "SignatureDoesNotMatch")),
        ("refuse", {"code": "InvalidArgument"}, (400, "InvalidArgument")),
        ("refuse", {"code": "Strange", "status": 418}, (418, "Strange")),
        ("throttle", {}, (400, "QpsLimitExceeded")),
        ("unavailable", {}, (503, "ServiceUnavailable")),
    ],
)
def test_refusals_accept_nothing(client, emulator, name, fields, answer):
    """The broker's own refusals come as <Error>, have no effect, and leave the connection open."""
    emulator.fault(name, count=1, **fields)
    refused, taken = client.publish("orders", "refused"), client.publish("orders", "taken")

    assert (answer, 201) == ((refused.status, refused.code), taken.status)
    assert ["taken"] == accepted(emulator)


@pytest.mark.parametrize("name", ["throttle", "unavailable"])
def test_refusals_may_name_a_time(client, emulator, name):
    """Retry-After is sent when it was asked for."""
    emulator.fault(name, retry_after_s=2)

    assert "2" == client.publish("orders", "a").headers["Retry-After"]


def test_html_502_looks_like_a_proxy(client, emulator):
    """A page from something in between, which is no XML."""
    emulator.fault("html_502")
    reply = client.publish("orders", "a")

    assert (502, "text/html") == (reply.status, reply.headers["Content-Type"])
    assert b"502 Bad Gateway" in reply.body
    assert [] == accepted(emulator)


def test_redirect_points_at_the_same_target_or_another(client, emulator):
    """Whoever follows the redirect publishes; location and status are free to choose."""
    emulator.fault("redirect", count=1)
    emulator.fault("redirect", location="http://127.0.0.1:9/", status=302)
    first, second = client.publish("orders", "a"), client.publish("orders", "a")

    assert (307, emulator.url + client.target("orders")) == (first.status, first.headers["Location"])
    assert (302, "http://127.0.0.1:9/") == (second.status, second.headers["Location"])
    assert [] == accepted(emulator)


@pytest.mark.parametrize(("name", "taken"), [("drop_before", []), ("accept_then_drop", ["a"])])
def test_drops_answer_nothing(client, emulator, name, taken):
    """The connection ends without an answer, before the message is accepted or after."""
    emulator.fault(name)

    with pytest.raises(RemoteDisconnected):
        client.publish("orders", "a")
    assert taken == accepted(emulator)


def test_reset_resets(client, emulator):
    """The connection ends by a TCP reset, before the message is accepted."""
    emulator.fault("reset")

    with pytest.raises(ConnectionResetError):
        client.publish("orders", "a")
    assert [] == accepted(emulator)


def test_accept_then_500_accepts(client, emulator):
    """The answer is a server error although the message is there."""
    emulator.fault("accept_then_500")
    reply = client.publish("orders", "a")

    assert (500, "InternalError") == (reply.status, reply.code)
    assert ["a"] == accepted(emulator)


def test_truncated_ends_inside_the_body(client, emulator):
    """Without further word half of the body is missing; the message is there."""
    emulator.fault("truncated")

    with pytest.raises(IncompleteRead):
        client.publish("orders", "a")
    assert ["a"] == accepted(emulator)


@pytest.mark.parametrize("cut", [0, 1, 17, 100, 10_000])
def test_truncated_ends_after_any_byte(client, emulator, cut):
    """The answer, head included, ends after as many bytes as asked for."""
    emulator.fault("truncated", bytes=cut)
    data = read_to_end(emulator, client)

    assert len(data) == min(cut, len(data)) if cut < 10_000 else data.endswith(b"</Message>")
    assert b"HTTP/1.1 201 Created"[:cut] == data[:20]


def test_garbled_is_no_xml(client, emulator):
    """The answer has the right status and length, and cannot be parsed."""
    emulator.fault("garbled")
    reply = client.publish("orders", "a")

    assert 201 == reply.status
    with pytest.raises(ET.ParseError):
        ET.fromstring(reply.body)
    assert ["a"] == accepted(emulator)


def test_wrong_md5_is_another_digest(client, emulator):
    """MessageBodyMD5 is a digest, but not the body's."""
    emulator.fault("wrong_md5", count=1)
    wrong, right = (client.publish("orders", "a").text("MessageBodyMD5") for _ in range(2))

    assert "0CC175B9C0F1B6A831C399E269772661" == right
    assert wrong != right
    assert re.fullmatch("[0-9A-F]{32}", wrong)


@pytest.mark.parametrize("seconds", [3600, -7200])
def test_wrong_clock_is_in_the_date_header(client, emulator, seconds):
    """Only the header is wrong; the broker's clock is not."""
    emulator.fault("wrong_clock", seconds=seconds)
    date = parsedate_to_datetime(client.publish("orders", "a").headers["Date"])

    assert seconds == pytest.approx(date.timestamp() - time.time(), abs=5)
    assert 0 == pytest.approx(emulator.now() - time.time(), abs=5)


def test_slow_waits_before_the_answer(client, emulator):
    """The message is accepted at once, its answer comes late; other connections are not held up."""
    emulator.fault("slow", seconds=0.5, count=1)
    with connect(emulator.url) as bare:
        started = time.monotonic()
        bare.sendall(raw_request(client, "POST", client.target("orders"), BODY))
        time.sleep(0.1)
        in_between = accepted(emulator), time.monotonic() - started
        answer = bare.recv(65536)

        assert ["hello"] == in_between[0]
        assert in_between[1] < 0.5 <= time.monotonic() - started
        assert answer.startswith(b"HTTP/1.1 201 Created\r\n")


def test_drip_sends_byte_by_byte(client, emulator):
    """Each byte comes alone and late, and the answer is complete in the end."""
    emulator.fault("drip", seconds=0.001)
    started = time.monotonic()
    reply = client.publish("orders", "a")

    assert 201 == reply.status
    assert time.monotonic() - started > 0.3


def test_close_after_ends_the_connection_unannounced(client, emulator):
    """The answer promises to keep the connection, which ends all the same."""
    emulator.fault("close_after")
    data = read_to_end(emulator, client)

    assert b"Connection: keep-alive\r\n" in data
    assert data.endswith(b"</Message>")


def test_huge_body_is_sent_in_full_to_whoever_reads_it(client, emulator):
    """Every announced byte comes, a good answer first; the next request has its own answer."""
    emulator.fault("huge_body", bytes=20_000_000, count=1)
    reply = client.publish("orders", "a")

    assert (201, str(len(reply.body))) == (reply.status, reply.headers["Content-Length"])
    assert 20_000_000 == len(reply.body) - len(reply.body.rstrip(b" "))
    assert reply.text("MessageId") == emulator.ledger()["messages"][0]["message_id"]
    assert 201 == client.publish("orders", "b").status


def test_huge_body_waits_for_its_client():
    """A gigabyte for a client that does not read costs the emulator no memory, and other clients no time."""
    with emulator_process() as process, ApiClient(process.url) as client, connect(process.url) as idle:
        process.faults({"fault": "huge_body", "count": 1})
        memory = psutil.Process(process.process.pid).memory_info
        before = memory().rss
        idle.sendall(raw_request(client, "POST", client.target("orders"), BODY))
        started = time.monotonic()
        answers = [client.publish("orders", "a").status for _ in range(50)]

        assert [201] * 50 == answers
        assert time.monotonic() - started < 10
        assert memory().rss - before < 30_000_000


def test_many_headers_come_before_a_good_answer(client, emulator):
    """All the headers that were asked for, and the answer behind them."""
    emulator.fault("many_headers", count=1)
    data = read_to_end(emulator, client, "Connection: close")

    assert data.startswith(b"HTTP/1.1 201 Created\r\n")
    assert 100_000 == data.count(b"\r\nX-Filler-")
    assert data.endswith(b"</Message>")
    assert 201 == client.publish("orders", "b").status


def test_faults_add_up(client, emulator):
    """What happens after the broker adds up: an error, late, and cut short."""
    emulator.fault("slow", seconds=0.2)
    emulator.fault("accept_then_500")
    emulator.fault("truncated", bytes=30)
    started = time.monotonic()
    data = read_to_end(emulator, client)

    assert (30, b"HTTP/1.1 500") == (len(data), data[:12])
    assert time.monotonic() - started >= 0.2
    assert ["hello"] == accepted(emulator)


def test_fault_strikes_its_topic_and_operation_only(client, emulator):
    """Another topic and another operation go on as before."""
    emulator.fault("refuse", topic="orders")
    emulator.fault("throttle", op="consume", topic="others")

    assert [403, 201] == [client.publish(topic, "a").status for topic in ("orders", "others")]
    assert [404, 400] == [client.consume(topic).status for topic in ("orders", "others")]


def test_fault_strikes_before_the_keys_are_checked(client, emulator):
    """A throttle or a broken network asks for nobody's signature."""
    emulator.fault("throttle")

    with ApiClient(emulator.url, secret="wrong") as stranger:
        assert "QpsLimitExceeded" == stranger.publish("orders", "a").code


def test_clear_faults_mends_everything(client, emulator):
    """Cleared faults no longer happen."""
    emulator.fault("refuse")
    emulator.clear_faults()

    assert 201 == client.publish("orders", "a").status


def test_lost_commit_takes_effect(client, emulator):
    """The commit is done, its answer is lost."""
    handle = publish_half(client)
    emulator.fault("lost_commit", count=1)

    with pytest.raises(RemoteDisconnected):
        client.end("orders", [handle], "commit")
    assert [1] == visible(emulator)


def test_commit_dropped_before_has_no_effect(client, emulator):
    """The commit never arrives; the same handle still works."""
    handle = publish_half(client)
    emulator.fault("commit_dropped_before", count=1)

    with pytest.raises(RemoteDisconnected):
        client.end("orders", [handle], "commit")
    assert [0] == visible(emulator)
    assert 204 == client.end("orders", [handle], "commit").status


def test_commit_delivers_twice(client, emulator):
    """One commit, two deliveries."""
    handle = publish_half(client)
    emulator.fault("commit_delivers_twice")

    assert 204 == client.end("orders", [handle], "commit").status
    assert ["half", "half"] == client.consume("orders").bodies


def test_hostile_commits_a_used_handle_again(client, emulator):
    """A repeated commit on a live handle delivers again instead of being refused."""
    handle = publish_half(client)
    emulator.fault("hostile")

    assert [204, 204] == [client.end("orders", [handle], "commit").status for _ in range(2)]
    assert [2] == visible(emulator)


def test_early_check_comes_before_its_time(client, emulator):
    """A half message is offered although its check time has not passed."""
    publish_half(client)
    emulator.fault("early_check")

    assert ["half"] == client.check("orders").bodies


def test_repeated_check_offers_what_was_ended(client, emulator):
    """A committed half message is offered again ten seconds later."""
    client.end("orders", [publish_half(client)], "commit")
    emulator.fault("repeated_check")
    at_once = client.check("orders").messages
    emulator.advance(10)

    assert [] == at_once
    assert ["half"] == client.check("orders").bodies


def test_empty_hides_what_is_there(client, emulator):
    """A poll finds nothing although a half message, or a message, waits."""
    publish_half(client)
    client.publish("orders", "a")
    emulator.advance(10)
    emulator.fault("empty", count=1)
    emulator.fault("empty", count=1, op="consume")

    assert [[], ["half"]] == [client.check("orders").bodies for _ in range(2)]
    assert [[], ["a"]] == [client.consume("orders").bodies for _ in range(2)]


def test_empty_poll_waits_idly(client, emulator):
    """A poll that is to find nothing waits its time without looking again and again."""
    publish_half(client)
    emulator.advance(10)
    emulator.fault("empty")
    started = time.monotonic(), time.process_time()
    found = client.check("orders", wait=1).messages

    assert [] == found
    assert time.monotonic() - started[0] > 0.9
    assert time.process_time() - started[1] < 0.1


def test_same_message_id_keeps_two(client, emulator):
    """One publish is kept twice under the one MessageId that was answered."""
    emulator.fault("same_message_id")
    message_id = client.publish("orders", "a").text("MessageId")

    assert [message_id] * 2 == [message["MessageId"] for message in client.consume("orders").messages]


def test_amnesia_loses_an_accepted_message(client, emulator):
    """The answer is 201, and nobody ever gets the message."""
    emulator.fault("amnesia")

    assert 201 == client.publish("orders", "a").status
    assert [] == client.consume("orders").messages
    assert [0] == visible(emulator)


def test_drop_of_a_poll_comes_when_it_ends(client, emulator):
    """The messages of a poll whose answer is lost are in flight, and come again in time."""
    client.publish("orders", "a")
    emulator.fault("accept_then_drop", op="consume", count=1)

    with pytest.raises(RemoteDisconnected):
        client.consume("orders", wait=5)
    assert [] == client.consume("orders").messages
    emulator.advance(300)
    assert ["a"] == client.consume("orders").bodies


AFTER_AND_QUIRKS = ["accept_then_drop", "accept_then_500", "wrong_md5", "truncated", "same_message_id", "amnesia"]


@pytest.mark.parametrize("name", AFTER_AND_QUIRKS)
def test_fault_strikes_only_what_the_broker_has_done(client, emulator, name):
    """A request that is refused is answered as ever, and leaves the count for one that is not."""
    emulator.fault(name, count=1)
    with ApiClient(emulator.url, secret="wrong") as stranger:
        refused = [stranger.publish("orders", "a").code, client.publish("orders", "").code]
    left = emulator._site.faults.describe()[0]["count"]
    with suppress(RemoteDisconnected, IncompleteRead):
        client.publish("orders", "a")

    assert (["SignatureDoesNotMatch", "InvalidArgument"], 1) == (refused, left)
    assert [] == emulator._site.faults.describe()


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("name", ["refuse", "redirect", "accept_then_500"])
def test_answers_without_a_body_leave_the_connection_in_step(client, emulator, name, status):
    """No body follows such a status, or it would be taken for the beginning of the next answer."""
    emulator.fault(name, status=status, count=1)
    first, second = client.publish("orders", "a"), client.publish("orders", "b")

    assert (status, b"", 201) == (first.status, first.body, second.status)


def test_head_has_no_body(client):
    """The answer to HEAD is a head, and the next answer stands where it is looked for."""
    target = client.target("orders")
    first, second = client.send("HEAD", target), client.publish("orders", "b")

    assert (400, b"", 201) == (first.status, first.body, second.status)


def test_connect_is_refused(emulator):
    """The emulator is no proxy, says so, and goes on."""
    with connect(emulator.url) as bare:
        bare.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        answer = b"".join(iter(lambda: bare.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"This is no proxy.")
    with ApiClient(emulator.url) as client:
        assert 201 == client.publish("orders", "a").status


@pytest.mark.parametrize("seconds", [1e15, -1e15, float("nan")])
def test_wrong_clock_is_bounded(emulator, seconds):
    """No Date header could hold it."""
    with pytest.raises(FaultError, match=r"^seconds "):
        emulator.fault("wrong_clock", seconds=seconds)
