"""Who may ask: version, date, key, signature, security token and digest of a request. No I/O."""

import hmac
from base64 import b64encode
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from hashlib import md5

from outbox.emulator.clock import BrokerClock
from outbox.emulator.exchange import Request
from outbox.emulator.rejection import Rejection
from outbox.rocketmq.signature import MQ_VERSION, signature

__all__ = ["Authority"]


class Authority:
    """Verifies requests against the keys that are known.

    Args:
        keys: AccessKeyId → AccessKeySecret; any number, all good at once.
        security_token: the only ``security-token`` that is let in; None lets in any, and none.
        clock: the broker's.
    """

    def __init__(self, keys: Mapping[str, str], security_token: str | None, clock: BrokerClock) -> None:
        self._keys = self._first_keys = dict(keys)
        self._security_token = security_token
        self._clock = clock

    def key_ids(self) -> list[str]:
        """Return the ids of the keys that are known."""
        return sorted(self._keys)

    def change_keys(self, changes: Mapping[str, str | None]) -> None:
        """Make keys known from now on, by AccessKeyId; a secret of None makes one unknown."""
        keys = {**self._keys, **changes}
        self._keys = {key_id: secret for key_id, secret in keys.items() if secret is not None}

    def reset(self) -> None:
        """Know the keys of the beginning, and no others."""
        self._keys = self._first_keys

    def verify(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            Rejection: with the code of the first check that fails, in the order: version, presence of the headers,
                date, key, signature, security token, digest.
        """
        headers = request.headers
        if headers.get("x-mq-version") != MQ_VERSION:
            raise Rejection("InvalidArgument", f"The x-mq-version header is not {MQ_VERSION}.")
        key_id, signed = _credentials(headers.get("authorization"))
        self._check_date(headers.get("date"))
        self._check_signature(request, key_id, signed)
        if self._security_token is not None and headers.get("security-token") != self._security_token:
            raise Rejection("AccessDenied", "The security token you provided is not valid.")
        if digest := headers.get("content-md5"):
            _check_digest(request.body, digest)

    def _check_date(self, date: str | None) -> None:
        if not date:
            raise Rejection("MissingDateHeader", "The Date header is missing in the request.")
        if not self._clock.is_fresh(_epoch(date)):
            now = formatdate(self._clock.now(), usegmt=True)
            raise Rejection("TimeExpired", f"The request's Date {date} is more than 15 minutes off; it is {now}.")

    def _check_signature(self, request: Request, key_id: str, signed: str) -> None:
        secret = self._keys.get(key_id)
        if secret is None:
            raise Rejection("InvalidAccessKeyId", "The access key id you provided does not exist.")
        headers = request.headers
        expected = signature(
            secret,
            request.method,
            request.target,
            headers["date"],
            headers.get("content-type", ""),
            headers.get("content-md5", ""),
            "\n".join(sorted(f"{name}:{value}" for name, value in headers.items() if name.startswith("x-mq-"))),
        )
        if not hmac.compare_digest(expected.encode(), signed.encode()):
            raise Rejection("SignatureDoesNotMatch", "The signature does not match the request and the key's secret.")


def _credentials(authorization: str | None) -> tuple[str, str]:
    """Split ``MQ <AccessKeyId>:<signature>``."""
    if not authorization:
        raise Rejection("MissingAuthorizationHeader", "The Authorization header is missing in the request.")
    key_id, colon, signed = authorization.removeprefix("MQ ").partition(":")
    if not authorization.startswith("MQ ") or not (key_id and colon and signed):
        raise Rejection("InvalidAuthorizationHeader", "The Authorization header is not 'MQ AccessKeyId:Signature'.")
    return key_id, signed


@lru_cache(maxsize=64)
def _epoch(date: str) -> float:
    try:
        if date.endswith(" GMT"):
            return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Rejection("InvalidDateHeader", "The Date header is not in the form of RFC 1123, in GMT.")


def _check_digest(body: bytes, digest: str) -> None:
    """Compare with the form that the official SDKs send: base64 of the hex digits, not of the sixteen bytes."""
    digits = md5(body, usedforsecurity=False).hexdigest()
    if digest != b64encode(digits.encode()).decode():
        raise Rejection(
            "InvalidDigest", "The Content-MD5 is not the base64 of the body's MD5 in lower-case hex digits."
        )
