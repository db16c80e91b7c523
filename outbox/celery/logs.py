"""The outbox's log events in a Celery worker's own log, with their fields."""

import logging
from copy import copy
from typing import Any

from outbox.admin.words import inert
from outbox.events import fields_of

__all__ = ["show_fields"]


def show_fields(logger: logging.Logger, **_: Any) -> None:
    """Have the handlers that Celery has just given to a logger show the outbox's events whole."""
    for handler in logger.handlers:
        if not isinstance(handler.formatter, _WithFields):
            handler.setFormatter(_WithFields(handler.formatter or logging.Formatter()))


class _WithFields(logging.Formatter):
    """Another formatter, which is given the outbox's events with their fields behind their names."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        if record.name == "outbox" and (fields := fields_of(record)):
            # A copy: other handlers show the event in their own way.
            record = copy(record)
            record.msg, record.args = "%s %s", (record.msg, inert(fields))
        return self._inner.format(record)
