"""How many messages a second a relay publishes, and what each costs in CPU, against what else there is.

::

    make bench              # ten minutes at most
    make bench QUICK=1      # two

Everything is measured in one run on one machine: one Celery task for each row, the official SDK's loop with the same
batched claim and mark, our two engines, half messages, and wrk on the same server, which is the machine's limit. Each
figure is the median of the rounds, in which the contenders take turns. PostgreSQL and Redis must answer where the tests
look for them; nginx and wrk are left out where they are not installed.
"""

import argparse
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import create_engine, insert, text

from benchmarks.contenders import Contender, ours, sdk_loop, task_per_row
from benchmarks.sinks import BODY, has_nginx, sink, wrk
from outbox import Message
from outbox.migrate import upgrade
from outbox.table import messages, row_of
from tests import services

RESULTS = Path(__file__).parent / "results"
CHECK_S = 300


@dataclass(frozen=True)
class Entry:
    """A contender, how many rows it is given, and of which topic; half messages are those of ``halves``."""

    run: Contender
    rows: int
    topic: str = "orders"


def fill(database_url: str, entry: Entry) -> None:
    """An outbox with the due rows of one lane."""
    check_s = CHECK_S if entry.topic == "halves" else None
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE outbox_messages, outbox_attempts RESTART IDENTITY CASCADE"))
        message = Message(entry.topic, BODY, keys="k", transaction_check_s=check_s)
        for first in range(0, entry.rows, 5000):
            many = [row_of(message, 0.0) for _ in range(min(5000, entry.rows - first))]
            connection.execute(insert(messages), many)
    engine.dispose()


def measured(entry: Entry, database_url: str, url: str) -> dict[str, float]:
    """Run in a process of its own: messages a second, and CPU in µs a message."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        used = entry.run(database_url, url, entry.rows)
        found = {"rate": entry.rows / used.seconds, "cpu_us": used.cpu_s / entry.rows * 1e6}
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    if not answer:
        raise SystemExit("a contender did not finish")
    return dict(json.loads(answer))


def entries(delay_ms: int, concurrency: int, count: int, broker_url: str) -> dict[str, Entry]:
    """Who takes part on a sink."""
    few = count // 5
    found = {
        "one Celery task a row x2": Entry(task_per_row(broker_url), few),
        "the SDK's loop": Entry(sdk_loop, few if delay_ms else count),
        f"requests x{concurrency}": Entry(ours("requests", concurrency), count),
        f"curl x{concurrency}": Entry(ours("curl", concurrency), count * 4),
    }
    if not delay_ms and has_nginx():
        found[f"curl x{concurrency}, half messages"] = Entry(ours("curl", concurrency), count * 2, "halves")
    return found


def bench(database_url: str, broker_url: str, *, rounds: int, count: int, seconds: int) -> list[dict[str, Any]]:
    """Every contender on each sink, taking turns."""
    table = []
    for delay_ms, concurrency in ((0, 16), (5, 64)):
        contenders = entries(delay_ms, concurrency, count, broker_url)
        with sink(delay_ms) as url:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, entry in contenders.items():
                    fill(database_url, entry)
                    found[name].append(measured(entry, database_url, url))
            limit = wrk(url, concurrency, seconds)
        table += [summary(delay_ms, name, runs) for name, runs in found.items()]
        if limit:
            table.append({"sink_ms": delay_ms, "what": f"wrk x{concurrency}, no database", "rate": round(limit)})
    return table


def summary(delay_ms: int, name: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the spread of the rate."""
    rates = [run["rate"] for run in runs]
    middle = {key: round(median(run[key] for run in runs)) for key in ("rate", "cpu_us")}
    return {"sink_ms": delay_ms, "what": name, **middle, "lowest": round(min(rates)), "highest": round(max(rates))}


def show(table: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = ["| sink | what | messages/s | lowest–highest | CPU µs/message |", "|---|---|---|---|---|"]
    for one in table:
        spread = f"{one['lowest']:,}–{one['highest']:,}" if "lowest" in one else ""
        cost = one.get("cpu_us", "")
        lines.append(f"| {one['sink_ms']} ms | {one['what']} | {one['rate']:,} | {spread} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten")
    parser.add_argument("--rounds", type=int, help="rounds of each contender, 5 by default")
    parser.add_argument("--note", default="", help="written beside the results")
    given = parser.parse_args()
    rounds, count = given.rounds or (3 if given.quick else 5), 2000 if given.quick else 5000
    with (
        tempfile.TemporaryDirectory() as directory,
        services.fresh_database("postgresql", Path(directory)) as url,
        services.fresh_broker("redis") as broker_url,
    ):
        database_url = url.render_as_string(hide_password=False)
        engine = create_engine(database_url)
        upgrade(engine)
        engine.dispose()
        table = bench(database_url, broker_url, rounds=rounds, count=count, seconds=2 if given.quick else 5)
    packages = {name: version(name) for name in ("rocketmq-outbox", "pycurl", "requests", "sqlalchemy", "psycopg")}
    machine = {"cpu": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()} | packages
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine, "rounds": rounds, "note": given.note, "table": table}
    (RESULTS / "relay.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "relay.md").write_text(f"{json.dumps(machine)}\n\n{show(table)}\n\n{given.note}\n", encoding="utf-8")
    print(show(table))


if __name__ == "__main__":
    main()
