"""Which messages an operator means."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause

from outbox.states import State
from outbox.store.conditions import has_key, is_message, state_is

__all__ = ["Filter"]

_EQUAL = {
    "destination": "destination",
    "topic": "topic",
    "error_code": "last_error_code",
    "message_id": "message_id",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Messages for which everything holds that is not None.

    Attributes:
        state: they are in this state.
        destination: of this destination.
        topic: of this topic.
        error_code: their last attempt that did not end well ended with this code.
        key: among their keys, compared byte by byte.
        outbox_id: the one with this outbox_id, or with this row id.
        message_id: those that the broker took under this MessageId.
        created_from: created at this instant or later.
        created_until: created before this instant.
    """

    state: State | None = None
    destination: str | None = None
    topic: str | None = None
    error_code: str | None = None
    key: str | None = None
    outbox_id: str | None = None
    message_id: str | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None

    def conditions(self, rows: FromClause) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        found = [state_is(rows, self.state)] if self.state else []
        for field, column in _EQUAL.items():
            value: Any = getattr(self, field)
            found += [rows.c[column] == value] if value is not None else []
        found += [is_message(rows, self.outbox_id)] if self.outbox_id is not None else []
        found += [has_key(rows, self.key)] if self.key is not None else []
        found += [rows.c.created_at >= self.created_from] if self.created_from else []
        found += [rows.c.created_at < self.created_until] if self.created_until else []
        return found
