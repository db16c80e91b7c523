"""What the outbox costs where much has piled up: millions of rows, long transactions, many claimers, little memory.

::

    make bench-deep               # about forty minutes, 15 GB of disk for a while
    make bench-deep SCALE=0.02    # the same with a fiftieth of the rows, to see that it runs

PostgreSQL and MariaDB must answer where the tests look for them. What is compared takes turns, batch by batch, so that
other work on the machine hits all alike. Each database is dropped when its part is over.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.deep import claims, relays, storage
from benchmarks.deep.aims import aims
from benchmarks.deep.filling import fresh
from benchmarks.deep.tables import report

RESULTS = Path(__file__).parents[1] / "results"
SERVERS = ("postgresql", "mariadb")


def parts(scale: float) -> dict[str, Callable[[], Any]]:
    """What is measured, by name, with the sizes of the aims times ``scale``."""

    def many(rows: int, least: int = 10_000) -> int:
        return max(least, int(rows * scale) // 10_000 * 10_000)

    piles = {
        "10 k pending": (10_000, 0),
        "100 k pending": (many(100_000), 0),
        "1 M pending": (many(1_000_000), 0),
        "1 M sent kept": (10_000, many(1_000_000)),
        "5 M sent kept": (10_000, many(5_000_000)),
    }
    found: dict[str, Callable[[], Any]] = {}
    for kind in SERVERS:
        found[f"piles on {kind}"] = lambda kind=kind: claims.piles(kind, piles, batches=40)
        found[f"long transaction on {kind}"] = lambda kind=kind: claims.long_transaction(kind, many(200_000))
        found[f"sixteen claimers on {kind}"] = lambda kind=kind: claims.crowd(kind, many(100_000, 50_000), claimers=16)
    return found | {
        "memory, small rows": lambda: relays.memory(many(1_000_000), 500),
        "memory, rows of 4 MB": lambda: relays.memory(max(100, int(1000 * scale)), 4_000_000),
        "ordering keys": lambda: relays.ordering(many(40_000, 20_000), 10_000, rounds=5),
        "pages": lambda: storage.pages(many(50_000)),
        "claims on sqlite": lambda: storage.sqlite_claims(many(50_000), sent=many(100_000)),
    }


def machine() -> dict[str, Any]:
    """Where this runs, and what decides what its databases do."""
    packages = {name: version(name) for name in ("rocketmq-outbox", "pycurl", "sqlalchemy", "psycopg", "pymysql")}
    found = {"cpu": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()} | packages
    asked = {
        "postgresql": ("server_version", "shared_buffers", "synchronous_commit", "autovacuum"),
        "mariadb": ("version", "innodb_buffer_pool_size", "innodb_flush_log_at_trx_commit"),
    }
    for kind, names in asked.items():
        with fresh(kind) as engine, engine.connect() as connection:
            show = "SELECT current_setting('{}')" if kind == "postgresql" else "SELECT @@{}"
            found[kind] = {name: connection.scalar(text(show.format(name))) for name in names}
    return found


def keep(document: dict[str, Any]) -> None:
    """Write down what there is so far."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "deep.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "deep.md").write_text(report(document), encoding="utf-8")


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(
        "benchmarks.deep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows; results are kept at 1 only")
    parser.add_argument("--only", default="", help="parts whose names hold this; nothing is kept")
    parser.add_argument("--note", default="", help="written beside the results")
    given = parser.parse_args()
    # Whoever ends it must not leave gigabytes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before its time"))
    document: dict[str, Any] = {
        "machine": machine(),
        "scale": given.scale,
        "note": given.note,
        "parts": {},
        "seconds": {},
    }
    for name, measure in parts(given.scale).items():
        if given.only in name:
            started = time.monotonic()
            document["parts"][name] = measure()
            document["seconds"][name] = round(time.monotonic() - started)
            print(f"{name} ({document['seconds'][name]} s): {json.dumps(document['parts'][name])}", flush=True)
            document["aims"] = [asdict(aim) for aim in aims(document["parts"])]
            if given.scale == 1 and not given.only:
                keep(document)
    print(report(document))


if __name__ == "__main__":
    main()
