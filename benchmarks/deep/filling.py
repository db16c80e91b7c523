"""Databases of the benchmark's own, filled with millions of rows by statements that the server runs alone."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, String, cast, func, insert, literal, literal_column, select, text

from benchmarks.sinks import BODY
from outbox.migrate import upgrade
from outbox.states import State
from outbox.store.engine import create_engine
from outbox.table import db_after, db_now, messages
from tests import services

__all__ = ["fill", "fresh", "settle"]

_ROWS_AT_ONCE = 200_000
_BYTES_AT_ONCE = 200_000_000
# Where the number ``n`` of each row comes from, by the name of the dialect.
_NUMBERS = {
    "postgresql": "generate_series({0}, {1}) AS n",
    "mysql": "(SELECT CAST(seq AS SIGNED) AS n FROM seq_{0}_to_{1}) AS numbers",
    "sqlite": "(WITH RECURSIVE up(n) AS (SELECT {0} UNION ALL SELECT n + 1 FROM up WHERE n < {1}) SELECT n FROM up)",
}
_N: ColumnElement[int] = literal_column("n")
_SETTLE = {
    "postgresql": ("VACUUM ANALYZE outbox_messages", "CHECKPOINT"),
    "mysql": ("ANALYZE TABLE outbox_messages",),
    "sqlite": ("ANALYZE",),
}

_statements = count()


@contextmanager
def fresh(kind: str) -> Iterator[Engine]:
    """An empty outbox in a database of its own on the server that the tests use; dropped afterwards."""
    with tempfile.TemporaryDirectory() as directory, services.fresh_database(kind, Path(directory)) as url:
        engine = create_engine(url)
        upgrade(engine)
        try:
            yield engine
        finally:
            engine.dispose()


def fill(engine: Engine, rows: int, *, sent: bool = False, key: str | None = None, body: str = BODY) -> None:
    """Insert so many rows of one lane, pending and due, or sent.

    Args:
        engine: of any of the databases.
        rows: how many.
        sent: whether they have been sent already.
        key: an SQL expression of ``n``, the number of the row, for the ordering key.
        body: of every row.
    """
    at_once = min(_ROWS_AT_ONCE, max(1, _BYTES_AT_ONCE // len(body)))
    for first in range(1, rows + 1, at_once):
        columns = _columns(engine.dialect.name, body, sent=sent)
        columns["ordering_key"] = literal_column(key) if key else literal_column("NULL")
        numbers = text(_NUMBERS[engine.dialect.name].format(first, min(first + at_once - 1, rows)))
        found = select(*columns.values()).select_from(numbers)
        with engine.begin() as connection:
            connection.execute(insert(messages).from_select([*columns], found, include_defaults=False))


def _columns(dialect: str, body: str, *, sent: bool) -> dict[str, Any]:
    # As enqueue makes them: 36 characters that grow.
    number = _N + next(_statements) * 10**10
    outbox_id = func.printf("%036d", number) if dialect == "sqlite" else func.lpad(cast(number, String), 36, "0")
    columns: dict[str, Any] = {
        "outbox_id": outbox_id,
        "destination": literal("default"),
        "topic": literal("orders"),
        "properties": literal(f"KEYS:order-7|outbox_id:{'0' * 36}|"),
        "body": literal(body),
        "body_bytes": literal(len(body)),
        "state": literal((State.SENT if sent else State.PENDING).value),
        "available_at": db_after(_N * literal_column("1e-6") - 60),
        "created_at": db_now(),
        "attempts": literal(int(sent)),
    }
    columns |= {name: literal(0) for name in ("crashes", "unknown_outcomes", "replays")}
    return columns | ({"sent_at": db_now(), "message_id": outbox_id, "confirmed_by": literal("answer")} if sent else {})


def settle(engine: Engine) -> None:
    """What a database does by itself in time: remove dead rows, renew its statistics, write down what is in memory."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in _SETTLE[engine.dialect.name]:
            connection.execute(text(statement)).close()
