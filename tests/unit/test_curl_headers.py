"""The heads of answers that libcurl hands over, line by line."""

import pytest

from outbox.rocketmq.curl_handle import _headers


def test_headers_are_found_in_any_case():
    """Of several with one name the first counts; a line that begins with white space goes on with the one before."""
    lines = [b"Date: now \r\n", b"X-Long: a\r\n", b" b\r\n", b"date: later\r\n", b"Bare:\n"]

    assert {"date": "now", "x-long": "a b", "bare": ""} == dict(_headers(lines) or {})
    assert "now" == (_headers(lines) or {})["DATE"]


@pytest.mark.parametrize("line", [b"no colon\r\n", b"na me: x\r\n", b": x\r\n", b"\xff: x\r\n"])
def test_lines_that_are_no_headers_spoil_the_head(line):
    """A head of which one line is none is not believed."""
    assert _headers([b"Date: now\r\n", line, b"A: b\r\n"]) is None
