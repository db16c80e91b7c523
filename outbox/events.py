"""Log events as text: their fields are in ``extra``, which no common format shows."""

import logging

__all__ = ["fields_of"]

# What every log record has; the rest is what the event says of itself.
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName", "data"}


def fields_of(record: logging.LogRecord) -> str:
    """The event's fields as ``name=value`` pairs, in the order in which they were given."""
    return " ".join(f"{name}={_told(value)}" for name, value in vars(record).items() if name not in _PLAIN)


def _told(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
