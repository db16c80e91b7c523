"""Which HTTP engine there is: libcurl's where it is installed, or the one on requests. The only place that chooses."""

from importlib.util import find_spec
from typing import Literal, Protocol

from outbox.errors import ConfigError
from outbox.rocketmq.transport import Loop, RequestsTransport, Transport

__all__ = ["Engine", "engine_named"]


class Engine(Protocol):
    """A way to send requests."""

    def transport(self, endpoint: str, *, pool_size: int) -> Transport:
        """What sends requests to one endpoint; raises what its class does."""

    def loop(self, connections: int) -> Loop | None:
        """What keeps many in flight from the thread that calls this; None where each request takes a thread."""


class _Requests:
    def transport(self, endpoint: str, *, pool_size: int) -> Transport:
        return RequestsTransport(endpoint, pool_size=pool_size)

    def loop(self, connections: int) -> Loop | None:  # noqa: ARG002 - the protocol's signature
        return None


class _Curl:
    def transport(self, endpoint: str, *, pool_size: int) -> Transport:
        from outbox.rocketmq.curl import CurlTransport  # noqa: PLC0415 - an extra that may not be installed

        return CurlTransport(endpoint, pool_size=pool_size)

    def loop(self, connections: int) -> Loop | None:
        from outbox.rocketmq.curl import CurlLoop  # noqa: PLC0415 - an extra that may not be installed

        return CurlLoop(connections)


def engine_named(name: Literal["auto", "requests", "curl"]) -> Engine:
    """The engine that ``OUTBOX_HTTP_ENGINE`` asks for; ``auto`` is libcurl's where it can be had.

    Raises:
        ConfigError: ``curl`` is asked for, and pycurl is not installed.
    """
    if name == "requests":
        return _Requests()
    if find_spec("pycurl") is not None:
        return _Curl()
    if name == "curl":
        raise ConfigError("OUTBOX_HTTP_ENGINE", "is curl, which needs pycurl: pip install 'rocketmq-outbox[curl]'")
    return _Requests()
