"""Connections cut at any byte, and answers of every bad kind: unknown, bounded, never asked again."""

import gzip
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from outbox.outcomes import Paused, Refused, Retry, Sent, Unknown
from tests.integration import clients
from tests.integration.clients import HEAD, SENT, publish, speak
from tests.integration.fault_proxy import Cut, FaultProxy, Server, answer_bytes

connect = clients.connect


@pytest.mark.parametrize("how", ["close", "reset", "stall", "garbage"])
@pytest.mark.parametrize("side", ["request", "answer"])
def test_cut_anywhere_is_unknown_and_never_resent(connect, side, how):
    """Wherever a connection ends that has begun to carry a request: the outcome is unknown, and one POST was made."""
    with Server() as upstream:
        publish(connect(upstream))
        length = len(answer_bytes(upstream.requests[0])) if side == "answer" else len(upstream.requests[0])
        upstream.requests.clear()

        def cut(after):
            with FaultProxy(upstream.port, Cut(side, after, how)) as proxy:
                client = connect(proxy)
                outcome = publish(client, deadline_s=1.5 if how == "stall" else 10)
            return type(outcome), outcome.fault.accepted, proxy.connections, proxy.received.count(b"POST /topics/")

        offsets = range(0, length, 8)
        with ThreadPoolExecutor(48) as threads:
            outcomes = set(threads.map(cut, offsets))

    assert {(Unknown, None, 1, 1)} == outcomes
    assert (len(offsets) if side == "answer" else 0) == len(upstream.requests)


def test_cut_nowhere_is_sent(connect):
    """The proxy without a cut changes nothing: the test above sees the cuts alone."""
    with Server() as upstream, FaultProxy(upstream.port) as proxy:
        client = connect(proxy)
        outcomes = [publish(client), publish(client)]

    assert [SENT, SENT] == outcomes
    assert (1, 2) == (proxy.connections, proxy.received.count(b"POST /topics/"))


BAD_ANSWERS = {
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "old status": b"HTTP/1.1 999999999999999999999 x\r\n\r\n",
    "empty": HEAD + b"Content-Length: 0\r\n\r\n",
    "short": HEAD + b"Content-Length: 100\r\n\r\n<Message>",
    "claimed huge": HEAD + b"Content-Length: 999999999999999\r\n\r\n<Message>",
    "claimed two": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n<Mess>",
    "claimed nonsense": HEAD + b"Content-Length: -5\r\n\r\n<Mess>",
    "chunk huge": HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n<Message>",
    "chunk nonsense": HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n<Message>",
    "chunk cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n<Mess",
    "chunk missing": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n<Mess\r\n",
    "gzip": HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b"<Message/>"),
    "long header": HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(100_000)) + b"\r\n",
    "folded headers": HEAD + b"X: 1\r\n" + b" folded\r\n" * 50_000,
    "endless zeros": HEAD + b"Connection: close\r\n\r\n" + bytes(4_000_000),
    "endless chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;x=y\r\n0\r\n" * 300_000,
    "endless continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    "html": HEAD + b"Content-Length: 13\r\n\r\n<html></html>",
    "other success": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "broken header": HEAD + b"X-Handle handle-1\r\nContent-Length: 0\r\n\r\n",
    "gateway": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_bad_answers_are_unknown_in_time(connect, answer):
    """Whatever a server sends instead of an answer: unknown, bounded by the deadline of 5 s, and never asked again."""
    started = time.monotonic()
    with Server(speak(answer)) as server:
        outcome = publish(connect(server))

    assert ("Unknown", None) == (type(outcome).__name__, outcome.fault.accepted)
    assert (1, 1) == (server.connections, len(server.requests))
    assert time.monotonic() - started < 6.6


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("short", "TruncatedAnswer"),
        ("claimed huge", "TruncatedAnswer"),
        ("endless zeros", "AnswerTooLarge"),
        ("no http", "UnreadableAnswer"),
        ("many headers", "UnreadableAnswer"),
        ("broken header", "UnreadableAnswer"),
        ("html", "UnreadableAnswer"),
        ("gateway", "Http502"),
    ],
)
def test_bad_answers_are_named(connect, caplog, answer, code):
    """An operator can tell them apart; what could not be parsed is not logged, as it may hold a handle."""
    with Server(speak(BAD_ANSWERS[answer])) as server:
        outcome = publish(connect(server))

    assert code == outcome.fault.code
    assert [] == caplog.records


@pytest.mark.parametrize("seed", range(3))
def test_mutated_answers_on_the_wire(connect, seed):
    """Status line, headers and framing, damaged at random: nothing raises, nothing is sent without its MessageId."""
    chance = random.Random(seed)

    def play(connection):
        answer = bytearray(answer_bytes(connection.read_request()))
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(answer))
            answer[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b"\r\n", b"\0", b":", b" ", b"\xff", b"9", b"-"]
            )
        connection.sendall(bytes(answer))
        connection.sock.shutdown(socket.SHUT_WR)
        while connection.read_request():
            pass

    with Server(play) as server:
        client = connect(server)
        outcomes = [publish(client, deadline_s=2) for _ in range(150)]

    assert 150 == len(outcomes) >= len(server.requests)
    assert not [sent for sent in outcomes if isinstance(sent, Sent) and len(sent.message_id) != 32]
    assert {Unknown} < {type(outcome) for outcome in outcomes} <= {Sent, Unknown, Paused, Refused, Retry}
