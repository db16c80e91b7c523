"""Filters as they stand in a form or a link: strings that anybody may have written."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from outbox.errors import FilterError
from outbox.settings.values import NAME
from outbox.states import State
from outbox.store.filter import Filter

__all__ = ["checked_name", "parse_filter", "written"]

_CODE_CHARACTERS = 64
_KEY_CHARACTERS = 1000
_MESSAGE_ID_CHARACTERS = 128
# Wide enough for any message, and clear of the ends of Python's calendar, around which a search would look.
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9990, 1, 1, tzinfo=UTC)
_OUTBOX_ID = re.compile(r"[0-9A-Fa-f-]{1,36}")


def parse_filter(given: Mapping[str, str]) -> Filter:
    """The filter that these strings mean; a blank one means nothing, and so do names that are none of `Filter`'s.

    Args:
        given: by the names of `Filter`'s attributes; instants in ISO 8601, UTC where they name no zone.

    Raises:
        FilterError: some cannot be meant; it says so of each.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, parse in _PARSERS.items():
        text = given.get(name, "").strip()
        if text:
            try:
                values[name] = parse(text)
            except ValueError as error:
                problems[name] = str(error)
    begin, end = values.get("created_from"), values.get("created_until")
    if begin and end and begin >= end:
        problems["created_until"] = "is not after created_from; give a later instant"
    if problems:
        raise FilterError(problems)
    return Filter(**values)


def written(meant: Filter) -> dict[str, str]:
    """The strings that `parse_filter` would read as this filter, for links and forms."""
    values = {field.name: getattr(meant, field.name) for field in fields(Filter)}
    return {name: _written(value) for name, value in values.items() if value is not None}


def checked_name(text: str) -> str:
    """The name of a topic or a destination. Raises ValueError if it is none."""
    if not NAME.fullmatch(text):
        raise ValueError(f"got {len(text)} characters; give 1 to 64 of A-Z a-z 0-9 _ -")
    return text


def _state(text: str) -> State:
    if text not in frozenset(State):
        raise ValueError(f"is no state; give one of {', '.join(State)}")
    return State(text)


def _visible(limit: int) -> Callable[[str], str]:
    """A text of one word that can be seen."""

    def parse(text: str) -> str:
        if len(text) > limit or not text.isprintable() or " " in text:
            raise ValueError(f"got {len(text)} characters; give at most {limit}, none of them a space or invisible")
        return text

    return parse


def _reference(text: str) -> str:
    if not _OUTBOX_ID.fullmatch(text):
        raise ValueError(f"got {len(text)} characters; give an outbox_id, 36 of 0-9 a-f -, or a row id")
    return text.lower()


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
        utc = instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no instant; give one such as 2030-01-31T08:00") from None
    if not _EARLIEST <= utc <= _LATEST:
        raise ValueError("is no instant that messages are of; give one from 1970 to 9990")
    return utc


def _written(value: State | str | datetime) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "state": _state,
    "destination": checked_name,
    "topic": checked_name,
    "error_code": _visible(_CODE_CHARACTERS),
    "key": _visible(_KEY_CHARACTERS),
    "outbox_id": _reference,
    "message_id": _visible(_MESSAGE_ID_CHARACTERS),
    "created_from": _instant,
    "created_until": _instant,
}
