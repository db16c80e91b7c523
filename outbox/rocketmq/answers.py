"""What an answer to a publish, or its absence, means: the one place where bytes become an `Outcome`. Pure.

`Sent` takes proof: a 201 whose ``<Message>`` names a MessageId and the MD5 of the body that we sent. Everything else is
decided by `outbox.rocketmq.codes`.
"""

import re
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from hashlib import md5

from outbox.outcomes import Fault, Outcome, Paused, Refused, Sent, Unknown
from outbox.rocketmq.codes import rule_for
from outbox.rocketmq.faults import printable
from outbox.rocketmq.transport import HttpAnswer, NoAnswer
from outbox.rocketmq.wire import BrokerError, UnreadableXmlError, read_error, read_published

__all__ = ["MAX_RETRY_AFTER_S", "epoch_of", "outcome_of"]

MAX_RETRY_AFTER_S = 60.0
_CREATED = 201
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_MAX_REQUEST_ID = 64


def outcome_of(answer: HttpAnswer | NoAnswer, body: str, *, now: float, hidden: Collection[str] = ()) -> Outcome:
    """Decide what came of a publish.

    Args:
        answer: what the transport brought back.
        body: the message's text, as sent.
        now: seconds since 1970 by this machine's clock, against which a dated Retry-After is read.
        hidden: secrets that no text may repeat, whoever sends them back.
    """
    if isinstance(answer, NoAnswer):
        return Unknown(answer.fault) if answer.fault.accepted is None else Paused(answer.fault)
    if answer.status == _CREATED:
        return _created(answer, body, hidden)
    return _failed(answer, body, now, hidden)


def epoch_of(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date, None where it is not one."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _created(answer: HttpAnswer, body: str, hidden: Collection[str]) -> Outcome:
    try:
        published = read_published(answer.body)
    except UnreadableXmlError as error:
        return Unknown(_fault(answer, "UnreadableAnswer", f"201, but its body is {error}", hidden, accepted=None))
    ours = md5(body.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    if published.body_md5.lower() != ours:
        text = f"the broker took {published.message_id} with another body than ours: its MD5 differs"
        return Refused(_fault(answer, "BodyMismatch", text, hidden, accepted=True))
    return Sent(published.message_id, published.receipt_handle)


def _failed(answer: HttpAnswer, body: str, now: float, hidden: Collection[str]) -> Outcome:
    error = _error_in(answer)
    code = error.code if error is not None else None
    rule = rule_for(answer.status, code)
    shown = code if code and _CODE.fullmatch(code) and printable(code, hidden) == code else f"Http{answer.status}"
    text = printable(error.message if error is not None else "", (*hidden, body)) or rule.because
    fault = _fault(answer, shown, text, hidden, accepted=rule.accepted, error=error)
    if rule.outcome is Paused:
        return Paused(fault, _retry_after_s(answer, now))
    return rule.outcome(fault)


def _error_in(answer: HttpAnswer) -> BrokerError | None:
    try:
        return read_error(answer.body)
    except UnreadableXmlError:
        return None


def _fault(
    answer: HttpAnswer,
    code: str,
    text: str,
    hidden: Collection[str],
    *,
    accepted: bool | None,
    error: BrokerError | None = None,
) -> Fault:
    request_id = answer.headers.get("x-mq-request-id") or (error.request_id if error is not None else "")
    return Fault(
        code=code,
        text=printable(text, hidden),
        http_status=answer.status,
        request_id=printable(request_id, hidden, _MAX_REQUEST_ID) or None,
        accepted=accepted,
    )


def _retry_after_s(answer: HttpAnswer, now: float) -> float | None:
    """The Retry-After in seconds, whether given as seconds or as a date, within 0 and 60."""
    value = answer.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_S)
    at = epoch_of(value)
    return None if at is None else min(max(at - now, 0.0), MAX_RETRY_AFTER_S)
