"""The heads of answers that libcurl hands over, line by line."""

import pytest

from outbox.rocketmq.heads import head_of, headers_of


def test_headers_are_found_in_any_case():
    """Of several with one name the first counts; a line that begins with white space goes on with the one before."""
    lines = [b"Date: now \r\n", b"X-Long: a\r\n", b" b\r\n", b"date: later\r\n", b"Bare:\n"]

    assert {"date": "now", "x-long": "a b", "bare": ""} == dict(headers_of(lines) or {})
    assert "now" == (headers_of(lines) or {})["DATE"]
    assert "Date" in (headers_of(lines) or {})


@pytest.mark.parametrize("line", [b"no colon\r\n", b"na me: x\r\n", b": x\r\n", b"\xff: x\r\n"])
def test_lines_that_are_no_headers_spoil_the_head(line):
    """A head of which one line is none is not believed."""
    assert headers_of([b"Date: now\r\n", line, b"A: b\r\n"]) is None


def test_head_of_the_answer_proper():
    """Behind those that only announce it; what comes after its end are trailers."""
    announced = [b"HTTP/1.1 100 Continue\r\n", b"X: 1\r\n", b"\r\n"]
    proper = [b"HTTP/1.1 201 Created\r\n", b"A: b\r\n", b"\n"]

    assert [b"A: b\r\n"] == head_of([*announced, *proper, b"Trailer: c\r\n", b"\r\n"])
    assert head_of([*announced, *proper[:-1]]) is None
    assert head_of([]) is None
