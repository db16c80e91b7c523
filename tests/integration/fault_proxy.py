"""Misbehaving neighbours on loopback: a scripted TCP server, and a proxy that cuts connections at a chosen byte.

Both count what they see, so that a test can say how many requests left the client.
"""

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5
from typing import Literal, Self
from xml.etree import ElementTree as ET

__all__ = ["MESSAGE_ID", "Connection", "Cut", "FaultProxy", "Server", "answer_bytes", "broker"]

MESSAGE_ID = "0A03F29C00012A9F0000000000000001"
GARBAGE = bytes(range(255, -1, -1)) * 8


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, requests: list[bytes]) -> None:
        self.sock = sock
        self.sendall = sock.sendall
        self.recv = sock.recv
        self._requests = requests

    def read_request(self) -> bytes:
        """Read one whole request and note it with the server; empty when the client is gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = (line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        pieces = [body]
        missing = int(next(lengths, b"0")) - len(body)
        while missing > 0:
            piece = self.recv(min(missing, 1 << 20))
            if not piece:
                return b""
            pieces.append(piece)
            missing -= len(piece)
        request = head + b"\r\n\r\n" + b"".join(pieces)
        self._requests.append(request)
        return request

    def wait_for_client_to_leave(self) -> None:
        while self.recv(65536):
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def answer_bytes(request: bytes, *, message_id: str = MESSAGE_ID, headers: str = "") -> bytes:
    """The 201 that a broker gives to a publish."""
    text = ET.fromstring(request.partition(b"\r\n\r\n")[2])[0].text or ""
    digest = md5(text.encode(), usedforsecurity=False).hexdigest().upper()
    xml = (
        '<?xml version="1.0" encoding="utf-8"?>\n<Message xmlns="http://mq.aliyuncs.com/doc/v1">\n'
        f"<MessageId>{message_id}</MessageId>\n<MessageBodyMD5>{digest}</MessageBodyMD5>\n</Message>"
    )
    return (
        "HTTP/1.1 201 Created\r\nDate: Thu, 05 Mar 2026 06:07:08 GMT\r\nContent-Type: text/xml;charset=utf-8\r\n"
        f"x-mq-request-id: 69A91D0C3743313535730001\r\nx-mq-version: 2015-06-06\r\n{headers}"
        f"Content-Length: {len(xml)}\r\n\r\n{xml}"
    ).encode()


def broker(connection: Connection) -> None:
    """Answer every request of the connection as a broker does."""
    while request := connection.read_request():
        connection.sendall(answer_bytes(request))


class Server:
    """A TCP server whose every connection is played by one function, in a thread of its own, and then closed.

    Attributes:
        port: stays known, and closed, after the server has ended.
        connections: accepted so far.
        requests: complete requests, where the script reads them by `Connection.read_request`.
    """

    def __init__(self, play: Callable[[Connection], None] = broker, *, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._play = play
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for sock in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.add(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        plain = sock
        try:
            with suppress(OSError):
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                    self._open.add(sock)
                self._play(Connection(sock, self.requests))
        finally:
            self._open -= {plain, sock}
            sock.close()
            plain.close()


@dataclass(frozen=True)
class Cut:
    """Where and how a connection ends: when this many bytes of the request or of the answer have been passed on.

    ``close``: FIN to both sides; ``reset``: RST to the client; ``stall``: nothing is passed on any more, and nothing
    closed; ``garbage``: the client gets bytes of no meaning, then FIN.
    """

    side: Literal["request", "answer"]
    after: int
    how: Literal["close", "reset", "stall", "garbage"]


class FaultProxy:
    """A proxy on loopback that passes bytes on until its cut, for every connection alike.

    Attributes:
        cut: may be set or taken away at any time; None passes everything on.
        received: what clients sent, all connections together.
    """

    def __init__(self, upstream_port: int, cut: Cut | None = None) -> None:
        self.cut = cut
        self.received = b""
        self._upstream_port = upstream_port
        self._server = Server(self._relay)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.__exit__(*exc)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def connections(self) -> int:
        return self._server.connections

    def _relay(self, client: Connection) -> None:
        passed = {"request": 0, "answer": 0}
        with socket.create_connection(("127.0.0.1", self._upstream_port)) as upstream:
            # No select(): with many proxies there are more descriptors than it takes.
            ends, poll = {end.fileno(): end for end in (client.sock, upstream)}, select.poll()
            for number in ends:
                poll.register(number, select.POLLIN)
            while True:
                source = ends[poll.poll()[0][0]]
                side, target = ("request", upstream) if source is client.sock else ("answer", client.sock)
                data = source.recv(65536)
                if not data:
                    return
                if side == "request":
                    self.received += data
                cut = self.cut
                is_cut = cut is not None and cut.side == side and passed[side] + len(data) >= cut.after
                target.sendall(data[: cut.after - passed[side]] if cut is not None and is_cut else data)
                passed[side] += len(data)
                if cut is not None and is_cut:
                    self._end(client, cut.how)
                    return

    @staticmethod
    def _end(client: Connection, how: str) -> None:
        if how == "stall":
            client.wait_for_client_to_leave()
        elif how == "reset":
            client.reset()
        elif how == "garbage":
            client.sendall(GARBAGE)
