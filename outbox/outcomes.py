"""What may come of one publish: five outcomes, as values that the relay matches exhaustively.

The HTTP client never raises for something that the network or the broker did; it answers with one of

========= ============================ ==================================== =======================================
outcome   did the broker take it?      whose fault                          what the relay does
========= ============================ ==================================== =======================================
`Sent`    yes, under ``message_id``                                         marks the row ``sent``
`Retry`   certainly not                this row's, perhaps passing          charges an attempt, backs off
`Refused` no (or altered, see          this row's, for good                 marks the row ``failed``
          ``fault.accepted``)
`Paused`  no (a 503: perhaps)          endpoint, keys, clock, topic, quota  pauses the lane, charges nothing
`Unknown` perhaps                      the network's or the broker's        charges an attempt, counts the unknown
========= ============================ ==================================== =======================================

A half message takes two requests more, or one: it is ended with its receipt handle (`Ended`, `NotFound`, `Paused`,
`Unknown`), and asking which half messages are to be checked brings `Checked`, `Paused` or `Unknown`.
"""

from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "TOO_LARGE",
    "CheckOutcome",
    "Checked",
    "EndOutcome",
    "Ended",
    "Fault",
    "Half",
    "NotFound",
    "Outcome",
    "Paused",
    "Refused",
    "Retry",
    "Sent",
    "Unknown",
]

#: The `Fault.code` of an answer that was given up for its size; one that asks for less may have a smaller answer.
TOO_LARGE: Final = "AnswerTooLarge"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a publish did not end well.

    Attributes:
        code: the broker's ``<Code>`` (``"AccessDenied"``), or our class of error (``"ConnectionRefused"``,
            ``"Timeout"``, ``"BodyMismatch"``, …); CamelCase, at most 64 characters.
        text: one printable line, at most 512 characters; never a secret, a body or a receipt handle.
        http_status: the answer's status, None where no answer was read.
        request_id: the broker's ``x-mq-request-id``, None where none was read.
        accepted: True when the broker certainly took the message, False when it certainly did not, None when unknown.
        clock_offset_s: where the clocks are at fault, the seconds by which the broker's is ahead of this machine's.
    """

    code: str
    text: str
    http_status: int | None = None
    request_id: str | None = None
    accepted: bool | None = False
    clock_offset_s: float | None = None


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class Sent:
    """The broker answered 201 with this MessageId and with the MD5 of the body that we sent.

    ``receipt_handle`` is given for half messages only; it is a capability: never log or store it.
    """

    message_id: str
    receipt_handle: str | None = None

    def __repr__(self) -> str:
        return f"Sent(message_id={self.message_id!r})"


@dataclass(frozen=True, slots=True)
class Retry:
    """Certainly not accepted, and not known to be for good (an unknown 4xx code)."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Refused:
    """This message breaks a rule of the broker's: it will never be taken as it stands.

    ``receipt_handle`` is given for a half message that the broker took altered: it can be rolled back with it.
    """

    fault: Fault
    receipt_handle: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Paused:
    """Not this row's fault: the endpoint, keys, clock, topic or quota must mend first.

    ``retry_after_s`` is the broker's Retry-After in seconds, bounded to 60; None where it named none.
    """

    fault: Fault
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have been accepted: the answer was lost, unreadable or a 5xx."""

    fault: Fault


Outcome = Sent | Retry | Refused | Paused | Unknown


@dataclass(frozen=True, slots=True)
class Ended:
    """The broker answered 204: the half message is committed, or rolled back."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """The receipt handle had no effect: too late, used, or unknown to the broker."""

    fault: Fault


EndOutcome = Ended | NotFound | Paused | Unknown


@dataclass(frozen=True, slots=True)
class Half:
    """A half message that the broker offers to be checked.

    Attributes:
        receipt_handle: a capability, until the next offer; never log or store it.
        tag: empty for none.
        properties: ``k:v|k:v|``.
        published_at_s: when the broker took it, seconds since 1970 by the broker's clock.
        offered_again_at_s: when the broker offers it next, by the same clock.
        answered_at_s: the ``Date`` of the answer that it came with, by the same clock; None where there was none.
    """

    message_id: str
    receipt_handle: str = field(repr=False)
    body: str = field(repr=False)
    tag: str
    properties: str = field(repr=False)
    published_at_s: float
    offered_again_at_s: float
    answered_at_s: float | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a poll brought, perhaps nothing. ``damaged``: half messages in the answer that could not be read."""

    halves: tuple[Half, ...] = ()
    damaged: int = 0


CheckOutcome = Checked | Paused | Unknown
