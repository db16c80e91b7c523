"""XML, both ways: what we write any parser reads back, and what others write is read or refused."""

import time
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outbox.rocketmq.document import (
    MAX_DEPTH,
    MAX_DOCUMENT_BYTES,
    MAX_ELEMENTS,
    UnreadableXmlError,
    _parsed,
    _plain,
    read_document,
)
from outbox.rocketmq.wire import (
    BrokerError,
    HandleError,
    Published,
    publish_xml,
    read_answer,
    read_published,
    receipt_handles_xml,
)

GOLDEN = Path(__file__).parents[1] / "golden"
NAMESPACE = "http://mq.aliyuncs.com/doc/v1"
MESSAGE_ID = "0A03F29C00012A9F0000000000000001"
MD5 = "5EB63BBBE01EEED093CB22BB8F5ACDC3"
# The Node SDK does not split "]]>" in CDATA: that one request of its is not well-formed.
PUBLISHES = sorted(set(GOLDEN.glob("*-publish-*.txt")) - {GOLDEN / "nodejs-publish-special-chars.txt"})
XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n\r&<>\"']")
)


def values(xml: bytes) -> dict[str, str]:
    """Element names and texts, by a parser that is not ours."""
    return {element.tag.partition("}")[2] or element.tag: element.text or "" for element in ET.fromstring(xml)}


def body_of(path: Path) -> bytes:
    return path.read_bytes().partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("path", PUBLISHES, ids=lambda path: path.stem)
def test_write_says_what_official_sdks_say(path):
    """For the same message our XML and that of three official SDKs hold the same values."""
    theirs = values(body_of(path))

    ours = publish_xml(theirs["MessageBody"], theirs.get("MessageTag"), theirs.get("Properties", ""))

    assert theirs == values(ours)


def test_write_the_documented_form():
    """Declaration, namespace with its slash, body, tag, properties."""
    expected = (
        '<?xml version="1.0" encoding="utf-8"?><Message xmlns="http://mq.aliyuncs.com/doc/v1/">'
        "<MessageBody>hello</MessageBody><MessageTag>TagA</MessageTag><Properties>KEYS:k|</Properties></Message>"
    )

    assert expected.encode() == publish_xml("hello", "TagA", "KEYS:k|")


@pytest.mark.parametrize("tag", [None, ""])
def test_write_leaves_out_what_is_empty(tag):
    """No tag and no properties: no elements for them."""
    assert {"MessageBody": "x"} == values(publish_xml("x", tag, ""))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a]]>b", b"a]]&gt;b"),
        ("a\r\nb", b"a&#13;\nb"),
        ("<&>", b"&lt;&amp;&gt;"),
        ("\t\n\"'", b"\t\n\"'"),
        ("\U0001f600中文", "\U0001f600中文".encode()),
        ("&#13;&amp;", b"&amp;#13;&amp;amp;"),
    ],
)
def test_write_escapes_text(text, written):
    """Markup and carriage returns are escaped; quotes, tabs, line feeds and all else stand as they are."""
    assert b"<MessageBody>" + written + b"</MessageBody>" in publish_xml(text, None, "")


@given(body=XML_TEXT, tag=XML_TEXT.filter(bool), properties=XML_TEXT.filter(bool))
@example(body="\r", tag="\r\n", properties="]]>")
@example(body=" a ", tag="\u0085", properties="\u2028")
def test_write_loses_nothing(body, tag, properties):
    """Any text that XML allows comes out of a stock parser as it went in."""
    assert {"MessageBody": body, "MessageTag": tag, "Properties": properties} == values(
        publish_xml(body, tag, properties)
    )


@given(st.text(st.characters(categories=["Cs", "Cc"]), min_size=1))
def test_write_never_raises(body):
    """Text that XML forbids is refused by whoever reads it, not by an error half-way to the broker."""
    assert publish_xml(body, None, "").startswith(b"<?xml")


def test_write_receipt_handles_as_official_sdks_do():
    """Acknowledgements and commits hold the same handles as those of three SDKs."""
    for path in [*GOLDEN.glob("*-ack.txt"), *GOLDEN.glob("*-commit.txt"), *GOLDEN.glob("*-rollback.txt")]:
        handles = [element.text for element in ET.fromstring(body_of(path))]

        ours = ET.fromstring(receipt_handles_xml(handles))

        assert handles == [element.text for element in ours]


def published(message_id=MESSAGE_ID, body_md5=MD5, more="", root="Message", xmlns=f' xmlns="{NAMESPACE}"') -> bytes:
    fields = f"<MessageId>{message_id}</MessageId><MessageBodyMD5>{body_md5}</MessageBodyMD5>{more}"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<{root}{xmlns}>\n{fields}\n</{root}>'.encode()


@pytest.mark.parametrize("xmlns", [f' xmlns="{NAMESPACE}"', f' xmlns="{NAMESPACE}/"', ""])
def test_read_published_with_any_namespace(xmlns):
    """The namespace is spelled in two ways, or left out; all three are read."""
    assert Published(MESSAGE_ID, MD5, None) == read_published(published(xmlns=xmlns))


def test_read_published_half():
    """A half message's answer brings a receipt handle, which no repr shows."""
    answer = read_published(published(more="<ReceiptHandle>handle-1</ReceiptHandle>"))

    assert "handle-1" == answer.receipt_handle
    assert "handle-1" not in repr(answer)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (published(root="Error"), "the root is not <Message>"),
        (published(message_id=""), "no <MessageId> of 32 hexadecimal digits"),
        (published(message_id=MESSAGE_ID[1:]), "no <MessageId> of 32 hexadecimal digits"),
        (published(message_id=MESSAGE_ID[1:] + "G"), "no <MessageId> of 32 hexadecimal digits"),
        (published(message_id=f"<Id>{MESSAGE_ID}</Id>"), "no <MessageId> of 32 hexadecimal digits"),
        (published(body_md5=""), "no <MessageBodyMD5> of 32 hexadecimal digits"),
        (published(more=f"<MessageId>{MESSAGE_ID}</MessageId>"), "an element given twice"),
        (published() + published(), "not well-formed"),
        (published()[:-1], "not well-formed"),
        (published().replace(b"utf-8", b"utf-16").decode().encode("utf-16"), "not in UTF-8"),
        (b"\xfe\xff" + published(), "not well-formed"),
        (published().replace(b"utf-8", b"utf-16").decode().encode("utf-16-le"), "not in UTF-8"),
        (published(more="&nbsp;"), "not well-formed"),
        (b"", "not well-formed"),
        (b"<html>captive</html>", "the root is not <Message>"),
        (b'{"MessageId": 1}', "not well-formed"),
    ],
)
def test_read_published_refuses(xml, reason):
    """Whatever lacks a field, has one twice, or is no XML in UTF-8 is not an answer."""
    with pytest.raises(UnreadableXmlError, match=reason):
        read_published(xml)


def test_read_published_ignores_what_is_new():
    """Elements that nobody knows yet, also nested ones, and attributes and comments do no harm."""
    more = '<New a="1"><!-- x --><Deep><Deeper>1</Deeper></Deep></New><Other/>'

    assert MESSAGE_ID == read_published(published(more=more)).message_id


def test_read_error():
    """Code, text and request id of the broker's error, whatever the order of the elements."""
    xml = b"<Error><HostId>h</HostId><RequestId>R1</RequestId><Message>a &lt;b&gt;</Message><Code> X </Code></Error>"

    assert BrokerError("X", "a <b>", "R1") == read_answer(xml)


@pytest.mark.parametrize("xml", [b"<Error/>", b"<Error><Code> </Code></Error>", b"<Fault><Code>X</Code></Fault>"])
def test_read_error_refuses(xml):
    """Without a code there is no error to go by."""
    with pytest.raises(UnreadableXmlError):
        read_answer(xml)


def test_read_error_with_an_illegal_character():
    """The broker echoes forbidden characters as references; they are read as U+FFFD instead of losing the code."""
    xml = b"<Error><Code>InvalidContent</Code><Message>&#1;&#x1F;&#xFFFF;&#99999999;&#65;</Message></Error>"

    assert "\ufffd\ufffd\ufffd\ufffdA" == read_answer(xml).message


def test_read_error_with_an_illegal_character_and_worse():
    """Mending references mends nothing else."""
    with pytest.raises(UnreadableXmlError, match="not well-formed"):
        read_answer(b"<Error><Code>&#1;</Error>")


def delivery(**changes: str | None) -> str:
    fields = {
        "MessageId": MESSAGE_ID,
        "MessageBodyMD5": MD5,
        "MessageBody": "a\nb",
        "ReceiptHandle": "handle-1",
        "PublishTime": "1772690828000",
        "FirstConsumeTime": "1772690829000",
        "NextConsumeTime": "1772690838000",
        "ConsumedTimes": "1",
        "MessageTag": "TagA",
        "Properties": "KEYS:k|",
    } | changes
    return "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if value is not None)


def test_read_messages():
    """Every field of a delivery, and a damaged neighbour counted, not hidden."""
    damaged = delivery(ReceiptHandle=None), delivery(ReceiptHandle=""), delivery(PublishTime="soon"), ""
    xml = "".join(f"<Message>{fields}</Message>" for fields in (delivery(), *damaged))

    answer = read_answer(f'<Messages xmlns="{NAMESPACE}">{xml}</Messages>'.encode())

    assert 4 == answer.damaged
    (message,) = answer.messages
    assert (MESSAGE_ID, "handle-1", "a\nb") == (message.message_id, message.receipt_handle, message.body)
    assert ("TagA", "KEYS:k|", 1) == (message.tag, message.properties, message.consumed_times)
    assert (1772690828000, 1772690838000) == (message.published_at_ms, message.next_consume_at_ms)
    assert "handle-1" not in repr(message)


@pytest.mark.parametrize("name", ["PublishTime", "NextConsumeTime", "ConsumedTimes"])
@pytest.mark.parametrize("number", ["9" * 400, "9" * 19, "1_000", "-5", "+5", " 5", "٥", "1e3", "5.0", ""])  # noqa: RUF001
def test_read_messages_with_numbers_that_are_none(name, number):
    """Nothing but up to eighteen ASCII digits: what Python would take for a number may be one that no clock has."""
    xml = f"<Messages><Message>{delivery(**{name: number})}</Message></Messages>"

    assert ((), 1) == (read_answer(xml.encode()).messages, read_answer(xml.encode()).damaged)


@pytest.mark.parametrize("message_id", ["", MESSAGE_ID[:-1], f"{MESSAGE_ID}0", MESSAGE_ID * 5, "G" * 32, "msg-1"])
def test_read_messages_with_a_message_id_of_another_shape(message_id):
    """What no row could hold, or hold in full, is never told from another: it is counted and left."""
    xml = f"<Messages><Message>{delivery(MessageId=message_id)}</Message></Messages>"

    assert ((), 1) == (read_answer(xml.encode()).messages, read_answer(xml.encode()).damaged)


def test_read_messages_without_tag_and_properties():
    """Tag and properties may be left out."""
    xml = f"<Messages><Message>{delivery(MessageTag=None, Properties=None)}</Message></Messages>"

    (message,) = read_answer(xml.encode()).messages

    assert ("", "") == (message.tag, message.properties)


def test_read_handle_errors():
    """Each handle that failed is listed; an empty one may be echoed."""
    listed = "<Error><ErrorCode>ReceiptHandleError</ErrorCode><ErrorMessage>bad</ErrorMessage><ReceiptHandle/></Error>"

    errors = read_answer(f"<Errors>{listed}</Errors>".encode())

    assert (HandleError("ReceiptHandleError", "bad", ""),) == errors


def test_read_handle_errors_refuses_an_empty_list():
    """A failure must name at least one handle."""
    with pytest.raises(UnreadableXmlError, match="no <Error>"):
        read_answer(b"<Errors></Errors>")


LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in range(ord("b"), ord("z"))
)
HOSTILE = {
    "billion laughs": LAUGHS + b"]><Message><MessageId>&y;</MessageId></Message>",
    "external entity": b'<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]><Message>&x;</Message>',
    "external doctype": b'<!DOCTYPE m SYSTEM "http://169.254.169.254/x.dtd"><Message/>',
    "quadratic blow-up": b'<!DOCTYPE m [<!ENTITY x "'
    + b"x" * 100_000
    + b'">]><Message>'
    + b"&x;" * 100_000
    + b"</Message>",
    "deep nesting": b"<a>" * 300_000,
    "one deeper than allowed": b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1),
    "one byte too long": b"<a>" + b"x" * (MAX_DOCUMENT_BYTES - 6) + b"</a>",
    "large token": b"<Message " + b"x" * 1_000_000,
    "many attributes": b"<a " + b" ".join(b'a%d=""' % n for n in range(80_000)) + b"/><",
    "many closed attributes": b"<a " + b" ".join(b"a%d='>'" % n for n in range(80_000)) + b"/>",
    "many siblings": b"<a>" + b"".join(b"<a%d/>" % n for n in range(100_000)) + b"</a>",
    "many records": b"<a>" + b"<b><c/></b>" * 95_000 + b"</a>",
    "one element more than allowed": b"<a>" + b"<b><c/></b>" * (MAX_ELEMENTS // 2) + b"</a>",
    "many references": b"<a>" + b"&#1;" * 250_000,
    "utf-7": b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE m+AD4-<a/>',
    "utf-16 doctype": '<!DOCTYPE m [<!ENTITY a "b">]><Message/>'.encode("utf-16"),
}


@pytest.mark.parametrize("xml", HOSTILE.values(), ids=HOSTILE.keys())
def test_refuse_hostile_documents_quickly(xml):
    """What is built to exhaust a parser costs neither time nor memory."""
    started = time.process_time()
    with pytest.raises(UnreadableXmlError):
        read_document(xml)
    seconds = time.process_time() - started
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableXmlError):
            read_document(xml)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # The documents themselves are 1 MB; on a quiet machine it takes 10 ms at the most.
    assert seconds < 0.2
    assert peak < 10_000_000


def test_read_a_document_at_the_limits():
    """Exactly 1 MiB, exactly 16 levels and exactly 1,000 elements, with some attributes each, are still read."""
    siblings = b"<b a='1' b='2' c='3'/>" * (MAX_ELEMENTS - MAX_DEPTH)
    padding = b"x" * (MAX_DOCUMENT_BYTES - 7 * MAX_DEPTH - len(siblings))

    document = read_document(b"<a>" * MAX_DEPTH + padding + b"</a>" + siblings + b"</a>" * (MAX_DEPTH - 1))

    assert "a" == document.root


PIECES = st.sampled_from(
    ["<a>", "</a>", "<b>", "</b>", "<Ab1>", "</Ab1>", "<a/>", "<1>", " ", "\n", "x", "a>b", "]]>", "&amp;", "<!--c-->"]
) | st.sampled_from(
    ['<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-8" ?>', '<a xmlns="u:v">', "\x00", "\x1f", "\x7f", "é"]
)
FIELDS = st.lists(st.tuples(st.sampled_from(["a", "B2", "MessageId"]), st.text(" !-;=?~&<>\r", max_size=4)))


def flat(fields):
    """A document of fields, whatever is in them."""
    inner = "".join(f"<{name}>{text}</{name}>\n" for name, text in fields)
    return f'<?xml version="1.0"?><Message xmlns="u">{inner}</Message>'


@given(st.lists(PIECES, max_size=12).map("".join) | FIELDS.map(flat))
@example(flat([("a", "1"), ("B2", "")]))
@example(flat([("a", "1"), ("a", "1")]))
def test_plain_documents_read_as_the_parser_reads_them(text):
    """What is read without the parser is exactly what the parser would have read."""
    plain = _plain(text.encode())

    assert plain is None or plain == _parsed(text.encode())


def test_answers_to_publishes_are_plain():
    """What this is for is read so."""
    assert _plain(flat([("MessageId", MESSAGE_ID), ("MessageBodyMD5", MD5), ("ReceiptHandle", "a+/=")]).encode())
