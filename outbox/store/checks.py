"""The marks of those who check half messages, and what their silence proves.

A row whose commit was asked for and never answered is ``committing``. Had the commit not arrived, the broker would
offer the half message again; so silence means ``sent``, but only where checking provably works. The proof is a canary:
a half message that nobody commits, posted when such rows wait. When the broker offers it, and no poll since its posting
has failed or is still open, then the rows that were not offered since were committed.

``outbox_checks`` holds a mark for each checker, topic and group, and under no checker's name (`TOPIC`) what concerns
the topic: that half messages were posted there, and its canary. Whoever fails a poll takes the canary away in the same
transaction, and so does whoever finds that a poll's time is up: the window begins again with a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, func, or_, select, update

from outbox.states import State
from outbox.store.conditions import state_is
from outbox.store.database import Database
from outbox.store.dialects import upsert
from outbox.store.halves import DAY_S
from outbox.table import checks, db_after, db_now, messages

__all__ = [
    "Heard",
    "Topic",
    "close_poll",
    "drop_canary",
    "fail_poll",
    "forget_checkers",
    "open_poll",
    "plan_canary",
    "progress",
    "register",
    "settle",
    "topics",
]

#: The ``checker`` of a topic's own row.
TOPIC = ""
# The longest margin of a half message's check time.
_MARGIN_S = 5.0
_FORGET_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Topic:
    """Where half messages are posted, and the group that checks them."""

    destination: str
    topic: str
    group_id: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A half message that was offered: the row it says it is of, and its MessageId."""

    outbox_id: str
    message_id: str


def register(database: Database, topic: Topic) -> None:
    """Have the topic's half messages checked from now on; called before the first is posted.

    Raises:
        DatabaseError: see `Database.run`.
    """
    row = _row(topic, TOPIC, mark="closed")
    database.run(lambda one: one.execute(upsert(one.dialect.name, checks, row, lambda _new: [("mark", "closed")])))


def topics(database: Database) -> list[Topic]:
    """Where half messages were ever posted, in order.

    Raises:
        DatabaseError: see `Database.run`.
    """
    names = (checks.c.destination, checks.c.topic, checks.c.group_id)
    query = select(*names).where(checks.c.checker == TOPIC).order_by(*names)
    return [Topic(*row) for row in database.read(lambda connection: connection.execute(query).all())]


def progress(database: Database) -> list[dict[str, Any]]:
    """For each topic of half messages: how many wait for a checker, and how long ago one last had a whole answer.

    ``destination``, ``topic``, ``group_id``, ``unsettled`` (rows that are ``committing`` beyond their check time) and
    ``checked_s`` (seconds, None for never).

    Raises:
        DatabaseError: see `Database.run`.
    """
    names = (checks.c.destination, checks.c.topic, checks.c.group_id)
    waits = _unsettled_in(checks.c.destination, checks.c.topic, 0.0)
    waiting = select(func.count()).select_from(messages).where(waits).correlate(checks).scalar_subquery()
    query = select(*names, waiting.label("unsettled"), checks.c.succeeded_at, db_now().label("now"))
    query = query.where(checks.c.checker == TOPIC).order_by(*names)
    found = database.read(lambda connection: connection.execute(query).mappings().all())
    return [
        {name: row[name] for name in ("destination", "topic", "group_id", "unsettled")} | {"checked_s": _ago_s(row)}
        for row in found
    ]


def _ago_s(row: RowMapping) -> float | None:
    return None if row["succeeded_at"] is None else max(0.0, (row["now"] - row["succeeded_at"]).total_seconds())


# --- polls --------------------------------------------------------------------------------------------------------


def open_poll(database: Database, checker: str, topic: Topic, *, for_s: float) -> None:
    """Say that a poll begins whose answer is recorded within ``for_s`` seconds, or never; must precede the request.

    A poll of the same checker that is still open has failed.

    Raises:
        DatabaseError: see `Database.run`; then do not poll.
    """
    row = _row(topic, checker, mark="open", marked_at=db_now(), open_until=db_after(for_s))
    names = ("mark", "marked_at", "open_until")

    def work(connection: Connection) -> None:
        if _mark(connection, checker, topic) == "open":
            _take_canary(connection, topic)
        connection.execute(
            upsert(connection.dialect.name, checks, row, lambda new: [(name, new[name]) for name in names])
        )

    database.run(work)


def close_poll(database: Database, checker: str, topic: Topic, heard: Sequence[Heard], *, whole: bool = True) -> None:
    """Record every half message of a poll's answer, before any of them is answered, and close the poll.

    Args:
        database: the outbox's.
        checker: whose poll it was.
        topic: which.
        heard: the half messages, perhaps none.
        whole: False when part of the answer could not be read: the poll has failed then.

    Raises:
        DatabaseError: see `Database.run`; then answer none of them.
    """

    def work(connection: Connection) -> None:
        counts = whole and _mark(connection, checker, topic) == "open"
        outbox_ids = [one.outbox_id for one in heard]
        if counts:
            _note_canary(connection, topic, outbox_ids)
        else:
            _take_canary(connection, topic)
        _note_offers(connection, heard)
        changes: dict[str, Any] = {"mark": "closed" if counts else "failed", "marked_at": db_now(), "open_until": None}
        if counts:
            changes["succeeded_at"] = db_now()
            connection.execute(update(checks).where(_of(topic, TOPIC)).values(succeeded_at=db_now()))
        connection.execute(update(checks).where(_of(topic, checker)).values(changes))

    database.run(work)


def fail_poll(database: Database, checker: str, topic: Topic) -> None:
    """Say that a poll's answer is lost: a half message may have been offered in it.

    Raises:
        DatabaseError: see `Database.run`; the poll's time runs out then.
    """

    def work(connection: Connection) -> None:
        _take_canary(connection, topic)
        changes = {"mark": "failed", "marked_at": db_now(), "open_until": None}
        connection.execute(update(checks).where(_of(topic, checker)).values(changes))

    database.run(work)


def forget_checkers(database: Database) -> None:
    """Delete the marks of checkers that have not polled for a day.

    Raises:
        DatabaseError: see `Database.run`.
    """
    old = and_(checks.c.checker != TOPIC, checks.c.mark != "open", checks.c.marked_at < db_after(-_FORGET_S))
    database.run(lambda connection: connection.execute(delete(checks).where(old)))


# --- canaries and silence -----------------------------------------------------------------------------------------


def plan_canary(database: Database, topic: Topic, *, quiet_s: float, lost_s: float) -> str | None:
    """Write down a new canary, to be posted next, if rows of the topic wait for one.

    Args:
        database: the outbox's.
        topic: which.
        quiet_s: seconds for which a row must not have been offered.
        lost_s: seconds after which a canary that was never offered is given up.

    Returns:
        The canary's ``outbox_id``; None when none is wanted, or there is one.

    Raises:
        DatabaseError: see `Database.run`; then post none.
    """

    def work(connection: Connection) -> str | None:
        lost = or_(checks.c.canary_outbox_id.is_(None), checks.c.canary_posted_at < db_after(-lost_s))
        query = select(checks.c.checker).where(_of(topic, TOPIC), lost).with_for_update()
        waits = and_(_unsettled(topic, 0.0), messages.c.heard_at < db_after(-quiet_s))
        if connection.execute(query).one_or_none() is None:
            return None
        if connection.execute(select(messages.c.id).where(waits).limit(1)).one_or_none() is None:
            return None
        outbox_id = str(uuid4())
        fresh = {"canary_outbox_id": outbox_id, "canary_posted_at": db_now(), "canary_offered_at": None}
        connection.execute(update(checks).where(_of(topic, TOPIC)).values(fresh))
        return outbox_id

    return database.run(work)


def drop_canary(database: Database, topic: Topic, outbox_id: str) -> None:
    """Take back a canary that certainly was not posted.

    Raises:
        DatabaseError: see `Database.run`.
    """
    database.run(lambda connection: _take_canary(connection, topic, checks.c.canary_outbox_id == outbox_id))


def settle(database: Database, topic: Topic) -> int:
    """Make rows ``sent`` by silence, if the topic's canary was offered and nothing speaks against it.

    Returns:
        How many rows.

    Raises:
        DatabaseError: see `Database.run`.
    """
    if database.run(partial(_fail_overdue, topic=topic)):
        return 0
    return database.run(partial(_settle, topic=topic))


def _fail_overdue(connection: Connection, topic: Topic) -> bool:
    """Polls whose time is up have failed, whoever began them."""
    overdue = and_(_of(topic), checks.c.mark == "open", checks.c.open_until < db_now())
    names = list(connection.scalars(select(checks.c.checker).where(overdue)))
    if not names:
        return False
    _take_canary(connection, topic)
    connection.execute(update(checks).where(overdue).values(mark="failed", marked_at=db_now(), open_until=None))
    return True


def _settle(connection: Connection, topic: Topic) -> int:
    names = (checks.c.canary_posted_at, checks.c.canary_offered_at, db_now().label("now"))
    row = connection.execute(select(*names).where(_of(topic, TOPIC)).with_for_update()).one_or_none()
    if row is None or row.canary_offered_at is None or _is_blocked(connection, topic, row.canary_offered_at):
        return 0
    since_s = (row.now - row.canary_posted_at).total_seconds()
    silent = and_(_unsettled(topic, since_s), messages.c.heard_at < row.canary_posted_at)
    sent = {"state": State.SENT.value, "confirmed_by": "silence", "sent_at": db_now()}
    settled = connection.execute(update(messages).where(silent).values(sent)).rowcount
    _take_canary(connection, topic)
    return int(settled)


def _is_blocked(connection: Connection, topic: Topic, offered_at: datetime) -> bool:
    """Whether a poll that began before the canary was offered is still open: what it brings is not recorded yet."""
    before = and_(_of(topic), checks.c.mark == "open", checks.c.marked_at <= offered_at)
    return connection.execute(select(checks.c.checker).where(before).limit(1)).one_or_none() is not None


def _unsettled(topic: Topic, since_s: float) -> ColumnElement[bool]:
    """Rows that were ``committing``, and their check time over, ``since_s`` seconds ago; and their day is not over."""
    return _unsettled_in(topic.destination, topic.topic, since_s)


def _unsettled_in(destination: Any, topic: Any, since_s: float) -> ColumnElement[bool]:
    of_topic = and_(messages.c.destination == destination, messages.c.topic == topic)
    is_due = messages.c.posted_at <= db_after(-(messages.c.transaction_check_s + _MARGIN_S + since_s))
    in_time = messages.c.posted_at > db_after(-DAY_S)
    return and_(state_is(messages, State.COMMITTING), of_topic, is_due, in_time)


def _note_offers(connection: Connection, heard: Sequence[Heard]) -> None:
    if not heard:
        return
    outbox_ids, message_ids = ([getattr(one, name) for one in heard] for name in ("outbox_id", "message_id"))
    elected = and_(messages.c.outbox_id.in_(outbox_ids), messages.c.message_id.in_(message_ids))
    connection.execute(update(messages).where(elected).values(heard_at=db_now()))
    ended = and_(elected, state_is(messages, State.SENT), messages.c.confirmed_by == "answer")
    since = func.coalesce(messages.c.reoffered_at, db_now())
    connection.execute(update(messages).where(ended).values(reoffered_at=since))


def _note_canary(connection: Connection, topic: Topic, outbox_ids: Sequence[str]) -> None:
    offered = and_(checks.c.canary_outbox_id.in_(outbox_ids), checks.c.canary_offered_at.is_(None))
    connection.execute(update(checks).where(_of(topic, TOPIC), offered).values(canary_offered_at=db_now()))


def _take_canary(connection: Connection, topic: Topic, *conditions: ColumnElement[bool]) -> None:
    gone = {"canary_outbox_id": None, "canary_posted_at": None, "canary_offered_at": None}
    connection.execute(update(checks).where(_of(topic, TOPIC), *conditions).values(gone))


def _mark(connection: Connection, checker: str, topic: Topic) -> str | None:
    return connection.scalar(select(checks.c.mark).where(_of(topic, checker)).with_for_update())


def _of(topic: Topic, checker: str | None = None) -> ColumnElement[bool]:
    of_topic = and_(
        checks.c.destination == topic.destination, checks.c.topic == topic.topic, checks.c.group_id == topic.group_id
    )
    return of_topic if checker is None else and_(of_topic, checks.c.checker == checker)


def _row(topic: Topic, checker: str, **values: Any) -> dict[str, Any]:
    of_topic = {"destination": topic.destination, "topic": topic.topic, "group_id": topic.group_id}
    return {"checker": checker, **of_topic, **values}
