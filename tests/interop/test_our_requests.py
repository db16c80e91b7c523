"""What our client sends beside what the official SDKs send for the same message: request line, headers, XML."""

import hashlib
import hmac
import re
from base64 import b64encode
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from outbox.emulator import Emulator
from outbox.rocketmq.client import Client
from outbox.rocketmq.transport import RequestsTransport
from tests.emulator_api import connect
from tests.integration.clients import destination
from tests.integration.fault_proxy import Server

DATE = "Thu, 05 Mar 2026 06:07:08 GMT"
# That SDK's CDATA with ]]> inside is no XML: there is nothing to be equal to.
PUBLISHES = [
    path
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*-publish-*.txt"))
    if path.stem != "nodejs-publish-special-chars"
]

#: The headers in which we may differ from an SDK, as the SDKs differ among themselves, and why it does not matter.
MAY_DIFFER = {
    "user-agent": "names the sender",
    "host": "names the server; each request was recorded at another port",
    "connection": "HTTP/1.1 keeps connections with and without it",
    "accept-encoding": "identity, as from Python; to send none asks for the same",
    "content-type": "the charset is spelled utf-8, as from Node and Go, or UTF-8, as from Python; it is signed as sent",
    "content-length": "the same elements are written in more or fewer bytes",
    "content-md5": "optional: sent by Node and Go, not by Python, nor by us",
    "authorization": "signs Content-Type and Content-MD5, which differ",
}
WE_MAY_ADD = {"connection", "accept-encoding"}
WE_MAY_LEAVE_OUT = {"content-md5"}


@dataclass
class Sent:
    """A request's bytes, taken apart; header names in lower case."""

    raw: bytes

    def __post_init__(self):
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        self.line, *lines = head.decode().split("\r\n")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def signed(self, content_type=None, content_md5=None):
        """The Authorization that this request needs, computed from the HTTP API's rules; some values may be others'."""
        method, target, _ = self.line.split(" ")
        content_type = self.headers["content-type"] if content_type is None else content_type
        content_md5 = self.headers.get("content-md5", "") if content_md5 is None else content_md5
        lines = [method, content_md5, content_type, self.headers["date"], "x-mq-version:2015-06-06", target]
        digest = hmac.new(b"FAKESECRET", "\n".join(lines).encode(), hashlib.sha1).digest()
        return f"MQ FAKEAKID:{b64encode(digest).decode()}"

    def elements(self):
        """The message's elements by local name; the pairs of Properties in no order and without a last bar."""
        root = ET.fromstring(self.body)
        texts = {_local(child): child.text or "" for child in root}
        pairs = {pair for pair in texts.pop("Properties", "").split("|") if pair}
        return _local(root), texts, pairs


def _local(element):
    return re.sub(r"^\{http://mq\.aliyuncs\.com/doc/v1/?\}", "", element.tag)


@pytest.fixture(params=PUBLISHES, ids=lambda path: path.stem)
def pair(request):
    """An SDK's recorded publish, and ours of the same message at the same second, captured on the wire."""
    theirs = Sent(request.param.read_bytes())
    texts, pairs = theirs.elements()[1:]
    given = {"instance_id": "MQ_INST_123_abc" if "?ns=" in theirs.line else ""}
    if token := theirs.headers.get("security-token"):
        given["security_token"] = token
    with Server() as server:
        transport = RequestsTransport(server.url, pool_size=1)
        client = Client(destination(**given), transport, lambda: parsedate_to_datetime(DATE).timestamp())
        properties = "".join(f"{one}|" for one in sorted(pairs))
        client.publish("orders", texts["MessageBody"], texts.get("MessageTag"), properties, deadline_s=5)
        transport.close()
    return theirs, Sent(server.requests[0])


def test_request_lines_are_equal(pair):
    """Method, path, query and version, byte for byte."""
    theirs, ours = pair

    assert theirs.line == ours.line


def test_headers_are_equal_but_for_stated_ones(pair):
    """Every header of theirs is among ours with the same value, and the other way round, but for the stated ones."""
    theirs, ours = pair
    differing = {name for name in theirs.headers | ours.headers if theirs.headers.get(name) != ours.headers.get(name)}

    assert differing <= set(MAY_DIFFER)
    assert set(ours.headers) - set(theirs.headers) <= WE_MAY_ADD
    assert set(theirs.headers) - set(ours.headers) <= WE_MAY_LEAVE_OUT
    assert theirs.headers["content-type"].lower() == ours.headers["content-type"].lower()
    assert {"date", "x-mq-version"} <= set(ours.headers) - differing
    assert str(len(ours.body)) == ours.headers["content-length"]


def test_signatures_sign_the_same_lines(pair):
    """Ours is right by rules written apart from our code, and is theirs once it signs their two headers."""
    theirs, ours = pair
    as_theirs = ours.signed(theirs.headers["content-type"], theirs.headers.get("content-md5", ""))

    assert ours.signed() == ours.headers["authorization"]
    assert theirs.signed() == as_theirs == theirs.headers["authorization"]


def test_elements_are_equal(pair):
    """The same root, the same elements, the same text in each, once a parser has read it."""
    theirs, ours = pair

    assert theirs.elements() == ours.elements()


def test_a_server_takes_both_for_the_same(pair):
    """Let in on the day of the recording, both become the same message."""
    with Emulator() as emulator:
        emulator.set_clock(parsedate_to_datetime(DATE).timestamp())
        for sent in pair:
            with connect(emulator.url) as bare:
                bare.sendall(sent.raw)
                assert bare.recv(65536).startswith(b"HTTP/1.1 201 ")
        first, second = emulator.ledger()["messages"]

    own = {"message_id", "at"}
    assert {name: first[name] for name in first.keys() - own} == {name: second[name] for name in second.keys() - own}


def test_a_carriage_return_outlives_a_parser():
    """Where the Python and Node SDKs lose it, ours comes through, as from PHP, Java and Go."""
    with Server() as server:
        transport = RequestsTransport(server.url, pool_size=1)
        Client(destination(), transport).publish("orders", "a\r\nb", None, "", deadline_s=5)
        transport.close()

    assert {"MessageBody": "a\r\nb"} == Sent(server.requests[0]).elements()[1]
