"""What is wrong, in one line. Not in pydantic's words, which repeat what was given, nested secrets included."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from pydantic_core import ErrorDetails

from outbox.errors import ConfigError

__all__ = ["NotConfiguredError", "Place", "config_error", "unknown", "wrong"]

#: Where a value stands: ``("batch_size",)``, or inside ``("destinations", "billing", "endpoint")``.
Place = tuple[str, ...]

_NUMBER = re.compile(r"[-+.\d]{1,12}")


class NotConfiguredError(ConfigError, SystemExit):
    """A setting is missing or wrong: an error to programs; where none catches it, one line instead of a traceback."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(error.key, str(error).removeprefix(f"{error.key}: "))
        self.code = str(self)


def config_error(place: Place, problem: str) -> ConfigError:
    """The error to raise about one place."""
    inside = ".".join(place[1:]) + ": " if place[0] == "destinations" and place[1:] else ""
    return ConfigError(f"OUTBOX_{place[0].upper()}", inside + problem)


def unknown(key: str, known: Iterable[str], prefix: str = "") -> str:
    """What to say of a key that is no setting; ``prefix`` is what its host writes before each of the known ones."""
    nearest = get_close_matches(key, known, n=1) or get_close_matches(key.upper(), known, n=1)
    return f"no such setting; did you mean {prefix}{nearest[0]}?" if nearest else "no such setting; take it out"


def wrong(details: ErrorDetails, description: str, *, may_be_secret: bool) -> str:
    """What to say of a value that pydantic refused, or a check of ours.

    Args:
        details: of the error; its message is not used, and its input is described, not shown.
        description: what to give instead.
        may_be_secret: even a number is not shown.
    """
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    return f"got {_shape(details['input'], may_be_secret=may_be_secret)}; give {description}"


def _shape(value: object, *, may_be_secret: bool) -> str:
    if isinstance(value, str | int | float) and _NUMBER.fullmatch(str(value)) and not may_be_secret:
        return str(value)
    return f"{len(value)} characters" if isinstance(value, str) else type(value).__name__
