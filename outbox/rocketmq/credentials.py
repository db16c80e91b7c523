"""The keys that requests are signed with, and how new ones take their place while the process runs.

Keys are rotated, and temporary (STS) keys expire within hours. Their source is asked again some minutes before they
expire; every few seconds, where it is not said when they do; and at once, when the broker has refused them.
"""

import logging
import math
import re
from collections.abc import Callable
from threading import Lock

from outbox.errors import ConfigError
from outbox.settings import Destination

__all__ = ["EARLY_S", "REFRESH_S", "Keyring", "Source"]

log = logging.getLogger("outbox")

#: Gives a destination as it is now, with the keys that are good now. It may raise: then the last ones are kept.
Source = Callable[[], Destination]

#: Seconds after which keys of unknown life are asked for again.
REFRESH_S = 10.0
#: Seconds before their end at which expiring keys are asked for again.
EARLY_S = 300.0

# Between two questions after refusals, which come by the dozen when a key ends.
_REFUSED_REST_S = 1.0
# Left to keys that others than the asking thread do not go on with.
_ENDING_S = 30.0
# For the answer to another thread's question, where the keys there are will hardly do.
_PATIENCE_S = 2.0
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]{0,64}")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


class Keyring:
    """A destination whose keys stay fresh. Safe to share between threads.

    Args:
        source: asked now, and again whenever the keys may have changed.

    Raises:
        ConfigError: what the source gives could not be sent unchanged as part of a request line or header; and whatever
            the source itself raises this first time.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._current = _checked(source())
        self._hidden = _secrets(self._current)
        # At an unknown time before the first use, which therefore asks again where that costs nothing.
        self._asked_at = -math.inf
        self._refused = False
        self._asking = Lock()

    @property
    def name(self) -> str:
        """The destination's name."""
        return self._current.name

    @property
    def endpoint(self) -> str:
        """The destination's endpoint."""
        return self._current.endpoint

    def current(self, now: float) -> Destination:
        """The destination with the keys to sign with.

        Where they may be out of date, the thread that notices asks for new ones. Others go on with those there are, or
        wait for a moment where these are about to end, were refused, or have not been looked at for long.

        Args:
            now: seconds since 1970. A clock that is set back or forward makes the source be asked sooner, never later.
        """
        if self._is_due(now) and self._asking.acquire(timeout=_PATIENCE_S if self._is_overdue(now) else 0):
            try:
                if self._is_due(now):
                    self._ask(now)
            finally:
                self._asking.release()
        return self._current

    def refused(self) -> None:
        """The broker has refused the keys: have the source asked before the next request."""
        self._refused = True

    def secrets(self) -> tuple[str, ...]:
        """What no text may repeat: the secrets in use and those before, which a late answer may still echo."""
        return self._hidden

    def _is_due(self, now: float) -> bool:
        since_s, left_s = now - self._asked_at, self._left_s(now)
        if self._refused:
            return not 0 <= since_s < _REFUSED_REST_S
        return since_s < 0 or (since_s >= REFRESH_S and (left_s is None or left_s <= EARLY_S))

    def _is_overdue(self, now: float) -> bool:
        left_s = self._left_s(now)
        is_doubtful = not 0 <= now - self._asked_at < 2 * REFRESH_S if left_s is None else left_s <= _ENDING_S
        return self._refused or is_doubtful

    def _left_s(self, now: float) -> float | None:
        expires_at = self._current.expires_at
        return None if expires_at is None else expires_at.timestamp() - now

    def _ask(self, now: float) -> None:
        extra = {"destination": self._current.name}
        try:
            found = _checked(self._source())
        except Exception as error:  # noqa: BLE001 - the keys there are may well be good for longer
            # Only our own errors are known to hold no secret.
            told = str(error) if isinstance(error, ConfigError) else type(error).__name__
            log.warning("outbox.credentials_unavailable", extra=extra | {"error": told})
        else:
            if found != self._current:
                self._hidden = (*_secrets(found), *_secrets(self._current))
                self._current = found
                log.info("outbox.credentials_changed", extra=extra)
        # Last, for as long as the question is open the keys are due. Refusals that came meanwhile were of the old ones.
        self._asked_at, self._refused = now, False


def _secrets(destination: Destination) -> tuple[str, ...]:
    token = destination.security_token
    return destination.access_key_secret.get_secret_value(), token.get_secret_value() if token else ""


def _checked(destination: Destination) -> Destination:
    """Refuse what would have to be encoded on a request line, or could end a header line."""
    token = destination.security_token
    for setting, pattern, value in (
        ("instance_id", _UNRESERVED, destination.instance_id),
        ("group_id", _UNRESERVED, destination.group_id),
        ("access_key_id", _VISIBLE_ASCII, destination.access_key_id),
        ("access_key_secret", _VISIBLE_ASCII, destination.access_key_secret.get_secret_value()),
        ("security_token", _VISIBLE_ASCII, token.get_secret_value() if token else "none"),
    ):
        if not pattern.fullmatch(value):
            allowed = (
                "at most 64 of A–Z a–z 0–9 . _ ~ -"
                if pattern is _UNRESERVED
                else "visible ASCII, without spaces and line ends"
            )
            where = "" if destination.name == "default" else f" (destination {destination.name!r})"
            raise ConfigError(f"OUTBOX_{setting.upper()}", f"must be {allowed}{where}")
    return destination
