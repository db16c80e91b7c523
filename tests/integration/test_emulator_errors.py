import base64
import hashlib
import time
from email.utils import formatdate

import pytest

from tests.emulator_api import ApiClient

TARGET = "/topics/orders/messages?ns=MQ_INST_1"
CONSUME = f"{TARGET}&consumer=GID_1&numOfMessages=1"
ACK = f"{TARGET}&consumer=GID_1"
MESSAGE = b"<Message><MessageBody>hello</MessageBody></Message>"
HANDLES = b"<ReceiptHandles><ReceiptHandle>a</ReceiptHandle></ReceiptHandles>"


@pytest.fixture
def client(emulator):
    with ApiClient(emulator.url) as client:
        yield client


def digest(body):
    return base64.b64encode(hashlib.md5(body).hexdigest().encode()).decode()


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"Date": None}, 400, "MissingDateHeader"),
        ({"Date": "yesterday"}, 400, "InvalidDateHeader"),
        ({"Date": "Thu, 05 Mar 20261 06:07:08 GMT"}, 400, "InvalidDateHeader"),
        ({"Date": "Thu, 99 Mar 2026 06:07:08 GMT"}, 400, "InvalidDateHeader"),
        ({"Date": "2026-03-05T06:07:08Z"}, 400, "InvalidDateHeader"),
        ({"Date": "Thu, 05 Mar 2026 06:07:08 +0000"}, 400, "InvalidDateHeader"),
        ({"x_mq_version": None}, 400, "InvalidArgument"),
        ({"x_mq_version": "2015-06-07"}, 400, "InvalidArgument"),
        ({"Content_MD5": digest(b"other")}, 400, "InvalidDigest"),
        ({"Content_MD5": base64.b64encode(hashlib.md5(MESSAGE).digest()).decode()}, 400, "InvalidDigest"),
        ({"Content_MD5": digest(MESSAGE)}, 201, None),
        ({"Content_Type": None}, 201, None),
        ({"Content_Type": "text/xml"}, 201, None),
    ],
)
def test_headers_are_checked(client, changes, status, code):
    """Each header is required and checked as documented; Content-MD5 in the form of the official SDKs."""
    headers = client.signed("POST", TARGET, MESSAGE, **changes)
    reply = client.send("POST", TARGET, MESSAGE, headers)

    assert (status, code) == (reply.status, reply.code)


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        (None, 400, "MissingAuthorizationHeader"),
        ("MQ FAKEAKID", 400, "InvalidAuthorizationHeader"),
        ("MQ :abc", 400, "InvalidAuthorizationHeader"),
        ("MNS FAKEAKID:abc", 400, "InvalidAuthorizationHeader"),
        ("Basic YTpi", 400, "InvalidAuthorizationHeader"),
        ("MQ OTHERAKID:abc", 403, "InvalidAccessKeyId"),
        ("MQ FAKEAKID:abc", 403, "SignatureDoesNotMatch"),
        ("MQ FAKEAKID:\xfcber", 403, "SignatureDoesNotMatch"),
    ],
)
def test_authorization_is_checked(client, emulator, authorization, status, code):
    """Absent, malformed, unknown and wrong credentials have codes of their own; nothing is accepted."""
    headers = client.signed("POST", TARGET, MESSAGE)
    del headers["Authorization"]
    reply = client.send("POST", TARGET, MESSAGE, headers | ({"Authorization": authorization} if authorization else {}))

    assert (status, code) == (reply.status, reply.code)
    assert [] == emulator.ledger()["messages"]


@pytest.mark.parametrize("changed", ["POST", "Content-Type", "Date", "x-mq-extra", "target"])
def test_signature_covers_every_line(client, changed):
    """Whatever is signed cannot be changed afterwards."""
    method, target = ("DELETE", TARGET) if changed == "POST" else ("POST", TARGET)
    headers = client.signed(method, target, MESSAGE)
    changes = {"Content-Type": "text/plain", "Date": formatdate(time.time() - 1, usegmt=True), "x-mq-extra": "1"}
    if changed in changes:
        headers[changed] = changes[changed]

    reply = client.send("POST", TARGET.replace("INST_1", "INST_2") if changed == "target" else TARGET, MESSAGE, headers)

    assert "SignatureDoesNotMatch" == reply.code


@pytest.mark.parametrize(("off_s", "status"), [(-890, 201), (890, 201), (-910, 408), (910, 408)])
def test_date_may_be_fifteen_minutes_off(client, off_s, status):
    """A Date more than 15 minutes from the broker's clock is TimeExpired, whose status is 408."""
    headers = client.signed("POST", TARGET, MESSAGE, Date=formatdate(time.time() + off_s, usegmt=True))
    reply = client.send("POST", TARGET, MESSAGE, headers)

    assert (status, "TimeExpired" if status == 408 else None) == (reply.status, reply.code)


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("GET", "/", "InvalidRequestURL"),
        ("POST", "/topics/orders", "InvalidRequestURL"),
        ("POST", "/topics//messages", "InvalidRequestURL"),
        ("POST", f"/topics/{'a' * 65}/messages", "InvalidRequestURL"),
        ("POST", "/topics/a%20b/messages", "InvalidRequestURL"),
        ("POST", "//topics/orders/messages", "InvalidRequestURL"),
        ("GET", f"{CONSUME}&tag={'a' * 1000}", "InvalidRequestURL"),
        ("PUT", TARGET, "InvalidQueryString"),
        ("POST", f"{TARGET}&trans=commit", "InvalidQueryString"),
        ("POST", f"{TARGET}&order=true", "InvalidQueryString"),
        ("POST", f"{TARGET}&ns=MQ_INST_1", "InvalidQueryString"),
        ("POST", f"{TARGET}&novalue", "InvalidQueryString"),
        ("GET", f"{CONSUME}&trans=other", "InvalidQueryString"),
        ("GET", f"{TARGET}&numOfMessages=1", "InvalidQueryString"),
        ("GET", f"{TARGET}&consumer=&numOfMessages=1", "InvalidQueryString"),
        ("GET", f"{TARGET}&consumer=GID_1", "InvalidQueryString"),
        ("GET", f"{TARGET}&consumer=GID_1&numOfMessages=x", "InvalidQueryString"),
        ("GET", f"{TARGET}&consumer=GID_1&numOfMessages=0", "InvalidArgument"),
        ("GET", f"{TARGET}&consumer=GID_1&numOfMessages=17", "InvalidArgument"),
        ("GET", f"{CONSUME}&waitseconds=31", "InvalidArgument"),
        ("GET", f"{CONSUME}&waitseconds=1.5", "InvalidQueryString"),
        ("GET", f"{TARGET}&consumer=GID_1&trans=pop", "InvalidQueryString"),
        ("GET", f"{CONSUME}&trans=pop&tag=A", "InvalidQueryString"),
        ("DELETE", TARGET, "InvalidQueryString"),
        ("DELETE", f"{TARGET}&trans=commit", "InvalidQueryString"),
    ],
)
def test_url_and_query_are_checked(client, method, target, code):
    """What names no topic, no operation, or has a parameter that it should not have, is refused by its code."""
    reply = client.send(method, target, HANDLES if method == "DELETE" else b"")

    assert (400, code) == (reply.status, reply.code)


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        ("POST", b"", "MalformedXML"),
        ("POST", b"<Message>", "MalformedXML"),
        ("POST", b"<!DOCTYPE a><Message><MessageBody>a</MessageBody></Message>", "MalformedXML"),
        ("POST", b"<Other/>", "InvalidArgument"),
        ("POST", b"<Message/>", "InvalidArgument"),
        ("DELETE", b"", "MissingReceiptHandle"),
        ("DELETE", b"<ReceiptHandles/>", "MissingReceiptHandle"),
        ("DELETE", b"<ReceiptHandles>", "MalformedXML"),
        ("DELETE", HANDLES.replace(b"ReceiptHandles", b"Handles"), "InvalidArgument"),
    ],
)
def test_bodies_are_checked(client, emulator, method, body, code):
    """A body that is no XML, or not that of the operation, is refused and changes nothing."""
    reply = client.send(method, TARGET if method == "POST" else ACK, body)

    assert (400, code) == (reply.status, reply.code)
    assert [] == emulator.ledger()["messages"]


def test_refusal_keeps_the_connection(client, emulator):
    """After an error the same connection serves the next request."""
    first, second = client.send("GET", "/nowhere"), client.publish("orders", "hello")

    assert (400, 201) == (first.status, second.status)
    assert 2 == emulator.ledger()["requests"]
