"""Search among any number of messages, in bounded time, from the newest to the oldest.

Not every question has an index, and an index for each would slow down every publish. So a search walks along the ids in
windows, and stops when its time is up: whoever asks is told how far it came, and may go on from there. Where an index
helps, as for the states in which rows wait for an operator, the windows grow so fast that few are needed.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from outbox.states import State
from outbox.store.conditions import HELD, held
from outbox.store.database import Database
from outbox.store.dialects import by_id, by_state, has_id
from outbox.store.filter import Filter
from outbox.store.look import as_message, listed
from outbox.store.tally import Count
from outbox.table import messages

__all__ = ["Found", "Group", "Groups", "failures", "search"]

_FIRST_WINDOW = 1000
_GROWTH = 16
# The shortest time that a clock may tell between two looks.
_TICK_S = 1e-6
# Rows are created in the order of their ids but for those of transactions that went on at the same time.
_OUT_OF_ORDER = timedelta(minutes=1)
# Where the rows of an instant begin is looked for at so many places at a time, and no closer than this.
_PLACES = 250
_NEAR = 5000


@dataclass(frozen=True, slots=True)
class Found:
    """A page of messages, newest first.

    Attributes:
        rows: as `outbox.store.look.list_messages` gives them.
        total: how many there are, on all pages.
        before: the ``before`` of the next page; None where nothing is left.
        time_was_up: the search stopped before the page was full; the next page goes on.
    """

    rows: list[dict[str, Any]]
    total: Count
    before: int | None
    time_was_up: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Failed rows of one lane that failed alike.

    Attributes:
        destination: of the lane.
        topic: of the lane.
        code: their last error code, None for none.
        rows: how many.
        first_id: the oldest row.
        last_id: the newest row.
        text: what the newest one's last attempt ended with.
    """

    destination: str
    topic: str
    code: str | None
    rows: int
    first_id: int
    last_id: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """Failed rows by what failed, the largest group first. ``whole``: every failed row was looked at."""

    groups: list[Group]
    whole: bool


def search(
    database: Database,
    meant: Filter,
    *,
    before: int | None = None,
    limit: int = 50,
    most: int = 10_000,
    page_s: float = 0.3,
    count_s: float = 0.2,
) -> Found:
    """One page of the messages that are meant, and how many there are.

    Args:
        database: the outbox's.
        meant: which.
        before: only rows with a smaller id: where the page before this one ended.
        limit: rows on a page.
        most: count no further.
        page_s: seconds after which the page is given as far as it is filled.
        count_s: seconds after which the count is given as far as it came.

    Raises:
        DatabaseError: see `Database.run`.
    """

    def work(connection: Connection) -> Found:
        query, span = _Query(meant), _span(connection, meant)
        top = span.high if before is None else min(span.high, before - 1)
        page = _page(connection, query, _Window(span.low, top), limit, page_s)
        if before is None and (page.time_was_up or page.before is None):
            total = Count(len(page.rows), at_least=page.time_was_up)
        else:
            total = _count(connection, query, span, most, count_s)
        return Found(page.rows, total, page.before, page.time_was_up)

    return database.read(work)


def failures(database: Database, *, for_s: float = 0.5, most: int = 100) -> Groups:
    """Failed rows by what failed: as many, the newest first, as ``for_s`` seconds are enough for.

    Args:
        database: the outbox's.
        for_s: seconds.
        most: so many groups, the largest.

    Raises:
        DatabaseError: see `Database.run`.
    """

    def work(connection: Connection) -> Groups:
        found: dict[tuple[str, str, str | None], Group] = {}
        query, span = _Query(Filter(State.FAILED)), _span(connection, Filter())
        reached = span.high
        for window in _windows(span, for_s):
            for group in _group(connection, query, window):
                key = group.destination, group.topic, group.code
                found[key] = _merged(found.get(key), group)
            reached = window.low
        largest = sorted(found.values(), key=lambda one: (-one.rows, -one.last_id))
        return Groups(_with_texts(connection, largest[:most]), reached <= span.low and len(largest) <= most)

    return database.read(work)


# --- windows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Window:
    """Ids above ``low``, up to ``high``."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class _Page:
    rows: list[dict[str, Any]]
    before: int | None
    time_was_up: bool = False


def _windows(span: _Window, for_s: float) -> Iterator[_Window]:
    """Windows from the span's end to its beginning, as large as the time left allows, judged by the one before."""
    until, high, size = time.monotonic() + for_s, span.high, _FIRST_WINDOW
    while high > span.low:
        began = time.monotonic()
        yield _Window(max(span.low, high - size), high)
        high -= size
        now = time.monotonic()
        left, took = until - now, max(now - began, _TICK_S)
        if left < for_s / 4:
            return
        # Half of what is left: the next window may be slower, for want of a cache.
        size = max(_FIRST_WINDOW, int(size * min(_GROWTH, left / took / 2)))


def _span(connection: Connection, meant: Filter) -> _Window:
    """Between which ids the messages are."""
    ends = (select(end(messages.c.id)).scalar_subquery() for end in (func.min, func.max))
    first, last = connection.execute(select(*ends)).one()
    span = _Window(0, 0) if first is None else _Window(first - 1, last)
    if meant.created_until:
        span = replace(span, high=_around(connection, span, meant.created_until + _OUT_OF_ORDER).high)
    if meant.created_from:
        span = replace(span, low=_around(connection, span, meant.created_from - _OUT_OF_ORDER).low)
    return span


def _around(connection: Connection, span: _Window, instant: datetime) -> _Window:
    """Where the rows begin that were created at an instant or later."""
    rows = by_id()
    query = select(rows.c.id, rows.c.created_at).where(has_id(rows)).order_by(rows.c.id)
    while (length := span.high - span.low) > _NEAR:
        places = list(range(span.low + length // _PLACES, span.high, length // _PLACES))
        found = connection.execute(query, {"ids": places}).all()
        later = next((row.id for row in found if row.created_at >= instant), span.high)
        earlier = max((row.id for row in found if row.id < later), default=span.low)
        if span == (span := _Window(earlier, later)):
            break
    return span


# --- statements ---------------------------------------------------------------------------------------------------


class _Query:
    """The messages that are meant, as something to be read window by window."""

    def __init__(self, meant: Filter) -> None:
        is_held = meant.state in HELD
        self.rows = by_state("found") if is_held else messages.alias("found")
        self._conditions = meant.conditions(self.rows) + ([held(self.rows)] if is_held else [])

    def select(self, window: _Window, *columns: ColumnElement[Any]) -> Select[Any]:
        in_window = and_(self.rows.c.id > window.low, self.rows.c.id <= window.high)
        return select(*columns).where(in_window, *self._conditions)


def _page(connection: Connection, query: _Query, span: _Window, limit: int, for_s: float) -> _Page:
    columns, newest_first = listed(query.rows), query.rows.c.id.desc()
    found: list[dict[str, Any]] = []
    reached = span.high
    for window in _windows(span, for_s):
        some = query.select(window, *columns).order_by(newest_first).limit(limit + 1 - len(found))
        found += [as_message(row) for row in connection.execute(some).mappings()]
        reached = window.low
        if len(found) > limit:
            return _Page(found[:limit], found[limit - 1]["id"])
    return _Page(found, reached + 1, time_was_up=True) if reached > span.low else _Page(found, None)


def _count(connection: Connection, query: _Query, span: _Window, most: int, for_s: float) -> Count:
    counted, reached = 0, span.high
    for window in _windows(span, for_s):
        some = query.select(window, query.rows.c.id).limit(most + 1 - counted).subquery()
        counted += connection.scalar(select(func.count()).select_from(some)) or 0
        reached = window.low
        if counted > most:
            return Count(most, at_least=True)
    return Count(counted, at_least=reached > span.low)


def _group(connection: Connection, query: _Query, window: _Window) -> Iterator[Group]:
    rows = query.rows
    names = (rows.c.destination, rows.c.topic, rows.c.last_error_code)
    grouped = query.select(window, *names, func.count(), func.min(rows.c.id), func.max(rows.c.id)).group_by(*names)
    return (Group(*row) for row in connection.execute(grouped))


def _merged(newer: Group | None, older: Group) -> Group:
    """One group of what two windows hold of it."""
    return replace(newer, rows=newer.rows + older.rows, first_id=older.first_id) if newer else older


def _with_texts(connection: Connection, groups: list[Group]) -> list[Group]:
    rows = by_id()
    query = select(rows.c.id, rows.c.last_error).where(has_id(rows))
    texts = {row.id: row.last_error for row in connection.execute(query, {"ids": [one.last_id for one in groups]})}
    return [replace(one, text=texts.get(one.last_id)) for one in groups]
