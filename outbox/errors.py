"""Every error that rocketmq-outbox raises, as one tree.

::

    OutboxError
    ├── MessageError      (ValueError)    the caller's message breaks a limit; raised before any I/O
    ├── ConfigError       (ValueError)    a setting is missing or wrong; names the key, never its secret value
    ├── EnqueueError      (RuntimeError)  the transaction given to ``enqueue`` cannot carry the promise
    ├── DatabaseError     (RuntimeError)  the outbox's database is unreachable or not migrated
    ├── OperationError    (RuntimeError)  an operator asked for something that the row's state forbids
    └── FilterError       (ValueError)    an operator looks for something that cannot be; says so of each field

What goes wrong between the relay and the broker is never raised: it is a value, see `outbox.outcomes`.
"""

from collections.abc import Mapping

__all__ = [
    "ConfigError",
    "DatabaseError",
    "EnqueueError",
    "FilterError",
    "MessageError",
    "OperationError",
    "OutboxError",
]


class OutboxError(Exception):
    """Base of every error raised by this package."""


class MessageError(OutboxError, ValueError):
    """A message breaks a rule of the HTTP API or of the outbox.

    Attributes:
        field: name of the `outbox.Message` parameter at fault, such as ``"tag"``.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field

    def __str__(self) -> str:
        return ": ".join(self.args)


class ConfigError(OutboxError, ValueError):
    """A setting is missing or wrong.

    Attributes:
        key: the setting's environment name, such as ``"OUTBOX_ENDPOINT"``.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key

    def __str__(self) -> str:
        return ": ".join(self.args)


class EnqueueError(OutboxError, RuntimeError):
    """The session or connection cannot make the row part of the caller's transaction."""


class DatabaseError(OutboxError, RuntimeError):
    """The outbox's database cannot be reached, or its schema is not the one this version needs."""


class OperationError(OutboxError, RuntimeError):
    """The row does not exist, or its state does not allow what the operator asked for."""


class FilterError(OutboxError, ValueError):
    """An operator's filter cannot be meant.

    Attributes:
        problems: what is wrong, by the name of the field.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(dict(problems))
        self.problems = dict(problems)

    def __str__(self) -> str:
        return "; ".join(f"{field}: {problem}" for field, problem in self.problems.items())
