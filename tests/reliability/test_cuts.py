"""A connection cut at every byte of request and answer, in four ways: exactly the stated outcome each time."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from urllib.parse import urlsplit

import pytest

from outbox.rocketmq.client import Client
from outbox.rocketmq.transport import RequestsTransport
from tests.integration.clients import destination, publish
from tests.integration.fault_proxy import Cut, FaultProxy

#: A stall lasts until the deadline, so that ordinary runs try every eighth byte; ``make cuts`` tries them all.
STALL_STEP = int(os.environ.get("OUTBOX_TEST_STALL_STEP", "8"))
STALL_DEADLINE_S = 1.0

SENT = ("Sent", None, None)
LOST, TIMEOUT, TRUNCATED, UNREADABLE = [
    ("Unknown", code, None) for code in ("ConnectionLost", "Timeout", "TruncatedAnswer", "UnreadableAnswer")
]
#: What comes of a cut from the first byte on, from within the status line, and from within the body; see
#: docs/outcomes.md.
STATED = {
    ("request", "close"): [LOST],
    ("request", "reset"): [LOST],
    ("request", "stall"): [TIMEOUT],
    ("request", "garbage"): [UNREADABLE],
    ("answer", "close"): [LOST, UNREADABLE, TRUNCATED],
    ("answer", "reset"): [LOST],
    ("answer", "stall"): [TIMEOUT],
    ("answer", "garbage"): [UNREADABLE],
}


def publish_through(port: int, cut: Cut | None):
    """Publish one message through a proxy that cuts; what came of it, and the bytes that passed until then."""
    with FaultProxy(port, cut) as proxy:
        transport = RequestsTransport(proxy.url, pool_size=1)
        stalls = cut is not None and cut.how == "stall"
        outcome = publish(Client(destination(), transport), deadline_s=STALL_DEADLINE_S if stalls else 30)
        transport.close()
    fault = getattr(outcome, "fault", None)
    told = (type(outcome).__name__, fault and fault.code, fault and fault.accepted)
    return told, proxy.connections, proxy.received


def length_of(port: int, side: str) -> int:
    """The bytes of a whole request or answer: the least number after which a cut changes nothing."""
    if side == "request":
        return len(publish_through(port, None)[2])
    low, high = 1, 4096
    while low < high:
        middle = (low + high) // 2
        sent = publish_through(port, Cut("answer", middle, "close"))[0] == SENT
        low, high = (low, middle) if sent else (middle + 1, high)
    return low


@pytest.mark.parametrize(("side", "how"), STATED)
def test_cut_at_every_byte(emulator, side, how):
    """Unknown, by the code that the table states, with one request on the wire; a cut behind the last byte is none."""
    port = urlsplit(emulator.url).port
    length = length_of(port, side)
    emulator.clear_ledger()
    offsets = range(0, length, STALL_STEP if how == "stall" else 1)
    with ThreadPoolExecutor(48 if how == "stall" else 12) as threads:
        results = list(threads.map(lambda after: publish_through(port, Cut(side, after, how)), offsets))
    ledger = emulator.ledger()
    whole = publish_through(port, None)[0]

    assert STATED[side, how] == [told for told, _ in groupby(told for told, _, _ in results)]
    assert {1} == {connections for _, connections, _ in results}
    assert 1 >= max(received.count(b"POST ") for _, _, received in results)
    assert (len(offsets) if side == "answer" else 0) == len(ledger["messages"]) == ledger["requests"]
    assert SENT == whole
