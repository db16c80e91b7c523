"""The last hour in lines: the backlog and the rates, by state and by topic."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap

from outbox.states import State
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.series import MINUTES, Rates, rates
from outbox.store.tally import Tally

__all__ = ["Chart", "Charts", "Line", "charts", "charts_of"]

_TOPICS = 5
_OTHERS = "other topics"


@dataclass(frozen=True, slots=True)
class Line:
    """A number for each minute of the hour.

    Attributes:
        name: what it is of: a state, what happened, or a topic.
        values: the numbers, the oldest first.
        colour: a state's or a happening's name, or the number that a topic has in every chart.
    """

    name: str
    values: tuple[float, ...]
    colour: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines that are drawn together.

    Attributes:
        name: of the chart, one word.
        title: what it shows.
        lines: the lowest first.
        level: numbers tell what there was at the end of each minute; otherwise, how many in the minute.
        stacked: the lines are parts of a whole.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    level: bool
    stacked: bool = True


@dataclass(frozen=True, slots=True)
class Charts:
    """The last hour.

    Attributes:
        minutes: when each minute began, the oldest first; the last one is not over yet.
        charts: the backlog by state and by topic, the rates, what was sent by topic.
        exact: False where numbers are estimates from a sample, since there are many.
    """

    minutes: tuple[datetime, ...]
    charts: tuple[Chart, ...]
    exact: bool


def charts(database: Database, present: Tally) -> Charts:
    """The charts of the last hour.

    Args:
        database: the outbox's.
        present: what there is now, from which the backlog is reckoned back.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return charts_of(rates(database), present)


def charts_of(hour: Rates, present: Tally) -> Charts:
    """The charts of an hour whose rates were these, and at whose end there was what is ``present``."""
    pending = _backlog(present, hour, State.PENDING, State.COMMITTING)
    failed = _backlog(present, hour, State.FAILED)
    backlog = _added(pending, failed)
    topics = _Topics(backlog, hour.enqueued, hour.sent)
    by_state = (_total("failed", failed), _total("pending", pending))
    happened = {"enqueued": hour.enqueued, "sent": hour.sent, "failed": hour.failed}
    drawn = (
        Chart("backlog", "Backlog", by_state, level=True),
        Chart("backlog-by-topic", "Backlog by topic", topics.lines(backlog), level=True),
        Chart("rates", "Messages a minute", tuple(starmap(_total, happened.items())), level=False, stacked=False),
        Chart("sent-by-topic", "Sent a minute, by topic", topics.lines(hour.sent), level=False),
    )
    return Charts(tuple(hour.minutes), drawn, hour.exact)


_Lines = Mapping[Lane, Sequence[float]]


def _backlog(present: Tally, hour: Rates, *states: State) -> _Lines:
    """For each lane, how many rows were in the states at the end of each minute."""
    lanes = {lane for lane, _ in present.lanes} | set(hour.enqueued) | set(hour.sent) | set(hour.failed)
    nothing = [0.0] * MINUTES
    found = {}
    for lane in lanes:
        now = sum(present.lanes[lane, state].number for state in states if (lane, state) in present.lanes)
        came, failed = hour.enqueued.get(lane, nothing), hour.failed.get(lane, nothing)
        went = [sent + lost for sent, lost in zip(hour.sent.get(lane, nothing), failed, strict=True)]
        grew = failed if State.FAILED in states else [a - b for a, b in zip(came, went, strict=True)]
        found[lane] = _reckoned_back(now, grew)
    return {lane: line for lane, line in found.items() if any(line)}


def _reckoned_back(now: float, grew: Sequence[float]) -> list[float]:
    """The number at the end of each minute, from how it grew in each, and what it is in the end."""
    line = [now]
    for growth in reversed(grew[1:]):
        line.append(max(0.0, line[-1] - growth))
    return line[::-1]


def _total(name: str, lines: _Lines) -> Line:
    return Line(name, _sum(lines.values()), name)


def _sum(lines: Iterable[Sequence[float]]) -> tuple[float, ...]:
    return tuple(map(sum, zip([0.0] * MINUTES, *lines, strict=True)))


def _added(one: _Lines, other: _Lines) -> _Lines:
    both = {lane: [line[lane] for line in (one, other) if lane in line] for lane in {**one, **other}}
    return {lane: _sum(lines) for lane, lines in both.items()}


class _Topics:
    """The busiest lanes, each with a number of its own, and all others together."""

    def __init__(self, *lines: _Lines) -> None:
        busy: Counter[Lane] = Counter()
        for one in lines:
            busy.update({lane: sum(values) for lane, values in one.items()})
        ranked = sorted(busy, key=lambda lane: (-busy[lane], lane.destination, lane.topic))
        self._numbers = {lane: min(number, _TOPICS) for number, lane in enumerate(ranked)}

    def lines(self, lines: _Lines) -> tuple[Line, ...]:
        """A line for each number that has anything to show."""
        found = []
        for number in range(_TOPICS + 1):
            lanes = [lane for lane in lines if self._numbers[lane] == number]
            values = _sum(lines[lane] for lane in lanes)
            if any(values):
                name = _OTHERS if len(lanes) > 1 else _name(lanes[0])
                found.append(Line(name, values, str(number)))
        return tuple(found)


def _name(lane: Lane) -> str:
    return lane.topic if lane.destination == "default" else f"{lane.destination}/{lane.topic}"
