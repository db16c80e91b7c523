"""What each answer to a commit, a rollback or a poll for checks means."""

import pytest
from requests.structures import CaseInsensitiveDict

from outbox.outcomes import Checked, Ended, Fault, NotFound, Paused, Refused, Retry, Sent, Unknown
from outbox.rocketmq.answers import check_outcome_of, end_outcome_of, outcome_of
from outbox.rocketmq.codes import AS_ENDING, CHECKS, CODES, ENDINGS, STATUSES
from outbox.rocketmq.transport import HttpAnswer, NoAnswer
from tests.unit.test_answers import DATE, MESSAGE_ID, NO, NOW, PERHAPS, error
from tests.unit.test_wire import delivery

REQUEST_ID = "69A91D0C3743313535730002"


def answered(status, body=b"", **headers):
    return HttpAnswer(status, CaseInsensitiveDict({name.replace("_", "-"): headers[name] for name in headers}), body)


def ended(status, body=b"", hidden=(), **headers):
    return end_outcome_of(answered(status, body, **headers), now=NOW, hidden=hidden)


def checked(status, body=b"", **headers):
    return check_outcome_of(answered(status, body, **headers), now=NOW)


def failed_handles(*codes, words="bad handle"):
    listed = "".join(
        f"<Error><ErrorCode>{code}</ErrorCode><ErrorMessage>{words}</ErrorMessage><ReceiptHandle/></Error>"
        for code in codes
    )
    return f"<Errors>{listed}</Errors>".encode()


def offered(*messages):
    return f"<Messages>{''.join(f'<Message>{one}</Message>' for one in messages)}</Messages>".encode()


def test_no_content_ends():
    """204 is the one answer that says it was done."""
    assert Ended() == ended(204)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, failed_handles("ReceiptHandleError"), "ReceiptHandleError"),
        (404, failed_handles("MessageNotExist"), "MessageNotExist"),
        (404, failed_handles("NeverHeardOf"), "NeverHeardOf"),
        (404, failed_handles(""), "NotFound"),
        (404, failed_handles("ReceiptHandleError", "MessageNotExist"), "ReceiptHandleError"),
        (404, error("MessageNotExist", "bad handle"), "MessageNotExist"),
        (404, error("ReceiptHandleError", "bad handle"), "ReceiptHandleError"),
        (400, error("ReceiptHandleError", "bad handle"), "ReceiptHandleError"),
    ],
)
def test_a_handle_without_effect_is_not_found(status, body, code):
    """Too late, used or unknown: in each shape that the broker says it in."""
    result = ended(status, body, x_mq_request_id=REQUEST_ID)

    assert NotFound(Fault(code, "bad handle", 404 if status == 404 else 400, REQUEST_ID, NO)) == result


def test_a_handle_is_not_repeated():
    """Not even where the broker quotes it in its words or its code."""
    handle = "A0B1C2D3E4F5-handle"
    result = ended(404, failed_handles(handle, words=f"cannot find {handle}"), hidden=(handle,))

    assert ("NotFound", "cannot find ***") == (result.fault.code, result.fault.text)


ENDS = [
    (202, b"", Unknown, "Http202", PERHAPS),
    (201, b"", Unknown, "Http201", PERHAPS),
    (302, b"", Paused, "Http302", PERHAPS),
    (400, b"", Paused, "Http400", NO),
    (400, error("InvalidArgument"), Paused, "InvalidArgument", NO),
    (400, error("QpsLimitExceeded"), Paused, "QpsLimitExceeded", NO),
    (400, error("NeverHeardOf"), Unknown, "NeverHeardOf", PERHAPS),
    (400, failed_handles("QpsLimitExceeded"), Paused, "QpsLimitExceeded", NO),
    (403, error("AccessDenied"), Paused, "AccessDenied", NO),
    (404, b"", Paused, "Http404", NO),
    (404, b"<Errors/>", Paused, "Http404", NO),
    (404, error("TopicNotExist"), Paused, "TopicNotExist", NO),
    (404, error("NeverHeardOf"), Unknown, "NeverHeardOf", PERHAPS),
    (408, error("TimeExpired"), Paused, "TimeExpired", NO),
    (413, b"", Unknown, "Http413", PERHAPS),
    (500, error("InternalError"), Unknown, "InternalError", PERHAPS),
    (500, error("InvalidArgument"), Unknown, "InvalidArgument", PERHAPS),
    (502, b"<html/>", Unknown, "Http502", PERHAPS),
    (503, b"", Paused, "Http503", PERHAPS),
    (99, b"", Unknown, "Http99", PERHAPS),
]


@pytest.mark.parametrize(("status", "body", "kind", "code", "accepted"), ENDS)
def test_any_other_answer_is_paused_or_unknown(status, body, kind, code, accepted):
    """Paused where the answer says why nothing was done, else unknown; both for an ending and for a poll."""
    for result in (ended(status, body), checked(status, body)):
        assert (kind, code, accepted) == (type(result), result.fault.code, result.fault.accepted)


def test_a_poll_finds_half_messages():
    """Each is handed on with the answer's date; what is damaged is counted."""
    result = checked(200, offered(delivery(), delivery(ReceiptHandle=None)), Date=DATE)

    (half,) = result.halves
    assert 1 == result.damaged
    assert (MESSAGE_ID, "handle-1", "a\nb", "TagA") == (half.message_id, half.receipt_handle, half.body, half.tag)
    assert (1772690828.0, 1772690838.0, NOW) == (half.published_at_s, half.offered_again_at_s, half.answered_at_s)


def test_a_poll_finds_nothing():
    """The broker's word for nothing to check, and an empty list, are no failures."""
    assert Checked() == checked(404, error("MessageNotExist")) == checked(200, b"<Messages/>")


@pytest.mark.parametrize("body", [b"", b"<html/>", offered(delivery())[:-1], error("")])
def test_a_poll_that_cannot_be_read_is_unknown(body):
    """Half messages may have been in it, and their handles are lost."""
    result = checked(200, body)

    assert (Unknown, "UnreadableAnswer", PERHAPS) == (type(result), result.fault.code, result.fault.accepted)
    assert result.fault.text.startswith("200, but its body is ")


@pytest.mark.parametrize("decide", [end_outcome_of, check_outcome_of])
@pytest.mark.parametrize(("accepted", "kind"), [(NO, Paused), (PERHAPS, Unknown)])
def test_no_answer_goes_by_what_was_sent(decide, accepted, kind):
    """As for a publish: nothing left, or nobody knows."""
    fault = Fault("Timeout", "too late", accepted=accepted)

    assert kind(fault) == decide(NoAnswer(fault), now=NOW)


def test_what_asks_for_patience_gets_it():
    """A throttled ending or poll brings its Retry-After along."""
    assert {7.0} == {ask(400, error("QpsLimitExceeded"), Retry_After="7").retry_after_s for ask in (ended, checked)}


def test_tables_decide():
    """Every status with every code: the rows of the tables, else the outcome of a publish, turned as stated."""
    codes = [*CODES, "NeverHeardOf"]
    statuses = sorted({status for span in STATUSES for status in (span.start, span.stop - 1)} | {204, 999})
    for status in statuses:
        for code in codes:
            answer = answered(status, error(code))
            publish = type(outcome_of(answer, "body", now=NOW))
            # A publish makes something of a 201 before any table is asked.
            turned = Unknown if publish is Sent else AS_ENDING[publish]

            assert ENDINGS.get((status, code), turned) is type(end_outcome_of(answer, now=NOW)), (status, code)
            assert CHECKS.get((status, code), turned) is type(check_outcome_of(answer, now=NOW)), (status, code)
    assert {Refused, Retry, Paused, Unknown} == set(AS_ENDING)
