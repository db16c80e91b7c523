"""Whole relays, each a process of its own: what memory they take, and what ordering keys cost them.

They publish with the engine on libcurl, for which the sinks are no limit.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from statistics import median

import psutil
from sqlalchemy import Engine, text

from benchmarks import sinks
from benchmarks.deep.filling import fill, fresh, settle

__all__ = ["memory", "ordering"]

SAMPLE_S = 0.2
OUTBOX = Path(sys.executable).with_name("outbox")


@dataclass
class Drain:
    """A relay's run: seconds, and its resident memory in MB from sample to sample."""

    seconds: float = 0.0
    rss_mb: list[float] = field(default_factory=list)


# --- memory -------------------------------------------------------------------------------------------------------


def memory(rows: int, size: int) -> dict[str, object]:
    """A relay's memory while it sends so many rows of so many bytes: its peak, and the peak of each tenth."""
    body = "x" * size
    with fresh("postgresql") as engine:
        fill(engine, rows, body=body)
        settle(engine)
        with large_sink(body) if size > len(sinks.BODY) else sinks.sink(0) as url:
            run = drain(engine, url)
    tenth = max(1, len(run.rss_mb) // 10)
    tenths = [round(max(run.rss_mb[first : first + tenth])) for first in range(0, tenth * 10, tenth)]
    rate = round(rows / run.seconds, 1)
    return {"rows": rows, "bytes": size, "rows_a_second": rate, "peak_mb": round(max(run.rss_mb)), "tenths_mb": tenths}


@contextmanager
def large_sink(body: str) -> Iterator[str]:
    """A server that takes this body, whatever its size; its URL."""
    digest = md5(body.encode(), usedforsecurity=False).hexdigest().upper()
    command = [sys.executable, str(Path(__file__).with_name("large_sink.py")), digest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def drain(engine: Engine, url: str, **settings: str) -> Drain:
    """Have `outbox relay --drain` send every pending row, and see that it did."""
    environment = {
        "PATH": os.environ["PATH"],
        "OUTBOX_DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "OUTBOX_ENDPOINT": url,
        "OUTBOX_ACCESS_KEY_ID": "FAKEAKID",
        "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET",
    }
    started, found = time.monotonic(), Drain()
    with subprocess.Popen([OUTBOX, "relay", "--drain"], env=environment | settings, stdout=subprocess.DEVNULL) as relay:
        process = psutil.Process(relay.pid)
        while relay.poll() is None:
            found.rss_mb.append(process.memory_info().rss / 1e6)
            time.sleep(SAMPLE_S)
    found.seconds = time.monotonic() - started
    _check_all_sent(engine, relay.returncode)
    return found


def _check_all_sent(engine: Engine, returncode: int) -> None:
    with engine.connect() as connection:
        left = connection.scalar(text("SELECT count(*) FROM outbox_messages WHERE state = 'pending'"))
    if left or returncode:
        raise SystemExit(f"the relay ended with {returncode} and left {left} rows")


# --- ordering keys ------------------------------------------------------------------------------------------------

HOT = "hot"


def ordering(rows: int, keys: int, *, rounds: int) -> dict[str, object]:
    """Rows a second of a relay: without ordering keys, with so many, and with a key beside them that has as many rows.

    The last is of the others' rows alone, to when the last of them was sent, beside as many rows of the hot key.
    """
    found: dict[str, list[float]] = {"unordered": [], "keys": [], "beside_a_hot_key": []}
    with fresh("postgresql") as engine, sinks.sink(0) as url:
        for _ in range(rounds):
            _refill(engine, rows, None)
            found["unordered"].append(_rate(engine, url))
            _refill(engine, rows, f"concat('k', n % {keys})")
            found["keys"].append(_rate(engine, url))
            _refill(engine, 2 * rows, f"CASE WHEN n % 2 = 0 THEN '{HOT}' ELSE concat('k', n / 2 % {keys}) END")
            found["beside_a_hot_key"].append(_rate(engine, url))
    medians = {name: round(median(rates)) for name, rates in found.items()}
    return medians | {f"{name}_by_round": [round(rate) for rate in rates] for name, rates in found.items()}


def _refill(engine: Engine, rows: int, key: str | None) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE outbox_messages, outbox_attempts"))
    fill(engine, rows, key=key)
    settle(engine)


def _rate(engine: Engine, url: str) -> float:
    """Rows without the hot key a second, from the first one marked to the last."""
    drain(engine, url)
    others = (
        f"SELECT count(*), max(sent_at) - min(sent_at) FROM outbox_messages WHERE ordering_key IS DISTINCT FROM '{HOT}'"
    )
    with engine.connect() as connection:
        count, took = connection.execute(text(others)).one()
    return float(count / took.total_seconds())
