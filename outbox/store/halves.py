"""Half messages: which of a row's is elected. Each verb is one compare-and-set statement for any number of rows.

A row is undecided while it is ``pending`` and its ``message_id`` is null. `elect` decides it, once for each replay, for
whichever MessageId comes first; every other verb that leaves ``pending`` decides it for none. No lease is asked for: a
sender that lost its lease may still win, and nothing is lost when it does not. But who was stopped for longer than he
said beforehand elects nothing: his half message may be about to end its day, or have done so.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any

from sqlalchemy import Select, Update, bindparam, case, func, select, update

from outbox.states import State
from outbox.store.conditions import state_is
from outbox.store.database import Database
from outbox.store.dialects import MESSAGE_ID_CHARACTERS, as_mark, by_id, has_id, marked
from outbox.table import db_after, db_now, messages

__all__ = [
    "BROKEN_S",
    "DAY_S",
    "Committed",
    "Election",
    "HalfRow",
    "Standing",
    "confirm",
    "doubt",
    "elect",
    "rows_of",
]

#: Seconds for which the broker offers a half message that is not ended; a little less, to be sure.
DAY_S = 86_100.0
#: Seconds of offers of a half message that was certainly committed, after which it is committed once more.
BROKEN_S = 3600.0


@dataclass(frozen=True, slots=True)
class Election:
    """A half message that the broker holds, put forward for its row.

    Attributes:
        id: the row's.
        replays: the row's, when the half message was posted.
        message_id: the half message's.
        posted_at: when it was posted, or somewhat earlier; by the database's clock, as that was read before the request
            which brought the half message.
        until: it is elected until then, by the same clock: however long its holder was stopped, it is not too late.
    """

    id: int
    replays: int
    message_id: str
    posted_at: datetime
    until: datetime


class Standing(Enum):
    """How a half message stands with its row, as the row was read."""

    #: The row holds this MessageId and waits for its commit to be confirmed.
    WON = "won"
    #: The row is decided otherwise, or was replayed, or is gone: this half message may never be committed.
    LOST = "lost"
    #: The row holds this MessageId, and its commit is confirmed or beyond the sender.
    OVER = "over"
    #: The row is undecided.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Committed:
    """A MessageId that was committed, with the row that it was elected for."""

    id: int
    message_id: str


@dataclass(frozen=True, slots=True)
class HalfRow:
    """What a checker must know of the row that a half message says it is of.

    Attributes:
        reoffered_long: it was confirmed by an answer, and has been offered all the same for an hour.
    """

    id: int
    outbox_id: str
    destination: str
    topic: str
    tag: str | None
    properties: str = field(repr=False)
    body: str = field(repr=False)
    state: State
    message_id: str | None
    replays: int
    confirmed_by: str | None
    transaction_check_s: int | None
    reoffered_long: bool


def elect(database: Database, elections: Sequence[Election]) -> dict[str, Standing]:
    """Put half messages forward for their rows; ``pending`` rows that are undecided become ``committing``.

    A sender and a checker do the same; theirs is called to adopt. It may be called again for the same half messages.

    Args:
        database: the outbox's.
        elections: any number, of any rows.

    Returns:
        For each MessageId how it stands, read from the row within the same transaction: no count of changed rows is
        trusted.

    Raises:
        DatabaseError: see `Database.run`. The half messages may have been elected.
    """

    def work(connection: Any) -> dict[str, Standing]:
        dialect = connection.dialect.name
        rows = [
            {"id": one.id, "replays": one.replays, "message_id": one.message_id}
            | {name: as_mark(dialect, getattr(one, name)) for name in ("posted_at", "until")}
            for one in elections
        ]
        connection.execute(_elected(dialect), {"marks": json.dumps(rows)})
        return _standings(connection, elections)

    return database.run(work) if elections else {}


def confirm(database: Database, committed: Iterable[Committed]) -> None:
    """Write down that the broker answered the commits of these half messages with a 204: their rows are ``sent``.

    It changes rows that hold the MessageId and are ``committing``, ``in_doubt`` or ``sent``, and no other.

    Raises:
        DatabaseError: see `Database.run`.
    """
    rows = [{"id": one.id, "message_id": one.message_id} for one in committed]
    if rows:
        parameters = {"marks": json.dumps(rows)}
        database.run(lambda connection: connection.execute(_confirmed(connection.dialect.name), parameters))


def doubt(database: Database) -> int:
    """Put rows ``in_doubt`` whose half messages' day is over with nothing proven; returns how many.

    Raises:
        DatabaseError: see `Database.run`.
    """
    is_over = messages.c.posted_at <= db_after(-DAY_S)
    waits = (state_is(messages, State.COMMITTING), is_over)
    if database.read(lambda connection: connection.scalar(select(messages.c.id).where(*waits).limit(1))) is None:
        return 0
    doubted = update(messages).where(*waits).values(state=State.IN_DOUBT.value)
    return int(database.run(lambda connection: connection.execute(doubted).rowcount))


def rows_of(database: Database, outbox_ids: Iterable[str]) -> Mapping[str, HalfRow]:
    """The rows that half messages say they are of, by ``outbox_id``; those that are gone are missing.

    Raises:
        DatabaseError: see `Database.run`.
    """
    ids = sorted(set(outbox_ids))
    if not ids:
        return {}
    found = database.read(lambda connection: connection.execute(_by_outbox_id(), {"outbox_ids": ids}).all())
    return {row.outbox_id: _half_row(row) for row in found}


def _half_row(row: Any) -> HalfRow:
    values = dict(row._mapping) | {"state": State(row.state), "reoffered_long": bool(row.reoffered_long)}  # noqa: SLF001 - SQLAlchemy's public name
    return HalfRow(**values)


def _standings(connection: Any, elections: Sequence[Election]) -> dict[str, Standing]:
    rows = {row.id: row for row in connection.execute(_decided(), {"ids": [one.id for one in elections]})}
    return {one.message_id: _standing(rows.get(one.id), one) for one in elections}


def _standing(row: Any, one: Election) -> Standing:
    if row is None or row.replays != one.replays:
        return Standing.LOST
    if row.message_id == one.message_id[:MESSAGE_ID_CHARACTERS]:
        return Standing.WON if row.state == State.COMMITTING else Standing.OVER
    return Standing.OPEN if row.state == State.PENDING else Standing.LOST


# --- statements ---------------------------------------------------------------------------------------------------


@cache
def _elected(dialect: str) -> Update:
    these = marked(dialect)
    rows, given = these.rows, these.given
    undecided = (state_is(rows, State.PENDING), rows.c.message_id.is_(None), rows.c.replays == given["replays"])
    is_in_time = db_now() <= given["until"]
    return (
        update(rows)
        .where(these.condition, *undecided, is_in_time, rows.c.transaction_check_s.is_not(None))
        .values(
            state=State.COMMITTING.value,
            message_id=given["message_id"],
            posted_at=given["posted_at"],
            heard_at=db_now(),
            attempts=rows.c.attempts + 1,
            lease_until=None,
            lease_token=None,
        )
    )


@cache
def _confirmed(dialect: str) -> Update:
    these = marked(dialect)
    rows, given = these.rows, these.given
    elected = (rows.c.message_id == given["message_id"], rows.c.transaction_check_s.is_not(None))
    return (
        update(rows)
        .where(these.condition, *elected, state_is(rows, State.COMMITTING, State.IN_DOUBT, State.SENT))
        .values(
            state=State.SENT.value,
            confirmed_by="answer",
            sent_at=func.coalesce(rows.c.sent_at, db_now()),
            reoffered_at=None,
        )
    )


@cache
def _decided() -> Select[Any]:
    rows = by_id()
    return select(rows.c.id, rows.c.state, rows.c.replays, rows.c.message_id).where(has_id(rows))


@cache
def _by_outbox_id() -> Select[Any]:
    names = [name for name in HalfRow.__dataclass_fields__ if name != "reoffered_long"]
    long = case((messages.c.reoffered_at <= db_after(-BROKEN_S), 1), else_=0).label("reoffered_long")
    found = select(*(messages.c[name] for name in names), long)
    return found.where(messages.c.outbox_id.in_(bindparam("outbox_ids", expanding=True)))
