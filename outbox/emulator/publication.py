"""What a publish asks for, checked against the limits of the HTTP API. No I/O."""

from typing import Literal, NamedTuple, get_args

from outbox.emulator.rejection import Rejection

__all__ = ["KINDS", "Kind", "Publication"]

Kind = Literal["normal", "ordered", "scheduled", "transactional"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MAX_BODY = 4 * 1024 * 1024
_MAX_SPECIAL_BODY = 64 * 1024
_MAX_PROPERTIES = 16 * 1024
_MAX_TAG = 64
_MAX_SCHEDULE_S = 40 * 86400
_CHECK_S = range(10, 301)
_KIND_OF_PROPERTY: dict[str, Kind] = {
    "__TransCheckT": "transactional",
    "__STARTDELIVERTIME": "scheduled",
    "__SHARDINGKEY": "ordered",
}


class Publication(NamedTuple):
    """A publish that keeps to the limits.

    Attributes:
        deliver_at: epoch seconds; only of a scheduled message.
        check_s: seconds until the first check; only of a transactional message.
    """

    kind: Kind
    body: str
    tag: str | None
    properties: dict[str, str]
    deliver_at: float | None
    check_s: int | None

    @classmethod
    def of(cls, fields: dict[str, str], now: float) -> "Publication":
        """Check the fields of a ``<Message>`` at epoch ``now``.

        Raises:
            Rejection: ``InvalidArgument``, naming the limit.
        """
        properties = _read_properties(fields.get("Properties", ""))
        kind = _kind(properties)
        deliver_at = _number(properties, "__STARTDELIVERTIME")
        check_s = _number(properties, "__TransCheckT")
        if deliver_at is not None and deliver_at / 1000 > now + _MAX_SCHEDULE_S:
            raise Rejection("InvalidArgument", "__STARTDELIVERTIME is more than 40 days ahead.")
        if check_s is not None and check_s not in _CHECK_S:
            raise Rejection("InvalidArgument", "The value of __TransCheckT is not between 10 and 300.")
        tag = _checked_tag(fields.get("MessageTag"))
        body = _checked_body(fields.get("MessageBody"), kind)
        return cls(kind, body, tag, properties, None if deliver_at is None else deliver_at / 1000, check_s)


def _checked_body(body: str | None, kind: Kind) -> str:
    if not body:
        raise Rejection("InvalidArgument", "The MessageBody is missing or empty.")
    limit = _MAX_BODY if kind in ("normal", "ordered") else _MAX_SPECIAL_BODY
    # A character takes four bytes at most: most bodies need not be encoded to be known as small enough.
    if len(body) * 4 > limit and len(body.encode()) > limit:
        raise Rejection("InvalidArgument", f"The MessageBody of a {kind} message is longer than {limit} bytes.")
    return body


def _checked_tag(tag: str | None) -> str | None:
    if not tag:
        return None
    if len(tag) > _MAX_TAG or "||" in tag:
        raise Rejection("InvalidArgument", f"The MessageTag is longer than {_MAX_TAG} characters or contains '||'.")
    return tag


def _read_properties(text: str) -> dict[str, str]:
    """Split ``key:value|key:value``, with or without a last ``|``."""
    if not text:
        return {}
    if len(text) * 4 > _MAX_PROPERTIES and len(text.removesuffix("|").encode()) > _MAX_PROPERTIES:
        raise Rejection("InvalidArgument", f"The Properties are longer than {_MAX_PROPERTIES} bytes.")
    properties: dict[str, str] = {}
    for pair in text.removesuffix("|").split("|"):
        key, colon, value = pair.partition(":")
        if not key or not colon or key in properties or any(char in pair for char in "&\"'<>") or ":" in value:
            raise Rejection("InvalidArgument", "The Properties are not distinct key:value pairs joined by '|'.")
        properties[key] = value
    return properties


def _kind(properties: dict[str, str]) -> Kind:
    kinds = [kind for name, kind in _KIND_OF_PROPERTY.items() if name in properties]
    if len(kinds) > 1:
        raise Rejection("InvalidArgument", f"A message is {' or '.join(kinds)}, not both.")
    return kinds[0] if kinds else "normal"


def _number(properties: dict[str, str], name: str) -> int | None:
    text = properties.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:  # noqa: PLR2004 - digits of a 64-bit integer
        raise Rejection("InvalidArgument", f"{name} is not a whole number.")
    return int(text)
