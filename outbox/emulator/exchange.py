"""One request and its answer as values, and an answer's bytes. No I/O."""

from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from outbox.rocketmq.signature import MQ_VERSION

__all__ = ["PLAIN", "Answer", "Manner", "Request", "encode", "fitted"]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
# These end with their head.
_BODILESS = frozenset({204, 304})


@dataclass(slots=True)
class Request:
    """A request as it came.

    Attributes:
        method: such as ``POST``.
        target: path and query exactly as on the request line.
        headers: values by lower-case name.
        request_id: 24 upper-case hex digits, of which the first eight are the time in seconds.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Manner:
    """How an answer's bytes are sent; the default is at once, in full, and the connection stays open.

    Attributes:
        delay_s: seconds to wait before the first byte.
        cut: send only so many bytes and end the connection; negative: all but so many.
        drip_s: send byte by byte, so many seconds apart.
        reset: end the connection, by a TCP reset.
        close: end the connection after the answer, without having announced it.
        clock_off_s: seconds by which the ``Date`` header is wrong.
        pad: so many spaces follow the body, as a part of it; they are sent piece by piece and never held in memory.
    """

    delay_s: float = 0.0
    cut: int | None = None
    drip_s: float = 0.0
    reset: bool = False
    close: bool = False
    clock_off_s: float = 0.0
    pad: int = 0


PLAIN = Manner()
"""At once, in full, and the connection stays."""


@dataclass(slots=True)
class Answer:
    """An answer, before it has its bytes."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml;charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    manner: Manner = field(default=PLAIN)


def fitted(answer: Answer, method: str) -> Answer:
    """Return the answer without a body where none may follow the head, or the next answer would not be found."""
    if method != "HEAD" and answer.status not in _BODILESS:
        return answer
    return replace(answer, body=b"", manner=replace(answer.manner, pad=0))


@lru_cache(maxsize=8)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def encode(answer: Answer, request_id: str, now: float, *, keep_alive: bool) -> bytes:
    """Write an answer, head and body, without what pads it.

    ``x-mq-request-id`` is in lower case because the official Python SDK looks for that spelling alone.
    """
    lines = [
        f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, 'Unknown')}",
        f"x-mq-request-id: {request_id}",
        f"x-mq-version: {MQ_VERSION}",
        f"Date: {_date(int(now + answer.manner.clock_off_s))}",
        "Server: rocketmq-outbox-emulator",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    if answer.status not in _BODILESS:
        lines += [f"Content-Type: {answer.content_type}", f"Content-Length: {len(answer.body) + answer.manner.pad}"]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + answer.body
