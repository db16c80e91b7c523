"""Charts as HTML: the shapes in an inline SVG, and words around it, which stay readable on the smallest screen.

It needs ``outbox.css`` and nothing else: no script, no inline style, no file of somebody else's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from itertools import accumulate, pairwise

from outbox.admin.charts import Chart, Charts, Line
from outbox.admin.words import short_number
from outbox.store.series import MINUTES

__all__ = ["draw"]

_WIDTH, _HEIGHT = 590, 160
_STEPS = 4
# The top of an axis: the smallest of these, times a power of ten, that is high enough; each can be parted by `_STEPS`.
_TOPS = (4, 8, 12, 20, 40)
_TABLE_MINUTES = 5
_CLOCK_MINUTES = 15

_Edge = tuple[float, ...]


def draw(charts: Charts) -> list[str]:
    """Each chart as a figure in HTML that is safe to put into a page as it is."""
    return [_figure(chart, charts.minutes, charts.exact) for chart in charts.charts]


def _figure(chart: Chart, minutes: Sequence[datetime], exact: bool) -> str:
    # A minute that is not over yet would always look like a drop in what happens in a minute.
    shown = MINUTES if chart.level else MINUTES - 1
    lines = [replace(one, values=one.values[:shown]) for one in chart.lines]
    clocks = [f"{minute.astimezone(UTC):%H:%M}" for minute in minutes[:shown]]
    caption = escape(chart.title) + ("" if exact else ' <span class="ob-note">estimated</span>')
    return (
        f'<figure class="ob-chart"><figcaption>{caption}</figcaption>'
        f"{_plot(chart, lines, clocks)}{_legend(chart, lines)}{_numbers(chart, lines, clocks)}</figure>"
    )


# --- shapes -------------------------------------------------------------------------------------------------------


def _plot(chart: Chart, lines: Sequence[Line], clocks: Sequence[str]) -> str:
    """The shapes, with the axes' words beside and below them."""
    floors, tops = _stacked(lines) if chart.stacked else ([], [line.values for line in lines])
    top = _top(max((max(values) for values in tops), default=0.0))
    colours = [f"ob-c-{line.colour}" for line in lines]
    paths = [("area", colour, _area(*one, top)) for colour, one in zip(colours, floors, strict=False)]
    paths += [("line", colour, _line(one, top)) for colour, one in zip(colours, tops, strict=True)]
    shapes = "".join(f'<path class="ob-{kind} {colour}" d="{path}"/>' for kind, colour, path in paths)
    heights = [_HEIGHT * step // _STEPS for step in range(_STEPS + 1)]
    grid = "".join(f'<path d="M0 {height}H{_WIDTH}"/>' for height in heights)
    marks = "".join(f"<span>{short_number(top * step / _STEPS)}</span>" for step in reversed(range(_STEPS + 1)))
    times = "".join(f"<span>{clock}</span>" for clock in (*clocks[::_CLOCK_MINUTES], clocks[-1]))
    return (
        f'<div class="ob-plot"><div class="ob-y" aria-hidden="true">{marks}</div>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-labelledby="{chart.name}-title {chart.name}-desc">'
        f'<title id="{chart.name}-title">{escape(chart.title)}</title>'
        f'<desc id="{chart.name}-desc">{escape(_described(chart, lines, clocks))}</desc>'
        f'<g class="ob-grid">{grid}</g>{shapes}{_hints(lines, clocks)}</svg>'
        f'<div class="ob-x" aria-hidden="true">{times}</div></div>'
    )


def _stacked(lines: Sequence[Line]) -> tuple[list[tuple[_Edge, _Edge]], list[_Edge]]:
    """The floor and top of each line's area, and the tops alone."""
    levels = [list(accumulate(column, initial=0.0)) for column in zip(*(line.values for line in lines), strict=True)]
    edges: list[_Edge] = [tuple(edge) for edge in zip(*levels, strict=True)]
    return list(pairwise(edges)), edges[1:]


def _top(highest: float) -> int:
    """What the axis ends with."""
    size = 1
    while True:
        for top in _TOPS:
            if top * size >= highest:
                return top * size
        size *= 10


def _points(values: Sequence[float], top: int) -> Iterator[str]:
    step = _WIDTH / max(1, len(values) - 1)
    return (f"{place * step:.4g} {_HEIGHT * (1 - value / top):.4g}" for place, value in enumerate(values))


def _line(values: Sequence[float], top: int) -> str:
    return "M" + "L".join(_points(values, top))


def _area(floor: Sequence[float], ceiling: Sequence[float], top: int) -> str:
    return f"M{'L'.join(_points(ceiling, top))}L{'L'.join(reversed(list(_points(floor, top))))}Z"


def _hints(lines: Sequence[Line], clocks: Sequence[str]) -> str:
    """A strip for each minute, which tells its numbers under a pointer."""
    width = _WIDTH / len(clocks)
    strips = (
        f'<rect x="{place * width:.4g}" y="0" width="{width:.4g}" height="{_HEIGHT}"><title>{clock} UTC'
        + "".join(f"\n{escape(line.name)} {round(line.values[place]):,}" for line in lines)
        + "</title></rect>"
        for place, clock in enumerate(clocks)
    )
    return f'<g class="ob-hints">{"".join(strips)}</g>'


# --- words --------------------------------------------------------------------------------------------------------


def _described(chart: Chart, lines: Sequence[Line], clocks: Sequence[str]) -> str:
    """What a look at the shapes tells, for those who do not look."""
    told = [
        f"{line.name}: lowest {round(min(line.values)):,}, highest {round(max(line.values)):,}, "
        f"{'now' if chart.level else 'last'} {round(line.values[-1]):,}"
        for line in lines
    ]
    return f"From {clocks[0]} to {clocks[-1]} UTC. {'; '.join(told) or 'Nothing'}."


def _legend(chart: Chart, lines: Sequence[Line]) -> str:
    if not lines:
        return '<p class="ob-note">Nothing in the last hour.</p>'
    numbers = [line.values[-1] if chart.level else sum(line.values) for line in lines]
    entries = "".join(
        f'<li><i class="ob-c-{line.colour}"></i>{escape(line.name)} <b>{round(number):,}</b></li>'
        for line, number in zip(lines, numbers, strict=True)
    )
    return f'<ul class="ob-legend">{entries}<li class="ob-note">{"now" if chart.level else "in the hour"}</li></ul>'


def _numbers(chart: Chart, lines: Sequence[Line], clocks: Sequence[str]) -> str:
    """The same as a table: what there was every five minutes, or how many in each five minutes."""
    parts = [slice(begin, begin + _TABLE_MINUTES) for begin in range(0, len(clocks), _TABLE_MINUTES)]
    header = "".join(f'<th scope="col">{escape(line.name)}</th>' for line in lines)
    rows = []
    for part in parts:
        numbers = [line.values[part][-1] if chart.level else sum(line.values[part]) for line in lines]
        cells = "".join(f"<td>{round(number):,}</td>" for number in numbers)
        clock = clocks[part][-1] if chart.level else clocks[part][0]
        rows.append(f'<tr><th scope="row">{clock}</th>{cells}</tr>')
    what = "at that minute" if chart.level else "in the five minutes from then on"
    return (
        f'<details class="ob-numbers"><summary>In numbers</summary><div class="ob-scroll"><table>'
        f"<caption>{escape(chart.title)}: {what}, UTC</caption>"
        f'<thead><tr><th scope="col">UTC</th>{header}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )
