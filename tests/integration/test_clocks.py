"""Clocks that differ: what the client dates its requests with, over http and https, and what operators are told."""

import logging
from datetime import UTC, datetime
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from outbox import Message
from outbox.outcomes import Fault, Paused, Sent
from outbox.rocketmq.client import Client
from outbox.rocketmq.credentials import Keyring
from outbox.rocketmq.timing import epoch_of
from tests.integration import clients
from tests.integration.clients import DATE, NOW, TRANSPORTS, UNKNOWN, destination, headers_of, publish, summary
from tests.integration.fault_proxy import Server, answer_bytes
from tests.relaying import Scripted, relay_once, write

connect = clients.connect
authority = clients.authority

EXPIRED = b"<Error><Code>TimeExpired</Code><Message>too far</Message></Error>"


def broker(ahead_s, lie_s=0.0):
    """The play of a broker whose clock is ahead of this machine's, and who takes what is dated within 15 minutes."""

    def play(connection):
        while request := connection.read_request():
            date = formatdate(NOW + ahead_s + lie_s, usegmt=True)
            if abs(epoch_of(headers_of(request)["Date"]) - NOW - ahead_s) <= 900:
                connection.sendall(answer_bytes(request).replace(DATE.encode(), date.encode()))
            else:
                head = f"HTTP/1.1 408 Request Timeout\r\nDate: {date}\r\nContent-Length: {len(EXPIRED)}\r\n\r\n"
                connection.sendall(head.encode() + EXPIRED)

    return play


def error_s(request, ahead_s):
    """How far a request's date is from the broker's clock."""
    return epoch_of(headers_of(request)["Date"]) - NOW - ahead_s


@pytest.mark.parametrize("ahead_s", [-7200, -1000, 1000, 7200])
def test_https_follows_the_endpoints_clock(connect, authority, ahead_s):
    """One request expires, which says what time it is; the next is taken, dated by the broker's clock."""
    with Server(broker(ahead_s), tls=authority.context("127.0.0.1")) as server:
        client = connect(server, verify=authority.bundle)
        expired, *taken = [publish(client) for _ in range(3)]

    assert ("Paused", "TimeExpired", False) == summary(expired)
    assert [Sent, Sent] == [type(outcome) for outcome in taken]
    assert abs(error_s(server.requests[2], ahead_s)) < 5
    assert ahead_s == pytest.approx(client.clock_offset_s, abs=5)


@pytest.mark.parametrize("ahead_s", [-7200, 1000])
def test_http_sends_nothing_that_would_expire(connect, ahead_s):
    """What anybody may have written is not signed with; the fault says by how much which clock is off."""
    with Server(broker(ahead_s)) as server:
        client = connect(server)
        expired, *refused = [publish(client) for _ in range(3)]

    assert ("Paused", "TimeExpired", False) == summary(expired)
    assert {("Paused", "ClockOff", False)} == {summary(outcome) for outcome in refused}
    assert 1 == len(server.requests)
    for outcome in (expired, *refused):
        assert ahead_s == pytest.approx(outcome.fault.clock_offset_s, abs=5)
        assert ("behind" if ahead_s < 0 else "ahead of") in outcome.fault.text


def test_http_is_corrected_within_bounds(connect):
    """A clock that is about to leave the fifteen minutes is corrected before it has."""
    with Server(broker(800)) as server:
        client = connect(server)
        outcomes = [publish(client) for _ in range(2)]

    assert [Sent, Sent] == [type(outcome) for outcome in outcomes]
    assert [-800, 0] == [pytest.approx(error_s(request, 800), abs=5) for request in server.requests]


@pytest.mark.parametrize("lie_s", [-7200, 3600])
def test_a_wrong_date_does_not_stop_what_is_taken(connect, authority, lie_s):
    """A proxy that writes dates of its own: the broker takes ours, which is proof enough that they are right."""
    with Server(broker(0, lie_s), tls=authority.context("127.0.0.1")) as server:
        client = connect(server, verify=authority.bundle)
        outcomes = [publish(client) for _ in range(3)]

    assert [Sent] * 3 == [type(outcome) for outcome in outcomes]
    assert client.clock_offset_s is None
    assert {DATE} == {headers_of(request)["Date"] for request in server.requests}


def test_halves_are_dated_by_the_same_clock(connect):
    """Commits and polls go by what publishes have taught, and are not sent where those are not."""
    with Server(broker(-7200)) as server:
        client = connect(server, group_id="GID_1")
        publish(client)
        ended, checked = client.end("orders", "h", "commit", deadline_s=5), client.check("orders", 1, 0, deadline_s=5)

    assert {("Paused", "ClockOff", False)} == {summary(outcome) for outcome in (ended, checked)}
    assert 1 == len(server.requests)


def test_learn_no_clock_offset_without_an_answer(connect, http_engine):
    """No answer, no date."""
    client = connect(None, url=f"http://broker.{UNKNOWN[http_engine]}")
    publish(client)

    assert client.clock_offset_s is None


def test_keys_end_by_the_brokers_clock(http_engine, authority):
    """A machine whose clock is behind must not sign with keys that have ended at the broker's."""
    asked = []

    def source():
        asked.append(len(asked))
        ends = datetime.fromtimestamp(NOW + 1800, UTC)
        return destination(server.url, security_token="FAKESTSTOKEN", expires_at=ends)

    clock = SimpleNamespace(now=NOW)
    with Server(broker(7200), tls=authority.context("127.0.0.1")) as server:
        transport = TRANSPORTS[http_engine](server.url, pool_size=1, verify=authority.bundle)
        client = Client(Keyring(source), transport, lambda: clock.now)
        publish(client)
        before = len(asked)
        clock.now += 15
        publish(client)
        transport.close()

    assert (1, 2) == (before, len(asked)), "at the start, and when they had ended by the clock that was learnt"


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_the_log_says_how_far_the_clock_is_off(engine, caplog):
    """Whoever has to set a clock is told by how much, where a lane pauses for it."""
    write(engine, Message("orders", "a"), Message("steps", "b"))
    faults = {
        "orders": Fault("ClockOff", "the broker's clock is 3600 s ahead", clock_offset_s=3600.4),
        "steps": Fault("AccessDenied", "no"),
    }
    with caplog.at_level(logging.WARNING, "outbox"):
        relay_once(engine, Scripted(lambda topic, _body: Paused(faults[topic])))

    paused = {record.topic: record for record in caplog.records if record.message == "outbox.paused"}
    assert 3600 == paused["orders"].clock_offset_seconds
    assert not hasattr(paused["steps"], "clock_offset_seconds")
