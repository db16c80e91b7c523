"""How many messages a second a relay publishes, what each costs in CPU, and how soon after its commit one is there.

::

    make bench              # ten minutes at most
    make bench QUICK=1      # two

Everything is measured in one run on one machine, against what else there is: one Celery task for each row, the official
SDK's loop with the same batched claim and mark, other outboxes for Python, and wrk on the same server, which is the
machine's limit. The contenders take turns, each in a process and on a database of its own, with as many rows as it can
send in some seconds. PostgreSQL must answer where the tests look for it; whatever else does not is left out.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.contenders import (
    PROCESSES,
    Contender,
    Used,
    forked,
    has_peers,
    ours,
    peer,
    peer_versions,
    sdk_loop,
    task_per_row,
)
from benchmarks.figures import (
    CURL,
    DJANGO_CELERY_OUTBOX,
    FASTSTREAM_OUTBOX,
    REQUESTS,
    SDK_LOOP,
    TASK_PER_ROW,
    TWO_CURL,
    TWO_REQUESTS,
    WRK,
    Latency,
    Report,
    Series,
)
from benchmarks.latency import measure_latency
from benchmarks.outboxes import HALVES, Outboxes
from benchmarks.sinks import can_delay, emulator, has_nginx, sink, wrk
from tests import services

RESULTS = Path(__file__).parent / "results"
ENGINES = {"requests": REQUESTS, "curl": CURL}
PACKAGES = ("rocketmq-outbox", "pycurl", "requests", "sqlalchemy", "psycopg", "pymysql", "celery")
#: How many rows a contender is given at first, to see how many it can send in the time that a round should take.
TRIAL = 300


@dataclass(frozen=True)
class Size:
    """How long all of it may take.

    Attributes:
        rounds: of each contender.
        seconds: that one of them should take.
        commits: of each round of the latency.
    """

    rounds: int
    seconds: float
    commits: int


FULL, QUICK = Size(rounds=5, seconds=2.0, commits=100), Size(rounds=1, seconds=1.0, commits=40)


@dataclass(frozen=True)
class Entry:
    """A contender with the outbox that it drains. Whoever brings its own rows needs no others.

    Attributes:
        series: where its figures go.
        run: what drains.
        kind: of its database.
        topic: of the rows.
        brings_rows: whether it has a table of its own.
    """

    series: Series
    run: Contender
    kind: str = "postgresql"
    topic: str = "orders"
    brings_rows: bool = False


def entries(sink_name: str, at_once: int, outboxes: Outboxes, broker_url: str | None) -> Iterator[Entry]:
    """Who takes part on a sink."""
    if sink_name == "emulator":
        yield Entry(Series(sink_name, "PostgreSQL", CURL, at_once), ours("curl", at_once))
        return
    if broker_url:
        yield Entry(Series(sink_name, "PostgreSQL", TASK_PER_ROW, PROCESSES), task_per_row(broker_url))
    yield Entry(Series(sink_name, "PostgreSQL", SDK_LOOP, 1), sdk_loop)
    if has_peers():
        yield from _peers(sink_name, at_once)
    for engine, name in ENGINES.items():
        yield Entry(Series(sink_name, "PostgreSQL", name, at_once), ours(engine, at_once))
    if sink_name == "0 ms":
        yield from _elsewhere(sink_name, at_once, outboxes)
    else:
        for engine, name in {"requests": TWO_REQUESTS, "curl": TWO_CURL}.items():
            series = Series(sink_name, "PostgreSQL", name, 2 * at_once)
            yield Entry(series, ours(engine, at_once, processes=2))


def _peers(sink_name: str, at_once: int) -> Iterator[Entry]:
    # The threads of this one get in each other's way where nobody waits for the sink: four were the fastest.
    threads = 4 if sink_name == "0 ms" else at_once
    for name, most in ((DJANGO_CELERY_OUTBOX, threads), (FASTSTREAM_OUTBOX, at_once)):
        run = peer(f"by_{name.replace('-', '_')}", most)
        yield Entry(Series(sink_name, "PostgreSQL", name, most), run, brings_rows=True)


def _elsewhere(sink_name: str, at_once: int, outboxes: Outboxes) -> Iterator[Entry]:
    """Half messages, and the other databases."""
    if has_nginx():
        series = Series(sink_name, "PostgreSQL", f"{CURL}, half messages", at_once)
        yield Entry(series, ours("curl", at_once), topic=HALVES)
    for kind, name in outboxes.kinds.items():
        if kind != "postgresql":
            for engine, what in ENGINES.items():
                yield Entry(Series(sink_name, name, what, at_once), ours(engine, at_once), kind)


def run_once(entry: Entry, outboxes: Outboxes, url: str, count: int) -> Used:
    """Have it drain so many rows, in a process of its own."""
    rows = 0 if entry.brings_rows else count
    with outboxes.filled(entry.kind, entry.topic, rows) as database_url, forked() as pool:
        return pool.submit(entry.run, database_url, url, count).result()


def race(taking_part: list[Entry], outboxes: Outboxes, url: str, size: Size, limit: Series) -> list[Series]:
    """All rounds on one sink, in which the contenders take turns; wrk, which shows the limit, is the last of each."""
    counts = [enough(entry, outboxes, url, size.seconds) for entry in taking_part]
    for number in range(size.rounds):
        print(f"{limit.sink} sink: round {number + 1} of {size.rounds}", file=sys.stderr)
        for entry, count in zip(taking_part, counts, strict=True):
            used = run_once(entry, outboxes, url, count)
            entry.series.rates.append(count / used.seconds)
            entry.series.cpu_us.append(used.cpu_s / count * 1e6)
        rate = wrk(url, limit.at_once, round(size.seconds)) if limit.sink != "emulator" else None
        limit.rates.extend([rate] if rate else [])
    return [*(entry.series for entry in taking_part), limit]


def enough(entry: Entry, outboxes: Outboxes, url: str, seconds: float) -> int:
    """How many rows take it so many seconds, by trials that grow until starting up no longer matters."""
    count = TRIAL
    while (used := run_once(entry, outboxes, url, count)).seconds < seconds / 2:
        count *= 4
    return max(TRIAL, round(count * seconds / used.seconds))


def measure(outboxes: Outboxes, broker_url: str | None, size: Size) -> tuple[list[Series], Latency]:
    """Everything."""
    series: list[Series] = []
    for sink_name, opened, at_once in (("0 ms", sink(0), 16), ("5 ms", sink(5), 64), ("emulator", emulator(), 16)):
        taking_part = list(entries(sink_name, at_once, outboxes, broker_url))
        with opened as url:
            series += race(taking_part, outboxes, url, size, Series(sink_name, "", WRK, at_once))
    if broker_url is None:
        return series, Latency()
    with outboxes.filled("postgresql", "orders", 0) as database_url, forked() as pool:
        return series, pool.submit(measure_latency, database_url, broker_url, size.rounds, size.commits).result()


def machine() -> dict[str, str | float | None]:
    """Where it is measured; at the beginning, for the load is what others do."""
    sinks = "nginx" if can_delay() else "nginx at 0 ms, our own at 5 ms" if has_nginx() else "our own"
    return {
        "cpu": os.cpu_count(),
        "model": model(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sink": sinks,
        "load": round(os.getloadavg()[0], 1),
    }


def model() -> str:
    """What the processors are called, where Linux tells."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.split(":")[1].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Of our own packages, and of the other outboxes."""
    return {name: version(name) for name in PACKAGES} | peer_versions(DJANGO_CELERY_OUTBOX, FASTSTREAM_OUTBOX)


@contextmanager
def broker() -> Iterator[str | None]:
    """Redis, where there is one."""
    with services.fresh_broker("redis") if services.answers("redis") else nullcontext() as url:
        yield url


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten")
    parser.add_argument("--note", default="", help="written beside the results")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    where = machine()
    with Outboxes() as outboxes, broker() as broker_url:
        series, latency = measure(outboxes, broker_url, size)
        used = outboxes.versions | versions()
    report = Report(where, used, size.rounds, given.note, series, latency)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "relay.json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
