"""Who drains an outbox of so many rows: each gets the database's URL, the sink's, and how many rows there are."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from sqlalchemy import create_engine, text

from outbox.settings import Settings
from outbox.store import lanes
from outbox.store.claim import claim
from outbox.store.database import Database
from outbox.store.mark import MarkSent, mark
from outbox.wiring import Runtime

__all__ = ["Contender", "Used", "ours", "sdk_loop", "task_per_row"]

PROCESSES = 2


@dataclass(frozen=True)
class Used:
    """What draining has taken: seconds, and seconds of CPU in all of its processes."""

    seconds: float
    cpu_s: float


Contender = Callable[[str, str, int], Used]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ours(engine_name: str, concurrency: int) -> Contender:
    """Our relay with that engine."""

    def run(database_url: str, url: str, count: int) -> Used:
        before, started = _cpu_s(), time.monotonic()
        runtime = Runtime(
            Settings.from_env(
                {
                    "OUTBOX_DATABASE_URL": database_url,
                    "OUTBOX_ENDPOINT": url,
                    "OUTBOX_ACCESS_KEY_ID": "FAKEAKID",
                    "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET",
                    "OUTBOX_GROUP_ID": "GID_orders",
                    "OUTBOX_HTTP_ENGINE": engine_name,
                    "OUTBOX_CONCURRENCY": str(concurrency),
                }
            )
        )
        counts = runtime.relay().run(runtime.drained(30.0))
        runtime.close()
        if counts.sent != count:
            raise SystemExit(f"{engine_name} sent {counts.sent} of {count}")
        return Used(time.monotonic() - started, _cpu_s() - before)

    return run


def sdk_loop(database_url: str, url: str, count: int) -> Used:
    """The official SDK, one message after the other, with our claim and mark: 500 rows at a time."""
    from mq_http_sdk.mq_client import MQClient  # noqa: PLC0415 - a development dependency
    from mq_http_sdk.mq_producer import TopicMessage  # noqa: PLC0415

    before, started, sent = _cpu_s(), time.monotonic(), 0
    engine = create_engine(database_url, isolation_level="READ COMMITTED")
    database, producer = Database(engine), MQClient(url, "FAKEAKID", "FAKESECRET").get_producer("", "orders")
    while rows := claim(database, lanes.Lane("default", "orders"), limit=500, lease_s=60, max_attempts=10):
        marks = []
        for row in rows:
            message = TopicMessage(row.body)
            message.set_message_key("k")
            marks.append(MarkSent(row.id, row.lease_token, producer.publish_message(message).message_id))
        mark(database, list(marks), keep_sent=True)
        sent += len(marks)
    engine.dispose()
    if sent != count:
        raise SystemExit(f"the SDK's loop sent {sent} of {count}")
    return Used(time.monotonic() - started, _cpu_s() - before)


def task_per_row(broker_url: str) -> Contender:
    """One Celery task for each row, on two worker processes; from the first task sent to the last row marked."""

    def run(database_url: str, url: str, count: int) -> Used:
        given = {"PER_ROW_BROKER": broker_url, "PER_ROW_DATABASE": database_url, "PER_ROW_ENDPOINT": url}
        os.environ.update(given)
        from benchmarks.per_row import publish  # noqa: PLC0415 - it reads what was just set

        command = [sys.executable, "-m", "celery", "-A", "benchmarks.per_row", "worker", "-c", str(PROCESSES)]
        engine = create_engine(database_url)
        left, ids = (
            text("SELECT count(*) FROM outbox_messages WHERE state = 'pending'"),
            text("SELECT id FROM outbox_messages"),
        )
        with engine.connect() as connection:
            row_ids = list(connection.scalars(ids))
        with subprocess.Popen(
            [*command, "-l", "error"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as worker:
            try:
                # It is ready once it has taken this.
                publish.delay(0)
                while publish.app.control.inspect(timeout=0.5).ping() is None:
                    time.sleep(0.1)
                before, started = _cpu_of(worker.pid), time.monotonic()
                for row_id in row_ids:
                    publish.delay(row_id)
                with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    while connection.scalar(left):
                        if time.monotonic() - started > 60 + count / 20:
                            raise SystemExit("one task per row does not get on")
                        time.sleep(0.05)
                return Used(time.monotonic() - started, _cpu_of(worker.pid) - before)
            finally:
                worker.terminate()

    return run


def _cpu_of(pid: int) -> float:
    """Seconds of CPU of a process, its children, and this one, which sends the tasks."""
    parent = psutil.Process(pid)
    times = [one.cpu_times() for one in (parent, *parent.children(recursive=True))]
    return _cpu_s() + sum(one.user + one.system for one in times)
