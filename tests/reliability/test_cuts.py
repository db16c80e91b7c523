"""A connection cut at every byte of request and answer, in four ways: exactly the stated outcome each time."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from outbox.emulator import Emulator, Rules
from outbox.rocketmq.client import Client
from tests.integration.clients import TRANSPORTS, destination, publish
from tests.integration.fault_proxy import Cut, FaultProxy

#: ``make cuts`` tries every byte of everything; ordinary runs every byte of a publish, and some of the others.
ALL = "OUTBOX_TEST_ALL_CUTS" in os.environ
STALL_DEADLINE_S = 1.5

LOST, TIMEOUT, TRUNCATED, UNREADABLE = [
    ("Unknown", code, None) for code in ("ConnectionLost", "Timeout", "TruncatedAnswer", "UnreadableAnswer")
]
NOT_CONNECTED = ("Paused", "ConnectTimeout", False)
#: What comes of a cut from the first byte on, within the answer's headers, and within its body; see docs/outcomes.md.
STATED = {
    ("request", "close"): [LOST],
    ("request", "reset"): [LOST],
    ("request", "stall"): [TIMEOUT],
    ("request", "garbage"): [UNREADABLE],
    ("answer", "close"): [LOST, TRUNCATED],
    ("answer", "reset"): [LOST],
    ("answer", "stall"): [TIMEOUT],
    ("answer", "garbage"): [UNREADABLE, LOST, UNREADABLE],
}


class Operation(NamedTuple):
    """What is asked of the broker.

    Attributes:
        ask: by the client whose connection is cut, given the receipt handle of a half message.
        whole: what comes of it where nothing is cut.
        other: where a cut has another outcome than a publish.
        fault: what the emulator is to do.
    """

    ask: Callable[[Client, str, float], Any]
    whole: tuple[str, str | None, bool | None]
    other: dict[tuple[str, str], list[tuple[str, str, bool | None]]]
    fault: dict[str, Any]


def _publish(client, _handle, deadline_s):
    return publish(client, deadline_s=deadline_s)


def _commit(client, handle, deadline_s):
    return client.end("halves", handle, "commit", deadline_s=deadline_s)


def _poll(client, _handle, deadline_s):
    return client.check("halves", 1, 0, deadline_s=deadline_s)


OPERATIONS = {
    "publish": Operation(_publish, ("Sent", None, None), {}, {}),
    "refused publish": Operation(
        _publish,
        ("Refused", "InvalidArgument", False),
        # The status alone says that nothing was taken; it does not say why.
        {("answer", "garbage"): [UNREADABLE, LOST, ("Paused", "Http400", False)]},
        {"name": "refuse", "code": "InvalidArgument", "topic": "orders"},
    ),
    # Its answer has no body.
    "commit": Operation(
        _commit,
        ("Ended", None, None),
        {("answer", "close"): [LOST], ("answer", "garbage"): [UNREADABLE, LOST]},
        {},
    ),
    "poll": Operation(_poll, ("Checked", None, None), {}, {"name": "early_check"}),
}
CASES = [
    (name, side, how)
    for name in OPERATIONS
    for side, how in STATED
    if (name, side) != ("refused publish", "request")  # it is that of every publish
]


class Neighbourhood:
    """An emulator, and an operation to ask of it through a proxy that cuts."""

    def __init__(self, emulator: Emulator, operation: Operation, http_engine: str) -> None:
        self.emulator = emulator
        self._http_engine = http_engine
        self._operation = operation
        self._direct = self._client(emulator.url)

    def _client(self, url: str) -> Client:
        return Client(destination(group_id="GID_1"), TRANSPORTS[self._http_engine](url, pool_size=12))

    def close(self) -> None:
        self._direct._transport.close()

    def ask(self, cut: Cut | None):
        """Ask once; what came of it, how many connections were made, and the bytes that passed until the cut."""
        half = self._direct.publish("halves", "half", None, "__TransCheckT:300|", deadline_s=30)
        for _ in range(5):
            told, connections, received = self._ask(half.receipt_handle, cut)
            # The deadline that ends a stall can be too short to connect on a busy machine: nothing was cut then.
            if told != NOT_CONNECTED:
                break
        return told, connections, received

    def _ask(self, handle: str, cut: Cut | None):
        with FaultProxy(urlsplit(self.emulator.url).port, cut) as proxy:
            client = self._client(proxy.url)
            stalls = cut is not None and cut.how == "stall"
            outcome = self._operation.ask(client, handle, STALL_DEADLINE_S if stalls else 30)
            client._transport.close()
        fault = getattr(outcome, "fault", None)
        told = (type(outcome).__name__, fault and fault.code, fault and fault.accepted)
        if cut is not None and cut.how == "garbage" and told == TRUNCATED:
            # To one engine the garbage may happen to end the head.
            told = LOST
        return told, proxy.connections, proxy.received

    def length_of(self, side: str) -> int:
        """The bytes of a whole request or answer: the least number after which a cut changes nothing."""
        if side == "request":
            return len(self.ask(None)[2])
        low, high = 1, 4096
        while low < high:
            middle = (low + high) // 2
            whole = self.ask(Cut("answer", middle, "close"))[0] == self._operation.whole
            low, high = (low, middle) if whole else (middle + 1, high)
        return low


def _step(name: str, how: str) -> int:
    """Bytes from one cut to the next. A stall lasts until the deadline; the longest answers are the least different."""
    if ALL:
        return 1
    return 8 if how == "stall" else 1 if name == "publish" else 4


@contextmanager
def neighbourhood(operation: Operation, http_engine: str):
    # Each poll is to find a half message that was never offered before, so that all answers are equally long.
    with Emulator(rules=Rules(offer_every_s=3600.0)) as emulator:
        if operation.fault:
            emulator.fault(**operation.fault)
        around = Neighbourhood(emulator, operation, http_engine)
        yield around
        around.close()


@pytest.mark.parametrize(("name", "side", "how"), CASES)
def test_cut_at_every_byte(http_engine, name, side, how):
    """Unknown, by the code that is stated, with one request on the wire; a cut behind the last byte is none."""
    operation = OPERATIONS[name]
    with neighbourhood(operation, http_engine) as around:
        length = around.length_of(side)
        around.emulator.clear_ledger()
        offsets = range(0, length, _step(name, how))
        with ThreadPoolExecutor(96 if how == "stall" else 12) as threads:
            results = list(threads.map(lambda after: around.ask(Cut(side, after, how)), offsets))
        arrived = around.emulator.ledger()["requests"] - len(offsets)
        whole = around.ask(None)[0]

    stated = operation.other.get((side, how), STATED[side, how])

    assert stated == [told for told, _ in groupby(told for told, _, _ in results)]
    assert {1} == {connections for _, connections, _ in results}
    assert 1 >= max(received.count(b" HTTP/1.1\r\n") for _, _, received in results)
    assert (len(offsets) if side == "answer" else 0) == arrived
    assert operation.whole == whole
