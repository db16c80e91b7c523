"""Values on a command line: how they are written, and what they mean."""

import getpass
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from outbox.commands.faults import Failure

__all__ = [
    "DURATION",
    "HOST",
    "INSTANT",
    "NAME",
    "PROPERTY",
    "REFERENCE",
    "SECONDS",
    "by_option",
    "destination_option",
    "reason_option",
]

if TYPE_CHECKING:
    _ParamType = click.ParamType
else:

    class _ParamType(click.ParamType):
        """click's, which takes the type that it converts to from version 8.4 on only."""

        def __class_getitem__(cls, _kind: Any) -> type:
            return cls


_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# As long as a setting may make it; no database has to reckon with more.
_LONGEST_S = 1e9
# No database has to reckon with a larger one.
_ROW_ID_DIGITS = 18
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Duration(_ParamType[float]):
    """``90s``, ``30m``, ``12h``, ``7d`` → seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = _DURATION.fullmatch(str(value))
        seconds = int(found[1]) * _SECONDS[found[2]] if found else None
        if seconds is None or seconds > _LONGEST_S:
            self.fail(f"{value!r} is no duration; give one such as 90s, 30m, 12h or 7d", param, ctx)
        return float(seconds)


class _Instant(_ParamType[datetime]):
    """An ISO 8601 instant → datetime."""

    name = "iso-8601"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no instant; give one such as 2030-01-31T08:00:00Z", param, ctx)


class _Property(_ParamType[tuple[str, str]]):
    """``name=value`` → (name, value); the value may hold further equals signs."""

    name = "name=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} has no equals sign; give it as name=value", param, ctx)
        return name, text


class _Name(_ParamType[str]):
    """The name of a topic or a destination."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _NAME.fullmatch(str(value)):
            self.fail(f"{value!r} is no such name; give 1 to 64 of A-Z a-z 0-9 _ -", param, ctx)
        return str(value)


class _Reference(_ParamType[str]):
    """A row id or an outbox_id, as it was given."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        reference = str(value)
        if reference.isdecimal() and len(reference) > _ROW_ID_DIGITS:
            raise Failure(f"there is no message {reference[:64]}")
        return reference


class _Seconds(_ParamType[float]):
    """Seconds, more than none and within anybody's lifetime; click's own range lets ``nan`` through."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= _LONGEST_S:
            self.fail(f"{value!r} is no number of seconds above 0", param, ctx)
        return seconds


class _Host(_ParamType[str]):
    """An address to listen at; an empty one would be every address of the machine."""

    name = "host"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("an empty address; give one such as 127.0.0.1, or 0.0.0.0 for every one", param, ctx)
        return str(value)


class _Reason(_ParamType[str]):
    """Why it is done, as the audit shall say."""

    name = "text"
    longest = 2000

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        reason = str(value)
        if len(reason) > self.longest:
            self.fail(f"{len(reason)} characters; give at most {self.longest}", param, ctx)
        return reason


class _Person(_ParamType[str]):
    """Who does it, as the audit shall name them."""

    name = "person"
    longest = 150

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value)
        if not name.strip() or len(name) > self.longest:
            self.fail(f"{len(name)} characters; give 1 to {self.longest}", param, ctx)
        return name


DURATION = _Duration()
HOST = _Host()
INSTANT = _Instant()
NAME = _Name()
PROPERTY = _Property()
REFERENCE = _Reference()
SECONDS = _Seconds()


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that no file gives a name to
        return f"uid {os.getuid()}"


by_option = click.option(
    "--by", type=_Person(), default=_system_user, show_default="the system user", help="Who does it, for the audit."
)
reason_option = click.option(
    "--reason", type=_Reason(), default="no reason given", show_default=True, help="Why, for the audit."
)
destination_option = click.option(
    "--destination", type=NAME, default="default", show_default=True, help="The lane's destination."
)
