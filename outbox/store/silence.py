"""What it proves that the broker does not ask about a half message any more.

A row whose commit was asked for and never answered is ``committing``. Had the commit not arrived, the broker would
offer the half message again; so silence means ``sent``, but only where checking provably works. The proof is a canary:
a half message that nobody commits, posted when such rows wait, with a transaction check time no shorter than theirs.

    half message accepted ─▶ elected ─▶ canary posted ─────▶ canary offered, by a poll that was recorded
                        └── its check time ──▶ due for an offer before the canary is

Both times are the broker's, and the order of the first three steps is the database's; so the proof rests on no other
clock. A canary's offer counts when no poll since its posting has failed or is still open, and for rows that were not
offered since. Whoever fails a poll takes the canary away in the same transaction: the window begins again with a new
one. Those come ever more slowly while none of them proves anything, for all checkers together.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Update,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    update,
)

from outbox.retry import half_margin_s
from outbox.states import State
from outbox.store.conditions import state_is
from outbox.store.database import Database
from outbox.store.halves import DAY_S
from outbox.store.topics import TOPIC, Topic, is_of, is_of_checker
from outbox.table import checks, db_after, db_now, messages

__all__ = ["Canary", "Pace", "drop_canary", "note_canary", "plan_canary", "progress", "settle", "take_canary"]

_LONGEST_CHECK_S = 300
# The longest margin of a half message's check time.
_MARGIN_S = half_margin_s(_LONGEST_CHECK_S)
_LARGEST_EXPONENT = 16


@dataclass(frozen=True, slots=True)
class Pace:
    """When a canary is posted; durations in seconds.

    Attributes:
        check_s: the shortest check time that one has.
        quiet_s: for which a row must not have been offered: two offers at least.
        lost_s: after which, beside its check time, one that was not offered is given up.
        rest_s: from one to the next; doubled each time that one has proven nothing.
        longest_rest_s: how long that becomes.
    """

    check_s: int = 60
    quiet_s: float = 20.0
    lost_s: float = 180.0
    rest_s: float = 30.0
    longest_rest_s: float = 900.0

    def rest_after_s(self, failures: int) -> float:
        """Seconds until the next one, when so many before this one have proven nothing."""
        return float(min(self.longest_rest_s, self.rest_s * 2.0 ** min(failures, _LARGEST_EXPONENT)))


@dataclass(frozen=True, slots=True)
class Canary:
    """A canary to be posted: its ``outbox_id``, and its transaction check time in seconds."""

    outbox_id: str
    check_s: int


def progress(database: Database) -> list[dict[str, Any]]:
    """For each topic of half messages: how many wait for a checker, and how long ago one last had a whole answer.

    ``destination``, ``topic``, ``group_id``, ``unsettled`` (rows that are ``committing`` beyond their check time) and
    ``checked_s`` (seconds, None for never).

    Raises:
        DatabaseError: see `Database.run`.
    """
    found = database.read(lambda connection: connection.execute(_progress()).mappings().all())
    names = ("destination", "topic", "group_id", "unsettled")
    return [{name: row[name] for name in names} | {"checked_s": _ago_s(row)} for row in found]


def _ago_s(row: RowMapping) -> float | None:
    return None if row["succeeded_at"] is None else max(0.0, (row["now"] - row["succeeded_at"]).total_seconds())


# --- canaries -----------------------------------------------------------------------------------------------------


def plan_canary(database: Database, topic: Topic, pace: Pace) -> Canary | None:
    """Write down a new canary, to be posted next, if rows of the topic wait for one.

    Of any number of checkers that ask at the same time, one is given it.

    Returns:
        None when none is wanted, there is one, or it is too early for another.

    Raises:
        DatabaseError: see `Database.run`; then post none.
    """
    # The broker counts the check time from when it takes the canary, which is later than this.
    given = topic.parameters | {"lost_s": -pace.lost_s, "quiet_s": -pace.quiet_s, "since_s": 0.0}
    longest = _longest_wait()

    def work(connection: Connection) -> Canary | None:
        place = connection.execute(_without_canary(), given).one_or_none()
        if place is None or (check_s := connection.scalar(longest, given)) is None:
            return None
        canary = Canary(str(uuid4()), min(_LONGEST_CHECK_S, max(pace.check_s, check_s)))
        fresh = {"canary": canary.outbox_id, "check_s": canary.check_s, "failures": place.canary_failures + 1}
        rest = {"rest_s": pace.rest_after_s(place.canary_failures)}
        connection.execute(_planned(), topic.parameters | fresh | rest)
        return canary

    # Most rounds find nothing to wait for, and need no lock to see it.
    if database.read(lambda connection: connection.scalar(longest, given)) is None:
        return None
    return database.run(work)


def drop_canary(database: Database, topic: Topic, outbox_id: str) -> None:
    """Take back a canary that certainly was not posted.

    Raises:
        DatabaseError: see `Database.run`.
    """
    given = topic.parameters | {"canary": outbox_id}
    dropped = _taken().where(checks.c.canary_outbox_id == bindparam("canary"))
    database.run(lambda connection: connection.execute(dropped, given))


def take_canary(connection: Connection, topic: Topic) -> None:
    """A poll of the topic has failed: whatever its canary would prove, it does not."""
    connection.execute(_taken(), topic.parameters)


def note_canary(connection: Connection, topic: Topic, outbox_ids: list[str], *, early: bool) -> None:
    """If the topic's canary is among these, it was offered now; one that was offered too early proves nothing."""
    if outbox_ids:
        noted = _canary_too_early() if early else _canary_offered()
        connection.execute(noted, topic.parameters | {"outbox_ids": outbox_ids})


# --- silence ------------------------------------------------------------------------------------------------------


def settle(database: Database, topic: Topic) -> int:
    """Make rows ``sent`` by silence, if the topic's canary was offered and nothing speaks against it.

    Returns:
        How many rows.

    Raises:
        DatabaseError: see `Database.run`.
    """
    given = topic.parameters
    # Most rounds find nothing to act upon, and need no lock to see it.
    seen = database.read(lambda connection: connection.execute(_seen(), given).one())
    if seen.overdue:
        database.run(lambda connection: _fail_overdue(connection, topic))
    elif seen.offered:
        return database.run(lambda connection: _settle(connection, topic))
    return 0


def _fail_overdue(connection: Connection, topic: Topic) -> None:
    """Polls whose time is up have failed, whoever began them."""
    given = topic.parameters
    names = list(connection.scalars(_overdue().with_for_update(), given))
    if names:
        take_canary(connection, topic)
        failed = update(checks).where(is_of(), _is_overdue())
        connection.execute(failed.values(mark="failed", marked_at=db_now(), open_until=None), given)


def _settle(connection: Connection, topic: Topic) -> int:
    given = topic.parameters
    row = connection.execute(_proof(), given).one_or_none()
    if row is None or row.canary_offered_at is None or _is_blocked(connection, topic, row.canary_offered_at):
        return 0
    proof = {
        "since_s": (row.now - row.canary_posted_at).total_seconds(),
        "before": row.canary_posted_at,
        "check_s": row.canary_check_s,
    }
    settled = connection.execute(_settled(), given | proof).rowcount
    take_canary(connection, topic)
    connection.execute(update(checks).where(is_of_checker(TOPIC)).values(canary_failures=0), given)
    return int(settled)


def _is_blocked(connection: Connection, topic: Topic, offered_at: datetime) -> bool:
    """Whether a poll that began before the canary was offered is still open: what it brings is not recorded yet."""
    return connection.scalar(_open_before(), topic.parameters | {"offered_at": offered_at}) is not None


# --- statements ---------------------------------------------------------------------------------------------------


def _is_unsettled(destination: Any, topic: Any, since_s: Any) -> ColumnElement[bool]:
    """Rows that were ``committing``, and their check time over, ``since_s`` seconds ago; and their day is not over."""
    of_topic = and_(messages.c.destination == destination, messages.c.topic == topic)
    is_due = messages.c.posted_at <= db_after(-(messages.c.transaction_check_s + _MARGIN_S + since_s))
    in_time = messages.c.posted_at > db_after(-DAY_S)
    return and_(state_is(messages, State.COMMITTING), of_topic, is_due, in_time)


def _unsettled() -> ColumnElement[bool]:
    return _is_unsettled(bindparam("of_destination"), bindparam("of_topic"), bindparam("since_s"))


@cache
def _progress() -> Select[Any]:
    waits = _is_unsettled(checks.c.destination, checks.c.topic, 0.0)
    waiting = select(func.count()).select_from(messages).where(waits).correlate(checks).scalar_subquery()
    names = (checks.c.destination, checks.c.topic, checks.c.group_id)
    query = select(*names, waiting.label("unsettled"), checks.c.succeeded_at, db_now().label("now"))
    return query.where(checks.c.checker == TOPIC).order_by(*names)


@cache
def _longest_wait() -> Select[Any]:
    """The longest check time of rows that wait for a canary; NULL where none does."""
    waits = and_(_unsettled(), messages.c.heard_at < db_after(bindparam("quiet_s")))
    return select(func.max(messages.c.transaction_check_s)).where(waits)


@cache
def _without_canary() -> Select[Any]:
    """The topic's row, locked, if it has no canary to wait for, and the last one was long enough ago."""
    given_up = db_after(bindparam("lost_s") - func.coalesce(checks.c.canary_check_s, 0))
    is_lost = or_(checks.c.canary_outbox_id.is_(None), checks.c.canary_posted_at < given_up)
    is_time = or_(checks.c.canary_after.is_(None), checks.c.canary_after <= db_now())
    return select(checks.c.canary_failures).where(is_of_checker(TOPIC), is_lost, is_time).with_for_update()


@cache
def _planned() -> Update:
    return (
        update(checks)
        .where(is_of_checker(TOPIC))
        .values(
            canary_outbox_id=bindparam("canary"),
            canary_check_s=bindparam("check_s"),
            canary_posted_at=db_now(),
            canary_offered_at=None,
            canary_after=db_after(bindparam("rest_s")),
            canary_failures=bindparam("failures"),
        )
    )


@cache
def _taken() -> Update:
    names = ("canary_outbox_id", "canary_check_s", "canary_posted_at", "canary_offered_at")
    return update(checks).where(is_of_checker(TOPIC)).values(dict.fromkeys(names))


@cache
def _canary_offered() -> Update:
    first = and_(_is_the_canary(), checks.c.canary_offered_at.is_(None))
    return update(checks).where(is_of_checker(TOPIC), first).values(canary_offered_at=db_now())


@cache
def _canary_too_early() -> Update:
    """It is rolled back, and so is never offered again: take it away."""
    return _taken().where(_is_the_canary())


def _is_the_canary() -> ColumnElement[bool]:
    return checks.c.canary_outbox_id.in_(bindparam("outbox_ids", expanding=True))


def _is_overdue() -> ColumnElement[bool]:
    return and_(checks.c.mark == "open", checks.c.open_until < db_now())


@cache
def _overdue() -> Select[Any]:
    return select(checks.c.checker).where(is_of(), _is_overdue())


@cache
def _seen() -> Select[Any]:
    """The marks of the topic that somebody has to act upon: overdue polls, and a canary that was offered."""
    is_offered = and_(checks.c.checker == TOPIC, checks.c.canary_offered_at.is_not(None))
    overdue = func.count(case((_is_overdue(), 1)))
    offered = func.count(case((is_offered, 1)))
    columns: list[ColumnElement[Any]] = [overdue.label("overdue"), offered.label("offered")]
    return select(*columns).where(is_of())


@cache
def _proof() -> Select[Any]:
    names = (checks.c.canary_posted_at, checks.c.canary_offered_at, checks.c.canary_check_s, db_now().label("now"))
    return select(*names).where(is_of_checker(TOPIC)).with_for_update()


@cache
def _open_before() -> Select[Any]:
    before = and_(is_of(), checks.c.mark == "open", checks.c.marked_at <= bindparam("offered_at"))
    return select(checks.c.checker).where(before).limit(1)


@cache
def _settled() -> Update:
    is_proven = messages.c.transaction_check_s <= bindparam("check_s")
    silent = and_(_unsettled(), is_proven, messages.c.heard_at < bindparam("before"))
    sent = {"state": State.SENT.value, "confirmed_by": "silence", "sent_at": db_now()}
    return update(messages).where(silent).values(sent)
