import base64
import hashlib
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.emulator import wire
from outbox.emulator.publication import Publication
from outbox.emulator.rejection import Rejection
from outbox.emulator.stored import Delivery, Failure, StoredMessage

NAMESPACE = "{http://mq.aliyuncs.com/doc/v1}"
NOW = 1_700_000_000.0
# What XML 1.0 allows, without the carriage return, which a writer must escape.
XML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))


def message(**fields):
    given = {"ns": "", "topic": "orders", "message_id": "A" * 32, "tag": None, "body": "hello", "body_md5": "B" * 32}
    return StoredMessage(**{**given, "properties": {}, "request_id": "C" * 24, "at": NOW, **fields})


def test_read_message_takes_every_spelling_of_the_sdks():
    """Namespace with the last slash, without it, or none; a byte order mark; a declaration or none; CDATA."""
    inner = "<MessageBody>hi</MessageBody>"
    spellings = [
        f"<Message>{inner}</Message>",
        f'<Message xmlns="http://mq.aliyuncs.com/doc/v1">{inner}</Message>',
        f'<?xml version="1.0" encoding="utf-8"?><Message xmlns="http://mq.aliyuncs.com/doc/v1/">{inner}</Message>',
        f'\ufeff<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<Message>\n  {inner}\n</Message>\n',
        "<Message><MessageBody><![CDATA[hi]]></MessageBody></Message>",
        '<m:Message xmlns:m="http://mq.aliyuncs.com/doc/v1/"><m:MessageBody>hi</m:MessageBody></m:Message>',
    ]

    assert [{"MessageBody": "hi"}] * len(spellings) == [wire.read_message(text.encode()) for text in spellings]


def test_read_message_joins_text_that_comes_in_pieces():
    """Character references, entities and CDATA sections are one text; an escaped carriage return survives."""
    document = "<Message><MessageBody>a&amp;b&#13;\n<![CDATA[<c>]]>]]&gt;&#128512;</MessageBody></Message>"

    assert {"MessageBody": "a&b\r\n<c>]]>\U0001f600"} == wire.read_message(document.encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"hello",
        b"<Message><MessageBody>a</Message>",
        b"<Message><MessageBody>a & b</MessageBody></Message>",
        b"<Message><MessageBody><![CDATA[a ]]> b]]></MessageBody></Message>",
        b"<Message><MessageBody>\x01</MessageBody></Message>",
        b"<Message><MessageBody>&#1;</MessageBody></Message>",
        "<Message><MessageBody>\ufffe</MessageBody></Message>".encode(),
        b"<Message><MessageBody>&#55296;</MessageBody></Message>",
        b"<Message><MessageBody>\xff</MessageBody></Message>",
        b"<Message><MessageBody>&undefined;</MessageBody></Message>",
        "<Message><MessageBody>a</MessageBody></Message>".encode("utf-16"),
        b'<!DOCTYPE Message [<!ENTITY a "b">]><Message><MessageBody>&a;</MessageBody></Message>',
        b'<!DOCTYPE Message SYSTEM "http://127.0.0.1:9/x"><Message><MessageBody>a</MessageBody></Message>',
    ],
)
def test_read_message_refuses_what_is_not_plain_xml(document):
    """Not well-formed, not UTF-8, not allowed in XML 1.0, or with a DTD: MalformedXML."""
    with pytest.raises(Rejection, match=r"^MalformedXML: The XML you provided is invalid"):
        wire.read_message(document)


@pytest.mark.parametrize(
    "document",
    [
        b"<Messages/>",
        b"<Message><Body>a</Body></Message>",
        b"<Message><MessageBody>a<b/></MessageBody></Message>",
        b"<Message>text<MessageBody>a</MessageBody></Message>",
        b"<Message><MessageBody>a</MessageBody><MessageBody>b</MessageBody></Message>",
        b'<Message xmlns="http://mns.aliyuncs.com/doc/v1/"><MessageBody>a</MessageBody></Message>',
        b"<Message>" * 100_000,
    ],
)
def test_read_message_refuses_another_schema(document):
    """Well-formed, but not a <Message> of the API: InvalidArgument, however deep it goes."""
    with pytest.raises(Rejection, match=r"^InvalidArgument: "):
        wire.read_message(document)


def test_read_receipt_handles_takes_one_to_sixteen():
    """An ack names 1 to 16 handles, in order."""
    one = "<ReceiptHandle>{}</ReceiptHandle>"
    sixteen = "".join(one.format(number) for number in range(16))

    def read(inner):
        return wire.read_receipt_handles(f"<ReceiptHandles>{inner}</ReceiptHandles>".encode())

    assert [str(number) for number in range(16)] == read(sixteen)
    with pytest.raises(Rejection, match="InvalidArgument: 17 receipt handles"):
        read(sixteen + one.format("x"))
    with pytest.raises(Rejection, match="MissingReceiptHandle"):
        read("")
    with pytest.raises(Rejection, match="MissingReceiptHandle"):
        wire.read_receipt_handles(b"")


@given(body=XML_TEXT, tag=XML_TEXT, value=XML_TEXT)
def test_batch_survives_any_parser(body, tag, value):
    """What is written comes out of an XML parser as it was, carriage returns included."""
    body += "\r\n<&>]]>"
    stored = message(body=body, tag=tag, properties={"KEYS": value})
    document = wire.batch([Delivery(stored, "A-1", NOW, NOW + 300, 2)])
    (written,) = ET.fromstring(document)

    assert body == written.findtext(f"{NAMESPACE}MessageBody")
    assert tag == written.findtext(f"{NAMESPACE}MessageTag")
    assert f"KEYS:{value}|" == written.findtext(f"{NAMESPACE}Properties")


def test_batch_uses_request_id_as_missing_key():
    """The broker takes the publish's request id for the key of a message that has none."""
    (written,) = ET.fromstring(wire.batch([Delivery(message(properties={"a": "1"}), "A-1", NOW, NOW, 1)]))

    assert f"KEYS:{'C' * 24}|a:1|" == written.findtext(f"{NAMESPACE}Properties")
    assert written.find(f"{NAMESPACE}MessageTag") is None


def test_failures_name_every_handle():
    """A failed ack answers <Errors> with three filled children for each handle."""
    root = ET.fromstring(wire.failures([Failure("<a>", "ReceiptHandleError")]))
    children = [(child.tag.removeprefix(NAMESPACE), bool(child.text)) for child in root[0]]

    assert [("ErrorCode", True), ("ErrorMessage", True), ("ReceiptHandle", True)] == children
    assert "<a>" == root[0].findtext(f"{NAMESPACE}ReceiptHandle")


def test_publication_accepts_every_limit_inclusively():
    """Exactly at the limit is within it: body, properties, tag, check time, schedule."""
    body_4m = "é" * (2 * 1024 * 1024)
    body_64k = "a" * 65536
    properties = "k:" + "v" * (16384 - 2)

    assert body_4m == Publication.of({"MessageBody": body_4m}, NOW).body
    assert properties[2:] == Publication.of({"MessageBody": "a", "Properties": properties + "|"}, NOW).properties["k"]
    assert "t" * 64 == Publication.of({"MessageBody": "a", "MessageTag": "t" * 64}, NOW).tag
    for seconds in (10, 300):
        half = Publication.of({"MessageBody": body_64k, "Properties": f"__TransCheckT:{seconds}"}, NOW)
        assert ("transactional", seconds) == (half.kind, half.check_s)
    at = NOW + 40 * 86400
    scheduled = Publication.of({"MessageBody": body_64k, "Properties": f"__STARTDELIVERTIME:{at * 1000:.0f}|"}, NOW)
    assert ("scheduled", at) == (scheduled.kind, scheduled.deliver_at)
    assert "ordered" == Publication.of({"MessageBody": body_4m, "Properties": "__SHARDINGKEY:a"}, NOW).kind


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "MessageBody is missing or empty"),
        ({"MessageBody": ""}, "MessageBody is missing or empty"),
        ({"MessageBody": "é" * (2 * 1024 * 1024) + "a"}, "normal message is longer than 4194304 bytes"),
        ({"MessageBody": "a" * 65537, "Properties": "__TransCheckT:10"}, "transactional message is longer than 65536"),
        ({"MessageBody": "a" * 65537, "Properties": "__STARTDELIVERTIME:1"}, "scheduled message is longer than 65536"),
        ({"Properties": "k:" + "v" * 16383}, "Properties are longer than 16384 bytes"),
        ({"Properties": "__TransCheckT:9"}, "__TransCheckT is not between 10 and 300"),
        ({"Properties": "__TransCheckT:301"}, "__TransCheckT is not between 10 and 300"),
        ({"Properties": "__TransCheckT:soon"}, "__TransCheckT is not a whole number"),
        ({"Properties": "__TransCheckT:"}, "__TransCheckT is not a whole number"),
        ({"Properties": f"__STARTDELIVERTIME:{(NOW + 40 * 86400) * 1000 + 1:.0f}"}, "more than 40 days ahead"),
        ({"Properties": "__STARTDELIVERTIME:-1"}, "__STARTDELIVERTIME is not a whole number"),
        ({"Properties": "__STARTDELIVERTIME:" + "9" * 5000}, "__STARTDELIVERTIME is not a whole number"),
        ({"Properties": "__TransCheckT:10|__SHARDINGKEY:a"}, "transactional or ordered, not both"),
        ({"Properties": "a"}, "not distinct key:value pairs"),
        ({"Properties": "a:b:c"}, "not distinct key:value pairs"),
        ({"Properties": ":b"}, "not distinct key:value pairs"),
        ({"Properties": "a:1||b:2"}, "not distinct key:value pairs"),
        ({"Properties": "a:1|a:2"}, "not distinct key:value pairs"),
        ({"Properties": "a:'1'"}, "not distinct key:value pairs"),
        ({"MessageTag": "t" * 65}, "MessageTag is longer than 64"),
        ({"MessageTag": "a||b"}, "MessageTag is longer than 64 characters or contains"),
    ],
)
def test_publication_refuses_past_the_limits(fields, problem):
    """One step past a limit is InvalidArgument, naming it."""
    if fields and "MessageBody" not in fields:
        fields = {**fields, "MessageBody": "a"}

    with pytest.raises(Rejection, match=f"^InvalidArgument: .*{problem}"):
        Publication.of(fields, NOW)


def test_body_md5_vector():
    """The digest of the API's own example body."""
    from outbox.emulator.broker import Broker, TopicKey
    from outbox.emulator.clock import BrokerClock

    publication = Publication.of({"MessageBody": "hello world"}, NOW)
    stored, _ = Broker(BrokerClock()).publish(TopicKey("", "orders"), publication, "A" * 24)

    assert "5EB63BBBE01EEED093CB22BB8F5ACDC3" == stored.body_md5


def test_digest_form_of_the_sdks():
    """Content-MD5 of nothing, as the Go SDK sends it on every GET."""
    digest = base64.b64encode(hashlib.md5(b"").hexdigest().encode()).decode()

    assert "ZDQxZDhjZDk4ZjAwYjIwNGU5ODAwOTk4ZWNmODQyN2U=" == digest
