"""What each answer to a publish means."""

from hashlib import md5

import pytest
from requests.structures import CaseInsensitiveDict

from outbox.outcomes import Fault, Paused, Refused, Retry, Sent, Unknown
from outbox.rocketmq.answers import outcome_of
from outbox.rocketmq.codes import ANY_OTHER_CODE, ANY_OTHER_STATUS, CODES, STATUSES
from outbox.rocketmq.transport import HttpAnswer, NoAnswer

BODY = '{"id":7,"name":"Zoë"}'
MESSAGE_ID = "0A03F29C00012A9F0000000000000001"
MD5 = md5(BODY.encode()).hexdigest().upper()
NOW = 1772690828.0
DATE = "Thu, 05 Mar 2026 06:07:08 GMT"
NO, PERHAPS = False, None


def published(message_id=MESSAGE_ID, body_md5=MD5, more=""):
    fields = f"<MessageId>{message_id}</MessageId><MessageBodyMD5>{body_md5}</MessageBodyMD5>{more}"
    return f'<Message xmlns="http://mq.aliyuncs.com/doc/v1">{fields}</Message>'.encode()


def error(code, message="The broker's words.", request_id="69A91D0C3743313535730002"):
    return (
        f'<Error xmlns="http://mq.aliyuncs.com/doc/v1"><Code>{code}</Code><Message>{message}</Message>'
        f"<RequestId>{request_id}</RequestId><HostId>h</HostId></Error>"
    ).encode()


def outcome(status, body, hidden=(), **headers):
    named = CaseInsensitiveDict({name.replace("_", "-"): value for name, value in headers.items()})
    return outcome_of(HttpAnswer(status, named, body), BODY, now=NOW, hidden=hidden)


def test_sent_takes_proof():
    """A 201 that names a MessageId and our body's MD5 is a success."""
    assert Sent(MESSAGE_ID) == outcome(201, published())


def test_sent_compares_the_md5_whatever_its_case():
    """The broker writes upper case; the digits are what counts."""
    assert Sent(MESSAGE_ID) == outcome(201, published(body_md5=MD5.lower()))


def test_sent_keeps_the_handle_of_a_half():
    """The receipt handle is handed on, and shown by no repr."""
    sent = outcome(201, published(more="<ReceiptHandle>handle-1</ReceiptHandle>"))

    assert Sent(MESSAGE_ID, "handle-1") == sent
    assert "handle-1" not in repr(sent)


def test_another_body_than_ours_is_refused():
    """The broker has the message, altered: it must not be tried again, and somebody must look."""
    refused = outcome(201, published(body_md5=md5(b"other").hexdigest().upper()))

    assert isinstance(refused, Refused)
    assert ("BodyMismatch", True, 201) == (refused.fault.code, refused.fault.accepted, refused.fault.http_status)
    assert MESSAGE_ID in refused.fault.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>welcome to the hotel</html>",
        published()[:-1],
        published(message_id=""),
        published(message_id="123"),
        published(body_md5=""),
        published(body_md5="not hexadecimal digits at all !!"),
        error("AccessDenied"),
        b"<!DOCTYPE Message>" + published(),
    ],
)
def test_a_created_without_proof_is_unknown(body):
    """A 201 may have been a success even where it cannot be read."""
    unknown = outcome(201, body)

    assert isinstance(unknown, Unknown)
    assert ("UnreadableAnswer", PERHAPS, 201) == (unknown.fault.code, unknown.fault.accepted, unknown.fault.http_status)


CODES_AND_OUTCOMES = [
    ("InvalidArgument", 400, Refused, NO),
    ("MalformedXML", 400, Refused, NO),
    ("InvalidContent", 400, Refused, NO),
    ("InvalidDigest", 400, Refused, NO),
    ("InvalidQueryString", 400, Refused, NO),
    ("AccessDenied", 403, Paused, NO),
    ("InvalidAccessKeyId", 403, Paused, NO),
    ("SignatureDoesNotMatch", 403, Paused, NO),
    ("HTTPForbidden", 403, Paused, NO),
    ("InvalidAuthorizationHeader", 400, Paused, NO),
    ("MissingAuthorizationHeader", 400, Paused, NO),
    ("InvalidDateHeader", 400, Paused, NO),
    ("MissingDateHeader", 400, Paused, NO),
    ("TimeExpired", 408, Paused, NO),
    ("InvalidRequestURL", 400, Paused, NO),
    ("TopicNotExist", 404, Paused, NO),
    ("SubscriptionNotExist", 404, Paused, NO),
    ("QpsLimitExceeded", 400, Paused, NO),
    ("Throttling", 400, Paused, NO),
    ("Throttling", 503, Paused, NO),
    ("InternalError", 500, Unknown, PERHAPS),
    ("InternalServerError", 500, Unknown, PERHAPS),
    ("InternalError", 503, Paused, PERHAPS),
    ("InternalError", 400, Unknown, PERHAPS),
    ("RequestTimeout", 408, Unknown, PERHAPS),
    ("RequestTimeout", 400, Unknown, PERHAPS),
    ("MessageNotExist", 404, Retry, NO),
    ("MissingReceiptHandle", 400, Retry, NO),
    ("ReceiptHandleError", 400, Retry, NO),
    ("AckMessageFail", 400, Retry, NO),
    ("AckFail", 400, Retry, NO),
    ("StateConflict", 409, Retry, NO),
    ("NeverHeardOf", 400, Retry, NO),
    ("NeverHeardOf", 409, Retry, NO),
    ("NeverHeardOf", 401, Paused, NO),
    ("NeverHeardOf", 403, Paused, NO),
    ("NeverHeardOf", 404, Retry, NO),
    ("NeverHeardOf", 413, Retry, NO),
    ("NeverHeardOf", 451, Retry, NO),
    ("NeverHeardOf", 407, Paused, NO),
    ("NeverHeardOf", 408, Unknown, PERHAPS),
    ("NeverHeardOf", 429, Paused, NO),
    ("NeverHeardOf", 500, Unknown, PERHAPS),
    ("NeverHeardOf", 502, Unknown, PERHAPS),
    ("NeverHeardOf", 503, Paused, PERHAPS),
    ("InvalidArgument", 200, Unknown, PERHAPS),
    ("AccessDenied", 302, Paused, PERHAPS),
    # Whoever fails may have done the work before, and only throttling says that it did not.
    ("InvalidArgument", 500, Unknown, PERHAPS),
    ("SignatureDoesNotMatch", 502, Unknown, PERHAPS),
    ("TopicNotExist", 503, Paused, PERHAPS),
    ("MessageNotExist", 599, Unknown, PERHAPS),
    ("QpsLimitExceeded", 500, Paused, NO),
    ("QpsLimitExceeded", 503, Paused, NO),
]


@pytest.mark.parametrize(("code", "status", "kind", "accepted"), CODES_AND_OUTCOMES)
def test_an_error_goes_by_its_code(code, status, kind, accepted):
    """The broker's code decides before the status does; its words and request id are kept."""
    result = outcome(status, error(code))

    assert kind is type(result)
    assert (
        Fault(code, "The broker's words.", status, "69A91D0C3743313535730002", accepted) == result.fault  # type: ignore[union-attr]
    )


def test_every_code_is_tested():
    """No row of the table goes without its expectation above."""
    assert set(CODES) == {code for code, *_ in CODES_AND_OUTCOMES} - {"NeverHeardOf"}


STATUSES_AND_OUTCOMES = [
    (100, Unknown, PERHAPS),
    (103, Unknown, PERHAPS),
    (200, Unknown, PERHAPS),
    (202, Unknown, PERHAPS),
    (204, Unknown, PERHAPS),
    (301, Paused, PERHAPS),
    (302, Paused, PERHAPS),
    (303, Paused, PERHAPS),
    (304, Paused, PERHAPS),
    (307, Paused, PERHAPS),
    (400, Paused, NO),
    (401, Paused, NO),
    (403, Paused, NO),
    (404, Paused, NO),
    (405, Paused, NO),
    (407, Paused, NO),
    (408, Unknown, PERHAPS),
    (413, Retry, NO),
    (429, Paused, NO),
    (451, Paused, NO),
    (500, Unknown, PERHAPS),
    (502, Unknown, PERHAPS),
    (503, Paused, PERHAPS),
    (504, Unknown, PERHAPS),
    (599, Unknown, PERHAPS),
    (999, Unknown, PERHAPS),
    (0, Unknown, PERHAPS),
]


@pytest.mark.parametrize("body", [b"", b"<html><body>Bad Gateway</body></html>", b"\xff\x00", published()])
@pytest.mark.parametrize(("status", "kind", "accepted"), STATUSES_AND_OUTCOMES)
def test_an_answer_without_code_goes_by_its_status(status, kind, accepted, body):
    """Whoever answered in the broker's place never makes a row sent, nor failed for good."""
    result = outcome(status, body)

    assert kind is type(result)
    assert (f"Http{status}", status, accepted) == (result.fault.code, result.fault.http_status, result.fault.accepted)  # type: ignore[union-attr]
    assert result.fault.text  # type: ignore[union-attr]


def test_rules_agree_on_what_was_accepted():
    """Unknown outcomes have an unknown acceptance; refusals and retries a certain one."""
    for rule in [*CODES.values(), *STATUSES.values(), ANY_OTHER_CODE, ANY_OTHER_STATUS]:
        assert (rule.accepted is None) == (rule.outcome is Unknown) or rule.outcome is Paused


def test_no_answer_without_a_byte_sent_pauses():
    """Where nothing left, the endpoint is at fault and nothing was accepted."""
    fault = Fault("ConnectionRefused", "http://127.0.0.1:1: Connection refused")

    assert Paused(fault) == outcome_of(NoAnswer(fault), BODY, now=NOW)


def test_no_answer_after_bytes_were_sent_is_unknown():
    """Once anything has left, the message may have arrived."""
    fault = Fault("Timeout", "http://127.0.0.1:1: too late", accepted=None)

    assert Unknown(fault) == outcome_of(NoAnswer(fault), BODY, now=NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("60", 60.0),
        ("3600", 60.0),
        ("999999999", 60.0),
        ("Thu, 05 Mar 2026 06:07:38 GMT", 30.0),
        ("Thu, 05 Mar 2026 07:07:08 GMT", 60.0),
        ("Thu, 05 Mar 2026 06:00:00 GMT", 0.0),
        ("-1", None),
        ("7.5", None),
        ("soon", None),
        ("", None),
        ("9" * 5000, None),
        ("Thu, 99 Mar 2026 06:07:38 GMT", None),
    ],
)
def test_retry_after_is_honoured_up_to_a_minute(value, seconds):
    """As seconds or as a date; what is neither is passed over."""
    assert seconds == outcome(400, error("QpsLimitExceeded"), Retry_After=value).retry_after_s


def test_a_dated_retry_after_is_read_by_the_clock_of_its_writer():
    """The answer's own Date says what time it was there, whatever time it is here."""
    an_hour_ahead = {"Date": "Thu, 05 Mar 2026 07:07:08 GMT", "Retry_After": "Thu, 05 Mar 2026 07:07:20 GMT"}

    assert 12.0 == outcome(400, error("QpsLimitExceeded"), **an_hour_ahead).retry_after_s


def test_an_expired_date_is_told_with_the_clocks():
    """By how much which clock is off is what the operator needs; without a Date the broker's words stand alone."""
    told = outcome(408, error("TimeExpired", "too late"), Date="Thu, 05 Mar 2026 05:07:08 GMT").fault
    untold = outcome(408, error("TimeExpired", "too late")).fault

    assert "the broker's clock is 3600 s behind this machine's: too late" == told.text
    assert (-3600.0, None, "too late") == (told.clock_offset_s, untold.clock_offset_s, untold.text)


def test_the_header_names_the_request():
    """The header outranks the element; without either there is no request id."""
    by_header = outcome(500, error("InternalError"), X_Mq_Request_Id="5E6B")
    by_neither = outcome(500, error("InternalError", request_id=""))

    assert "5E6B" == by_header.fault.request_id
    assert by_neither.fault.request_id is None


def test_texts_are_fit_to_show():
    """What the broker writes is cleaned before it goes anywhere."""
    fault = outcome(400, error("NeverHeardOf", "a\nb&#27;[31mred \u202egnp.exe" + "x" * 100_000)).fault

    assert fault.text.startswith("a b\ufffd[31mred gnp.exe")
    assert 512 == len(fault.text)


def test_texts_repeat_no_secret():
    """Neither keys nor tokens nor signatures nor the body come back out of an answer that echoes them."""
    echo = f"secret FAKESECRET token FAKESTSTOKEN signed Ol+DAWEgBKMT+1n6G9U2LgEnu94= body {BODY} end"

    text = outcome(403, error("SignatureDoesNotMatch", echo), hidden=("FAKESECRET", "FAKESTSTOKEN", "")).fault.text

    assert "secret *** token *** signed *** body *** end" == text


def test_texts_quote_no_part_of_the_body():
    """Brokers like to say what they could not read; code and request id are no way round."""
    part = BODY[1:20]

    fault = outcome(400, error("InvalidArgument", f"near {part.replace('&', '&amp;')}")).fault
    smuggled = outcome_of(HttpAnswer(400, {"x-mq-request-id": "a" * 40}, error("a" * 40)), "a" * 50, now=NOW).fault

    assert "near ***" == fault.text
    assert ("Http400", "***") == (smuggled.code, smuggled.request_id)


@pytest.mark.parametrize("code", ["Not A Code", "x" * 65, "<b/>", "1", "Kod\u0435", "\u202eCode"])
def test_a_code_that_is_none_is_named_by_the_status(code):
    """Only plain names become codes of ours; the error stays the broker's."""
    result = outcome(400, error(code.replace("<", "&lt;")))

    assert Retry is type(result)
    assert "Http400" == result.fault.code
