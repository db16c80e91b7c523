"""What single values must be like. Each complaint ends with what to do; none repeats the value."""

import json
import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from outbox.endpoint import checked_endpoint
from outbox.errors import ConfigError

__all__ = [
    "NAME",
    "BrokerUrl",
    "Endpoint",
    "KeyId",
    "Secret",
    "Topic",
    "Unreserved",
    "from_json",
    "topics",
    "usable_endpoint",
]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Keys and tokens travel in headers, where a line break or a space would begin something else.
_HEADER_SAFE = re.compile(r"[!-~]{1,8192}")


def usable_endpoint(value: str, *, allow_http: bool = True, sts: bool = False) -> str:
    """Check and normalise; by default leave open whether http:// will do, which other settings decide.

    Raises:
        ValueError: says what rule of `outbox.endpoint.checked_endpoint` it breaks.
    """
    try:
        return checked_endpoint(value, allow_http=allow_http, sts=sts)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(f"{error.key}: ")) from None


def _header_safe(value: str) -> str:
    if not _HEADER_SAFE.fullmatch(value):
        raise ValueError("holds a space, a line break or a character that is not ASCII; give it as it was issued")
    return value


def _key_id(value: str) -> str:
    if ":" in value:
        raise ValueError("holds a colon, which ends the id in the Authorization header; give it as it was issued")
    return _header_safe(value)


def _secret(value: SecretStr) -> SecretStr:
    _header_safe(value.get_secret_value())
    return value


def _broker_url(value: SecretStr) -> SecretStr:
    if "://" not in value.get_secret_value():
        raise ValueError("is not a URL; give one such as redis://host:6379/0")
    return value


def from_json(value: object) -> object:
    """What a text says in JSON; any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"is not JSON{where}; put names and texts between double quotes") from None


def topics(value: object) -> object:
    """The parts of a text between commas, or of a JSON list; any other value as it is."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [topic for part in value.split(",") if (topic := part.strip())]
    return from_json(value)


Endpoint = Annotated[str, AfterValidator(usable_endpoint)]
KeyId = Annotated[str, AfterValidator(_key_id)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
# What no HTTP library percent-encodes (RFC 3986 §2.3), so that what is signed is what is sent.
Unreserved = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{0,64}$")]
BrokerUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
Topic = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
