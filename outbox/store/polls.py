"""What became of each poll for half messages to be checked: a mark before the request, and its end after the answer.

A half message may have been offered in a poll whose answer is lost, or is not recorded yet: silence proves nothing
while one is open, and nothing of the time before one that has failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Select, Update, and_, bindparam, case, delete, or_, select, update

from outbox.states import State
from outbox.store.conditions import state_is
from outbox.store.database import Database
from outbox.store.dialects import upsert
from outbox.store.silence import note_canary, take_canary
from outbox.store.topics import TOPIC, Topic, is_of_checker
from outbox.table import checks, db_after, db_now, messages

__all__ = ["Heard", "Poll", "close_poll", "fail_poll", "forget_checkers", "open_poll"]

_FORGET_S = 86_400.0
# Offers of one half message that are farther apart than this are not one series: checkers or the broker were away.
_BREAK_S = 600.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A half message that was offered.

    Attributes:
        outbox_id: the row that it says it is of, or the canary that it is.
        message_id: its own.
        early: whether it was offered before its check time had passed, or may have been, by the broker's clock.
    """

    outbox_id: str
    message_id: str
    early: bool = False


@dataclass(frozen=True, slots=True)
class Poll:
    """A poll that is about to be made, by the database's clock.

    Attributes:
        opened_at: before its request.
        until: its answer counts until then, and what it offers may be elected until then.
    """

    opened_at: datetime
    until: datetime


def open_poll(database: Database, checker: str, topic: Topic, *, for_s: float) -> Poll:
    """Say that a poll begins whose answer is recorded within ``for_s`` seconds, or never; must precede the request.

    A poll of the same checker that is still open has failed.

    Raises:
        DatabaseError: see `Database.run`; then do not poll.
    """
    given = topic.parameters | {"of_checker": checker, "for_s": for_s}

    def work(connection: Connection) -> Poll:
        if connection.scalar(_mark(), given) == "open":
            take_canary(connection, topic)
        connection.execute(_opened(connection.dialect.name), given)
        return Poll(*connection.execute(_times(), given).one())

    return database.run(work)


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
    given = topic.parameters | {"of_checker": checker}

    def work(connection: Connection) -> None:
        counts = whole and connection.scalar(_mark(), given) == "open"
        if counts:
            for early in (False, True):
                outbox_ids = [one.outbox_id for one in heard if one.early is early]
                note_canary(connection, topic, outbox_ids, early=early)
            connection.execute(_succeeded(), given)
        else:
            take_canary(connection, topic)
        _note_offers(connection, topic, heard)
        connection.execute(_ended(), given | {"ends_as": "closed" if counts else "failed"})

    database.run(work)


def fail_poll(database: Database, checker: str, topic: Topic) -> None:
    """Say that a poll's answer is lost: a half message may have been offered in it.

    Raises:
        DatabaseError: see `Database.run`; the poll's time runs out then.
    """
    given = topic.parameters | {"of_checker": checker, "ends_as": "failed"}

    def work(connection: Connection) -> None:
        take_canary(connection, topic)
        connection.execute(_ended(), given)

    database.run(work)


def forget_checkers(database: Database) -> None:
    """Delete the marks of checkers that have not polled for a day.

    Raises:
        DatabaseError: see `Database.run`.
    """
    old = and_(checks.c.checker != TOPIC, checks.c.mark != "open", checks.c.marked_at < db_after(-_FORGET_S))
    database.run(lambda connection: connection.execute(delete(checks).where(old)))


def _note_offers(connection: Connection, topic: Topic, heard: Sequence[Heard]) -> None:
    if not heard:
        return
    ids = {"outbox_ids": [one.outbox_id for one in heard], "message_ids": [one.message_id for one in heard]}
    for statement in (_reoffered(), _heard(), _heard_by_message_id()):
        connection.execute(statement, topic.parameters | ids)


# --- statements ---------------------------------------------------------------------------------------------------


@cache
def _mark() -> Select[Any]:
    return select(checks.c.mark).where(is_of_checker()).with_for_update()


@cache
def _opened(dialect: str) -> Executable:
    names = ("destination", "topic", "group_id", "checker")
    times = {"marked_at": db_now(), "open_until": db_after(bindparam("for_s"))}
    row: dict[str, Any] = {name: bindparam(f"of_{name}") for name in names} | {"mark": "open"} | times
    return upsert(dialect, checks, row, lambda new: [(name, new[name]) for name in ("mark", *times)])


@cache
def _times() -> Select[Any]:
    return select(checks.c.marked_at, checks.c.open_until).where(is_of_checker())


@cache
def _ended() -> Update:
    is_whole = bindparam("ends_as") == "closed"
    changes: dict[str, Any] = {"mark": bindparam("ends_as"), "marked_at": db_now(), "open_until": None}
    succeeded = case((is_whole, db_now()), else_=checks.c.succeeded_at)
    return update(checks).where(is_of_checker()).values(changes | {"succeeded_at": succeeded})


@cache
def _succeeded() -> Update:
    return update(checks).where(is_of_checker(TOPIC)).values(succeeded_at=db_now())


def _among(name: str) -> Any:
    return messages.c[name[:-1]].in_(bindparam(name, expanding=True))


@cache
def _heard() -> Update:
    elected = and_(_among("outbox_ids"), _among("message_ids"))
    return update(messages).where(elected).values(heard_at=db_now())


@cache
def _heard_by_message_id() -> Update:
    """Whatever a half message says that it is of, it is the elected one by its MessageId."""
    of_topic = (messages.c.destination == bindparam("of_destination"), messages.c.topic == bindparam("of_topic"))
    waits = and_(state_is(messages, State.COMMITTING), *of_topic, _among("message_ids"))
    return update(messages).where(waits).values(heard_at=db_now())


@cache
def _reoffered() -> Update:
    """Rows whose commit was confirmed: since when the broker has been asking all the same, without a break."""
    confirmed = and_(state_is(messages, State.SENT), messages.c.confirmed_by == "answer")
    is_new = or_(messages.c.reoffered_at.is_(None), messages.c.heard_at < db_after(-_BREAK_S))
    since = case((is_new, db_now()), else_=messages.c.reoffered_at)
    offered = and_(_among("outbox_ids"), _among("message_ids"))
    return update(messages).where(offered, confirmed).values(reoffered_at=since)
