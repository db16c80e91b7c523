"""Series: what happened in each minute of the last hour, by lane, as the tables tell it, in bounded time.

Of rows that were enqueued, or sent, within the hour a limited number is counted, through the index that has them in the
order of time. Where there are more, the number is estimated: a few moments of each minute, drawn at random, are counted
for all of it. Failures are counted from the newest attempts, or estimated from those of some rows.

The backlog of the past is reckoned back from the present one: what was sent since had not been sent by then. A row that
failed and was replayed counts as one that was pending all the time.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    column,
    func,
    select,
    union_all,
)

from outbox.states import State
from outbox.store.conditions import held, state_is
from outbox.store.database import Database
from outbox.store.dialects import by_sent, by_state, minute_of
from outbox.store.lanes import Lane
from outbox.table import Instant, attempts, db_now, messages, outbox_ids_from

__all__ = ["MINUTES", "Rates", "rates"]

MINUTES = 60
_MINUTE = timedelta(minutes=1)
_LIMIT = 10_000
_NEWEST_ATTEMPTS = 50_000
_FAILURES = 5000
# Moments of a minute, and how long each is, in seconds: short ones to learn how many rows there are, then the longer.
_MOMENTS = 2
_PROBE_S = 0.1
_MOMENT_S = (0.05, 30.0)
_WANTED = 15_000

#: From a lane to a number for each minute, the oldest first.
Lines = Mapping[Lane, list[float]]


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened in each of the last `MINUTES` minutes.

    Attributes:
        minutes: when each began, the oldest first; the last is not over yet.
        enqueued: rows created.
        sent: rows that became ``sent``.
        failed: rows that became ``failed``, and have not been replayed or discarded since.
        exact: False where some numbers are estimates.
    """

    minutes: list[datetime]
    enqueued: Lines
    sent: Lines
    failed: Lines
    exact: bool


def rates(database: Database) -> Rates:
    """The rates of the last hour, by the database's clock.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return database.read(_rates)


def _rates(connection: Connection) -> Rates:
    now: datetime = connection.execute(select(db_now())).scalar_one()
    last = now.replace(second=0, microsecond=0)
    minutes = [last - _MINUTE * before for before in reversed(range(MINUTES))]
    enqueued, all_enqueued = _counted_or_estimated(connection, _CREATED, minutes, now)
    sent, all_sent = _counted_or_estimated(connection, _SENT, minutes, now)
    failed, all_failed = _failures(connection, minutes)
    return Rates(minutes, enqueued, sent, failed, exact=all_enqueued and all_sent and all_failed)


def _lines(minutes: Sequence[datetime], rows: Iterable[Any], each: Sequence[float] = (1,) * MINUTES) -> Lines:
    """Numbers by lane and minute; ``each``: how many rows each one of a minute stands for."""
    places = {minute: place for place, minute in enumerate(minutes)}
    lines: dict[Lane, list[float]] = {}
    for destination, topic, minute, number in rows:
        if (place := places.get(minute)) is not None:
            line = lines.setdefault(Lane(destination, topic), [0.0] * len(minutes))
            line[place] += number * each[place]
    return lines


# --- counted, or estimated ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """Rows in the order in which something happened to them, by an index; ``key``: an instant's place in that order."""

    rows: FromClause
    at: ColumnElement[datetime]
    order: ColumnElement[Any]
    key: Callable[[datetime], Any]
    conditions: tuple[ColumnElement[bool], ...] = ()

    def select(self, happened: ColumnElement[bool]) -> Select[Any]:
        columns = (self.rows.c.destination, self.rows.c.topic, minute_of(self.at).label("minute"))
        return select(*columns).where(*self.conditions, happened)

    def bound(self, name: str) -> BindParameter[Any]:
        return bindparam(name, type_=self.order.type)


_CREATED = _Source(messages, messages.c.created_at, messages.c.outbox_id, outbox_ids_from)
_BY_SENT = by_sent("sent")
_SENT = _Source(
    _BY_SENT, _BY_SENT.c.sent_at, _BY_SENT.c.sent_at, lambda instant: instant, (state_is(_BY_SENT, State.SENT),)
)


def _counted_or_estimated(
    connection: Connection, source: _Source, minutes: Sequence[datetime], now: datetime
) -> tuple[Lines, bool]:
    """The lines of a source, and whether they are exact."""
    rows = connection.execute(_newest_first(source), {"since": source.key(minutes[0]), "limit": _LIMIT + 1}).all()
    if sum(row[-1] for row in rows) <= _LIMIT:
        return _lines(minutes, rows), True
    probed = sum(row[-1] for row in _Moments(minutes, now, 1, _PROBE_S).rows(connection, source))
    shortest, longest = _MOMENT_S
    moment_s = min(longest, max(shortest, _PROBE_S * _WANTED / max(1, probed) / _MOMENTS))
    moments = _Moments(minutes, now, _MOMENTS, moment_s)
    return _lines(minutes, moments.rows(connection, source), moments.each), False


class _Moments:
    """A number of moments of each minute, drawn at random from as many parts of it.

    Attributes:
        each: for each minute, how many rows each one of its moments' rows stands for.
    """

    def __init__(self, minutes: Sequence[datetime], now: datetime, number: int, moment_s: float) -> None:
        self.each: list[float] = []
        self._moments: list[tuple[datetime, datetime]] = []
        for minute in minutes:
            part_s = min(_MINUTE, now - minute).total_seconds() / number
            lasts_s = min(moment_s, part_s)
            self.each.append(part_s / lasts_s if lasts_s else 0.0)
            for part in range(number):
                begin_s = part * part_s + random.uniform(0, part_s - lasts_s)  # noqa: S311 - a sample
                begin = minute + timedelta(seconds=begin_s)
                self._moments.append((begin, begin + timedelta(seconds=lasts_s)))

    def rows(self, connection: Connection, source: _Source) -> Sequence[Any]:
        bounds: dict[str, Any] = {}
        for number, (begin, end) in enumerate(self._moments):
            bounds |= {f"begin_{number}": source.key(begin), f"end_{number}": source.key(end)}
        return connection.execute(_within_moments(source, len(self._moments)), bounds).all()


@cache
def _newest_first(source: _Source) -> Select[Any]:
    newest = source.select(source.order >= source.bound("since")).order_by(source.order.desc())
    return _grouped(newest.limit(bindparam("limit")))


@cache
def _within_moments(source: _Source, number: int) -> Select[Any]:
    # Not one condition with many ORs: SQLite would read every row for it, and PostgreSQL compile it first.
    moments = (
        and_(source.order >= source.bound(f"begin_{place}"), source.order < source.bound(f"end_{place}"))
        for place in range(number)
    )
    return _grouped(union_all(*map(source.select, moments)))


def _grouped(query: Select[Any] | CompoundSelect[Any]) -> Select[Any]:
    rows = query.subquery("happened")
    names = (rows.c.destination, rows.c.topic, rows.c.minute)
    return select(*names, func.count()).group_by(*names)


# --- failures -----------------------------------------------------------------------------------------------------

_SINCE: BindParameter[datetime] = bindparam("since", type_=Instant())


def _failures(connection: Connection, minutes: Sequence[datetime]) -> tuple[Lines, bool]:
    """The lines of what failed, and whether they are exact: beyond a number of attempts, one row stands for several."""
    tried = connection.scalar(_tried(), {"since": minutes[0]}) or 0
    each = tried // _FAILURES + 1
    rows = connection.execute(_failed(), {"since": minutes[0], "each": each})
    return _lines(minutes, rows, (each,) * len(minutes)), each == 1


def _newest() -> Select[Any]:
    newest = select(attempts).order_by(attempts.c.id.desc()).limit(_NEWEST_ATTEMPTS).subquery("newest")
    return select(newest.c.message_row_id, func.max(newest.c.at, type_=Instant()).label("at")).where(
        newest.c.at >= _SINCE
    )


@cache
def _tried() -> Select[Any]:
    return select(func.count()).select_from(_newest().group_by("message_row_id").subquery("tried"))


@cache
def _failed() -> Select[Any]:
    """Rows that are failed, by the minute of the newest attempt of each."""
    failed, newest = by_state("failed"), _newest()
    some = column("message_row_id") % bindparam("each", type_=BigInteger()) == 0
    ended = newest.where(some).group_by("message_row_id").subquery("ended")
    query = select(failed.c.destination, failed.c.topic, minute_of(ended.c.at).label("minute"))
    query = query.join_from(failed, ended, ended.c.message_row_id == failed.c.id)
    return _grouped(query.where(held(failed), state_is(failed, State.FAILED)))
