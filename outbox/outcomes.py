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
"""

from dataclasses import dataclass

__all__ = ["Fault", "Outcome", "Paused", "Refused", "Retry", "Sent", "Unknown"]


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
    """

    code: str
    text: str
    http_status: int | None = None
    request_id: str | None = None
    accepted: bool | None = False


@dataclass(frozen=True, slots=True)
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
    """This message breaks a rule of the broker's: it will never be taken as it stands."""

    fault: Fault


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
