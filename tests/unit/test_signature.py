"""The Authorization header, against vectors made by independent implementations."""

import re
from hashlib import md5
from pathlib import Path

import pytest

from outbox.rocketmq.signature import authorization, signature

GOLDEN = Path(__file__).parents[1] / "golden"
REQUESTS = sorted(GOLDEN.glob("*.txt"))
DATE = "Thu, 05 Mar 2026 06:07:08 GMT"
TARGET = "/topics/orders/messages?ns=MQ_INST_123_abc"


def sign(target=TARGET, content_type="", content_md5="", method="POST"):
    return signature("FAKESECRET", method, target, DATE, content_type, content_md5)


def test_sign_equals_the_python_and_java_sdks():
    """Two official SDKs, written apart, give this for the same request."""
    assert "Ol+DAWEgBKMT+1n6G9U2LgEnu94=" == sign(content_type="text/xml;charset=UTF-8")


def test_sign_covers_a_content_md5():
    """The Node SDK's Content-MD5, base64 of the hex text, stands on the second line."""
    content_md5 = "ZDcyOTQ1ZTRiYzM2NTdlMWJiYzg1NTRhYWVmZTliNzM="

    assert "NkXGSM9iDPrpaNsZId4+AO6+E4M=" == sign(content_type="text/xml;charset=utf-8", content_md5=content_md5)


def test_sign_takes_the_content_type_as_sent():
    """The PHP SDK's shorter Content-Type gives another signature."""
    assert "A3Njg/X3R7BD1g78d9Yv9JKNSlM=" == sign(content_type="text/xml")


def test_sign_takes_the_target_as_sent():
    """Without an instance there is no query to sign."""
    signed = sign(target="/topics/orders/messages", content_type="text/xml;charset=UTF-8")

    assert "QRhuTiH72hn7UmC30EOTAcHZLkM=" == signed


def test_sign_equals_a_third_party_client():
    """An independent Go client's published vector."""
    signed = signature(
        "testsecret",
        "POST",
        "/topics/orders/messages?ns=MQ_INST_1",
        "Mon, 03 Aug 2026 01:02:03 GMT",
        "text/xml;charset=utf-8",
        "MmYzZDUxN2ZhNDg5NjRiNDMyN2E3YWQ0ZTQxMzEyMGE=",
    )

    assert "zzlyDBsSb7sBWZgOLWjdFWc9dkg=" == signed
    assert "MQ testid:zzlyDBsSb7sBWZgOLWjdFWc9dkg=" == authorization("testid", signed)


def test_sign_covers_the_percent_encoded_query():
    """A poll's query is signed in the order and encoding in which it is sent, with empty lines for what is absent."""
    query = "consumer=GID_orders&numOfMessages=3&ns=MQ_INST_123_abc&waitseconds=3&tag=TagA%7C%7CTagB"

    assert "TUANXqZtoo8+zr/g3SI23zxB2kI=" == sign(target=f"/topics/orders/messages?{query}", method="GET")


def test_sign_covers_given_mq_headers():
    """The lines of x-mq-* headers may be given; by default they are the version's."""
    by_default = sign()
    given = signature("FAKESECRET", "POST", TARGET, DATE, mq_headers="x-mq-version:2015-06-06")
    other = signature("FAKESECRET", "POST", TARGET, DATE, mq_headers="x-mq-other:1\nx-mq-version:2015-06-06")

    assert by_default == given
    assert by_default != other


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_sign_verifies_what_official_sdks_sent(path):
    """Every captured request of three official SDKs carries the signature that we compute for it."""
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    content_md5 = headers.get("content-md5", "")

    signed = signature("FAKESECRET", method, target, headers["date"], headers.get("content-type", ""), content_md5)

    assert headers["authorization"] == authorization("FAKEAKID", signed)
    assert int(headers.get("content-length", "0")) == len(body)
    assert not content_md5 or re.fullmatch(rb"[0-9a-f]{32}", md5(body).hexdigest().encode())


def test_find_the_captured_requests():
    """Eleven requests each of three SDKs: none may be lost from the folder unnoticed."""
    assert 33 == len(REQUESTS)
