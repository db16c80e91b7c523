"""What an answer, or its absence, means: the one place where bytes become an `Outcome`. Pure.

`Sent` takes proof: a 201 whose ``<Message>`` names a MessageId and the MD5 of the body that we sent. Everything else is
decided by the tables of `outbox.rocketmq.codes`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
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
    Retry,
    Sent,
    Unknown,
)
from outbox.rocketmq.codes import AS_ENDING, CHECKS, ENDINGS, EXPIRED, rule_for
from outbox.rocketmq.faults import MAX_TEXT, Veil
from outbox.rocketmq.timing import clock_words, epoch_of
from outbox.rocketmq.transport import HttpAnswer, NoAnswer
from outbox.rocketmq.wire import (
    BrokerError,
    Delivery,
    Messages,
    Published,
    UnreadableXmlError,
    read_answer,
    read_published,
)

__all__ = ["MAX_RETRY_AFTER_S", "check_outcome_of", "end_outcome_of", "outcome_of"]

MAX_RETRY_AFTER_S = 60.0
_OK = 200
_CREATED = 201
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_MAX_REQUEST_ID = 64


def outcome_of(answer: HttpAnswer | NoAnswer, body: str, *, now: float, hidden: Collection[str] = ()) -> Outcome:
    """Decide what came of a publish.

    Args:
        answer: what the transport brought back.
        body: the message's text, as sent.
        now: seconds since 1970 by this machine's clock.
        hidden: secrets that no text may repeat, whoever sends them back.
    """
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    veil = Veil(hidden, body)
    if answer.status == _CREATED:
        return _created(answer, body, veil)
    return _failed(answer, _said_in(answer), now, veil)


def end_outcome_of(answer: HttpAnswer | NoAnswer, *, now: float, hidden: Collection[str] = ()) -> EndOutcome:
    """Decide what came of a commit or a rollback of one receipt handle; arguments as for `outcome_of`.

    `Paused` is an answer that says why nothing was done, or a request that never left; `Unknown` anything unclear.
    """
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    said, veil = _said_in(answer), Veil(hidden)
    kind = ENDINGS.get((answer.status, said.what))
    if kind is Ended:
        return Ended()
    if kind is NotFound:
        return NotFound(_fault(answer, said, "NotFound", "the receipt handle had no effect", veil, accepted=False))
    return _as_ending(_failed(answer, said, now, veil))


def check_outcome_of(answer: HttpAnswer | NoAnswer, *, now: float, hidden: Collection[str] = ()) -> CheckOutcome:
    """Decide what a poll for checks brought; arguments as for `outcome_of`. Nothing to check is `Checked`, too."""
    if isinstance(answer, NoAnswer):
        return _unanswered(answer)
    said, veil = _said_in(answer), Veil(hidden)
    if (answer.status, said.what) in CHECKS:
        answered_at_s = epoch_of(answer.headers.get("Date", ""))
        found = said.messages or Messages((), 0)
        return Checked(tuple(_half(one, answered_at_s) for one in found.messages), found.damaged)
    if answer.status == _OK and said.unreadable:
        return _unreadable(answer, said.unreadable, veil)
    return _as_ending(_failed(answer, said, now, veil))


@dataclass(frozen=True, slots=True)
class _Said:
    """What the XML of an answer says.

    Attributes:
        what: the ``<Code>`` of an ``<Error>``; of anything else the root in brackets; empty where nothing can be read.
        code: the same, empty where it is no ``<Error>``.
        error: the words of the error, or of the first of several.
        messages: those of ``<Messages>``.
        unreadable: why nothing can be read.
    """

    what: str = ""
    code: str = ""
    error: BrokerError | None = None
    messages: Messages | None = None
    unreadable: str = ""


_NOTHING = _Said()


def _said_in(answer: HttpAnswer) -> _Said:
    try:
        read = read_answer(answer.body)
    except UnreadableXmlError as error:
        return _Said(unreadable=str(error))
    match read:
        case BrokerError(code=code):
            return _Said(code, code, read)
        case Messages():
            return _Said("<Messages>", messages=read)
        case Published():
            return _Said("<Message>")
        case _:
            return _Said("<Errors>", error=BrokerError(read[0].code, read[0].message, ""))


def _unanswered(answer: NoAnswer) -> Paused | Unknown:
    return Unknown(answer.fault) if answer.fault.accepted is None else Paused(answer.fault)


def _created(answer: HttpAnswer, body: str, veil: Veil) -> Outcome:
    try:
        published = read_published(answer.body)
    except UnreadableXmlError as error:
        return _unreadable(answer, str(error), veil)
    ours = md5(body.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    if published.body_md5.lower() != ours:
        text = f"the broker took {published.message_id} with another body than ours: its MD5 differs"
        mismatch = _fault(answer, _NOTHING, "BodyMismatch", text, veil, accepted=True)
        return Refused(mismatch, published.receipt_handle)
    return Sent(published.message_id, published.receipt_handle)


def _unreadable(answer: HttpAnswer, why: str, veil: Veil) -> Unknown:
    text = f"{answer.status}, but its body is {why}"
    return Unknown(_fault(answer, _NOTHING, "UnreadableAnswer", text, veil, accepted=None))


def _failed(answer: HttpAnswer, said: _Said, now: float, veil: Veil) -> Refused | Paused | Retry | Unknown:
    rule = rule_for(answer.status, said.code)
    fault = _fault(answer, said, f"Http{answer.status}", rule.because, veil, accepted=rule.accepted)
    if said.code == EXPIRED:
        fault = _by_the_clocks(fault, answer, now)
    if rule.outcome is Paused:
        return Paused(fault, _retry_after_s(answer, now))
    return rule.outcome(fault)


def _by_the_clocks(fault: Fault, answer: HttpAnswer, now: float) -> Fault:
    at = epoch_of(answer.headers.get("Date", ""))
    if at is None:
        return fault
    return replace(fault, text=f"{clock_words(at - now)}: {fault.text}"[:MAX_TEXT], clock_offset_s=at - now)


def _as_ending(outcome: Refused | Paused | Retry | Unknown) -> Paused | Unknown:
    if isinstance(outcome, Paused | Unknown):
        return outcome
    kind = AS_ENDING[type(outcome)]
    return kind(replace(outcome.fault, accepted=None) if kind is Unknown else outcome.fault)


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


def _fault(answer: HttpAnswer, said: _Said, code: str, text: str, veil: Veil, *, accepted: bool | None) -> Fault:
    """The broker's own code, words and request id where it gave any that can be shown, else these."""
    theirs = said.error or BrokerError("", "", "")
    is_fit = _CODE.fullmatch(theirs.code) and veil.over(theirs.code) == theirs.code
    request_id = answer.headers.get("x-mq-request-id") or theirs.request_id
    return Fault(
        code=theirs.code if is_fit else code,
        text=veil.over(theirs.message) or veil.over(text),
        http_status=answer.status,
        request_id=veil.over(request_id, _MAX_REQUEST_ID) or None,
        accepted=accepted,
    )


def _retry_after_s(answer: HttpAnswer, now: float) -> float | None:
    """The Retry-After in seconds, whether given as seconds or as a date, within 0 and 60."""
    value = answer.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_S)
    at, answered_at = epoch_of(value), epoch_of(answer.headers.get("Date", ""))
    if at is None:
        return None
    # By the clock of whoever wrote both, if it was said what that shows.
    return min(max(at - (now if answered_at is None else answered_at), 0.0), MAX_RETRY_AFTER_S)
