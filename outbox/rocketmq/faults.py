"""What went wrong on the wire, as a `Fault`: one table from exceptions to codes, and text that is safe to show. Pure.

Texts end up in the database, in logs and on the operators' pages, and part of them was written by whoever answered:
so they are one printable line, bounded, and hold no control or direction characters and no terminal sequences.
"""

import re
import socket
import ssl
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

from outbox.outcomes import TOO_LARGE, Fault

__all__ = [
    "MAX_TEXT",
    "AnswerTooLargeError",
    "BrokenHeadersError",
    "ForbiddenAddressError",
    "Veil",
    "fault_of",
    "printable",
]

MAX_TEXT = 512
_MAX_INPUT = 2 * MAX_TEXT
_SHORTEST_SECRET = 6
# Shorter runs are words that anybody may use.
_QUOTATION = 16
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.?)", re.DOTALL)
# base64 of 20 bytes, as every HMAC-SHA1 is written: brokers like to echo what they were sent.
_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{27}=")
_HIDDEN = "***"


class ForbiddenAddressError(OSError):
    """The endpoint's name leads to an address that must not be connected to."""


class AnswerTooLargeError(OSError):
    """More bytes arrived than any answer of the HTTP API has."""


class BrokenHeadersError(HTTPException):
    """Among the answer's headers are lines that are none."""


#: The first row whose class is found anywhere in the chain of causes names the fault.
_CODES_BEFORE: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ForbiddenAddressError,), "ForbiddenAddress"),
    ((socket.gaierror, UnicodeError), "DnsFailure"),
    ((ConnectionRefusedError,), "ConnectionRefused"),
    ((TimeoutError,), "ConnectTimeout"),
    ((ssl.SSLError,), "TlsFailure"),
)
_CODES_AFTER: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((AnswerTooLargeError,), TOO_LARGE),
    ((TimeoutError,), "Timeout"),
    ((IncompleteRead,), "TruncatedAnswer"),
    ((RemoteDisconnected, ssl.SSLError, ConnectionError), "ConnectionLost"),
    ((HTTPException, ValueError), "UnreadableAnswer"),
)


def fault_of(error: BaseException, *, sent: bool, where: str) -> Fault:
    """Name what the network did.

    Args:
        error: as requests, urllib3 or the socket raised it; its causes are looked at, too.
        sent: whether any byte of the request may have left.
        where: the endpoint, for the text.

    Returns:
        A fault with ``accepted`` False where nothing had left, else None.
    """
    causes = list(_chain(error))
    table, otherwise = (_CODES_AFTER, "ConnectionLost") if sent else (_CODES_BEFORE, "Unreachable")
    for kinds, code in table:
        found = next((cause for cause in causes if isinstance(cause, kinds)), None)
        if found is not None:
            return Fault(code, printable(f"{where}: {_words(found)}"), accepted=None if sent else False)
    return Fault(otherwise, printable(f"{where}: {_words(causes[-1])}"), accepted=None if sent else False)


def printable(text: str, hidden: Iterable[str] = (), limit: int = MAX_TEXT, *, body: str = "") -> str:
    """Make foreign text fit to show: one line, at most ``limit`` characters, nothing invisible.

    Args:
        text: any text, however long.
        hidden: what must not be repeated; parts shorter than 6 characters are too common to be looked for. Signatures
            are hidden anyway.
        limit: longest result, in characters.
        body: a message's, which must not be quoted: no 16 characters of it in a row are shown.
    """
    for secret in (*hidden, body):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _HIDDEN)
    text = _without_quotations(text[:_MAX_INPUT], body)
    text = _SIGNATURE.sub(_HIDDEN, _TERMINAL_SEQUENCE.sub(" ", text))
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:limit]


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class Veil:
    """What the texts of one answer must not show: `printable`, with its arguments kept."""

    hidden: Collection[str] = field(default=(), repr=False)
    body: str = field(default="", repr=False)

    def over(self, text: str, limit: int = MAX_TEXT) -> str:
        """The text, fit to show."""
        return printable(text, self.hidden, limit, body=self.body)


def _without_quotations(text: str, body: str) -> str:
    quoted = set[int]()
    half = _QUOTATION // 2
    # Each run that is long enough holds one of these halves whole, and most of them are nowhere in the body.
    for at in range(0, len(text) - half + 1, half):
        if text[at : at + half] in body:
            for first in range(max(0, at - half), min(at, len(text) - _QUOTATION) + 1):
                if text[first : first + _QUOTATION] in body:
                    quoted.update(range(first, first + _QUOTATION))
    shown = (sign if at not in quoted else "" if at - 1 in quoted else _HIDDEN for at, sign in enumerate(text))
    return "".join(shown)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # The text of other errors quotes what could not be read, which may be part of a receipt handle.
    return type(error).__name__
