"""Who drains an outbox of so many rows: each gets the database's URL, the sink's, and how many rows there are."""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import psutil
from sqlalchemy import Connection, create_engine, text

from benchmarks.sinks import KEYS
from outbox.relay import Counts
from outbox.settings import Settings
from outbox.store import lanes
from outbox.store.claim import claim
from outbox.store.database import Database
from outbox.store.mark import MarkSent, mark
from outbox.wiring import Runtime

__all__ = [
    "PROCESSES",
    "Contender",
    "Used",
    "forked",
    "has_peers",
    "ours",
    "peer",
    "peer_versions",
    "sdk_loop",
    "task_per_row",
]

#: Of the Celery worker that takes one task a row.
PROCESSES = 2
_PEERS = Path(".venv/bench/bin/python")
_PATIENCE_S = 120


@dataclass(frozen=True)
class Used:
    """What draining has taken: seconds, and seconds of CPU in all of its processes."""

    seconds: float
    cpu_s: float


#: Can be sent to another process.
Contender = Callable[[str, str, int], Used]


def ours(engine_name: str, at_once: int, processes: int = 1) -> Contender:
    """Our relay with that engine, in so many processes of so many requests at once each."""
    return _Ours(engine_name, at_once, processes)


def peer(module: str, at_once: int) -> Contender:
    """Another outbox for Python, which brings its own rows; see the modules of ``benchmarks/peers``."""
    return partial(_peer, module, at_once)


def has_peers() -> bool:
    """Whether they are installed, which only ``make bench`` does."""
    return _PEERS.exists()


def peer_versions(*names: str) -> dict[str, str]:
    """Of the packages that are installed for them, those of these names."""
    places = [str(place) for place in _PEERS.parents[1].glob("lib/*/site-packages")]
    return {one.name: one.version for one in distributions(path=places) if one.name in names}


def task_per_row(broker_url: str) -> Contender:
    """One Celery task for each row, on two worker processes; from the first task sent to the last row marked."""
    return partial(_task_per_row, broker_url)


def sdk_loop(database_url: str, url: str, count: int) -> Used:
    """The official SDK, one message after the other, with our claim and mark: 500 rows at a time."""
    from mq_http_sdk.mq_client import MQClient  # noqa: PLC0415 - a development dependency
    from mq_http_sdk.mq_producer import TopicMessage  # noqa: PLC0415

    before, started, sent = _cpu_s(), time.monotonic(), 0
    engine = create_engine(database_url, isolation_level="READ COMMITTED")
    database, producer = Database(engine), MQClient(url, *KEYS.values()).get_producer("", "orders")
    while rows := claim(database, lanes.Lane("default", "orders"), limit=500, lease_s=60, max_attempts=10):
        marks = []
        for row in rows:
            message = TopicMessage(row.body)
            message.set_message_key("k")
            marks.append(MarkSent(row.id, row.lease_token, producer.publish_message(message).message_id))
        mark(database, list(marks), keep_sent=True)
        sent += len(marks)
    engine.dispose()
    _check(sent, count)
    return Used(time.monotonic() - started, _cpu_s() - before)


@contextmanager
def forked(processes: int = 1) -> Iterator[ProcessPoolExecutor]:
    """Processes with all that is imported here, and nothing that was opened."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork")) as pool:
        yield pool


@dataclass(frozen=True)
class _Drained:
    """What one relay did; by the machine's monotonic clock, from its start to the last rows that it marked."""

    sent: int
    started: float
    ended: float
    cpu_s: float


@dataclass(frozen=True)
class _Ours:
    engine_name: str
    at_once: int
    processes: int

    def __call__(self, database_url: str, url: str, count: int) -> Used:
        if self.processes == 1:
            drained = [self._drain(database_url, url)]
        else:
            with forked(self.processes) as pool:
                drained = list(pool.map(self._drain, [database_url] * self.processes, [url] * self.processes))
        _check(sum(one.sent for one in drained), count)
        seconds = max(one.ended for one in drained) - min(one.started for one in drained)
        return Used(seconds, sum(one.cpu_s for one in drained))

    def _drain(self, database_url: str, url: str) -> _Drained:
        settings = {
            "OUTBOX_DATABASE_URL": database_url,
            "OUTBOX_ENDPOINT": url,
            "OUTBOX_GROUP_ID": "GID_orders",
            "OUTBOX_HTTP_ENGINE": self.engine_name,
            "OUTBOX_CONCURRENCY": str(self.at_once),
        }
        before, started = _cpu_s(), time.monotonic()
        # A relay that finds nothing left looks again for what another holds: that is no part of the work.
        ended = started

        def on_progress(_counts: Counts) -> None:
            nonlocal ended
            ended = time.monotonic()

        runtime = Runtime(Settings.from_env(settings | KEYS))
        counts = runtime.relay(on_progress).run(runtime.drained(30.0))
        runtime.close()
        return _Drained(counts.sent, started, ended, _cpu_s() - before)


def _peer(module: str, at_once: int, database_url: str, url: str, count: int) -> Used:
    command = [str(_PEERS), "-m", f"benchmarks.peers.{module}", database_url, url, str(count), str(at_once)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_PATIENCE_S).stdout
    return Used(**json.loads(told.splitlines()[-1]))


def _task_per_row(broker_url: str, database_url: str, url: str, count: int) -> Used:
    os.environ |= {"PER_ROW_BROKER": broker_url, "PER_ROW_DATABASE": database_url, "PER_ROW_ENDPOINT": url}
    from benchmarks.per_row import publish  # noqa: PLC0415 - it reads what was just set

    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, _worker() as pid:
        row_ids = connection.scalars(text("SELECT id FROM outbox_messages")).all()
        # It is ready once it has answered.
        while publish.app.control.inspect(timeout=0.5).ping() is None:
            time.sleep(0.1)
        before, started = _cpu_of(pid), time.monotonic()
        for row_id in row_ids:
            publish.delay(row_id)
        _wait_for_all(connection, started + _PATIENCE_S)
        used = Used(time.monotonic() - started, _cpu_of(pid) - before)
    engine.dispose()
    _check(len(row_ids), count)
    return used


@contextmanager
def _worker() -> Iterator[int]:
    """The id of a worker process, which takes the tasks of ``benchmarks.per_row``."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.per_row", "worker", "-c", str(PROCESSES)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "-l", "error"], **quiet) as worker:
        try:
            yield worker.pid
        finally:
            worker.terminate()


def _wait_for_all(connection: Connection, until: float) -> None:
    while connection.scalar(text("SELECT count(*) FROM outbox_messages WHERE state = 'pending'")):
        if time.monotonic() > until:
            raise RuntimeError("one task a row does not get on")
        time.sleep(0.05)


def _check(sent: int, count: int) -> None:
    if sent != count:
        raise RuntimeError(f"{sent} of {count} were sent")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cpu_of(pid: int) -> float:
    """Seconds of CPU of a process, its children, and this one, which sends the tasks."""
    parent = psutil.Process(pid)
    times = [one.cpu_times() for one in (parent, *parent.children(recursive=True))]
    return _cpu_s() + sum(one.user + one.system for one in times)
