"""What an answer to a publish, or its absence, means: the one place where bytes become an `Outcome`. Pure.

`Sent` takes proof: a 201 whose ``<Message>`` names a MessageId and the MD5 of the body that we sent. Everything else is
decided by `outbox.rocketmq.codes`.
"""

import re
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from hashlib import md5

from outbox.outcomes import (
    Checked,
    CheckOutcome,
    Ended,
    EndOutcome,
    Fault,
    Half,
    NotFound,
    Outcome,
    Paused,
    Refused,
    Sent,
    Unknown,
)
from outbox.rocketmq.codes import rule_for
from outbox.rocketmq.faults import printable
from outbox.rocketmq.transport import HttpAnswer, NoAnswer
from outbox.rocketmq.wire import (
    BrokerError,
    Delivery,
    UnreadableXmlError,
    read_error,
    read_handle_errors,
    read_messages,
    read_published,
)

__all__ = ["MAX_RETRY_AFTER_S", "check_outcome_of", "end_outcome_of", "epoch_of", "outcome_of"]

MAX_RETRY_AFTER_S = 60.0
_OK = 200
_CREATED = 201
_NO_CONTENT = 204
_NOT_FOUND = 404
# Of one handle, or of one poll that found nothing, whichever shape the answer has.
_NOTHING_THERE = frozenset({"MessageNotExist", "ReceiptHandleError"})
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


def end_outcome_of(answer: HttpAnswer | NoAnswer, *, now: float, hidden: Collection[str] = ()) -> EndOutcome:
    """Decide what came of a commit or a rollback of one receipt handle; arguments as for `outcome_of`.

    `Paused` is an answer that says why nothing was done, or a request that never left; `Unknown` anything unclear.
    """
    if isinstance(answer, NoAnswer):
        return Unknown(answer.fault) if answer.fault.accepted is None else Paused(answer.fault)
    if answer.status == _NO_CONTENT:
        return Ended()
    refused = _refused_handle(answer, hidden)
    return NotFound(refused) if refused else _not_done(answer, now, hidden)


def check_outcome_of(answer: HttpAnswer | NoAnswer, *, now: float, hidden: Collection[str] = ()) -> CheckOutcome:
    """Decide what a poll for checks brought; arguments as for `outcome_of`. Nothing to check is `Checked`, too."""
    if isinstance(answer, NoAnswer):
        return Unknown(answer.fault) if answer.fault.accepted is None else Paused(answer.fault)
    if answer.status == _OK:
        return _checked(answer, hidden)
    error = _error_in(answer)
    if answer.status == _NOT_FOUND and error is not None and error.code == "MessageNotExist":
        return Checked()
    return _not_done(answer, now, hidden)


def _checked(answer: HttpAnswer, hidden: Collection[str]) -> CheckOutcome:
    try:
        found = read_messages(answer.body)
    except UnreadableXmlError as error:
        return Unknown(_fault(answer, "UnreadableAnswer", f"200, but its body is {error}", hidden, accepted=None))
    answered_at_s = epoch_of(answer.headers.get("Date", ""))
    return Checked(tuple(_half(one, answered_at_s) for one in found.messages), found.damaged)


def _half(one: Delivery, answered_at_s: float | None) -> Half:
    return Half(
        message_id=one.message_id,
        receipt_handle=one.receipt_handle,
        body=one.body,
        tag=one.tag,
        properties=one.properties,
        published_at_s=one.published_at_ms / 1000,
        offered_again_at_s=one.next_consume_at_ms / 1000,
        answered_at_s=answered_at_s,
    )


def _refused_handle(answer: HttpAnswer, hidden: Collection[str]) -> Fault | None:
    """Why the one handle was not ended, where the answer says so."""
    if answer.status != _NOT_FOUND:
        return None
    try:
        code, said = next((one.code, one.message) for one in read_handle_errors(answer.body))
    except UnreadableXmlError:
        error = _error_in(answer)
        if error is None or error.code not in _NOTHING_THERE:
            return None
        code, said = error.code, error.message
    shown = code if _CODE.fullmatch(code) and printable(code, hidden) == code else "NotFound"
    text = printable(said, hidden) or "the receipt handle had no effect"
    return _fault(answer, shown, text, hidden, accepted=False)


def _not_done(answer: HttpAnswer, now: float, hidden: Collection[str]) -> Paused | Unknown:
    outcome = _failed(answer, "", now, hidden)
    match outcome:
        case Paused() | Unknown():
            return outcome
        case Refused(fault=fault):
            return Paused(fault)
        case _:
            return Unknown(_fault(answer, f"Http{answer.status}", "no answer to this operation", hidden, accepted=None))


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
        mismatch = _fault(answer, "BodyMismatch", text, hidden, accepted=True)
        return Refused(mismatch, published.receipt_handle)
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
