"""How rows lie on PostgreSQL's pages: updates in place, bytes written, and what deleting them at once would change."""

from contextlib import ExitStack
from statistics import median
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.deep.claims import BATCH, Worker
from benchmarks.deep.filling import fill, fresh, settle

__all__ = ["pages", "sqlite_claims"]

_TABLE = "outbox_messages"


def pages(rows: int) -> dict[str, dict[str, float]]:
    """By how full pages are made, and for ``OUTBOX_KEEP_SENT=false``: what a row costs, taking turns."""
    variants: dict[str, tuple[int | None, bool]] = {
        "as migrated": (None, True),
        "fillfactor 70": (70, True),
        "fillfactor 100": (100, True),
        "as migrated, sent rows deleted": (None, False),
    }
    with ExitStack() as stack:
        runs = {}
        for name, (fillfactor, keep_sent) in variants.items():
            engine = stack.enter_context(fresh("postgresql"))
            if fillfactor:
                with engine.begin() as connection:
                    connection.execute(text(f"ALTER TABLE {_TABLE} SET (fillfactor = {fillfactor})"))
            fill(engine, rows)
            settle(engine)
            runs[name] = _Run(engine, keep_sent=keep_sent)
        for _ in range(rows // BATCH):
            for run in runs.values():
                run.batch()
        return {name: run.found(rows) for name, run in runs.items()}


class _Run:
    """One variant, and the bytes of the log that its batches wrote."""

    def __init__(self, engine: Engine, *, keep_sent: bool) -> None:
        self._engine = engine
        self._worker = Worker(engine, keep_sent=keep_sent)
        self._log_bytes = 0

    def batch(self) -> None:
        before = self._ask("SELECT pg_current_wal_insert_lsn()")
        self._worker.batch()
        self._log_bytes += self._ask(f"SELECT pg_current_wal_insert_lsn() - '{before}'")

    def found(self, rows: int) -> dict[str, float]:
        costs = self._worker.costs
        # A backend tells what it has counted when it ends, at the latest.
        self._engine.dispose()
        counted = f"(SELECT {{}} FROM pg_stat_user_tables WHERE relname = '{_TABLE}')"
        in_place = self._ask(f"SELECT {counted.format('n_tup_hot_upd')}")
        return {
            "claim_us": round(median(costs.claim) / BATCH * 1e6, 1),
            "mark_us": round(median(costs.mark) / BATCH * 1e6, 1),
            "log_bytes": round(int(self._log_bytes) / rows),
            "claims_in_place": round(in_place / rows, 3),
            "table_bytes": round(self._ask(f"SELECT pg_table_size('{_TABLE}')") / rows),
            "index_bytes": round(self._ask(f"SELECT pg_indexes_size('{_TABLE}')") / rows),
        }

    def _ask(self, query: str) -> Any:
        with self._engine.connect() as connection:
            return connection.scalar(text(query))


def sqlite_claims(rows: int, *, sent: int) -> dict[str, float]:
    """What a row costs on SQLite, with the index named in the statement as it is shipped, and sent rows kept."""
    with fresh("sqlite") as engine:
        fill(engine, sent, sent=True)
        fill(engine, rows)
        worker = Worker(engine)
        for _ in range(rows // BATCH):
            worker.batch()
        return worker.costs.summary()
