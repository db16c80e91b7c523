"""What our client sends beside what the official SDKs send for the same: request line, headers, XML."""

import hashlib
import hmac
import re
from base64 import b64encode
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from outbox.emulator import Emulator, Rules
from outbox.rocketmq.client import Client
from outbox.rocketmq.transport import RequestsTransport
from tests.emulator_api import ApiClient, connect
from tests.integration.clients import destination
from tests.integration.fault_proxy import Server

DATE = "Thu, 05 Mar 2026 06:07:08 GMT"
# That SDK's CDATA with ]]> inside is no XML: there is nothing to be equal to.
RECORDED = [
    path
    for kind in ("publish-*", "commit", "rollback", "consume-half")
    for path in sorted((Path(__file__).parents[1] / "golden").glob(f"*-{kind}.txt"))
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
# A poll has no body: Python sends the one, Node and Go the other.
WE_MAY_ADD_TO_A_POLL = {"content-length", "content-type"}
WE_MAY_LEAVE_OUT = {"content-md5"}

HALF = b"<Message><MessageBody>half</MessageBody><Properties>__TransCheckT:300|</Properties></Message>"
#: The recorded handles are of halves that nobody here has posted.
EXPECTED = {
    "POST": ("201", "<MessageId>"),
    "DELETE": ("404", "<ErrorCode>ReceiptHandleError</ErrorCode>"),
    "GET": ("200", "<MessageBody>half</MessageBody>"),
}


@dataclass
class Sent:
    """A request's bytes, taken apart; header names in lower case."""

    raw: bytes

    def __post_init__(self):
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        self.line, *lines = head.decode().split("\r\n")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.method, self.target, self.version = self.line.split(" ")

    def asks(self):
        """What the request line says; the order of parameters is different with each SDK, and signed as it is."""
        path, _, query = self.target.partition("?")
        return self.method, path, sorted(query.split("&")), self.version

    def signed(self, like=None):
        """The Authorization that this request needs, by the HTTP API's rules; with the freedoms that ``like`` took."""
        like = like or self
        content_md5, content_type = (like.headers.get(name, "") for name in ("content-md5", "content-type"))
        lines = [self.method, content_md5, content_type, self.headers["date"], "x-mq-version:2015-06-06", like.target]
        digest = hmac.new(b"FAKESECRET", "\n".join(lines).encode(), hashlib.sha1).digest()
        return f"MQ FAKEAKID:{b64encode(digest).decode()}"

    def elements(self):
        """The root's elements by local name; the pairs of Properties in no order and without a last bar."""
        if not self.body:
            return None
        root = ET.fromstring(self.body)
        texts = {_local(child): child.text or "" for child in root}
        pairs = {pair for pair in texts.pop("Properties", "").split("|") if pair}
        return _local(root), texts, pairs


def _local(element):
    return re.sub(r"^\{http://mq\.aliyuncs\.com/doc/v1/?\}", "", element.tag)


def ask(client, theirs):
    """The same of our client."""
    if theirs.method == "GET":
        client.check("orders", 3, 3, deadline_s=5)
        return
    _, texts, pairs = theirs.elements()
    if theirs.method == "DELETE":
        client.end("orders", texts["ReceiptHandle"], theirs.target.rpartition("=")[2], deadline_s=5)
        return
    properties = "".join(f"{one}|" for one in sorted(pairs))
    client.publish("orders", texts["MessageBody"], texts.get("MessageTag"), properties, deadline_s=5)


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def pair(request):
    """An SDK's recorded request, and ours of the same kind and content at the same second, captured on the wire."""
    theirs = Sent(request.param.read_bytes())
    given = {"instance_id": "MQ_INST_123_abc" if "ns=" in theirs.line else "", "group_id": "GID_orders"}
    if token := theirs.headers.get("security-token"):
        given["security_token"] = token
    with Server(lambda connection: connection.read_request()) as server:
        transport = RequestsTransport(server.url, pool_size=1)
        ask(Client(destination(**given), transport, lambda: parsedate_to_datetime(DATE).timestamp()), theirs)
        transport.close()
    return theirs, Sent(server.requests[0])


def test_request_lines_are_equal(pair):
    """Method, path, parameters and version; byte for byte where the SDKs do not differ among themselves."""
    theirs, ours = pair

    assert theirs.asks() == ours.asks()
    assert theirs.line == ours.line or theirs.method == "GET"


def test_headers_are_equal_but_for_stated_ones(pair):
    """Every header of theirs is among ours with the same value, and the other way round, but for the stated ones."""
    theirs, ours = pair
    differing = {name for name in theirs.headers | ours.headers if theirs.headers.get(name) != ours.headers.get(name)}
    may_add = WE_MAY_ADD | (WE_MAY_ADD_TO_A_POLL if ours.method == "GET" else set())
    content_type = ours.headers["content-type"]

    assert differing <= set(MAY_DIFFER)
    assert set(ours.headers) - set(theirs.headers) <= may_add
    assert set(theirs.headers) - set(ours.headers) <= WE_MAY_LEAVE_OUT
    assert content_type.lower() == theirs.headers.get("content-type", content_type).lower()
    assert {"date", "x-mq-version"} <= set(ours.headers) - differing
    assert str(len(ours.body)) == ours.headers["content-length"]


def test_signatures_sign_the_same_lines(pair):
    """Ours is right by rules written apart from our code, and is theirs once it signs in their order their headers."""
    theirs, ours = pair

    assert ours.signed() == ours.headers["authorization"]
    assert theirs.signed() == ours.signed(theirs) == theirs.headers["authorization"]


def test_elements_are_equal(pair):
    """The same root, the same elements, the same text in each, once a parser has read it."""
    theirs, ours = pair

    assert theirs.elements() == ours.elements()


def test_a_server_takes_both_for_the_same(pair):
    """Let in on the day of the recording, both become the same message, or are answered with the same."""
    # Offered at once, and again to whoever asks second.
    with Emulator(rules=Rules(offer_every_s=0.0)) as emulator:
        emulator.set_clock(parsedate_to_datetime(DATE).timestamp())
        emulator.fault("early_check")
        with ApiClient(emulator.url, ns="MQ_INST_123_abc") as client:
            half = client.signed("POST", client.target("orders"), HALF, Date=DATE)
            client.send("POST", client.target("orders"), HALF, half)
        emulator.clear_ledger()
        answers = []
        for sent in pair:
            with connect(emulator.url) as bare:
                bare.sendall(sent.raw)
                answers.append(bare.recv(65536).decode())
        accepted = emulator.ledger()["messages"]

    ours = [{name: value for name, value in one.items() if name not in {"message_id", "at"}} for one in accepted]
    status, found = EXPECTED[pair[0].method]
    assert [status] * 2 == [answer.split(" ", 2)[1] for answer in answers]
    assert [True] * 2 == [found in answer for answer in answers]
    assert (2 if pair[0].method == "POST" else 0) == len(ours)
    assert ours[:1] == ours[1:]


def test_a_carriage_return_outlives_a_parser():
    """Where the Python and Node SDKs lose it, ours comes through, as from PHP, Java and Go."""
    with Server() as server:
        transport = RequestsTransport(server.url, pool_size=1)
        Client(destination(), transport).publish("orders", "a\r\nb", None, "", deadline_s=5)
        transport.close()

    assert {"MessageBody": "a\r\nb"} == Sent(server.requests[0]).elements()[1]
