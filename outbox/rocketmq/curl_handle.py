"""One request on libcurl, from its options to its answer. No waiting here, and no threads: see `outbox.rocketmq.curl`.

libcurl does two things with kept connections that must not happen here. It sends a request a second time by itself
when the connection turns out to be dead; and it uses one on which bytes have come in that nobody asked for, and takes
them for the answer. But right before the first byte of a request it asks `Transfer`, which says yes once, and only if
nothing has come in. To be able to look, `Kept` holds a second handle of each connection's socket.
"""

import errno
import os
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from socket import socket
from time import monotonic
from typing import Any, Final

import pycurl

from outbox.endpoint import is_forbidden_address
from outbox.outcomes import TOO_LARGE, Fault
from outbox.rocketmq.connection import MAX_ANSWER_BYTES
from outbox.rocketmq.faults import printable
from outbox.rocketmq.heads import head_of, headers_of
from outbox.rocketmq.transport import HttpAnswer, HttpRequest, NoAnswer

__all__ = ["Kept", "Place", "Transfer"]

Done = Callable[[HttpAnswer | NoAnswer], None]
#: The two ends of a connection, as libcurl names them.
Ends = tuple[object, ...]

#: What libcurl would do by itself, by its defaults or by the environment, and must not.
_ALWAYS: Final[tuple[tuple[int, Any], ...]] = (
    (pycurl.NOSIGNAL, 1),
    (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
    (pycurl.HTTP09_ALLOWED, 0),
    (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
    (pycurl.FOLLOWLOCATION, 0),
    (pycurl.PROXY, ""),
    (pycurl.NOPROXY, "*"),
    (pycurl.NETRC, pycurl.NETRC_IGNORED),
    (pycurl.HTTP_CONTENT_DECODING, 0),
    (pycurl.PATH_AS_IS, 1),
    (pycurl.SSL_VERIFYPEER, 1),
    (pycurl.SSL_VERIFYHOST, 2),
    (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
)
# An empty one takes away what libcurl would write by itself.
_UNWRITTEN = ["Expect:", "Accept:"]
_TLS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
    }
)
_TIMED_OUT = pycurl.E_OPERATION_TIMEDOUT
# CURLE_TOO_LARGE, for which pycurl has no name.
_TOO_LARGE = 100
#: After the first byte has left; any other code is `ConnectionLost`.
_AFTER: Mapping[int, tuple[str, str]] = {
    _TIMED_OUT: ("Timeout", "no complete answer before the deadline"),
    pycurl.E_PARTIAL_FILE: ("TruncatedAnswer", "the connection ended within the body of the answer"),
    pycurl.E_UNSUPPORTED_PROTOCOL: ("UnreadableAnswer", "no HTTP"),
    pycurl.E_FTP_WEIRD_SERVER_REPLY: ("UnreadableAnswer", "its head is broken"),
    _TOO_LARGE: ("UnreadableAnswer", "its head is too large"),
    pycurl.E_BAD_CONTENT_ENCODING: ("UnreadableAnswer", "its encoding is broken"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where requests go, and how the server is known.

    Attributes:
        endpoint: as `outbox.endpoint.checked_endpoint` returns it.
        ca_bundle: path of a file of trusted certificates in PEM form.
        idle_s: seconds after which an unused connection is not used again.
    """

    endpoint: str
    ca_bundle: str
    idle_s: float


class Kept:
    """The sockets of the connections that one multi handle keeps. What is not here is not used again.

    Args:
        most: that are held at once; the longest unused go first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Ends, tuple[socket, select.poll, float]] = {}

    def hold(self, ends: Ends, sock: socket) -> None:
        """Take the socket of a new connection."""
        self.drop(ends)
        if len(self._held) >= self._most:
            self.drop(next(iter(self._held)))
        watch = select.poll()
        watch.register(sock, select.POLLIN)
        self._held[ends] = sock, watch, monotonic()

    def is_fit(self, ends: Ends, idle_s: float) -> bool:
        """Whether a connection can carry another request: neither long idle, nor closed by the server or spoken on."""
        held = self._held.get(ends)
        if held is None:
            return False
        _, watch, used_at = held
        return monotonic() - used_at <= idle_s and not watch.poll(0)

    def prune(self, idle_s: float) -> None:
        """Let go of connections that will not be used again, so that the system can close them."""
        for ends in [one for one in self._held if not self.is_fit(one, idle_s)]:
            self.drop(ends)

    def note_use(self, ends: Ends) -> None:
        """A connection has just carried an answer."""
        held = self._held.pop(ends, None)
        if held is not None:
            self._held[ends] = *held[:2], monotonic()

    def drop(self, ends: Ends) -> None:
        """Let go of a connection."""
        held = self._held.pop(ends, None)
        if held is not None:
            held[0].close()

    def close(self) -> None:
        """Let go of all of them."""
        for ends in list(self._held):
            self.drop(ends)


class Transfer:
    """An easy handle for one place, used for one request after the other.

    Args:
        place: where to.
        kept: of the multi handle that it is used with.

    Attributes:
        easy: the handle; its owner adds it to the multi handle and takes it out again.
        done: what is to be told of the answer.
    """

    def __init__(self, place: Place, kept: Kept) -> None:
        self.place = place
        self.done: Done = _nobody
        self._kept = kept
        self._over_at = 0.0
        self._ends: Ends = ()
        self._sent = self._is_stale = self._is_forbidden = self._is_too_large = False
        self._received = 0
        self._lines: list[bytes] = []
        self._pieces: list[bytes] = []
        self._opened: list[socket] = []
        self._is_afresh = False
        self._url = self._method = ""
        self.easy = easy = pycurl.Curl()
        for option, value in _ALWAYS:
            easy.setopt(option, value)
        easy.setopt(pycurl.MAXAGE_CONN, ceil(place.idle_s))
        easy.setopt(pycurl.CAINFO, place.ca_bundle)
        easy.unsetopt(pycurl.CAPATH)
        easy.setopt(pycurl.OPENSOCKETFUNCTION, self._open)
        easy.setopt(pycurl.PREREQFUNCTION, self._may_send)
        # No function of ours: it is called for each line of each head. libcurl bounds the size of a head.
        easy.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        easy.setopt(pycurl.WRITEFUNCTION, self._take_piece)

    def begin(self, request: HttpRequest, done: Done) -> None:
        """Prepare the handle for this request, which is to be under way at once."""
        self.done = done
        self._over_at = monotonic() + request.deadline_s
        self._sent = self._is_stale = self._is_forbidden = self._is_too_large = False
        self._received = 0
        easy, url = self.easy, self.place.endpoint + request.target
        if url != self._url:
            self._url = url
            easy.setopt(pycurl.URL, url)
        if request.body:
            easy.setopt(pycurl.POSTFIELDS, request.body)
        else:
            easy.setopt(pycurl.HTTPGET, 1)
        if request.method != self._method:
            self._method = request.method
            easy.setopt(pycurl.CUSTOMREQUEST, request.method)
        easy.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in request.headers.items()] + _UNWRITTEN)
        easy.setopt(pycurl.TIMEOUT_MS, ceil(request.deadline_s * 1000))

    def begin_afresh(self) -> bool:
        """Prepare for a new connection, if there was only a kept one that could not be used; whether that is so."""
        left_s = self._over_at - monotonic()
        is_needed = self._is_stale and left_s > 0
        if is_needed:
            self._is_afresh = True
            self.easy.setopt(pycurl.FRESH_CONNECT, 1)
            self.easy.setopt(pycurl.TIMEOUT_MS, ceil(left_s * 1000))
        self._is_stale = False
        return is_needed

    def end(self, failure: int, text: str) -> HttpAnswer | NoAnswer:
        """What came of the request.

        Args:
            failure: libcurl's code, 0 for none.
            text: libcurl's words for it.
        """
        self._let_go()
        if self._is_afresh:
            self._is_afresh = False
            self.easy.setopt(pycurl.FRESH_CONNECT, 0)
        # A spare handle must not keep the last message, its signature, or whoever waited for its answer.
        self.easy.setopt(pycurl.POSTFIELDS, b"")
        self.easy.setopt(pycurl.HTTPHEADER, [])
        self.done = _nobody
        answer = NoAnswer(self._fault(failure, text)) if failure else self._answer()
        self._lines.clear()
        self._pieces.clear()
        if isinstance(answer, NoAnswer):
            self._kept.drop(self._ends)
        else:
            self._kept.note_use(self._ends)
        return answer

    def _answer(self) -> HttpAnswer | NoAnswer:
        lines = head_of(self._lines)
        if lines is None:
            return self._lost("ConnectionLost", "the connection ended within the head of the answer")
        headers = headers_of(lines)
        if headers is None:
            return self._lost("UnreadableAnswer", "its head is broken")
        return HttpAnswer(self.easy.getinfo(pycurl.RESPONSE_CODE), headers, b"".join(self._pieces))

    # --- what libcurl asks

    def _open(self, _purpose: int, address: Any) -> socket | int:
        """A socket for a new connection; none to send the request a second time, and none to where nobody may go."""
        if self._sent:
            return pycurl.SOCKET_BAD
        if is_forbidden_address(address.addr[0]):
            self._is_forbidden = True
            return pycurl.SOCKET_BAD
        opened = socket(address.family, address.socktype, address.protocol)
        self._opened.append(opened)
        return opened

    def _may_send(self, *ends: object) -> int:
        if self._sent:
            return pycurl.PREREQFUNC_ABORT
        self._ends = ends
        if not self._opened:
            self._is_stale = not self._kept.is_fit(ends, self.place.idle_s)
        else:
            self._hold(ends)
        if self._is_stale:
            self._kept.drop(ends)
            return pycurl.PREREQFUNC_ABORT
        self._sent = True
        return pycurl.PREREQFUNC_OK

    def _hold(self, ends: Ends) -> None:
        """Of the sockets that were tried, perhaps two at a time, hold the one that is connected."""
        for number, tried in enumerate(self._opened):
            if tried.getsockname()[1] == ends[-1]:
                self._kept.hold(ends, self._opened.pop(number))
                break
        self._let_go()

    def _let_go(self) -> None:
        """Close the sockets of which pycurl has made copies, and no connection came."""
        while self._opened:
            self._opened.pop().close()

    def _take_piece(self, piece: bytes) -> int | None:
        self._pieces.append(piece)
        self._received += len(piece)
        if self._received <= MAX_ANSWER_BYTES:
            return None
        self._is_too_large = True
        return -1

    # --- what went wrong

    def _fault(self, failure: int, text: str) -> Fault:
        if self._sent:
            if self._is_too_large:
                return self._lost(TOO_LARGE, f"more than {MAX_ANSWER_BYTES} bytes of answer").fault
            return self._lost(*_AFTER.get(failure, ("ConnectionLost", "the connection was lost"))).fault
        code, words = self._unsent(failure, self.easy.getinfo(pycurl.OS_ERRNO))
        return Fault(code, printable(f"{self.place.endpoint}: {words or text}"), accepted=False)

    def _unsent(self, failure: int, number: int) -> tuple[str, str]:
        """Code and words for a request of which no byte has left; no words where libcurl's own are best."""
        if self._is_forbidden:
            return "ForbiddenAddress", "it leads to a link-local or metadata address"
        if failure == pycurl.E_COULDNT_RESOLVE_HOST:
            return "DnsFailure", ""
        if failure == _TIMED_OUT or number == errno.ETIMEDOUT:
            return "ConnectTimeout", "not connected before the deadline"
        if failure in _TLS:
            return "TlsFailure", ""
        words = os.strerror(number) if number else ""
        return "ConnectionRefused" if number == errno.ECONNREFUSED else "Unreachable", words

    def _lost(self, code: str, words: str) -> NoAnswer:
        # libcurl's own words may quote the answer, and a receipt handle with it.
        return NoAnswer(Fault(code, printable(f"{self.place.endpoint}: {words}"), accepted=None))


def _nobody(_answer: HttpAnswer | NoAnswer) -> None:
    """A handle that serves no request has nobody to tell."""
