"""What claiming and marking cost: with a backlog, with sent rows kept, beside a long transaction, and among others."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.deep.filling import fill, fresh, settle
from outbox.clock import SYSTEM
from outbox.relay.claiming import Claimer
from outbox.retry import Policy
from outbox.store.claim import ClaimedRow
from outbox.store.database import Database
from outbox.store.engine import create_engine
from outbox.store.lanes import left_to_do
from outbox.store.mark import MarkSent, mark

__all__ = ["BATCH", "Worker", "crowd", "long_transaction", "piles"]

BATCH = 500
#: What a relay claims from one look to the next at some 5,000 rows a second.
BATCHES_A_LOOK = 10
MESSAGE_ID = "A" * 32


@dataclass
class Costs:
    """Seconds of each call."""

    look: list[float] = field(default_factory=list)
    claim: list[float] = field(default_factory=list)
    mark: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Means, since what is paid now and then belongs to the cost: µs a row, and ms of what is asked when idle."""
        rows = BATCH * len(self.claim)
        parts = {name: sum(getattr(self, name)) / rows * 1e6 for name in ("look", "claim", "mark")}
        found = {f"{name}_us": round(value, 1) for name, value in parts.items()}
        return found | {"row_us": round(sum(parts.values()), 1), "left_ms": round(mean(self.left or [0]) * 1e3, 2)}


class Worker:
    """A relay without its broker: looks, claims and marks as a relay does, one after the other."""

    def __init__(self, engine: Engine, *, keep_sent: bool = True, batches_a_look: int | None = None) -> None:
        self.costs = Costs()
        self._database = Database(engine)
        self._claimer = Claimer(
            self._database, SYSTEM, lease_s=60.0, policy=Policy(), skip_failed_heads=frozenset[str]()
        )
        self._keep_sent = keep_sent
        self._batches_a_look = batches_a_look
        self._batches = 0

    def batch(self) -> None:
        """One batch of rows from a lane that has as many."""
        if self._is_look_due():
            (self._due,) = self._timed(self.costs.look, self._claimer.look)
        rows: list[ClaimedRow] = self._timed(self.costs.claim, lambda: self._claimer.claim(self._due, BATCH))
        if len(rows) != BATCH:
            raise SystemExit(f"a claim of {BATCH} rows found {len(rows)}")
        marks = [MarkSent(row.id, row.lease_token, MESSAGE_ID) for row in rows]
        self._timed(self.costs.mark, lambda: mark(self._database, marks, keep_sent=self._keep_sent))
        self._batches += 1

    def ask_what_is_left(self) -> None:
        """What a relay asks when it is idle."""
        self._timed(self.costs.left, lambda: left_to_do(self._database, frozenset()))

    def _is_look_due(self) -> bool:
        if self._batches_a_look:
            return self._batches % self._batches_a_look == 0
        return not self._batches or self._claimer.is_look_old()

    @staticmethod
    def _timed(costs: list[float], call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = call()
        costs.append(time.perf_counter() - started)
        return found


# --- piles --------------------------------------------------------------------------------------------------------


def piles(kind: str, given: Mapping[str, tuple[int, int]], *, batches: int) -> dict[str, dict[str, float]]:
    """What a row costs in outboxes of so many pending and so many sent rows, taking turns, each topped up again.

    Medians, for another's work on the machine hits single batches.
    """
    with ExitStack() as stack:
        workers = {}
        for name, (pending, sent) in given.items():
            engine = stack.enter_context(fresh(kind))
            fill(engine, sent, sent=True)
            fill(engine, pending)
            settle(engine)
            workers[name] = (engine, Worker(engine, batches_a_look=BATCHES_A_LOOK))
        for _ in range(batches):
            for engine, worker in workers.values():
                worker.batch()
                worker.ask_what_is_left()
                fill(engine, BATCH)
        return {name: _middle(worker.costs) for name, (_engine, worker) in workers.items()}


def _middle(costs: Costs) -> dict[str, float]:
    look_s = median(costs.look) / BATCHES_A_LOOK
    parts = {"look": look_s, "claim": median(costs.claim), "mark": median(costs.mark)}
    found = {f"{name}_us": round(value / BATCH * 1e6, 1) for name, value in parts.items()}
    total = sum(parts.values()) / BATCH * 1e6
    return found | {"row_us": round(total, 1), "left_ms": round(median(costs.left) * 1e3, 2)}


# --- beside a long transaction ------------------------------------------------------------------------------------


@contextmanager
def _snapshot(engine: Engine) -> Iterator[None]:
    """A transaction that might read any row as it is now, and does nothing."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT id FROM outbox_messages WHERE id = 1")).all()
        yield
        connection.rollback()


def long_transaction(kind: str, rows: int, *, parts: int = 10) -> dict[str, list[dict[str, float]]]:
    """What a row costs from part to part of so many rows, with a long transaction open and, taking turns, without."""
    with ExitStack() as stack:
        engines = {name: stack.enter_context(fresh(kind)) for name in ("with", "without")}
        for engine in engines.values():
            fill(engine, rows + BATCH)
            settle(engine)
        stack.enter_context(_snapshot(engines["with"]))
        workers = {name: Worker(engine) for name, engine in engines.items()}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
        for _part in range(parts):
            for _batch in range(rows // parts // BATCH):
                for worker in workers.values():
                    worker.batch()
            for name, worker in workers.items():
                worker.ask_what_is_left()
                found[name].append(worker.costs.summary())
                worker.costs = Costs()
        return found


# --- among others -------------------------------------------------------------------------------------------------


def crowd(kind: str, rows: int, *, claimers: int) -> dict[str, float]:
    """So many processes claim all rows at once; the share of claims that found nothing although more was to be had.

    To be had is what a claim that began after this one's end has got.
    """
    with fresh(kind) as engine:
        fill(engine, rows)
        settle(engine)
        url = engine.url.render_as_string(hide_password=False)
        engine.dispose()
        context = multiprocessing.get_context("fork")
        barrier, told = context.Barrier(claimers), context.SimpleQueue()
        arguments = (url, barrier, told)
        processes = [context.Process(target=_claim_all, args=arguments) for _ in range(claimers)]
        for process in processes:
            process.start()
        claims = [one for _ in processes for one in told.get()]
        for process in processes:
            process.join()
    if sum(got for _began, _ended, got in claims) != rows:
        raise SystemExit(f"{claimers} claimers did not claim {rows} rows once each")
    last = max(began for began, _ended, got in claims if got)
    in_vain = sum(not got and ended < last for _began, ended, got in claims)
    began, ended = min(one[0] for one in claims), max(one[1] for one in claims if one[2])
    in_all = sum(bool(got) for *_times, got in claims) + in_vain
    return {
        "claims": in_all,
        "in_vain": in_vain,
        "share": round(in_vain / in_all, 4),
        "rows_a_second": round(rows / (ended - began)),
        "row_us": round(claimers * (ended - began) / rows * 1e6, 1),
    }


def _claim_all(url: str, barrier: Any, told: Any) -> None:
    """Claim until nothing is left: beginning, end and rows of each claim, by a clock that all processes share."""
    engine = create_engine(url)
    database = Database(engine)
    claimer = Claimer(database, SYSTEM, lease_s=600.0, policy=Policy(), skip_failed_heads=frozenset[str]())
    claimer.look()
    barrier.wait()
    claims = []
    while _is_any_free(engine):
        for due in claimer.look():
            got = BATCH
            while got == BATCH and not claimer.is_look_old():
                began = time.monotonic()
                got = len(claimer.claim(due, BATCH))
                claims.append((began, time.monotonic(), got))
    told.put(claims)
    engine.dispose()


def _is_any_free(engine: Engine) -> bool:
    free = text("SELECT 1 FROM outbox_messages WHERE state = 'pending' AND lease_token IS NULL LIMIT 1")
    with engine.connect() as connection:
        return connection.scalar(free) is not None
