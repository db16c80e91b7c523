"""The nudge: how soon after its commit a message is there, and what the one that commits pays for it.

The system is quiet: one commit at a time, then a pause. A Celery worker on Redis relays with the engine on libcurl, and
no beat runs: what arrives was nudged. The message has arrived when its POST has been read.
"""

import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median

from celery import Celery
from sqlalchemy import Engine, create_engine, insert
from sqlalchemy.orm import Session

from benchmarks.figures import Latency
from benchmarks.sinks import BODY, DIGEST, KEYS
from outbox import Message, enqueue
from outbox.celery import install
from outbox.settings import Settings
from outbox.table import messages, row_of

__all__ = ["measure_latency"]

_MESSAGE = Message("orders", BODY, keys="k")
_PAUSE_S = (0.02, 0.12)
_PATIENCE_S = 10
_BLOCK = 10


def measure_latency(database_url: str, broker_url: str, rounds: int, commits: int) -> Latency:
    """Measure both sides, in a process that has nudged nobody before and ends soon."""
    arrivals: queue.SimpleQueue[float] = queue.SimpleQueue()
    found = Latency()
    with _receiver(arrivals) as url:
        settings = KEYS | {
            "OUTBOX_DATABASE_URL": database_url,
            "OUTBOX_BROKER_URL": broker_url,
            "OUTBOX_ENDPOINT": url,
            "OUTBOX_HTTP_ENGINE": "curl",
        }
        app = Celery("latency", broker=broker_url)
        install(app, Settings.from_env(settings))
        engine = create_engine(database_url)
        with _worker(app, settings):
            # The first open every connection there is, in each of the worker's processes.
            for _ in range(_BLOCK):
                _delivered_ms(engine, arrivals)
            found.delivered_ms.extend([_delivered_ms(engine, arrivals) for _ in range(commits)] for _ in range(rounds))
        engine.dispose()
    # Without the worker, which would take its share of the processors; and without waiting for the disk, which makes
    # either commit longer than both, and never twice the same.
    engine = create_engine(database_url, connect_args={"options": "-c synchronous_commit=off"})
    for _ in range(rounds):
        _add_prices(found, engine, commits)
    engine.dispose()
    return found


def _delivered_ms(engine: Engine, arrivals: queue.SimpleQueue[float]) -> float:
    """After a pause, from a commit to the arrival of its message."""
    time.sleep(random.uniform(*_PAUSE_S))
    with Session(engine) as session:
        enqueue(session, _MESSAGE)
        session.commit()
        committed = time.perf_counter()
    return (arrivals.get(timeout=_PATIENCE_S) - committed) * 1e3


def _add_prices(found: Latency, engine: Engine, commits: int) -> None:
    """Add a round of commits without a nudge and with one; in blocks, for a thread's CPU is spent after the commit."""
    walls: dict[bool, list[float]] = {False: [], True: []}
    cpu_us = {False: 0.0, True: 0.0}
    for block in range(2 * -(-commits // _BLOCK)):
        nudges = bool(block % 2)
        before = time.process_time()
        walls[nudges] += [_commit_us(engine, nudges=nudges) for _ in range(_BLOCK)]
        cpu_us[nudges] += (time.process_time() - before) * 1e6
    found.commit_us.append(median(walls[False]))
    found.nudged_us.append(median(walls[True]))
    found.cpu_us.append((cpu_us[True] - cpu_us[False]) / len(walls[True]))


def _commit_us(engine: Engine, *, nudges: bool) -> float:
    """The wall time of a commit of one row, and a pause for the nudge to be on its way."""
    with Session(engine) as session:
        if nudges:
            enqueue(session, _MESSAGE)
        else:
            session.execute(insert(messages), [row_of(_MESSAGE, 0.0)])
        started = time.perf_counter()
        session.commit()
        took = time.perf_counter() - started
    time.sleep(_PAUSE_S[0])
    return took * 1e6


@contextmanager
def _receiver(arrivals: queue.SimpleQueue[float]) -> Iterator[str]:
    """A sink that tells when each POST has been read; its URL."""
    xml = f"<Message><MessageId>{'A' * 32}</MessageId><MessageBodyMD5>{DIGEST}</MessageBodyMD5></Message>".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            arrivals.put(time.perf_counter())
            self.send_response(201)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(xml)))
            self.end_headers()
            self.wfile.write(xml)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def _worker(app: Celery, settings: dict[str, str]) -> Iterator[None]:
    """A worker with two processes, from when it answers."""
    command = [sys.executable, "-m", "celery", "-A", "outbox.celery", "worker", "-c", "2", "-l", "error"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | settings, **quiet) as worker:
        try:
            until = time.monotonic() + 6 * _PATIENCE_S
            while app.control.inspect(timeout=0.5).ping() is None:
                if time.monotonic() > until:
                    raise RuntimeError("the Celery worker does not answer")
            yield
        finally:
            worker.terminate()
