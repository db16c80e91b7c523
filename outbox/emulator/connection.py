"""One client's connection: bytes to requests, answers to bytes, and every way of sending them badly.

Written on asyncio's transport, because no application interface above it lets an answer be cut, dripped or reset.
"""

import asyncio
import logging
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import NamedTuple, cast

import httptools

from outbox.emulator.api import Poll
from outbox.emulator.exchange import PLAIN, Answer, Request, encode, fitted
from outbox.emulator.site import Site

__all__ = ["Connection"]

_MAX_HEAD = 1024 * 1024
# A body of 4 MiB may be five times as long when it is escaped.
_MAX_REQUEST = 32 * 1024 * 1024
_PADDING = b" " * 65_536
_LINGER_NOT = struct.pack("ii", 1, 0)
_logger = logging.getLogger("outbox.emulator")


class _Asked(NamedTuple):
    request: Request
    keep_alive: bool


class Connection(asyncio.Protocol):
    """Serves requests one after the other, in the order in which they came, also when they are pipelined.

    Args:
        site: gives the answers.
        connections: where this one is listed while it is open.
    """

    def __init__(self, site: Site, connections: set["Connection"]) -> None:
        self._site = site
        self._connections = connections
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None
        self._received = 0
        self._in_head = True
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (asyncio)."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End (asyncio): a poll whose client has gone takes no message from its group."""
        self._connections.discard(self)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Note that the client does not keep up (asyncio)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Note that it does again (asyncio)."""
        self._writable.set()

    def abort(self) -> None:
        """End at once, unanswered."""
        self._hang_up()
        self._transport.abort()

    def _hang_up(self) -> None:
        """Make the client see the end, also where a process that was forked meanwhile holds the socket open."""
        if not self._transport.get_write_buffer_size():
            with suppress(OSError), self._transport.get_extra_info("socket").dup() as own:
                own.shutdown(socket.SHUT_RDWR)

    def data_received(self, data: bytes) -> None:
        """Parse what came (asyncio)."""
        if self._transport.is_closing():
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self._parser.get_method() == b"CONNECT":
                self._refuse("This is no proxy.")
            else:
                self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse("The request is not HTTP/1.1.")
        if self._received > (_MAX_HEAD if self._in_head else _MAX_REQUEST):
            self._refuse("The request is too long.")

    def _decline(self, rest: bytes) -> None:
        """Read a request again without its offer to change the protocol, as Java's HTTP client makes it."""
        kept = [f"{name}: {value}" for name, value in self._headers.items() if name not in ("connection", "upgrade")]
        head = [f"{self._parser.get_method().decode()} {self._target.decode('latin-1')} HTTP/1.1", *kept, "\r\n"]
        self._parser = httptools.HttpRequestParser(self)
        self.data_received("\r\n".join(head).encode("latin-1") + rest)

    def _refuse(self, text: str) -> None:
        if not self._transport.is_closing():
            answer = Answer(400, text.encode(), "text/plain")
            self._write(answer, "0" * 24, keep_alive=False)

    def on_message_begin(self) -> None:
        """Forget the last request (httptools)."""
        self._in_head = True
        self._target = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Keep a piece of the request target (httptools)."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header (httptools)."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Tell a client that waits for it to send the body (httptools)."""
        self._in_head = False
        if self._headers.get("expect", "").lower() == "100-continue" and not self._parser.should_upgrade():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body (httptools)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Serve the request, or queue it behind one that is not answered yet (httptools)."""
        if self._parser.should_upgrade():
            return
        method, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
        request = Request(method, target, self._headers, b"".join(self._body))
        asked = _Asked(request, self._parser.should_keep_alive())
        self._received = 0
        if self._task is None:
            self._serve(asked)
        else:
            self._waiting.append(asked)
            self._transport.pause_reading()

    def _serve(self, asked: _Asked) -> None:
        answer = self._site.answer(asked.request)
        if isinstance(answer, Answer) and answer.manner is PLAIN:
            self._write(fitted(answer, asked.request.method), asked.request.request_id, keep_alive=asked.keep_alive)
        else:
            self._task = asyncio.get_running_loop().create_task(self._serve_later(answer, asked))

    async def _serve_later(self, answer: Answer | Poll, asked: _Asked) -> None:
        try:
            if isinstance(answer, Poll):
                answer = await self._site.waiters.outlast(answer)
            await self._send(fitted(answer, asked.request.method), asked)
        except Exception:
            _logger.exception("outbox.emulator.failed")
            self.abort()
        self._task = None
        self._catch_up()

    def _catch_up(self) -> None:
        while self._waiting and self._task is None and not self._transport.is_closing():
            self._serve(self._waiting.popleft())
        if not self._waiting and not self._transport.is_closing():
            self._transport.resume_reading()

    def _write(self, answer: Answer, request_id: str, *, keep_alive: bool) -> None:
        self._transport.write(encode(answer, request_id, self._site.clock.now(), keep_alive=keep_alive))
        if not keep_alive:
            self._transport.close()

    async def _send(self, answer: Answer, asked: _Asked) -> None:
        """Send an answer in its manner."""
        manner = answer.manner
        if manner.delay_s:
            await asyncio.sleep(manner.delay_s)
        data = encode(answer, asked.request.request_id, self._site.clock.now(), keep_alive=asked.keep_alive)
        for piece in _pieces(data if manner.cut is None else data[: manner.cut], drip=manner.drip_s > 0):
            self._transport.write(piece)
            await asyncio.sleep(manner.drip_s)
        if manner.cut is None:
            await self._pad(manner.pad)
        if manner.reset:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self._transport.abort()
        elif manner.close or manner.cut is not None or not asked.keep_alive:
            self._hang_up()
            self._transport.close()

    async def _pad(self, size: int) -> None:
        """Write so many spaces, as fast as the client reads, and stop when it goes."""
        while size > 0 and not self._transport.is_closing():
            piece = _PADDING[:size]
            self._transport.write(piece)
            size -= len(piece)
            # The first lets other connections have their turn, the second waits for this one's client.
            await asyncio.sleep(0)
            await self._writable.wait()


def _pieces(data: bytes, *, drip: bool) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))] if drip else [data]
