"""Where requests may go: the rules for ``OUTBOX_ENDPOINT``. Pure: no look-up, no I/O.

The signature covers neither the host nor the body, and a security token travels beside it unsigned: whoever reads or
redirects a request can use it. So the endpoint comes from the settings alone, it is https unless it is this machine or
the operator says otherwise, and it is never an address where a cloud hands out credentials.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from outbox.errors import ConfigError

__all__ = ["checked_endpoint", "is_forbidden_address"]

_KEY = "OUTBOX_ENDPOINT"
_HOST_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
)
_MAX_HOST_CHARACTERS = 253
# Resolvers take "2852039166", "0xa9fea9fe" and "0251.0376.0251.0376" for 169.254.169.254; ipaddress does not.
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
# Where clouds hand out credentials, beside the link-local addresses where most do.
_METADATA_ADDRESSES = frozenset(
    map(ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"))
)
# Networks whose addresses end in an IPv4 address that a translator on the way, or the system itself, may lead to.
_TRANSLATED = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))

_Address = IPv4Address | IPv6Address


def checked_endpoint(url: str, *, allow_http: bool, sts: bool) -> str:
    """Check and normalise an endpoint.

    Args:
        url: ``https://<account>.mqrest.<region>.aliyuncs.com``, or another scheme, host and port. A trailing slash is
            taken off; scheme and host come back in lower case.
        allow_http: accept ``http://`` to hosts other than this machine's loopback.
        sts: a security token goes with the requests; then ``http://`` is accepted to loopback only.

    Returns:
        ``scheme://host`` or ``scheme://host:port``.

    Raises:
        ConfigError: names ``OUTBOX_ENDPOINT`` and the rule; never repeats the URL, which may hold a password.
    """
    parts = _split(url)
    host = parts.hostname or ""
    address = _address_of(host)
    if address is not None and _is_forbidden(address):
        raise ConfigError(_KEY, "is a link-local or metadata address, where credentials are handed out")
    if parts.scheme == "http" and not _is_loopback(host, address):
        if sts:
            raise ConfigError(_KEY, "must be https:// with a security token, which is sent unsigned")
        if not allow_http:
            raise ConfigError(_KEY, "must be https://, except to loopback; OUTBOX_ALLOW_HTTP=true accepts http://")
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal}" + ("" if parts.port is None else f":{parts.port}")


def is_forbidden_address(address: str) -> bool:
    """Whether a resolved IP address must not be connected to: link-local, or the cloud's metadata service.

    Args:
        address: as `socket.getaddrinfo` gives it; an IPv6 scope (``%eth0``) is allowed.
    """
    return _is_forbidden(ip_address(address.partition("%")[0]))


def _split(url: str) -> SplitResult:
    if not url:
        raise ConfigError(_KEY, "is missing")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ConfigError(_KEY, "must be a plain ASCII URL without spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(_KEY, "is not a URL: its host or port cannot be read") from None
    if parts.scheme not in {"http", "https"}:
        raise ConfigError(_KEY, "must begin with https:// (or http://)")
    if "@" in parts.netloc:
        raise ConfigError(_KEY, "must not hold a user name or password; keys have settings of their own")
    if "?" in url or "#" in url or parts.path not in {"", "/"}:
        raise ConfigError(_KEY, "must end after host and port: no path, query or fragment")
    if "[" in parts.netloc and ":" not in (parts.hostname or ""):
        raise ConfigError(_KEY, "has brackets around something that is not an IPv6 address")
    if port == 0 or parts.netloc.endswith(":"):
        raise ConfigError(_KEY, "has no valid port after the colon")
    return parts


def _address_of(host: str) -> _Address | None:
    """The IP address that the host is written as, None where it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    if len(host) > _MAX_HOST_CHARACTERS or not _HOST_NAME.fullmatch(host):
        raise ConfigError(_KEY, "has no valid host name")
    if _ENDS_IN_A_NUMBER.fullmatch(host):
        raise ConfigError(_KEY, "has a host that ends in a number but is not a plain dotted IPv4 address")
    return None


def _unmapped(address: _Address) -> _Address:
    return getattr(address, "ipv4_mapped", None) or address


def _is_forbidden(address: _Address) -> bool:
    return any(one.is_link_local or one in _METADATA_ADDRESSES for one in (address, *_within(address)))


def _within(address: _Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address may stand for."""
    if isinstance(address, IPv4Address):
        return []
    last = [IPv4Address(int(address) & 0xFFFF_FFFF)] if any(address in network for network in _TRANSLATED) else []
    return last + ([address.sixtofour] if address.sixtofour else [])


def _is_loopback(host: str, address: _Address | None) -> bool:
    return host == "localhost" if address is None else _unmapped(address).is_loopback
