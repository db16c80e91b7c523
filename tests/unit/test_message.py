"""A message that is accepted is one that the broker can take; what it would refuse is refused here, by name."""

import copy
import dataclasses
import math
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum, StrEnum
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outbox import Message, MessageError
from outbox.message import MAX_BODY_BYTES, MAX_PROPERTIES_BYTES, MAX_SCHEDULED_BODY_BYTES

OUTBOX_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
NOT_XML = [*map(chr, range(0x09)), "\x0b", "\x0c", *map(chr, range(0x0E, 0x20)), "\ud800", "\udfff", "\ufffe", "\uffff"]
EDGES_OF_XML = ["\t", "\n", "\r", " ", "\x7f", "\x85", "\ud7ff", "\ue000", "\ufffd", "\U00010000", "\U0010ffff", "😀"]
NOT_IN_PROPERTIES = [*":|&\"'<>"]


def message(**given):
    """A message that would be accepted but for what the test gives."""
    return Message(**{"topic": "orders", "body": "hello"} | given)


def refusal(**given):
    """The error that refuses such a message."""
    with pytest.raises(MessageError) as caught:
        message(**given)
    return caught.value


def sent_properties(accepted):
    """The properties as sent, split back as a consumer's SDK splits them."""
    *pairs, nothing = accepted.properties_as_sent(OUTBOX_ID).split("|")
    assert nothing == ""
    return dict(pair.split(":") for pair in pairs)


# Topic and destination


@pytest.mark.parametrize("field", ["topic", "destination"])
@pytest.mark.parametrize("name", ["o", "o" * 64, "Orders_2-x", "0", "-", "_"])
def test_message_takes_a_name(field, name):
    """A topic or a destination is 1 to 64 letters, digits, underscores and hyphens."""
    assert name == getattr(message(**{field: name}), field)


@pytest.mark.parametrize("field", ["topic", "destination"])
@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "o" * 65,
            "a b",
            " a",
            "a\n",
            "a\r\nb",
            "a\x00",
            "%",
            "a%2Fb",
            "a/b",
            "../a",
            "a?x=y",
            "a&ns=b",
            "a#b",
            "a.b",
        ),
        *("café", "\u043erders", "\uff4frders", "a:b", None, 7, b"bytes", ["list"]),
    ],
)
def test_message_refuses_a_name(field, name):
    """What would be percent-encoded, or read as another path, is no topic: what is signed must be what is sent."""
    assert field == refusal(**{field: name}).field


# Tag


@pytest.mark.parametrize("tag", [None, "t", "t" * 64, "😀" * 64, "a|b", "a b", "<&>\"'", "*"])
def test_message_takes_a_tag(tag):
    """A tag is 1 to 64 characters of any kind that XML can carry, or is left out."""
    assert tag == message(tag=tag).tag


@pytest.mark.parametrize("tag", ["", "t" * 65, "a||b", "||", "a\rb", "a\n", 7, b"t", ("a", "b")])
def test_message_refuses_a_tag(tag):
    """Consumers subscribe to tags joined with ||, one line a request."""
    assert "tag" == refusal(tag=tag).field


# Keys


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ((), ()),
        ([], ()),
        ("order-7", ("order-7",)),
        (["order-7", "customer-1"], ("order-7", "customer-1")),
        (("a", "b"), ("a", "b")),
        (iter(["a", "b"]), ("a", "b")),
        ("ключ", ("ключ",)),
    ],
)
def test_message_takes_keys(given, keys):
    """One key may stand alone; several are a tuple afterwards, whatever they came in."""
    assert keys == message(keys=given).keys


def test_message_sends_keys_joined_by_a_space():
    """The broker looks a message up by each of its keys, which it tells apart by spaces."""
    assert "order-7 customer-1" == sent_properties(message(keys=["order-7", "customer-1"]))["KEYS"]


def test_message_without_keys_sends_none():
    """An empty KEYS property would be refused."""
    assert {"outbox_id": OUTBOX_ID} == sent_properties(message())


@pytest.mark.parametrize(
    "keys", ["", "a b", ["a", ""], ["a", "b c"], [7], 7, None, b"key", bytearray(b"key"), {"a": "b"}, [None]]
)
def test_message_refuses_keys(keys):
    """A key that holds a space would become two."""
    assert "keys" == refusal(keys=keys).field


# Properties


@pytest.mark.parametrize("properties", [{}, {"a": "b"}, {"a": " "}, {"X y": "\t\n\r=;,%*"}, {"имя": "😀"}, {"_a": "b"}])
def test_message_sends_properties(properties):
    """A property goes out as it was given."""
    assert properties | {"outbox_id": OUTBOX_ID} == sent_properties(message(properties=properties))


@pytest.mark.parametrize("character", NOT_IN_PROPERTIES)
@pytest.mark.parametrize("where", ["name", "value"])
def test_message_refuses_a_property_with_a_separator(character, where):
    """What separates properties on the wire, or would be escaped there, stands in none of them."""
    text = f"a{character}b"
    error = refusal(properties={text: "x"} if where == "name" else {"x": text})

    assert "properties" == error.field
    assert character in str(error)


@pytest.mark.parametrize(
    "properties", [{"": "x"}, {"x": ""}, {"x": 7}, {7: "x"}, {"x": None}, {"x": b"y"}, [("x", "y")], None]
)
def test_message_refuses_properties_that_are_no_texts(properties):
    """Names and values are strings, and none is empty."""
    assert "properties" == refusal(properties=properties).field


@pytest.mark.parametrize(
    "name",
    [
        "__TransCheckT",
        "__STARTDELIVERTIME",
        "__SHARDINGKEY",
        "__",
        "KEYS",
        "KEYS2",
        "outbox_id",
        "outbox_",
        "traceparent",
    ],
)
def test_message_refuses_a_reserved_property(name):
    """No property can turn a message into another kind, or pass for one of ours."""
    error = refusal(properties={name: "30"})

    assert "properties" == error.field
    assert "reserved" in str(error)


def room_for(**given):
    """Bytes that a value of the property ``p`` may have beside what is given."""
    return (
        MAX_PROPERTIES_BYTES - len(message(**given, properties={"p": "-"}).properties_as_sent(OUTBOX_ID).encode()) + 1
    )


@pytest.mark.parametrize("beside", [{}, {"keys": ["a", "ключ"]}, {"ordering_key": "é"}, {"deliver_at": NOON}])
@pytest.mark.parametrize("character", ["x", "é", "中", "😀"])
def test_message_measures_properties_as_sent(beside, character):
    """All properties together are at most 16,384 UTF-8 bytes on the wire, the outbox's own included."""
    count, rest = divmod(room_for(**beside), len(character.encode()))
    largest = character * count + "x" * rest
    accepted = message(**beside, properties={"p": largest})
    error = refusal(**beside, properties={"p": largest + "x"})

    assert MAX_PROPERTIES_BYTES == len(accepted.properties_as_sent(OUTBOX_ID).encode())
    assert "properties" == error.field
    assert "16385 bytes" in str(error)


def test_message_counts_keys_as_properties():
    """Keys alone can be too much."""
    assert "properties" == refusal(keys=["k" * MAX_PROPERTIES_BYTES]).field


# Ordering and deduplication keys


@pytest.mark.parametrize("field", ["ordering_key", "deduplication_key"])
@pytest.mark.parametrize("key", [None, "k", "k" * 255, "😀" * 255, " a b "])
def test_message_takes_a_key(field, key):
    """Such a key is 1 to 255 characters, or is left out."""
    assert key == getattr(message(**{field: key}), field)


@pytest.mark.parametrize("field", ["ordering_key", "deduplication_key"])
@pytest.mark.parametrize("key", ["", "k" * 256, 7, b"k", ["k"]])
def test_message_refuses_a_key(field, key):
    """A key has a column of 255 characters, in which nothing is cut off."""
    assert field == refusal(**{field: key}).field


@pytest.mark.parametrize("character", NOT_IN_PROPERTIES)
def test_message_refuses_an_ordering_key_with_a_separator(character):
    """An ordering key goes out as a property."""
    assert "ordering_key" == refusal(ordering_key=f"a{character}b").field


def test_message_takes_any_text_as_a_deduplication_key():
    """A deduplication key never leaves the database."""
    assert "a:b|c\r\n<&>" == message(deduplication_key="a:b|c\r\n<&>").deduplication_key


def test_message_sends_an_ordering_key():
    """The broker keeps the order of messages with one sharding key."""
    assert {"__SHARDINGKEY": "customer 1", "outbox_id": OUTBOX_ID} == sent_properties(
        message(ordering_key="customer 1")
    )


# Delivery time


@pytest.mark.parametrize(
    ("deliver_at", "milliseconds"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), "0"),
        (NOON, "1896091200000"),
        (NOON.astimezone(timezone(timedelta(hours=8))), "1896091200000"),
        (NOON.replace(microsecond=123_999), "1896091200123"),
        (datetime.max.replace(tzinfo=UTC), "253402300799999"),
    ],
)
def test_message_sends_a_delivery_time(deliver_at, milliseconds):
    """The broker takes milliseconds since 1970, whatever the time zone."""
    accepted = message(deliver_at=deliver_at)

    assert deliver_at == accepted.deliver_at
    assert milliseconds == sent_properties(accepted)["__STARTDELIVERTIME"]


@pytest.mark.parametrize(
    "deliver_at",
    [
        datetime(2030, 1, 31, 12),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        *(date(2030, 1, 31), "2030-01-31T12:00:00Z", 1896091200000, timedelta(hours=1)),
    ],
)
def test_message_refuses_a_delivery_time(deliver_at):
    """A time without a zone is a guess, and times outside 1970 to 9999 fit nowhere."""
    assert "deliver_at" == refusal(deliver_at=deliver_at).field


def test_message_is_of_one_kind():
    """A topic takes scheduled messages or ordered ones, never both."""
    error = refusal(deliver_at=NOON, ordering_key="k")

    assert "ordering_key" == error.field
    assert "deliver_at" in str(error)


# Body


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ("hello", "hello"),
        (" \r\n<a>&amp;]]>😀\t ", " \r\n<a>&amp;]]>😀\t "),
        ('{"a": 1}', '{"a": 1}'),
        ({"id": 7, "ключ": [1.5, None, True]}, '{"id":7,"ключ":[1.5,null,true]}'),
        ((1, 2), "[1,2]"),
        ({}, "{}"),
        (None, "null"),
        (False, "false"),
        (0, "0"),
        (10**30, "1" + "0" * 30),
    ],
)
def test_message_takes_a_body(given, body):
    """A string goes out as it is, any other JSON value as compact UTF-8 JSON."""
    accepted = message(body=given)

    assert body == accepted.body
    assert len(body.encode()) == accepted.body_bytes


@pytest.mark.parametrize("body", [b"hello", bytearray(b"hello"), memoryview(b"hello")])
def test_message_refuses_bytes(body):
    """The HTTP API carries text only; the error names the way out."""
    error = refusal(body=body)

    assert "body" == error.field
    assert "base64" in str(error)


def cyclic():
    """A list that is in itself."""
    cycle = []
    cycle.append(cycle)
    return cycle


def nested():
    """A list too deep for the encoder."""
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "body",
    [math.nan, math.inf, [-math.inf], {"at": NOON}, {1, 2}, object(), {("a",): 1}, {"a": b"b"}, cyclic(), nested()],
    ids=["nan", "inf", "-inf", "datetime", "set", "object", "tuple-key", "bytes-inside", "cyclic", "nested"],
)
def test_message_refuses_what_is_not_json(body):
    """A value that JSON has no form for is refused, and the error says what it is."""
    error = refusal(body=body)

    assert "body" == error.field
    assert type(body).__name__ in str(error)


def test_message_refuses_an_empty_body():
    """The broker takes no empty body."""
    assert "body" == refusal(body="").field


@pytest.mark.parametrize(
    ("limit", "kind"),
    [(MAX_BODY_BYTES, {}), (MAX_BODY_BYTES, {"ordering_key": "k"}), (MAX_SCHEDULED_BODY_BYTES, {"deliver_at": NOON})],
)
@pytest.mark.parametrize("character", ["x", "é", "中", "😀"])
def test_message_measures_the_body(limit, kind, character):
    """A body has at most 4,194,304 UTF-8 bytes, or 65,536 where it is scheduled."""
    count, rest = divmod(limit, len(character.encode()))
    largest = character * count + "x" * rest
    accepted = message(body=largest, **kind)
    error = refusal(body=largest + "x", **kind)

    assert limit == accepted.body_bytes
    assert "body" == error.field
    assert f"{limit + 1} UTF-8 bytes" in str(error)


# Characters


PLACES = {
    "body": lambda text: {"body": text},
    "body beside others": lambda text: {"body": f"é{text}"},
    "tag": lambda text: {"tag": text},
    "key": lambda text: {"keys": text},
    "second key": lambda text: {"keys": ["key", text]},
    "property's name": lambda text: {"properties": {text: "value"}},
    "property's value": lambda text: {"properties": {"name": text}},
    "ordering key": lambda text: {"ordering_key": text},
    "deduplication key": lambda text: {"deduplication_key": text},
}


@pytest.mark.parametrize("place", PLACES)
def test_message_refuses_what_xml_forbids(place):
    """No XML document can hold these characters, not even escaped, so nothing of a message does."""
    (field,) = PLACES[place]("any")
    errors = {f"U+{ord(character):04X}": refusal(**PLACES[place](f"a{character}b")) for character in NOT_XML}

    assert {field} == {error.field for error in errors.values()}
    assert [] == [code for code, error in errors.items() if code not in str(error)]


@pytest.mark.parametrize("character", ["\ud800", "\ufffe", "\uffff"])
def test_message_refuses_what_xml_forbids_inside_json(character):
    """JSON escapes control characters, but not these."""
    assert "body" == refusal(body={"a": [character]}).field


def test_message_sends_control_characters_inside_json():
    """In JSON a control character is written as an escape, which is text like any other."""
    assert r'["\u0000\u001f"]' == message(body=["\x00\x1f"]).body


@pytest.mark.parametrize("character", EDGES_OF_XML, ids=lambda character: f"U+{ord(character):04X}")
def test_message_takes_what_xml_allows(character):
    """The neighbours of the forbidden characters are fine."""
    accepted = message(body=f"a{character}b", deduplication_key=character, properties={"x": character})

    assert f"a{character}b" == accepted.body
    assert character == sent_properties(accepted)["x"]


# Immutability


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Message)])
def test_message_is_frozen(field):
    """What was checked cannot be changed after."""
    accepted = message()

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(accepted, field, "other")


def test_message_keeps_its_own_properties():
    """Neither the message's mapping nor the caller's can change what goes out."""
    given = {"a": "b"}
    accepted = message(properties=given)
    given["KEYS"] = "smuggled"

    with pytest.raises(TypeError):
        accepted.properties["KEYS"] = "smuggled"
    assert {"a": "b"} == accepted.properties


class Shout(str, Enum):  # noqa: UP042 - a StrEnum formats as its value
    """An enum whose members do not format as their values."""

    LOUD = "loud"

    def __format__(self, spec):
        return "KEYS:smuggled|a"


class Topics(StrEnum):
    """Topics as an application may name them."""

    ORDERS = "orders"


def test_message_sends_the_value_of_an_enum():
    """A str subclass is sent as the characters that were checked, however it formats itself."""
    accepted = Message(
        topic=Topics.ORDERS,
        body=Shout.LOUD,
        tag=Shout.LOUD,
        keys=[Shout.LOUD],
        properties={Shout.LOUD: Shout.LOUD},
        ordering_key=Shout.LOUD,
        deduplication_key=Shout.LOUD,
    )
    texts = [
        accepted.topic,
        accepted.body,
        accepted.tag,
        *accepted.keys,
        accepted.ordering_key,
        accepted.deduplication_key,
    ]

    assert ["orders", *["loud"] * 5] == texts
    assert {str} == {type(text) for text in texts}
    assert f"KEYS:loud|__SHARDINGKEY:loud|loud:loud|outbox_id:{OUTBOX_ID}|" == accepted.properties_as_sent(OUTBOX_ID)


def test_message_can_be_replaced():
    """`dataclasses.replace` checks the copy and changes nothing else."""
    accepted = message(body={"a": 1}, keys=["a", "b"], properties={"x": "y"}, deliver_at=NOON)
    copy = dataclasses.replace(accepted, topic="invoices")

    assert "invoices" == copy.topic
    assert accepted == dataclasses.replace(copy, topic="orders")
    assert hash(accepted) == hash(dataclasses.replace(copy, topic="orders"))


def test_message_hides_its_body():
    """Tracebacks and logs show a message without its body."""
    assert "secret" not in repr(message(body="secret"))


# Any message at all

ODD = st.text(st.sampled_from([*"ab_-: |&\"'<>\r\n\t]", "\x00", "\x1f", "\ud800", "\uffff", "é", "😀"]), max_size=6)
TEXT = st.one_of(ODD, st.text(max_size=20), st.none())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ODD, st.text(max_size=20), st.binary(max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=5,
)
ANY = st.fixed_dictionaries(
    {"topic": st.one_of(st.just("orders"), ODD), "body": JSON},
    optional={
        "tag": TEXT,
        "keys": st.one_of(TEXT, st.lists(ODD, max_size=3)),
        "properties": st.dictionaries(ODD, ODD, max_size=3),
        "deliver_at": st.one_of(st.none(), st.datetimes(timezones=st.none() | st.just(UTC))),
        "ordering_key": TEXT,
        "deduplication_key": TEXT,
        "destination": st.one_of(st.just("default"), ODD),
    },
)
PARAMETERS = {field.name for field in dataclasses.fields(Message) if field.init}


def made(given):
    """The message, or the error that refuses it."""
    try:
        return Message(**given)
    except MessageError as error:
        return error


def body_from_xml(accepted):
    """The body as a parser reads it from the request."""
    return ET.fromstring(f"<a>{escape(accepted.body, {chr(13): '&#13;'})}</a>").text


@given(ANY)
@example({"topic": "orders", "body": "\r\n\r"})
@example({"topic": "orders", "body": "]]>", "properties": {"a": "b"}, "keys": ["k"]})
def test_message_is_refused_by_name_or_sendable(given):
    """Whatever is given, the message says which field is wrong, or comes back from the wire as it was given."""
    match made(given):
        case MessageError() as error:
            assert error.field in PARAMETERS
            assert str(error).startswith(f"{error.field}: ")
        case accepted:
            assert accepted.body == body_from_xml(accepted)
            assert given.get("properties", {}).items() <= sent_properties(accepted).items()


@given(
    st.dictionaries(
        st.text(st.sampled_from("abz_ é😀\t"), min_size=1).filter(lambda name: not name.startswith("__")),
        st.text(st.sampled_from("abz_ é😀\r\n"), min_size=1),
    ),
    st.lists(st.text(st.sampled_from("k-_é😀"), min_size=1)),
    st.none() | st.text(st.sampled_from("o -é"), min_size=1, max_size=255),
)
def test_message_properties_split_back(properties, keys, ordering_key):
    """An accepted message's properties are exactly those given, and ours."""
    ours = {"outbox_id": OUTBOX_ID}
    ours |= {"KEYS": " ".join(keys)} if keys else {}
    ours |= {"__SHARDINGKEY": ordering_key} if ordering_key else {}

    assert properties | ours == sent_properties(message(properties=properties, keys=keys, ordering_key=ordering_key))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda given: pickle.loads(pickle.dumps(given))])
@pytest.mark.parametrize("kind", [{}, {"deliver_at": NOON}, {"ordering_key": "k"}, {"transaction_check_s": 10}])
def test_message_can_be_copied(copied, kind):
    """A message may wait in a cache or a task's arguments; what comes back is as it was."""
    given = message(body={"n": [1, "é"]}, tag="t", keys=("a", "b"), properties={"region": "eu"}, **kind)

    assert given == copied(given)
    assert sent_properties(given) == sent_properties(copied(given))


def test_message_names_the_property_at_fault():
    """Among many properties the wrong one is told by its name."""
    assert "properties: the value of 'size' is int; give a string that is not empty" == str(
        refusal(properties={"region": "eu", "size": 7})
    )
