"""Exceptions as faults, and foreign text as text that is fit to show."""

import errno
import socket
import ssl
import time
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import ProtocolError

from outbox.outcomes import Fault
from outbox.rocketmq.faults import AnswerTooLargeError, ForbiddenAddressError, fault_of, printable

WHERE = "https://broker.example"


BEFORE = [
    (ForbiddenAddressError("169.254.169.254 is a metadata address"), "ForbiddenAddress"),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "DnsFailure"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "ConnectionRefused"),
    (TimeoutError("timed out"), "ConnectTimeout"),
    (ssl.SSLError(1, "wrong version number"), "TlsFailure"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), "Unreachable"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Unreachable"),
    (OSError(errno.EMFILE, "Too many open files"), "Unreachable"),
]
AFTER = [
    (AnswerTooLargeError("more than 5 bytes of answer"), "AnswerTooLarge"),
    (TimeoutError("timed out"), "Timeout"),
    (IncompleteRead(b"a body", 7), "TruncatedAnswer"),
    (RemoteDisconnected("Remote end closed connection without response"), "ConnectionLost"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "ConnectionLost"),
    (ssl.SSLError(1, "bad record mac"), "ConnectionLost"),
    (BadStatusLine("SSH-2.0"), "UnreadableAnswer"),
    (OSError(errno.EIO, "Input/output error"), "ConnectionLost"),
]


@pytest.mark.parametrize("sent", [False, True], ids=["nothing sent", "perhaps sent"])
@pytest.mark.parametrize("turn", range(8))
def test_name_what_the_network_did(sent, turn):
    """The code tells causes apart; acceptance goes by whether anything was sent, and by nothing else."""
    error, code = (AFTER if sent else BEFORE)[turn]

    fault = fault_of(error, sent=sent, where=WHERE)

    assert (code, None if sent else False) == (fault.code, fault.accepted)
    assert fault.text.startswith(f"{WHERE}: ")
    assert not [quoted for quoted in ("a body", "SSH-2.0") if quoted in fault.text]


def test_name_the_cause_behind_the_libraries_errors():
    """What the libraries wrap it in does not hide it."""
    error = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    outermost = RuntimeError("Max retries exceeded")
    outermost.__cause__ = ProtocolError("Connection aborted.", error)
    outermost.__cause__.__context__ = error

    fault = fault_of(outermost, sent=False, where=WHERE)

    assert Fault("ConnectionRefused", f"{WHERE}: Connection refused") == fault


def test_show_one_clean_line():
    """Line ends, terminal sequences, direction marks and length of foreign text do not reach anyone's screen."""
    foreign = "a\nb\x1b[31mred\x1b]0;title\x07 \u202egnp.exe\u202c \u200bz" + "x" * 100_000

    cleaned = printable(foreign)

    assert cleaned.startswith("a b red gnp.exe zx")
    assert 512 == len(cleaned)


@given(st.text(st.characters() | st.sampled_from("\x1b[]\x07\x9b\u202e\n")))
def test_show_nothing_invisible(text):
    """Whatever comes in, a bounded line of visible characters comes out."""
    cleaned = printable(text, limit=20)

    assert len(cleaned) <= 20
    assert cleaned.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key FAKESECRET here", "key *** here"),
        ("FAKESECRETFAKESECRET", "******"),
        ("MQ id:Ol+DAWEgBKMT+1n6G9U2LgEnu94= x", "MQ id:*** x"),
        ("short is shown", "short is shown"),
    ],
)
def test_show_no_secret(text, shown):
    """Secrets that are named, and anything in the form of a signature, are hidden; short words are not looked for."""
    assert shown == printable(text, hidden=("FAKESECRET", "is", ""))


BODY = '{"iban":"DE89370400440532013000","note":"a quiet morning","amount":12}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (BODY, "***"),
        (f"cannot read {BODY} as XML", "cannot read *** as XML"),
        (f"near {BODY[9:31]}: bad", "near ***: bad"),
        (f"{BODY[:20]} and {BODY[-20:]}", "*** and ***"),
        (f"x{BODY[3:19]}y", "x***y"),
        (f"x{BODY[3:18]}y", f"x{BODY[3:18]}y"),
        ("a quiet evening", "a quiet evening"),
        ("", ""),
    ],
)
def test_quote_no_body(text, shown):
    """Sixteen characters in a row that are the body's are hidden, wherever they stand; shorter runs are mere words."""
    assert shown == printable(text, body=BODY)


@given(st.text("ab", max_size=60), st.text("ab", max_size=60), st.text("ab", max_size=60))
def test_quote_no_part_of_any_body(before, body, after):
    """No text whatever shows sixteen characters in a row of the body beside it."""
    shown = printable(f"{before}|{body[: len(body) // 2]}|{after}", body=body)

    assert not [at for at in range(len(shown) - 15) if shown[at : at + 16] in body]


def test_quote_no_body_quickly():
    """The largest body and the longest error together cost a moment, not a second."""
    body = "".join(f"{number:07x}" for number in range(600_000))
    started = time.process_time()
    shown = printable("the argument is invalid; " * 1000 + body, body=body)

    assert shown.startswith("the argument is invalid; ")
    assert time.process_time() - started < 0.5
