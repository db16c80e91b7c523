"""What each answer to a publish, a commit, a rollback or a poll means, as data. Pure.

Three questions, one after the other: does the operation have a meaning of its own for this answer (`ENDINGS`,
`CHECKS`)? Does the broker's ``<Code>`` decide under this status (`CODES`)? If not, the status does (`STATUSES`). The
code comes before the status, because the status alone does not tell passing from permanent: throttling is a 400, clock
skew a 408. Under a 5xx nothing but throttling is believed: whoever fails may have done the work before.

Sources: "Error codes for the HTTP client SDK"; statuses and codes that only the official SDKs or issues name are the
same everywhere they are named. What an answer does not prove is taken as unknown: a message counts as not accepted only
where the broker, or whoever answered in its place, says that it did not do the work.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from outbox.outcomes import Checked, Ended, NotFound, Paused, Refused, Retry, Unknown

__all__ = [
    "ANY_OTHER_CODE",
    "ANY_OTHER_STATUS",
    "AS_ENDING",
    "CHECKS",
    "CODES",
    "ENDINGS",
    "EXPIRED",
    "STATUSES",
    "Rule",
    "rule_for",
]

_REFUSALS = range(400, 500)
_ERRORS = range(400, 600)


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a publish that was answered so.

    Attributes:
        outcome: the kind of outcome.
        because: why, in words that an operator can act on.
        accepted: as in `outbox.outcomes.Fault`: False when the message was certainly not taken, None when unknown.
        under: of a code: the statuses under which it decides.
    """

    outcome: type[Refused | Paused | Retry | Unknown]
    because: str
    accepted: bool | None = False
    under: Collection[int] = _REFUSALS


def _unknown(because: str) -> Rule:
    return Rule(Unknown, because, accepted=None)


#: The code for a Date that is too far from the broker's clock.
EXPIRED: Final = "TimeExpired"

_NOT_A_PUBLISH = "an answer to another operation than a publish; it makes no sense here"

CODES: Mapping[str, Rule] = MappingProxyType(
    {
        # The message breaks a rule, and always will.
        "InvalidArgument": Rule(Refused, "the XML does not fit the schema, or a value is too long or out of range"),
        "InvalidContent": Rule(Refused, "the message holds characters that the broker does not take"),
        "InvalidDigest": Rule(Refused, "the body does not fit its Content-MD5"),
        "InvalidQueryString": Rule(Refused, "a query parameter is wrong for this request"),
        "MalformedXML": Rule(Refused, "the request body is not well-formed XML"),
        # Keys and permissions.
        "AccessDenied": Rule(Paused, "no permission, or the topic or instance is not the account's: check both"),
        "HTTPForbidden": Rule(Paused, "the account may not use the HTTP API here"),
        "InvalidAccessKeyId": Rule(Paused, "the AccessKeyId is unknown: check OUTBOX_ACCESS_KEY_ID"),
        "InvalidAuthorizationHeader": Rule(Paused, "the Authorization header was not understood: check the keys"),
        "MissingAuthorizationHeader": Rule(Paused, "the Authorization header did not arrive: look for a proxy"),
        "SignatureDoesNotMatch": Rule(Paused, "the signature is wrong: check OUTBOX_ACCESS_KEY_SECRET"),
        # The clock: the broker takes dates within 15 minutes of its own.
        "InvalidDateHeader": Rule(Paused, "the Date header was not understood: look for a proxy"),
        "MissingDateHeader": Rule(Paused, "the Date header did not arrive: look for a proxy"),
        EXPIRED: Rule(Paused, "this machine's clock is more than 15 minutes off: set it"),
        # The endpoint and the topic.
        "InvalidRequestURL": Rule(Paused, "the endpoint is not one of the HTTP API: check OUTBOX_ENDPOINT"),
        "SubscriptionNotExist": Rule(Paused, "the group does not exist: check OUTBOX_GROUP_ID"),
        "TopicNotExist": Rule(Paused, "the topic does not exist, or takes another type of message"),
        # The quota.
        "QpsLimitExceeded": Rule(Paused, "the instance's limit of requests a second is reached", under=_ERRORS),
        "Throttling": Rule(Paused, "the broker asks for fewer requests", under=_ERRORS),
        # The broker itself: it may have done the work before it failed.
        "InternalError": _unknown("the broker failed"),
        "InternalServerError": _unknown("the broker failed"),
        "RequestTimeout": _unknown("the broker gave up waiting, for the request or for itself"),
        # What other operations answer.
        "AckFail": Rule(Retry, _NOT_A_PUBLISH),
        "AckMessageFail": Rule(Retry, _NOT_A_PUBLISH),
        "MessageNotExist": Rule(Retry, _NOT_A_PUBLISH),
        "MissingReceiptHandle": Rule(Retry, _NOT_A_PUBLISH),
        "ReceiptHandleError": Rule(Retry, _NOT_A_PUBLISH),
        "StateConflict": Rule(Retry, "named by one official SDK and nowhere explained"),
    }
)

#: For a code that is missing above. Some statuses say by themselves whose fault it is, whatever the code.
ANY_OTHER_CODE = Rule(
    Retry,
    "an error of the broker's that this version does not know",
    under=frozenset(_REFUSALS) - {401, 403, 407, 408, 413, 429},
)

#: By status, exact ones before ranges; the first that holds the status counts.
STATUSES: Mapping[range, Rule] = MappingProxyType(
    {
        range(201, 202): _unknown("success without a readable MessageId"),
        range(401, 402): Rule(Paused, "a proxy or firewall asks for credentials"),
        range(403, 404): Rule(Paused, "forbidden, without a code that says why"),
        range(404, 405): Rule(Paused, "nothing is found at this path: check OUTBOX_ENDPOINT and the topic"),
        range(407, 408): Rule(Paused, "a proxy asks for credentials"),
        # Whoever gave up may have passed the request on before.
        range(408, 409): _unknown("the request took too long for somebody on the way"),
        # The one 4xx of a proxy that is about this message and not about the proxy: pausing would stop the others.
        range(413, 414): Rule(Retry, "the request is too large for somebody on the way"),
        range(429, 430): Rule(Paused, "fewer requests are asked for"),
        range(503, 504): Rule(Paused, "the service is unavailable; it may have done the work before", accepted=None),
        range(200, 300): _unknown("success, but not the 201 of a publish: somebody may have passed the request on"),
        # A redirect is never followed: it would carry the signature elsewhere. A 303 may follow work that was done.
        range(300, 400): Rule(Paused, "a redirect, which no broker sends: a proxy answered", accepted=None),
        range(400, 500): Rule(
            Paused, "an error that is not the broker's: a proxy, firewall or wrong endpoint answered"
        ),
        range(500, 600): _unknown("the broker, or a gateway before it, failed"),
    }
)

#: For a status that no row above holds.
ANY_OTHER_STATUS = _unknown("no answer that a publish can have: something stands in the broker's place")

#: What ends a commit or a rollback, by status and by what the answer's XML says: its ``<Code>``, its root in brackets,
#: or nothing that can be read. ``<Errors>`` names the one handle that was sent.
ENDINGS: Mapping[tuple[int, str], type[Ended | NotFound]] = MappingProxyType(
    {
        (204, ""): Ended,
        (404, "<Errors>"): NotFound,
        (404, "MessageNotExist"): NotFound,
        (404, "ReceiptHandleError"): NotFound,
        (400, "ReceiptHandleError"): NotFound,
    }
)

#: What a poll for checks may find, in the same way; the second is the broker's word for nothing.
CHECKS: Mapping[tuple[int, str], type[Checked]] = MappingProxyType(
    {
        (200, "<Messages>"): Checked,
        (404, "MessageNotExist"): Checked,
    }
)

#: Any other answer to these operations: from what a publish would make of it to what they do.
AS_ENDING: Mapping[type[Refused | Paused | Retry | Unknown], type[Paused | Unknown]] = MappingProxyType(
    {Paused: Paused, Refused: Paused, Retry: Unknown, Unknown: Unknown}
)


def rule_for(status: int, code: str) -> Rule:
    """The rule for an answer that is not a readable 201.

    Args:
        status: HTTP status, any integer.
        code: ``<Code>`` of the answer's ``<Error>``, empty where there was no readable one.
    """
    by_code = CODES.get(code, ANY_OTHER_CODE)
    if code and status in by_code.under:
        return by_code
    return next((rule for statuses, rule in STATUSES.items() if status in statuses), ANY_OTHER_STATUS)
