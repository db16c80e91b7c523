"""What becomes of connections between requests, across forks and threads, and under TLS."""

import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from outbox.errors import ConfigError
from outbox.outcomes import Sent
from outbox.rocketmq.transport import HttpAnswer, HttpRequest, NoAnswer
from tests.integration import clients
from tests.integration.clients import DATE, SENT, TRANSPORTS, publish, speak, summary
from tests.integration.fault_proxy import Server, answer_bytes, broker

connect = clients.connect
authority = clients.authority


def test_reuse_one_connection(connect):
    """One thread needs one connection."""
    with Server() as server:
        client = connect(server)
        outcomes = [publish(client) for _ in range(5)]

    assert [SENT] * 5 == outcomes
    assert 1 == server.connections


def test_replace_a_connection_closed_while_idle(connect):
    """A kept connection that the server has closed is noticed before it carries a request: each row has one POST."""
    closed = threading.Event()

    def play(connection):
        connection.sendall(answer_bytes(connection.read_request()))
        connection.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    with Server(play) as server:
        client = connect(server)
        outcomes = []
        for _ in range(3):
            outcomes.append(publish(client))
            assert closed.wait(5)
            closed.clear()

    assert [SENT] * 3 == outcomes
    assert (3, 3) == (server.connections, len(server.requests))


def test_replace_a_connection_spoken_on_while_idle(connect):
    """Bytes that nobody asked for must not become the next request's answer."""
    answered, spoken = threading.Event(), threading.Event()

    def play(connection):
        connection.sendall(answer_bytes(connection.read_request()))
        answered.wait(5)
        connection.sendall(answer_bytes(b"\r\n\r\n<Message><MessageBody/></Message>", message_id="F" * 32))
        spoken.set()
        broker(connection)

    with Server(play) as server:
        client = connect(server)
        first = publish(client)
        answered.set()
        assert spoken.wait(5)
        second = publish(client)

    assert [SENT, SENT] == [first, second]
    assert 2 == server.connections


def test_lose_a_connection_while_it_carries_a_request(connect):
    """A server that closes just as the next request arrives: unknown, and not sent again on a new connection."""
    with Server(lambda c: c.sendall(answer_bytes(c.read_request())) or c.read_request()) as server:
        client = connect(server)
        first, second, third = publish(client), publish(client), publish(client)

    assert SENT == first == third
    assert ("Unknown", "ConnectionLost", None) == summary(second)
    assert (2, 3) == (server.connections, len(server.requests))


def test_replace_a_connection_idle_too_long(connect):
    """Our patience is the shorter one, so that the server's never ends between two bytes of ours."""
    with Server() as server:
        client = connect(server, idle_s=0.05)
        publish(client)
        time.sleep(0.1)
        outcome = publish(client)

    assert SENT == outcome
    assert 2 == server.connections


def test_continue_is_no_answer(connect):
    """100 announces the answer; the one that follows counts."""
    with Server(lambda c: c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + answer_bytes(c.read_request()))) as server:
        outcome = publish(connect(server))

    assert SENT == outcome


def test_an_interim_answer_is_not_the_next_ones(connect, http_engine):
    """The answer behind a 103 must not be taken for the next request's: one engine hangs up, one waits for it."""

    def play(connection):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if server.connections == 1 else b"")
        while request := connection.read_request():
            connection.sendall(answer_bytes(request, message_id=f"{server.connections:032X}"))

    with Server(play) as server:
        client = connect(server)
        first, second = publish(client), publish(client)

    if http_engine == "curl":
        assert [Sent(f"{1:032X}")] * 2 == [first, second]
    else:
        assert ("Unknown", "Http103", None) == summary(first)
        assert Sent(f"{2:032X}") == second


def test_close_and_go_on(connect):
    """After close, the next request opens a new connection."""
    with Server() as server:
        client = connect(server)
        publish(client)
        client._transport.close()
        outcome = publish(client)

    assert SENT == outcome
    assert 2 == server.connections


FORK = """
import os, sys
sys.path.insert(0, os.getcwd())
from pydantic import SecretStr
from outbox.rocketmq.client import Client
from outbox.rocketmq.engines import engine_named
from outbox.settings import Destination

keys = {"access_key_id": "FAKEAKID", "access_key_secret": SecretStr("FAKESECRET")}
transport = engine_named(sys.argv[2]).transport(sys.argv[1], pool_size=2)
client = Client(Destination(endpoint=sys.argv[1], **keys), transport)
publish = lambda: print(type(client.publish("orders", "x", None, "", deadline_s=10)).__name__, flush=True)
publish()
child = os.fork()
if child == 0:
    publish()
    sys.exit()
os.waitpid(child, 0)
publish()
"""


def test_fork_shares_no_connection(http_engine):
    """A child opens connections of its own, and leaves its parent's open."""
    with Server() as server:
        command = [sys.executable, "-c", FORK, server.url, http_engine]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ("Sent\nSent\nSent\n", "") == (run.stdout, run.stderr)
    assert (2, 3) == (server.connections, len(server.requests))


def test_threads_share_one_client(connect):
    """Each thread gets the answer to its own request."""
    with Server() as server:
        client = connect(server, pool_size=8)

        def work(thread):
            bodies = [f"{thread}-{turn}" for turn in range(20)]
            return [publish(client, body) for body in bodies]

        with ThreadPoolExecutor(8) as threads:
            outcomes = [outcome for part in threads.map(work, range(8)) for outcome in part]

    assert [SENT] * 160 == outcomes
    assert server.connections <= 8


def test_publish_over_tls(connect, authority):
    """Certificate and name are verified; small and large bodies arrive; the connection is kept."""
    with Server(tls=authority.context("127.0.0.1")) as server:
        client = connect(server, verify=authority.bundle, security_token="FAKESTSTOKEN")
        outcomes = [publish(client), publish(client, "x" * 1_000_000), publish(client)]

    assert [SENT] * 3 == outcomes
    assert (1, 3) == (server.connections, len(server.requests))


@pytest.mark.parametrize(("name", "trusted"), [("127.0.0.1", False), ("other.example", True)])
def test_refuse_an_unverified_server(connect, authority, name, trusted):
    """An unknown authority or another's certificate: not a byte of the request leaves."""
    with Server(tls=authority.context(name)) as server:
        outcome = publish(connect(server, verify=authority.bundle if trusted else True))

    assert ("Paused", "TlsFailure", False) == summary(outcome)
    assert "certificate" in outcome.fault.text.lower() or "match" in outcome.fault.text
    assert [] == server.requests


def test_refuse_a_server_without_tls(connect, authority):
    """Plain text where TLS is due is no server of ours."""
    with Server(lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        url = server.url.replace("http:", "https:")
        outcome = publish(connect(None, url=url, verify=authority.bundle))

    assert ("Paused", "TlsFailure", False) == summary(outcome)


def test_lose_a_connection_over_tls(connect, authority):
    """Closed without an answer, after the request had left."""
    with Server(lambda c: c.read_request(), tls=authority.context("127.0.0.1")) as server:
        outcome = publish(connect(server, verify=authority.bundle))

    assert ("Unknown", "ConnectionLost", None) == summary(outcome)


def test_send_other_methods_without_a_body(http_engine):
    """Polls are GET requests without a body; the seam is the same."""
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    with Server(speak(answer)) as server:
        transport = TRANSPORTS[http_engine](server.url, pool_size=1)
        result = transport.send(HttpRequest("GET", "/topics/a/messages?tag=A%7C%7CB", {"Date": DATE}, b"", 5))
        transport.close()

    assert isinstance(result, HttpAnswer)
    assert (404, b"no", "2") == (result.status, result.body, result.headers["content-length"])
    assert server.requests[0].startswith(b"GET /topics/a/messages?tag=A%7C%7CB HTTP/1.1\r\n")
    assert not isinstance(result, NoAnswer)


def test_build_refuses_what_is_no_endpoint(http_engine):
    """A transport has an endpoint of the checked form, or none at all."""
    with pytest.raises(ConfigError, match="OUTBOX_ENDPOINT"):
        TRANSPORTS[http_engine]("https://user:secret@broker.example", pool_size=1)


def test_build_refuses_what_holds_no_certificates(http_engine, tmp_path):
    """A wrong path is found at the start, not at the first message."""
    with pytest.raises(OSError, match="No such file"):
        TRANSPORTS[http_engine]("https://broker.example", pool_size=1, verify=str(tmp_path / "ca.pem"))
