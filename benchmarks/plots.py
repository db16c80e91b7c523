"""Draw what ``make bench`` measured last, as SVG and PNG beside it: needs matplotlib, which is in ``.venv/bench``.

::

    PYTHONPATH=. .venv/bench/bin/python benchmarks/plots.py
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.figures import CURL, REQUESTS, TWO_CURL, TWO_REQUESTS, Report, Series, Spread

RESULTS = Path(__file__).parent / "results"
# Of the palette of Okabe and Ito, which those see apart who see fewer colours.
OURS, OTHERS, LIMIT = "#0072B2", "#999999", "#E69F00"
# Behind a number, so that no line runs through it.
BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 1}
STYLE = {
    # So that the same figures make the same file.
    "svg.hashsalt": "outbox",
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 10,
}


@contextmanager
def drawn(name: str, *, width: float = 8, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of so many inches with plots side by side, saved under that name."""
    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False)
    yield figure, list(axes[0])
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        figure.savefig(RESULTS / f"{name}.{kind}", dpi=120, metadata=metadata)
    plt.close(figure)


def label(one: Series) -> str:
    """What a bar is called."""
    where = "" if one.database in {"", "PostgreSQL"} else f", {one.database}"
    return f"{one.what}{where} ×{one.at_once}"


def colour(one: Series) -> str:
    """Ours, another's, or the machine's limit."""
    if not one.database:
        return LIMIT
    return OURS if one.what.startswith((REQUESTS, CURL, TWO_REQUESTS, TWO_CURL)) else OTHERS


def dots(axes: Axes, many: list[Series], spreads: list[Spread]) -> None:
    """One dot for each on a logarithmic axis, its median beside it, with the lowest and the highest of the rounds."""
    for place, (one, spread) in enumerate(zip(many, spreads, strict=True)):
        errors = [[spread.median - spread.lowest], [spread.highest - spread.median]]
        axes.errorbar(spread.median, place, xerr=errors, fmt="o", color=colour(one), capsize=3, markersize=7)
        beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center_baseline", "bbox": BLANK}
        axes.annotate(f"{spread.median:,.0f}", (spread.highest, place), **beside)
    axes.set_yticks(range(len(many)), [label(one) for one in many])
    axes.invert_yaxis()
    axes.set_xscale("log")
    # Room for the numbers.
    axes.set_xlim(min(one.lowest for one in spreads) / 2, max(one.highest for one in spreads) * 8)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", color="#dddddd")


def explain(figure: Figure, many: list[Series], rounds: int) -> None:
    """What the colours and the lines mean, below the plots."""
    meanings = {OURS: "our relay", OTHERS: "what else there is", LIMIT: "the limit of this machine"}
    used = {colour(one) for one in many}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=shade, label=what)
        for shade, what in meanings.items()
        if shade in used
    ]
    handles.append(Line2D([], [], marker="o", color="#333333", label=f"median and range, rounds: {rounds}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def throughput(report: Report) -> None:
    """Messages a second on both sinks."""
    with drawn("throughput", width=11, height=5.2, columns=2) as (figure, plots):
        for axes, sink in zip(plots, ("0 ms", "5 ms"), strict=True):
            many = [one for one in report.series if one.sink == sink and one.rates]
            dots(axes, many, [Spread.of(one.rates) for one in many])
            axes.set_xlabel("messages a second, logarithmic")
            axes.set_title(f"The broker answers in {sink}")
        explain(figure, report.series, report.rounds)


def cpu(report: Report) -> None:
    """CPU a message of each contender on the sink that answers at once."""
    many = [one for one in report.series if one.sink == "0 ms" and one.cpu_us]
    with drawn("cpu", width=9, height=5) as (figure, (axes,)):
        dots(axes, many, [Spread.of(one.cpu_us) for one in many])
        axes.set_xlabel("µs of CPU a message, without database and broker, logarithmic")
        axes.set_title("CPU a message where the broker answers in 0 ms")
        explain(figure, many, report.rounds)


def latency(report: Report) -> None:
    """Of every commit, how soon its message arrived: one line for each round."""
    rounds = report.latency.delivered_ms
    if not rounds:
        return
    with drawn("latency", height=4) as (_, (axes,)):
        for number, samples in enumerate(rounds):
            shares = [100 * (place + 1) / len(samples) for place in range(len(samples))]
            axes.step(
                sorted(samples),
                shares,
                where="post",
                color=OURS,
                alpha=0.6,
                label="" if number else f"a round of {len(samples)} commits",
            )
        for percent, bound, mark in ((50, 10, "o"), (95, 25, "s")):
            aim = f"aim: {percent} % within {bound} ms"
            axes.plot([bound], [percent], marker=mark, markersize=9, linestyle="", color=LIMIT, label=aim)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 101)
        axes.set_xlabel("ms from the commit to the arrival of its message, logarithmic")
        axes.set_ylabel("% of the commits")
        axes.grid(color="#dddddd")
        axes.legend(loc="lower right")
        axes.set_title("Latency through the nudge, a Celery worker on Redis")


def main() -> None:
    """Draw everything."""
    mpl.use("agg")
    report = Report.from_json(json.loads((RESULTS / "relay.json").read_text(encoding="utf-8")))
    with mpl.rc_context(STYLE):
        throughput(report)
        cpu(report)
        latency(report)


if __name__ == "__main__":
    main()
