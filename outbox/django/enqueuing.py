"""Enqueue through Django's own cursor, so that the rows belong to Django's own transaction."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy import Dialect, Executable, Insert
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from outbox.after_commit import call_hooks
from outbox.django.databases import dialect_of, opened_by_tests
from outbox.django.settings import default_alias, of_project
from outbox.errors import EnqueueError
from outbox.insertion import Row, insert, rows_of
from outbox.message import Message
from outbox.table import messages

__all__ = ["enqueue"]

# What the columns hold unless a row says otherwise; an INSERT through SQLAlchemy's own connection fills it in.
_DEFAULTS = {
    column.name: column.default.arg
    for column in messages.columns
    if isinstance(column.default, ScalarElementColumnDefault)
}
_Process = Callable[[Any], Any]


def enqueue(*many: Message, using: str | None = None) -> list[int]:
    """Insert messages in the present transaction; they are published after it commits, and only then.

    Args:
        many: the messages; any number in few statements.
        using: the alias of the database where your own change is, so that both are committed together; where the
            project's routers put the outbox, unless given.

    Returns:
        The row ids in the order given, in which new ones also ascend. A message whose ``deduplication_key`` already has
        a row on its destination and topic inserts nothing and gets that row's id.

    Raises:
        EnqueueError: no transaction is open, so that the message could be sent although your change is not made, or
            the other way round.
        ConfigError: ``settings.OUTBOX`` is wrong.
        django.db.Error: as the database raised it.
    """
    alias = using or default_alias()
    connection = connections[alias]
    # Those of a TestCase are not there in production.
    if all(opened_by_tests(connection)):
        raise EnqueueError(
            f"no transaction is open on {alias!r}, so your change and the message could not be committed together;"
            f" put both into one `with transaction.atomic({'' if alias == 'default' else f'using={alias!r}'}):`,"
            " or set ATOMIC_REQUESTS"
        )
    ids, new = insert(_Target(connection, len(many)), rows_of(many, of_project().deliver_horizon_s))
    if new and not _will_call_hooks(connection):
        transaction.on_commit(call_hooks, using=alias, robust=True)
    return ids


def _will_call_hooks(connection: BaseDatabaseWrapper) -> bool:
    """Whether they will be called already unless what is open now is rolled back."""
    opened = set(connection.savepoint_ids)
    return any(hook[1] is call_hooks and set(hook[0]) <= opened for hook in connection.run_on_commit)


class _Target:
    """Django's connection, as `outbox.insertion` writes through it."""

    def __init__(self, connection: BaseDatabaseWrapper, rows: int) -> None:
        self.dialect = dialect_of(connection)
        # Row by row where the database is in this very process; on MariaDB each of many would be a round trip.
        one_by_one = connection.vendor != "mysql" or (rows == 1 and connection.features.can_return_columns_from_insert)
        self.returns_many = one_by_one
        self._connection = connection

    def fetch(self, statement: Executable, parameters: Any = None) -> Sequence[Any]:
        given = parameters if isinstance(parameters, list) else [parameters or {}]
        found: list[Any] = []
        with self._connection.cursor() as cursor:
            for row in given:
                cursor.execute(*_compiled(statement, self.dialect, row).bound(row))
                found += cursor.fetchall()
        return _read(statement, found, self.dialect)

    def execute_many(self, statement: Executable, rows: list[Row]) -> None:
        whole = [_DEFAULTS | row for row in rows]
        compiled = _compiled(statement, self.dialect, whole[0])
        bound = [compiled.bound(row) for row in whole]
        with self._connection.cursor() as cursor:
            cursor.executemany(bound[0][0], [values for _, values in bound])


class _Compiled:
    """A statement as text, and what its parameters must become for the driver."""

    def __init__(self, statement: Any, dialect: Dialect, columns: tuple[str, ...] | None) -> None:
        self._compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=columns and list(columns))
        kinds = {name: one.type.dialect_impl(dialect) for name, one in self._compiled.binds.items()}
        self._processors = {name: kind.bind_processor(dialect) for name, kind in kinds.items()}

    def bound(self, row: Row) -> tuple[str, dict[str, Any]]:
        """The text, and its parameters."""
        state = self._compiled.construct_expanded_state(row)
        processors = {**self._processors, **state.processors}
        values = {}
        for name, value in state.parameters.items():
            process = processors.get(name)
            values[name] = process(value) if process else value
        return state.statement, values


@cache
def _cached(statement: Insert, dialect: Dialect, columns: tuple[str, ...]) -> _Compiled:
    return _Compiled(statement, dialect, columns)


def _compiled(statement: Executable, dialect: Dialect, columns: Iterable[str]) -> _Compiled:
    """Once for each INSERT: `outbox.insertion` has few, and they live as long as the process."""
    if isinstance(statement, Insert):
        return _cached(statement, dialect, tuple(columns))
    return _Compiled(statement, dialect, None)


def _read(statement: Any, rows: Sequence[Any], dialect: Dialect) -> Sequence[Any]:
    """The rows, their values as SQLAlchemy's types give them."""
    kinds = [column.type.dialect_impl(dialect) for column in statement.exported_columns]
    processors: list[_Process | None] = [kind.result_processor(dialect, None) for kind in kinds]
    if not any(processors):
        return rows
    return [
        tuple(process(value) if process else value for process, value in zip(processors, row, strict=True))
        for row in rows
    ]
