"""The client against real sockets: what leaves it, and what comes of it."""

import email.utils
import logging
import socket
import time
import traceback
import weakref
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from pydantic import SecretStr
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from outbox.errors import ConfigError, MessageError
from outbox.outcomes import Paused
from outbox.rocketmq.client import Client
from outbox.rocketmq.curl import CurlLoop
from outbox.rocketmq.curl_handle import Place
from outbox.rocketmq.signature import authorization, signature
from outbox.rocketmq.transport import HttpAnswer, HttpRequest
from outbox.rocketmq.wire import publish_xml
from outbox.settings import Destination
from tests.integration import clients
from tests.integration.clients import (
    BODY,
    DATE,
    NOW,
    PROPERTIES,
    SECRETS,
    SENT,
    UNKNOWN,
    destination,
    headers_of,
    publish,
    speak,
    summary,
)
from tests.integration.fault_proxy import Server, answer_bytes, broker

connect = clients.connect


def test_publish_sends_what_the_api_asks_for(connect):
    """Request line, headers and body are those of the API, signed, and no others."""
    with Server() as server:
        outcome = publish(connect(server))

    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    headers = headers_of(request)
    target = "/topics/orders/messages?ns=MQ_INST_1"
    signed = signature("FAKESECRET", "POST", target, DATE, "text/xml;charset=utf-8")
    assert SENT == outcome
    assert f"POST {target} HTTP/1.1" == head.decode().split("\r\n")[0]
    assert headers.pop("User-Agent").startswith("rocketmq-outbox/")
    assert {
        "Accept-Encoding": "identity",
        "Authorization": authorization("FAKEAKID", signed),
        "Connection": "keep-alive",
        "Content-Length": str(len(body)),
        "Content-Type": "text/xml;charset=utf-8",
        "Date": DATE,
        "Host": f"127.0.0.1:{server.port}",
        "x-mq-version": "2015-06-06",
    } == headers
    assert [BODY, "created", PROPERTIES] == [element.text for element in ET.fromstring(body)]


def test_publish_without_instance_sends_no_query(connect):
    """An instance without a namespace is not named."""
    with Server() as server:
        publish(connect(server, instance_id=""))

    assert server.requests[0].startswith(b"POST /topics/orders/messages HTTP/1.1\r\n")


def test_publish_with_a_security_token(connect):
    """Temporary keys bring a header that changes nothing in the signature."""
    with Server() as server:
        publish(connect(server))
        publish(connect(server, security_token="FAKESTSTOKEN"))

    without, with_token = (headers_of(request) for request in server.requests)
    assert "FAKESTSTOKEN" == with_token.pop("security-token")
    assert without == with_token


def test_publish_dates_by_the_wall_clock(connect):
    """Each attempt is signed afresh, with the date of its second."""
    clock = SimpleNamespace(now=NOW)
    with Server() as server:
        client = connect(server, wall_clock=lambda: clock.now)
        for clock.now in (NOW, NOW + 0.4, NOW + 1):
            publish(client)

    dates = [headers_of(request)["Date"] for request in server.requests]
    assert [DATE, DATE, "Thu, 05 Mar 2026 06:07:09 GMT"] == dates


def test_publish_by_this_machines_clock():
    """By default the date is now."""
    request = Client(destination(), SimpleNamespace()).request_for("orders", BODY, None, "", deadline_s=1)

    dated = email.utils.parsedate_to_datetime(request.headers["Date"]).timestamp()
    assert abs(time.time() - dated) < 5


@pytest.mark.parametrize("size", [1, 65_000, 70_000, 4_194_304])
def test_publish_bodies_of_any_size(connect, size):
    """Bytes on the wire are the body's, whatever its length."""
    with Server() as server:
        outcome = publish(connect(server), "ü" * (size // 2) + "x" * (size % 2), deadline_s=20)

    assert SENT == outcome
    assert size == len((ET.fromstring(server.requests[0].partition(b"\r\n\r\n")[2])[0].text or "").encode())


def test_publish_ignores_proxies_netrc_and_redirects_of_the_environment(connect, monkeypatch, tmp_path):
    """Nothing around the process can send a signed request elsewhere or add credentials to it."""
    (tmp_path / ".netrc").write_text("default login a password b")
    with Server() as proxy, Server() as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        outcome = publish(connect(server))

    assert SENT == outcome
    assert 0 == proxy.connections
    assert headers_of(server.requests[0])["Authorization"].startswith("MQ FAKEAKID:")


def test_publish_keeps_no_cookies(connect):
    """What an answer asks to be remembered is not."""
    with Server(
        lambda c: c.sendall(answer_bytes(c.read_request(), headers="Set-Cookie: a=b\r\n")) or broker(c)
    ) as server:
        client = connect(server)
        outcomes = [publish(client), publish(client)]

    assert [SENT, SENT] == outcomes
    assert "Cookie" not in headers_of(server.requests[1])


@pytest.mark.parametrize(
    "topic", ["", "a" * 65, "a b", "a?x=1", "a&ns=b", "a#", "../x", "%2e%2e", "a\r\nX: 1", "ä", "\u0430", "a%"]
)
def test_publish_refuses_a_topic_that_would_be_encoded(topic):
    """What is signed must be what is sent; nothing is sent for such a row, which is refused for good."""
    client = Client(destination(), SimpleNamespace())

    with pytest.raises(MessageError, match="topic"):
        client.request_for(topic, BODY, None, "", deadline_s=1)
    refused = publish(client, topic=topic)

    assert ("Refused", "InvalidTopic", False) == summary(refused)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("instance_id", "MQ INST"),
        ("instance_id", "a&trans=commit"),
        ("instance_id", "a\r\nX: 1"),
        ("instance_id", "ä"),
        ("group_id", "GID%orders"),
        ("access_key_id", ""),
        ("access_key_id", "id\r\nX: 1"),
        ("access_key_secret", ""),
        ("access_key_secret", "hunter2hunter2\n"),
        ("security_token", "token\r\nX: 1"),
        ("security_token", "töken"),
    ],
)
def test_build_refuses_what_cannot_be_sent(setting, value):
    """Names the setting, never a secret's value."""
    unchecked = Destination.model_construct(
        **(destination().model_dump() | {setting: SecretStr(value) if setting in SECRETS else value})
    )

    with pytest.raises(ConfigError) as refusal:
        Client(unchecked, SimpleNamespace())

    assert f"OUTBOX_{setting.upper()}" == refusal.value.key
    assert "hunter2" not in str(refusal.value)


def test_build_names_the_destination_at_fault():
    """With several destinations the setting's name alone does not say which."""
    unchecked = destination().model_copy(update={"name": "eu", "instance_id": "a b"})

    with pytest.raises(ConfigError, match=r"destination 'eu'"):
        Client(unchecked, SimpleNamespace())


def test_show_no_secret(connect, caplog):
    """No repr, fault or log record holds a secret, a signature, a token, a body or a handle."""
    caplog.set_level(logging.DEBUG)
    with Server() as server:
        client = connect(server, security_token="FAKESTSTOKEN")
        request = client.request_for("orders", "a body to keep", None, "", deadline_s=1)
        outcome = publish(client, "a body to keep")
    failed = publish(client, "a body to keep")

    signed = request.headers["Authorization"].partition(":")[2]
    answer = HttpAnswer(201, {"a": "FAKESECRET"}, b"FAKESECRET")
    shown = f"{client!r} {client._transport!r} {request!r} {answer!r} {outcome!r} {failed!r} {caplog.text}"
    assert not [secret for secret in ("FAKESECRET", "FAKESTSTOKEN", signed, "a body to keep") if secret in shown]
    assert SENT == outcome
    assert Paused is type(failed)


def test_publish_to_a_refusing_port(connect):
    """Nobody listens: nothing left, the endpoint is at fault."""
    with Server() as server:
        pass
    outcome = publish(connect(server))

    assert ("Paused", "ConnectionRefused", False) == summary(outcome)
    assert f"{server.url}: Connection refused" == outcome.fault.text


def test_publish_to_an_unknown_name(connect, http_engine):
    """The name does not resolve. Neither engine asks anybody about it."""
    outcome = publish(connect(None, url=f"http://broker.{UNKNOWN[http_engine]}"))

    assert ("Paused", "DnsFailure", False) == summary(outcome)


@pytest.mark.parametrize("http_engine", ["requests"])
@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200"])
def test_publish_to_a_name_that_leads_to_metadata(connect, monkeypatch, address):
    """A name may be checked as it likes: the address that it resolves to is checked before connecting."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    outcome = publish(connect(None, url="http://rebound.example"))

    assert ("Paused", "ForbiddenAddress", False) == summary(outcome)


def test_libcurl_connects_to_no_metadata():
    """libcurl, which resolves names by itself, asks about each address before it connects."""
    place, found = Place("http://2852039166", DEFAULT_CA_BUNDLE_PATH, 10.0), []
    loop = CurlLoop(1)
    loop.start(place, HttpRequest("POST", "/", {}, b"x", 5.0), found.append)
    while not found:
        loop.step()
    loop.close()

    assert ("ForbiddenAddress", False) == (found[0].fault.code, found[0].fault.accepted)


def test_libcurl_keeps_nothing_of_what_is_over():
    """A handle that waits for its next request holds neither the last one nor whoever was told of it."""
    told = []

    class Told:
        def __call__(self, answer):
            told.append(answer.status)

    with Server() as server:
        place, listener = Place(server.url, DEFAULT_CA_BUNDLE_PATH, 10.0), Told()
        gone, loop = weakref.ref(listener), CurlLoop(1)
        loop.start(
            place, HttpRequest("POST", "/topics/orders/messages", {}, publish_xml(BODY, None, ""), 5.0), listener
        )
        del listener
        while not told:
            loop.step()
        is_gone = gone() is None
        loop.close()

    assert [201] == told
    assert is_gone


def test_publish_to_the_second_address(connect):
    """A host may have several addresses, of which some are down: this machine's name leads to ::1 first."""
    with Server() as server:
        outcome = publish(connect(None, url=f"http://localhost:{server.port}"))

    assert SENT == outcome


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_publish_follows_no_redirect(connect, status):
    """A redirect would carry the signature elsewhere."""
    with Server() as elsewhere:
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        with Server(speak(answer)) as server:
            outcome = publish(connect(server))

    assert ("Paused", f"Http{status}", None) == summary(outcome)
    assert (1, 0) == (len(server.requests), elsewhere.connections)


def test_publish_honours_retry_after(connect):
    """Throttling pauses for as long as the broker asks."""
    xml = b"<Error><Code>QpsLimitExceeded</Code><Message>slow down</Message></Error>"
    answer = b"HTTP/1.1 400 Bad Request\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n%s" % (len(xml), xml)
    with Server(speak(answer)) as server:
        outcome = publish(connect(server))

    assert ("Paused", "QpsLimitExceeded", False) == summary(outcome)
    assert 7.0 == outcome.retry_after_s


class TimeLimitError(BaseException):
    """As a signal's handler raises it, wherever the main thread is."""


ASKED = {
    "publish": lambda client: publish(client, "a body to keep"),
    "commit": lambda client: client.end("orders", "handle-to-keep", "commit", deadline_s=5),
    "poll": lambda client: client.check("orders", 1, 0, deadline_s=5),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("where", ["send", "client.signature", "client.Client._learnt"])
def test_show_no_secret_in_frames(connect, http_engine, monkeypatch, name, where):
    """Whatever ends a request, the variables on the way are not shown with it: they are what must be kept."""

    def stop(*_args, **_options):
        raise TimeLimitError

    sends = {"requests": "connection._TimedSocket.send", "curl": "curl_handle.Transfer.begin"}
    monkeypatch.setattr(f"outbox.rocketmq.{sends[http_engine] if where == 'send' else where}", stop)
    with Server(speak(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        client = connect(server, security_token="FAKESTSTOKEN")
        with pytest.raises(TimeLimitError) as stopped:
            ASKED[name](client)

    ours = stopped.value.__traceback__
    while "/tests/" in ours.tb_frame.f_code.co_filename:
        ours = ours.tb_next
    told = traceback.TracebackException(TimeLimitError, stopped.value, ours, capture_locals=True)
    shown = "".join(told.format())
    kept = ("FAKESECRET", "FAKESTSTOKEN", "MQ FAKEAKID:", "a body to keep", "handle-to-keep")
    assert not [secret for secret in kept if secret in shown]
    assert "in stop" in shown
