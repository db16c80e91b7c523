"""One HTTP request, at most once, by a deadline: the values on both sides of that seam, and its engine on requests.

An engine sends what it is given to the endpoint it was built for and says what came back. It never sends a request
twice, follows no redirect, asks no proxy, reads no ``.netrc``, keeps no cookie, takes no compressed answer, and raises
for nothing that the network did.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError

from outbox.endpoint import checked_endpoint
from outbox.outcomes import Fault
from outbox.rocketmq.connection import Exchange, TimedPool, TimedTlsPool, tls_context
from outbox.rocketmq.faults import fault_of
from outbox.rocketmq.frames import without_frames

__all__ = [
    "DEFAULT_IDLE_S",
    "HttpAnswer",
    "HttpRequest",
    "Loop",
    "LoopTransport",
    "Loops",
    "NoAnswer",
    "RequestsTransport",
    "Transport",
]

#: Common load balancers close idle connections after 15 s or more; ours must be the shorter patience.
DEFAULT_IDLE_S = 10.0


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class HttpRequest:
    """What to send.

    Attributes:
        method: ``POST``, ``GET`` or ``DELETE``.
        target: path and query exactly as signed; nothing in it needs percent-encoding any more.
        headers: all of them but ``Host``; ``Authorization`` and the security token among them.
        body: bytes, empty for none.
        deadline_s: seconds from now by which the whole answer must have arrived.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    deadline_s: float


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class HttpAnswer:
    """What came back, complete.

    Attributes:
        status: HTTP status.
        headers: a mapping whose look-up ignores case.
        body: bytes as they came, at most 1 MiB.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No complete answer came back. ``fault.accepted``: False when no byte of the request left, None otherwise."""

    fault: Fault


class Transport(Protocol):
    """The seam between the HTTP API's bytes and the network. Implementations are safe to share between threads."""

    def send(self, request: HttpRequest) -> HttpAnswer | NoAnswer:
        """Send one request once."""
        ...

    def close(self) -> None:
        """Close the connections that are not in use."""
        ...


class Loop(Protocol):
    """Many requests in flight from one thread. Only `wake` may be called from another one."""

    @property
    def in_flight(self) -> int:
        """Requests started and not done."""
        ...

    def step(self, timeout_s: float | None = None) -> None:
        """Wait until something happens, at most ``timeout_s`` seconds, and do what is to be done."""
        ...

    def wake(self) -> None:
        """Have the `step` that waits, or else the next one, return."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class Loops(Protocol):
    """Where a relay has its loop from."""

    def take(self, connections: int) -> Loop:
        """A loop that nobody else uses, and that keeps so many connections."""
        ...

    def give_back(self, loop: Loop) -> None:
        """It will not be used any more by whoever has taken it."""
        ...


@runtime_checkable
class LoopTransport(Transport, Protocol):
    """A transport that also sends from a loop of its own kind."""

    def start(self, loop: Any, request: HttpRequest, done: Callable[[HttpAnswer | NoAnswer], None]) -> None:
        """Send one request once, from the thread of ``loop``; ``done`` is called there, perhaps at once."""
        ...


class RequestsTransport:
    """The engine on requests: one pool of kept connections to one endpoint, for any number of threads.

    Args:
        endpoint: as `outbox.endpoint.checked_endpoint` returns it.
        pool_size: connections kept; as many as threads that send at the same time.
        idle_s: seconds after which an unused connection is not used again.
        verify: True for the certificates that requests trusts, or the path of a file of trusted ones. TLS is always
            verified.

    Raises:
        ConfigError: the endpoint is not one.
        OSError: ``verify`` cannot be read.
    """

    def __init__(
        self, endpoint: str, *, pool_size: int, idle_s: float = DEFAULT_IDLE_S, verify: Literal[True] | str = True
    ) -> None:
        self._endpoint = checked_endpoint(endpoint, allow_http=True, sts=False)
        self._pool_size = pool_size
        self._idle_s = idle_s
        self._ca_bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
        self._inherited: list[_Adapter] = []
        self._pid = os.getpid()
        self._adapter = self._new_adapter()

    def __repr__(self) -> str:
        return f"RequestsTransport({self._endpoint!r})"

    @without_frames
    def send(self, request: HttpRequest) -> HttpAnswer | NoAnswer:
        """Send one request once, and read the whole answer, by the request's deadline."""
        if os.getpid() != self._pid:
            self._leave_to_parent()
        exchange = Exchange(request.deadline_s)
        try:
            answer = self._adapter.send(
                self._prepared(request),
                stream=True,
                timeout=exchange,  # type: ignore[arg-type]  # requests passes a urllib3 Timeout on; its stubs do not say so
            )
            # Piece by piece: a length that the server only claims must not be allocated.
            return HttpAnswer(answer.raw.status, answer.raw.headers, b"".join(answer.raw.stream(decode_content=False)))
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            return NoAnswer(fault_of(error, sent=exchange.sent, where=self._endpoint))

    def close(self) -> None:
        """Close the connections that are not in use; a later `send` opens new ones."""
        adapter, self._adapter = self._adapter, self._new_adapter()
        adapter.close()

    def _prepared(self, request: HttpRequest) -> requests.PreparedRequest:
        # Field by field: Session.prepare_request would merge in cookies, netrc and proxies, at twice the price.
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = self._endpoint + request.target
        prepared.headers = request.headers  # type: ignore[assignment]
        prepared.body = request.body or None
        return prepared

    def _new_adapter(self) -> "_Adapter":
        parts = urlsplit(self._endpoint)
        if parts.scheme == "http":
            pool: HTTPConnectionPool = TimedPool(
                parts.hostname or "", parts.port, maxsize=self._pool_size, idle_s=self._idle_s
            )
        else:
            context = tls_context(self._ca_bundle)
            pool = TimedTlsPool(
                parts.hostname or "", parts.port, maxsize=self._pool_size, idle_s=self._idle_s, ssl_context=context
            )
        return _Adapter(pool)

    def _leave_to_parent(self) -> None:
        # Kept, not closed: these connections are the parent's, and one of their locks may have been held at the fork.
        self._inherited.append(self._adapter)
        self._adapter = self._new_adapter()
        self._pid = os.getpid()


class _Adapter(HTTPAdapter):
    """requests' own adapter over one pool, less what an endpoint that never changes has no use for."""

    def __init__(self, pool: HTTPConnectionPool) -> None:
        super().__init__(max_retries=0)
        self._pool = pool

    def get_connection_with_tls_context(self, *_args: Any, **_options: Any) -> HTTPConnectionPool:
        return self._pool

    def cert_verify(self, *_args: Any, **_options: Any) -> None:
        """Nothing: the pool's TLS context verifies."""

    def request_url(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> str:
        return request.path_url

    def build_response(self, _request: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Wrap the answer, without looking for cookies in it."""
        response = requests.Response()
        response.raw = resp
        return response

    def close(self) -> None:
        self._pool.close()
        super().close()
