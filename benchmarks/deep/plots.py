"""Draws what `benchmarks.deep` has written down, as SVG and PNG; runs in ``.venv/bench``.

::

    python -m benchmarks.deep.plots
"""

import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parents[1] / "results"
COLOURS = {"postgresql": "#336791", "mariadb": "#b8763b"}
NAMES = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}
PILES = "piles on "
LONG = "long transaction on "


def main() -> None:
    """Draw beside the results."""
    parts = json.loads((RESULTS / "deep.json").read_text(encoding="utf-8"))["parts"]
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "deep"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    draw_piles(left, parts)
    draw_long_transaction(right, parts)
    for kind in ("svg", "png"):
        # Without a date, so that what is drawn again is the same file.
        figure.savefig(RESULTS / f"deep.{kind}", dpi=110, metadata={"Date": None} if kind == "svg" else None)


def draw_piles(axes: Axes, parts: dict[str, Any]) -> None:
    """A group of bars for each outbox."""
    servers = [name for name in parts if name.startswith(PILES)]
    width = 0.8 / max(1, len(servers))
    for place, name in enumerate(servers):
        server, found = name.removeprefix(PILES), parts[name]
        heights = [one["row_us"] for one in found.values()]
        spots = [number + (place - (len(servers) - 1) / 2) * width for number in range(len(found))]
        bars = axes.bar(spots, heights, width * 0.94, color=COLOURS[server], label=NAMES[server])
        axes.bar_label(bars, [f"{height / heights[0]:.2f}×" for height in heights], padding=2, fontsize=8)
        axes.set_xticks(range(len(found)), [label.replace(" ", "\u00a0", 1).replace(" ", "\n") for label in found])
    axes.set_title("A claimed and marked row, by what is in the outbox")
    axes.set_ylabel("µs a row")
    axes.margins(y=0.18)
    axes.legend(frameon=False, ncols=2, loc="upper left")


def draw_long_transaction(axes: Axes, parts: dict[str, Any]) -> None:
    """Two lines for each server, from the first rows to the last."""
    for name in (name for name in parts if name.startswith(LONG)):
        server = name.removeprefix(LONG)
        for which, style in (("with", "-"), ("without", ":")):
            heights = [one["row_us"] for one in parts[name][which]]
            shares = [(number + 1) * 100 // len(heights) for number in range(len(heights))]
            axes.plot(shares, heights, style, color=COLOURS[server], label=f"{NAMES[server]}, {which} it", linewidth=2)
    axes.set_title("The same beside a transaction that stays open")
    axes.set_xlabel("% of the rows")
    axes.set_ylabel("µs a row")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    axes.legend(frameon=False, ncols=2, loc="upper left", fontsize=9)


if __name__ == "__main__":
    main()
