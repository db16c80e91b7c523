"""Which HTTP engine there is: libcurl's where it is installed, or the one on requests. The only place that chooses."""

from collections.abc import Callable
from importlib import import_module
from typing import Literal, Protocol

from outbox.errors import ConfigError
from outbox.rocketmq.transport import Loop, RequestsTransport, Transport

__all__ = ["Engine", "engine_named"]


# 8.3.0: before it, heads of answers have no bounds (CVE-2023-38039).
_OLDEST_LIBCURL = 0x080300


class Engine(Protocol):
    """A way to send requests."""

    def transport(self, endpoint: str, *, pool_size: int) -> Transport:
        """What sends requests to one endpoint; raises what its class does."""

    @property
    def loop_maker(self) -> Callable[[int], Loop] | None:
        """Makes what keeps many in flight from one thread, on so many connections; None where each takes a thread."""


class _Requests:
    def transport(self, endpoint: str, *, pool_size: int) -> Transport:
        return RequestsTransport(endpoint, pool_size=pool_size)

    loop_maker = None


class _Curl:
    def transport(self, endpoint: str, *, pool_size: int) -> Transport:
        from outbox.rocketmq.curl import CurlTransport  # noqa: PLC0415 - an extra that may not be installed

        return CurlTransport(endpoint, pool_size=pool_size)

    @staticmethod
    def loop_maker(connections: int) -> Loop:
        from outbox.rocketmq.curl import CurlLoop  # noqa: PLC0415 - an extra that may not be installed

        return CurlLoop(connections)


def engine_named(name: Literal["auto", "requests", "curl"]) -> Engine:
    """The engine that ``OUTBOX_HTTP_ENGINE`` asks for; ``auto`` is libcurl's where it can be had.

    Raises:
        ConfigError: ``curl`` is asked for, and pycurl is not installed.
    """
    if name == "requests":
        return _Requests()
    if _is_pycurl_there():
        return _Curl()
    if name == "curl":
        problem = "is curl, which needs pycurl with libcurl 8.3 or later: pip install 'rocketmq-outbox[curl]'"
        raise ConfigError("OUTBOX_HTTP_ENGINE", problem)
    return _Requests()


def _is_pycurl_there() -> bool:
    """Whether it can be imported and used: an installation without its shared libraries is none either."""
    try:
        pycurl = import_module("pycurl")
    except ImportError:
        return False
    return bool(pycurl.version_info()[2] >= _OLDEST_LIBCURL)
