"""What was measured, the aims it is held against, and both as Markdown. No I/O, nothing but the standard library.

A ratio is taken within each round, in which the two were measured one after the other: the machine may be twice as fast
a minute later. What is shown is the median of the rounds, with the lowest and the highest.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, Self

__all__ = [
    "AIMS",
    "CURL",
    "DJANGO_CELERY_OUTBOX",
    "FASTSTREAM_OUTBOX",
    "REQUESTS",
    "SDK_LOOP",
    "TASK_PER_ROW",
    "TWO_CURL",
    "TWO_REQUESTS",
    "WRK",
    "Aim",
    "Latency",
    "Report",
    "Series",
    "Spread",
    "aims_table",
    "between",
    "brief_table",
    "latency_table",
    "throughput_table",
]

REQUESTS, CURL = "our relay, requests", "our relay, curl"
TWO_REQUESTS, TWO_CURL = "two of our relays, requests", "two of our relays, curl"
TASK_PER_ROW = "one Celery task a row"
SDK_LOOP = "the SDK's loop"
DJANGO_CELERY_OUTBOX = "django-celery-outbox"
FASTSTREAM_OUTBOX = "faststream-outbox"
WRK = "wrk, no database"
_BRIEF = ("0 ms", "5 ms")


@dataclass(frozen=True)
class Spread:
    """What the rounds came to."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: list[float]) -> Self:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Series:
    """One contender on one sink, round by round.

    Attributes:
        sink: ``0 ms``, ``5 ms`` or ``emulator``.
        database: where its outbox is; empty where there is none.
        what: its name in the table.
        at_once: the requests that it may have in flight, in all its processes.
        rates: messages a second.
        cpu_us: µs of CPU a message, of the contender alone, without the database and the sink; empty if not measured.
    """

    sink: str
    database: str
    what: str
    at_once: int
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Latency:
    """What the nudge brings and costs, round by round.

    Attributes:
        delivered_ms: of each round, the ms from a commit to the arrival of its message, one for each commit.
        commit_us: of each round, the median µs that a commit takes without a nudge and without waiting for the disk.
        nudged_us: the same with one.
        cpu_us: of each round, the mean µs of CPU that a nudge adds to its process, in whatever thread.
    """

    delivered_ms: list[list[float]] = field(default_factory=list)
    commit_us: list[float] = field(default_factory=list)
    nudged_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> Spread | None:
        """Of each round, the latency that so many of a hundred commits do not exceed, in ms."""
        found = [quantiles(samples, n=100)[percent - 1] for samples in self.delivered_ms]
        return Spread.of(found) if found else None

    def caller_us(self) -> Spread | None:
        """What a commit takes longer for its nudge, in µs."""
        found = [nudged - alone for nudged, alone in zip(self.nudged_us, self.commit_us, strict=True)]
        return Spread.of(found) if found else None


@dataclass(frozen=True)
class Report:
    """Everything of one run.

    Attributes:
        machine: ``cpu``, ``model``, ``system``, ``python``, ``sink``, ``load``.
        versions: of databases and packages.
        rounds: of each contender.
        note: what a reader must know besides.
        series: every contender on every sink.
        latency: what the nudge brings and costs.
    """

    machine: dict[str, Any]
    versions: dict[str, str]
    rounds: int
    note: str
    series: list[Series]
    latency: Latency

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` made of one."""
        parts = {"series": [Series(**one) for one in document["series"]], "latency": Latency(**document["latency"])}
        return cls(**(document | parts))

    def find(self, sink: str, what: str) -> Series | None:
        """A contender on a sink, with PostgreSQL; None where it did not take part."""
        found = (one for one in self.series if (one.sink, one.what) == (sink, what))
        return next((one for one in found if one.rates and one.database in {"", "PostgreSQL"}), None)

    def ratio(self, sink: str, what: str, against: str) -> Spread | None:
        """How many times the rate of another; None where one of them did not take part."""
        one, other = self.find(sink, what), self.find(sink, against)
        if one is None or other is None:
            return None
        return Spread.of([rate / divisor for rate, divisor in zip(one.rates, other.rates, strict=True)])

    def cpu_us(self, sink: str, what: str) -> Spread | None:
        """CPU a message in µs; None where it was not measured."""
        one = self.find(sink, what)
        return Spread.of(one.cpu_us) if one and one.cpu_us else None


@dataclass(frozen=True)
class Aim:
    """What we want of a figure.

    Attributes:
        what: the figure.
        limit: its bound.
        unit: written behind it.
        measure: the figure in a report; None where it was not measured.
        at_least: whether the figure must reach the bound; else it must not exceed it.
    """

    what: str
    limit: float
    unit: str
    measure: Callable[[Report], Spread | None]
    at_least: bool = True

    def is_met(self, report: Report) -> bool | None:
        """Whether the median keeps to the bound, None where it was not measured."""
        found = self.measure(report)
        if found is None:
            return None
        return found.median >= self.limit if self.at_least else found.median <= self.limit


def _ratio(sink: str, what: str, against: str) -> Callable[[Report], Spread | None]:
    return lambda report: report.ratio(sink, what, against)


def _cpu(what: str) -> Callable[[Report], Spread | None]:
    return lambda report: report.cpu_us("0 ms", what)


def _share_of_wrk(report: Report) -> Spread | None:
    found = report.ratio("0 ms", CURL, WRK)
    return Spread(100 * found.median, 100 * found.lowest, 100 * found.highest) if found else None


AIMS = [
    Aim("requests engine against one Celery task a row, 0 ms", 6, "×", _ratio("0 ms", REQUESTS, TASK_PER_ROW)),
    Aim("curl engine against one Celery task a row, 0 ms", 35, "×", _ratio("0 ms", CURL, TASK_PER_ROW)),
    Aim("requests engine against the SDK's loop, 0 ms", 1, "×", _ratio("0 ms", REQUESTS, SDK_LOOP)),
    Aim("requests engine against the SDK's loop, 5 ms", 10, "×", _ratio("5 ms", REQUESTS, SDK_LOOP)),
    Aim("curl engine against the SDK's loop, 0 ms", 6, "×", _ratio("0 ms", CURL, SDK_LOOP)),
    Aim("curl engine against the SDK's loop, 5 ms", 40, "×", _ratio("5 ms", CURL, SDK_LOOP)),
    Aim("CPU a message, requests engine, 0 ms", 350, " µs", _cpu(REQUESTS), at_least=False),
    Aim("CPU a message, curl engine, 0 ms", 50, " µs", _cpu(CURL), at_least=False),
    Aim("curl engine, of wrk on the same sink, 0 ms", 10, " %", _share_of_wrk),
    Aim("two relays against one, requests engine, 5 ms", 1.8, "×", _ratio("5 ms", TWO_REQUESTS, REQUESTS)),
    Aim("two relays against one, curl engine, 5 ms", 1.8, "×", _ratio("5 ms", TWO_CURL, CURL)),
    Aim("commit to delivered, p50", 10, " ms", lambda report: report.latency.percentile(50), at_least=False),
    Aim("commit to delivered, p95", 25, " ms", lambda report: report.latency.percentile(95), at_least=False),
    Aim("a nudge, to the one that commits", 300, " µs", lambda report: report.latency.caller_us(), at_least=False),
]


def throughput_table(report: Report) -> str:
    """Who took part, and how fast each was."""
    head = ["sink", "outbox in", "what", "at once", "messages/s", "lowest–highest", "CPU µs/message"]
    return _table(head, (_cells(one) for one in report.series if one.rates))


def brief_table(report: Report) -> str:
    """Median rates on PostgreSQL, the sinks side by side."""
    names = dict.fromkeys(one.what for one in report.series if one.rates and one.sink in _BRIEF)
    found = {name: [report.find(sink, name) for sink in _BRIEF] for name in names}
    cells = (
        [name, *(_number(Spread.of(one.rates).median) if one else "" for one in ones)]
        for name, ones in found.items()
        if all(ones)
    )
    return _table(["messages/s", *(f"the broker answers in {sink}" for sink in _BRIEF)], cells)


def aims_table(report: Report) -> str:
    """Each aim, and whether it is met."""
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = []
    for aim in AIMS:
        found = aim.measure(report)
        wanted = f"{'≥' if aim.at_least else '≤'} {_number(aim.limit)}{aim.unit}"
        measured = f"{_number(found.median)}{aim.unit}" if found else ""
        rows.append([aim.what, wanted, measured, _range(found) if found else "", words[aim.is_met(report)]])
    return _table(["what", "aim", "measured", "lowest–highest", ""], iter(rows))


def latency_table(report: Report) -> str:
    """The nudge, from both sides."""
    latency = report.latency
    if not latency.delivered_ms:
        return "The latency was not measured: no Redis."
    figures = {
        "commit to delivered, p50, ms": latency.percentile(50),
        "commit to delivered, p95, ms": latency.percentile(95),
        "commit to delivered, p99, ms": latency.percentile(99),
        "a commit without a nudge, median, µs": Spread.of(latency.commit_us),
        "a commit with one, median, µs": Spread.of(latency.nudged_us),
        "the difference: what the one that commits waits, µs": latency.caller_us(),
        "CPU that a nudge takes in that process, in a thread of its own, µs": Spread.of(latency.cpu_us),
    }
    rows = ([what, _number(found.median), _range(found)] for what, found in figures.items() if found)
    return _table(["what", "median of the rounds", "lowest–highest"], rows)


def between(text: str, name: str, content: str) -> str:
    """The text with what stands between its two marks of that name replaced.

    Raises:
        ValueError: it has not exactly one pair of them.
    """
    begin, end = f"<!-- {name}: written by make bench-docs -->\n", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the marks of {name!r} are not there once")
    before, after = text.split(begin, maxsplit=1)[0], text.split(end, maxsplit=1)[1]
    return f"{before}{begin}\n{content}\n\n{end}{after}"


def _cells(one: Series) -> list[str]:
    rate, cpu = Spread.of(one.rates), Spread.of(one.cpu_us) if one.cpu_us else None
    figures = [str(one.at_once), _number(rate.median), _range(rate), _number(cpu.median) if cpu else ""]
    return [one.sink, one.database, one.what, *figures]


def _table(head: list[str], rows: Iterator[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _range(found: Spread) -> str:
    return f"{_number(found.lowest)}–{_number(found.highest)}"


def _number(value: float) -> str:
    """Three figures at the least."""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}"
