"""What the broker keeps: messages, and how they were handed out."""

import secrets
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Delivery", "Failure", "Rules", "StoredMessage", "new_handle"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How long and how often the broker does things; the defaults are the HTTP API's.

    Attributes:
        redelivery_s: seconds until a message that is not acknowledged is handed out again.
        ordered_redelivery_s: the same in ordered consumption.
        max_redeliveries: how often a message is handed to one group again before it is a dead letter.
        offer_every_s: seconds from one check of a half message to the next.
        half_life_s: seconds after which a half message that was not ended is dropped.
    """

    redelivery_s: float = 300.0
    ordered_redelivery_s: float = 60.0
    max_redeliveries: int = 288
    offer_every_s: float = 10.0
    half_life_s: float = 86400.0


@dataclass(slots=True, eq=False)
class StoredMessage:
    """A message that was accepted.

    Attributes:
        message_id: 32 upper-case hex digits.
        body_md5: upper-case hex MD5 of the body's UTF-8.
        request_id: of the publish; stands in for the key of a message without ``KEYS``.
        at: when it was accepted, epoch seconds.
        visible: how many times it became visible to consumers: 0 for a half message until it is committed and for a
            scheduled message until its time has come.
    """

    ns: str
    topic: str
    message_id: str
    tag: str | None
    body: str
    body_md5: str
    properties: dict[str, str]
    request_id: str
    at: float
    visible: int = field(default=0, init=False)


@dataclass(slots=True, eq=False)
class Delivery:
    """A message in the hands of a group, or a half message in those of a checker.

    Attributes:
        handle: opaque, new at each delivery, valid once.
        first_at: when it was first handed out, epoch seconds.
        next_at: when it will be handed out again, epoch seconds; the handle is valid until then.
        times: how often it was handed out, counted from 1.
    """

    message: StoredMessage
    handle: str
    first_at: float
    next_at: float
    times: int


class Failure(NamedTuple):
    """A receipt handle of an ack, commit or rollback that had no effect, and why.

    ``code`` is ``MessageNotExist`` when it came too late, ``ReceiptHandleError`` when it is unknown or used.
    """

    handle: str
    code: str


def new_handle(message: StoredMessage) -> str:
    """Make a receipt handle: the MessageId, a dash and text that cannot be guessed."""
    return f"{message.message_id}-{secrets.token_urlsafe(12)}"
