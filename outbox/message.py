"""What an application asks to send, and every limit it must keep. Pure: no settings, no database, no network.

Everything that the broker would refuse is refused here, in the caller's process, before anything is written.
Sources: the HTTP API's limits ("Limits", "Operation for sending messages") and XML 1.0 §2.2 for characters.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

from outbox.errors import MessageError

__all__ = ["MAX_BODY_BYTES", "MAX_PROPERTIES_BYTES", "MAX_SCHEDULED_BODY_BYTES", "Message"]

MAX_BODY_BYTES = 4_194_304
MAX_SCHEDULED_BODY_BYTES = 65_536
MAX_PROPERTIES_BYTES = 16_384
MAX_TAG_CHARACTERS = 64
MAX_KEY_CHARACTERS = 255

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NOT_XML_IN_ASCII = bytes([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20)])
_NOT_IN_PROPERTIES = re.compile("[:|&\"'<>]")
_RESERVED = ("__", "KEYS", "outbox_", "traceparent")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
# The relay's own properties are as long for every row, so that their room can be kept before their values are known.
_OUTBOX_ID_BYTES = len("outbox_id:|") + 36
_HALF_BYTES = len("outbox_replay:|") + 10 + len("outbox_origin:|") + 36
_CHECK_S = range(10, 301)
_as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Message:
    """One message for one topic, checked on construction and immutable after.

    Args:
        topic: 1–64 of ``A–Z a–z 0–9 _ -``.
        body: a str goes out as it is; any other JSON value goes out as compact UTF-8 JSON. At most 4,194,304 UTF-8
            bytes, 65,536 when ``deliver_at`` or ``transaction_check_s`` is set; not empty; no character that XML 1.0
            forbids. Bytes are refused: the HTTP API carries text only.
        tag: 1–64 characters without ``||``, by which consumers filter.
        keys: one key or several, none with a space in it; sent as the property ``KEYS``, joined by one space.
        properties: str to str; neither may be empty or hold any of ``: | & " ' < >``. Names that begin with ``__``,
            ``KEYS``, ``outbox_`` or ``traceparent`` are reserved. All properties of a message, ours included, are at
            most 16,384 UTF-8 bytes as sent.
        deliver_at: an aware datetime, not before which the broker delivers; a past one delivers at once.
        transaction_check_s: 10–300 seconds: publish as a half message, of which at most one is ever committed; so long
            after a lost answer the broker asks what to do with it. The destination needs a group id.
        ordering_key: messages with the same key on one topic are published one at a time, in the order of their ids.
        deduplication_key: at most one row per destination, topic and key exists at any time, compared byte by byte.
        destination: the name of the endpoint and credentials to publish with.

    A topic takes one kind of message, so at most one of ``deliver_at``, ``ordering_key`` and ``transaction_check_s``
    may be set.

    After construction ``body`` is the text as sent and ``body_bytes`` its size in UTF-8, ``keys`` a tuple,
    ``properties`` a read-only mapping, ``deliver_at`` in UTC, and every text a plain str. The repr leaves the body out.

    Raises:
        MessageError: names the field, the shape of its value, and the limit.
    """

    topic: str
    body: Any = field(repr=False)
    tag: str | None = field(default=None, kw_only=True)
    keys: str | Iterable[str] = field(default=(), kw_only=True)
    properties: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)
    deliver_at: datetime | None = field(default=None, kw_only=True)
    transaction_check_s: int | None = field(default=None, kw_only=True)
    ordering_key: str | None = field(default=None, kw_only=True)
    deduplication_key: str | None = field(default=None, kw_only=True)
    destination: str = field(default="default", kw_only=True)
    body_bytes: int = field(init=False, compare=False)
    _given_properties: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        keep = partial(object.__setattr__, self)
        keep("topic", _checked_name("topic", self.topic))
        keep("destination", _checked_name("destination", self.destination))
        keep("tag", _checked_tag(self.tag))
        keep("deliver_at", _checked_deliver_at(self.deliver_at))
        keep("ordering_key", _checked_ordering_key(self.ordering_key))
        keep("deduplication_key", _checked_key("deduplication_key", self.deduplication_key))
        keep("transaction_check_s", _checked_transaction_check_s(self.transaction_check_s))
        self._check_kind()
        keep("keys", _checked_keys(self.keys))
        keep("properties", _checked_properties(self.properties))
        keep("_given_properties", self._checked_given_properties())
        body, body_bytes = _checked_body(self.body, self._kind_of_small_body())
        keep("body", body)
        keep("body_bytes", body_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as it was given, and checked again on the way back."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return _made_again, (given | {"properties": dict(self.properties)},)

    def properties_as_sent(self, outbox_id: str) -> str:
        """All properties in the wire's form, ``name:value|`` each, ours included.

        Args:
            outbox_id: the row's public id, 36 characters; the consumer deduplicates by it.
        """
        return f"{self._given_properties}outbox_id:{outbox_id}|"

    def _check_kind(self) -> None:
        given = [
            name for name in ("deliver_at", "transaction_check_s", "ordering_key") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise MessageError(given[1], f"set beside {given[0]}; a topic takes one kind of message")

    def _kind_of_small_body(self) -> str | None:
        if self.deliver_at is not None:
            return "scheduled"
        return "transactional" if self.transaction_check_s is not None else None

    def _checked_given_properties(self) -> str:
        ours: dict[str, str] = {}
        if self.keys:
            ours["KEYS"] = " ".join(self.keys)
        if self.deliver_at is not None:
            ours["__STARTDELIVERTIME"] = str((self.deliver_at - _EPOCH) // timedelta(milliseconds=1))
        if self.transaction_check_s is not None:
            ours["__TransCheckT"] = str(self.transaction_check_s)
        if self.ordering_key is not None:
            ours["__SHARDINGKEY"] = self.ordering_key
        text = "".join([f"{name}:{value}|" for name, value in (ours | dict(self.properties)).items()])
        size = len(text.encode()) + _OUTBOX_ID_BYTES + (_HALF_BYTES if self.transaction_check_s is not None else 0)
        if size > MAX_PROPERTIES_BYTES:
            limit = f"at most {MAX_PROPERTIES_BYTES} are allowed, keys and the outbox's own included"
            raise MessageError("properties", f"{size} bytes as sent; {limit}")
        return text


def _made_again(given: dict[str, Any]) -> Message:
    return Message(**given)


def _shape(value: object) -> str:
    """Describe a value without showing it: it may be private, or huge."""
    return f"{len(value)} characters" if isinstance(value, str) else type(value).__name__


def _plain(value: str) -> str:
    """The characters that were checked: a str subclass, such as an enum's member, may format itself as others."""
    return value if type(value) is str else str.__str__(value)


def _check_text(name: str, value: str) -> None:
    """Refuse the characters that no XML 1.0 document can carry, not even escaped."""
    found = _NOT_XML.search(value)
    if found:
        code = f"U+{ord(found[0]):04X}"
        raise MessageError(name, f"{code} at position {found.start()}; XML 1.0 cannot carry it, use base64")


def _checked_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise MessageError(name, f"got {_shape(value)}; give 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return _plain(value)


def _checked_tag(tag: object) -> str | None:
    if tag is None:
        return None
    if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG_CHARACTERS:
        raise MessageError("tag", f"got {_shape(tag)}; give 1 to {MAX_TAG_CHARACTERS} characters, or leave it out")
    _check_text("tag", tag)
    if "||" in tag or "\r" in tag or "\n" in tag:
        raise MessageError("tag", "holds || or a line break; consumers filter by tags joined with ||")
    return _plain(tag)


def _checked_key(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_KEY_CHARACTERS:
        raise MessageError(name, f"got {_shape(value)}; give 1 to {MAX_KEY_CHARACTERS} characters, or leave it out")
    _check_text(name, value)
    return _plain(value)


def _checked_ordering_key(value: object) -> str | None:
    key = _checked_key("ordering_key", value)
    return None if key is None else _checked_property_text("ordering_key", key)


def _checked_property_text(name: str, value: object, which: str = "") -> str:
    if not isinstance(value, str) or not value:
        is_got = f"{which}is" if which else "got"
        raise MessageError(name, f"{is_got} {_shape(value)}; give a string that is not empty")
    _check_text(name, value)
    found = _NOT_IN_PROPERTIES.search(value)
    if found:
        where = f"{which}holds {found[0]} at position {found.start()}"
        raise MessageError(name, f"""{where}; none of : | & " ' < > can be sent""")
    return _plain(value)


def _checked_keys(keys: object) -> tuple[str, ...]:
    many = (keys,) if isinstance(keys, str) else keys
    if isinstance(many, bytes | bytearray | memoryview | Mapping) or not isinstance(many, Iterable):
        raise MessageError("keys", f"got {type(keys).__name__}; give a string, or several")
    listed = tuple([_checked_property_text("keys", key) for key in many])
    if any(" " in key for key in listed):
        raise MessageError("keys", "a key holds a space; the broker takes it for the end of the key")
    return listed


def _checked_properties(properties: object) -> Mapping[str, str]:
    if not isinstance(properties, Mapping):
        raise MessageError("properties", f"got {type(properties).__name__}; give a mapping of strings to strings")
    checked = {}
    for given, value in properties.items():
        name = _checked_property_text("properties", given)
        if name.startswith(_RESERVED):
            prefix = next(prefix for prefix in _RESERVED if name.startswith(prefix))
            raise MessageError("properties", f"the name {name[:64]!r} is reserved: it begins with {prefix}")
        checked[name] = _checked_property_text("properties", value, f"the value of {name[:64]!r} ")
    return MappingProxyType(checked)


def _checked_deliver_at(deliver_at: object) -> datetime | None:
    if deliver_at is None:
        return None
    if not isinstance(deliver_at, datetime):
        raise MessageError("deliver_at", f"got {type(deliver_at).__name__}; give a datetime with a time zone")
    if deliver_at.utcoffset() is None:
        raise MessageError("deliver_at", "a datetime without a time zone; give an aware one")
    if not _EPOCH <= deliver_at <= _LAST:
        raise MessageError("deliver_at", f"year {deliver_at.year}; give a time between the years 1970 and 9999, in UTC")
    return deliver_at.astimezone(UTC)


def _checked_transaction_check_s(seconds: object) -> int | None:
    if seconds is None:
        return None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds not in _CHECK_S:
        shown = seconds if isinstance(seconds, int) and not isinstance(seconds, bool) else type(seconds).__name__
        raise MessageError("transaction_check_s", f"got {shown}; give a whole number of seconds from 10 to 300")
    return int(seconds)


def _checked_body(body: object, kind: str | None) -> tuple[str, int]:
    if isinstance(body, bytes | bytearray | memoryview):
        raise MessageError("body", f"got {type(body).__name__}; the HTTP API carries text only, send base64")
    text = _plain(body) if isinstance(body, str) else _json(body)
    if not text:
        raise MessageError("body", "an empty string; give at least one character")
    encoded = text.encode(errors="surrogatepass")
    # Most bodies are ASCII, in which bytes find control characters seven times as fast as the expression does.
    if not text.isascii() or len(encoded.translate(None, _NOT_XML_IN_ASCII)) != len(encoded):
        _check_text("body", text)
    limit = MAX_SCHEDULED_BODY_BYTES if kind else MAX_BODY_BYTES
    if len(encoded) > limit:
        of_kind = f"of a {kind} message " if kind else ""
        raise MessageError("body", f"{len(encoded)} UTF-8 bytes; at most {limit} {of_kind}are allowed")
    return text, len(encoded)


def _json(body: object) -> str:
    try:
        return _as_json(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError("body", f"a {type(body).__name__} that is not JSON: {error}") from error
