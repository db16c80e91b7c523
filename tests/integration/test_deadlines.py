"""One deadline for everything: connecting, the TLS handshake, sending, and the whole answer."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration import clients
from tests.integration.clients import HEAD, SENT, drip, publish, summary, timed, unanswering_port
from tests.integration.fault_proxy import Server

connect = clients.connect
authority = clients.authority


@pytest.mark.parametrize(
    "play",
    [
        lambda c: c.read_request() and c.read_request(),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
        drip(b"X-A: b\r\n", after=HEAD),
        drip(b"<a>", after=HEAD + b"Content-Length: 100000\r\n\r\n"),
        drip(b"1\r\nx\r\n", after=HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
    ],
    ids=["silence", "dripped status", "dripped headers", "dripped body", "dripped chunks"],
)
def test_deadline_covers_the_whole_answer(connect, play):
    """However little arrives however often: it ends by the deadline."""
    with Server(play) as server:
        outcome, seconds = timed(lambda: publish(connect(server), deadline_s=1.0))

    assert ("Unknown", "Timeout", None) == summary(outcome)
    assert 0.95 < seconds < 2.6


def test_deadline_covers_sending(connect):
    """A server that does not read cannot hold the request for longer."""
    over = threading.Event()
    with Server(lambda c: c.recv(1) and over.wait(10)) as server:
        outcome, seconds = timed(lambda: publish(connect(server), "x" * 16_000_000, deadline_s=1.0))
        over.set()

    assert ("Unknown", "Timeout", None) == summary(outcome)
    assert seconds < 2.9


def test_deadline_covers_connecting(connect):
    """A host that does not accept: nothing left."""
    with unanswering_port() as port:
        url = f"http://127.0.0.1:{port}"
        outcome, seconds = timed(lambda: publish(connect(None, url=url), deadline_s=0.3))

    assert ("Paused", "ConnectTimeout", False) == summary(outcome)
    assert 0.25 < seconds < 2


def test_deadline_is_shared_by_addresses(connect):
    """An address that answers nothing leaves time for the next one: this machine's name leads to ::1 first."""
    with Server() as server, unanswering_port("::1", server.port):
        outcome = publish(connect(None, url=f"http://localhost:{server.port}"), deadline_s=2)

    assert SENT == outcome


def test_deadline_that_has_passed_sends_nothing(connect):
    """No time left: the endpoint is left alone."""
    with Server() as server:
        outcome = publish(connect(server), deadline_s=-1)

    assert ("Paused", "ConnectTimeout", False) == summary(outcome)
    assert [] == server.requests


def test_deadlines_of_many_threads_keep_their_order(connect):
    """Sixteen requests that are never answered end each by its own deadline."""
    # Long enough that sixteen threads can connect on a busy machine.
    deadlines = [1.0 + 0.05 * turn for turn in range(16)]
    random.Random(1).shuffle(deadlines)
    with Server(lambda c: c.wait_for_client_to_leave()) as server:
        client = connect(server, pool_size=16)
        with ThreadPoolExecutor(16) as threads:
            results = list(
                threads.map(lambda deadline_s: timed(lambda: publish(client, deadline_s=deadline_s)), deadlines)
            )

    late = [seconds - deadline_s for (_, seconds), deadline_s in zip(results, deadlines, strict=True)]
    assert {("Unknown", "Timeout", None)} == {summary(outcome) for outcome, _ in results}
    assert -0.02 < min(late) <= max(late) < 1.5


def test_deadline_covers_the_handshake(connect, authority):
    """A server that accepts and then says nothing has been sent nothing of the request."""
    with Server(lambda c: c.wait_for_client_to_leave()) as server:
        client = connect(None, url=server.url.replace("http:", "https:"), verify=authority.bundle)
        outcome, seconds = timed(lambda: publish(client, deadline_s=1.0))

    assert ("Paused", "ConnectTimeout", False) == summary(outcome)
    assert 0.95 < seconds < 2.6


def test_deadline_covers_an_answer_over_tls(connect, authority):
    """Dripped headers end by the deadline under TLS as well."""
    with Server(drip(b"X-A: b\r\n", after=HEAD), tls=authority.context("127.0.0.1")) as server:
        client = connect(server, verify=authority.bundle)
        outcome, seconds = timed(lambda: publish(client, deadline_s=1.0))

    assert ("Unknown", "Timeout", None) == summary(outcome)
    assert 0.95 < seconds < 2.6
