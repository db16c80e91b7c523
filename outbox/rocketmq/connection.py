"""Connections that keep one deadline for everything, and know whether a request may have left. On urllib3.

A timeout on a socket bounds one call; a server that drips its headers byte by byte makes as many calls as it likes. So
each call that may wait, be it to connect, to shake hands, to send or to receive, gets what is left of the request's
one deadline. No second thread has to interfere, and so none can interfere with a connection that has moved on.

What is not bounded here is the resolver: a name is looked up by the system, within the system's own limits.
"""

import socket
import ssl
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPResponse
from time import monotonic
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.response import BaseHTTPResponse

from outbox.endpoint import is_forbidden_address
from outbox.rocketmq.faults import AnswerTooLargeError, BrokenHeadersError, ForbiddenAddressError

__all__ = ["MAX_ANSWER_BYTES", "Exchange", "TimedPool", "TimedTlsPool", "tls_context"]

#: Of one whole answer as it arrives: status line, headers, framing and body.
MAX_ANSWER_BYTES = 1_048_576

# A timeout is set anew only where it is off by more: each setting is a system call that lets other threads cut in.
_SLACK_S = 0.01
# A body up to this size is copied to go out together with its headers; a larger one is not worth the copy.
_SENT_AT_ONCE_BYTES = 65_536


class Exchange(Timeout):
    """One request and its answer: when both must be over, and how far they have come.

    To urllib3 it is the request's timeout, which is how it reaches the connection that urllib3 chooses.

    Attributes:
        sent: whether any byte of the request has been handed to the socket.
        in_head: whether the end of the answer's head is still to come.
    """

    def __init__(self, deadline_s: float) -> None:
        # urllib3 refuses a timeout of nothing; what is left is counted below.
        super().__init__(total=max(deadline_s, _SLACK_S))
        self.sent = False
        self.in_head = True
        self._over_at = monotonic() + deadline_s
        self._received = 0

    def clone(self) -> "Exchange":
        """The same: urllib3 makes a copy for each attempt, and here there is one attempt only."""
        return self

    def remaining_s(self) -> float:
        """Seconds until the deadline, more than 0.

        Raises:
            TimeoutError: it has passed.
        """
        remaining = self._over_at - monotonic()
        if remaining <= 0:
            raise TimeoutError("no complete answer before the deadline")
        return remaining

    def count(self, received: int) -> None:
        """Take note of bytes that have arrived.

        Raises:
            AnswerTooLargeError: they are more than any answer has.
            ConnectionError: there are none, although the head goes on: http.client would take it for complete.
        """
        if not received and self.in_head:
            raise ConnectionResetError("the connection ended within the head of the answer")
        self._received += received
        if self._received > MAX_ANSWER_BYTES:
            raise AnswerTooLargeError(f"more than {MAX_ANSWER_BYTES} bytes of answer")


class _TimedSocket(socket.socket):
    """A socket whose every call ends by the deadline of the exchange that it serves, give or take 10 ms."""

    exchange: Exchange
    used_at: float = 0.0

    def recv_into(self, *args: Any, **options: Any) -> int:
        self._bound()
        received = super().recv_into(*args, **options)
        self.used_at = monotonic()
        self.exchange.count(received)
        return received

    def send(self, data: Any, flags: int = 0) -> int:
        self._bound()
        self.exchange.sent = True
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data).cast("B")
        while left:
            left = left[self.send(left, flags) :]

    def _bound(self) -> None:
        remaining = self.exchange.remaining_s()
        timeout = self.gettimeout()
        if timeout is None or abs(timeout - remaining) > _SLACK_S:
            self.settimeout(remaining)


class _TimedTlsSocket(_TimedSocket, ssl.SSLSocket):
    """The same under TLS. Its handshake is bounded by the timeout that the plain socket had."""


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """A context that verifies certificate and host name, for one destination's connections.

    Args:
        ca_bundle: path of a file of trusted certificates in PEM form.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context(cafile=ca_bundle)
    context.sslsocket_class = _TimedTlsSocket
    return context


class _StrictResponse(HTTPResponse):
    """An answer whose headers are whole. urllib3 reads on past broken ones, and logs what it could not parse."""

    def __init__(self, sock: "_TimedSocket", *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._exchange = sock.exchange

    def begin(self) -> None:
        super().begin()
        self._exchange.in_head = False
        if self.headers.defects or self.headers.get_payload():
            raise BrokenHeadersError


class _TimedConnection(HTTPConnection):
    """A connection to the endpoint, over http."""

    response_class = _StrictResponse

    def __init__(self, *args: Any, idle_s: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle_s = idle_s
        self._exchange: Exchange
        self._body = b""

    def begin(self, exchange: Exchange) -> None:
        """Serve this exchange from now on."""
        self._exchange = exchange
        if isinstance(self.sock, _TimedSocket):
            self.sock.exchange = exchange

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        self._body = body or b""
        super().request(method, url, None, headers, **options)

    def send(self, data: Any) -> None:
        """Send the headers, and the body in the same system call and packet where it is small."""
        body, self._body = self._body, b""
        if len(body) <= _SENT_AT_ONCE_BYTES:
            super().send(data + body)
        else:
            super().send(data)
            super().send(body)

    def connect(self) -> None:
        super().connect()
        self.begin(self._exchange)

    @property
    def is_connected(self) -> bool:
        """Whether it can carry another request: not long idle, and neither closed by the server nor spoken on."""
        if isinstance(self.sock, _TimedSocket) and monotonic() - self.sock.used_at > self._idle_s:
            return False
        return super().is_connected

    def getresponse(self) -> Any:
        response = super().getresponse()
        if response.status < HTTPStatus.OK:
            # Another answer to the same request would follow, and be taken for the answer to the next.
            self.close()
        return response

    def _new_conn(self) -> socket.socket:
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        failure: OSError | None = None
        for tried, (family, kind, protocol, _, address) in enumerate(found):
            try:
                return self._connected(family, kind, protocol, address, share=len(found) - tried)
            except OSError as error:
                failure = error
        raise NewConnectionError(self, "no address of the host could be connected to") from failure

    def _connected(self, family: int, kind: int, protocol: int, address: Any, *, share: int) -> _TimedSocket:
        if is_forbidden_address(address[0]):
            raise ForbiddenAddressError(f"{address[0]} is a link-local or metadata address")
        sock = _TimedSocket(family, kind, protocol)
        try:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # An address that answers nothing must leave time for the next one.
            sock.settimeout(self._exchange.remaining_s() / share)
            sock.connect(address)
            sock.settimeout(self._exchange.remaining_s())
        except BaseException:
            sock.close()
            raise
        return sock


class _TimedTlsConnection(_TimedConnection, HTTPSConnection):
    """A connection to the endpoint, over https."""


class TimedPool(HTTPConnectionPool):
    """The connections to one http endpoint.

    Args (beside urllib3's):
        idle_s: seconds after which an unused connection is not used again.
    """

    ConnectionCls = _TimedConnection

    def _make_request(self, conn: Any, *args: Any, **options: Any) -> BaseHTTPResponse:
        conn.begin(options["timeout"])
        return super()._make_request(conn, *args, **options)


class TimedTlsPool(TimedPool, HTTPSConnectionPool):
    """The connections to one https endpoint. Takes an ``ssl_context`` beside `TimedPool`'s arguments."""

    ConnectionCls = _TimedTlsConnection
