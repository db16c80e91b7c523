"""Pauses: a lane in which nothing is claimed, until a time (the circuit breaker's) or until resumed (an operator's).

A lane may have both at once; neither knows of the other.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Delete, and_, case, delete, update

from outbox.store.audit import author, write_audit
from outbox.store.database import Database
from outbox.store.dialects import upsert
from outbox.store.lanes import AutomaticPause, Lane
from outbox.table import db_after, db_now, pauses

__all__ = ["BREAKER", "end_automatic_pause", "pause", "pause_automatically", "resume", "win_probe"]

#: Who has paused a lane by itself.
BREAKER = "circuit breaker"


def pause_automatically(database: Database, lane: Lane, *, for_s: float, reason: str, failures: int = 1) -> None:
    """Pause the lane for ``for_s`` seconds from now, by the database's clock.

    A relay that knows of fewer failures in a row than the pause that is there may make it longer, never shorter.

    Args:
        database: the outbox's.
        lane: which.
        for_s: seconds until one relay may probe.
        reason: one line, for operators.
        failures: failures in a row that led to it, at least 1.

    Raises:
        DatabaseError: see `Database.run`.
    """
    row = _row(lane, automatic=True, by=BREAKER, reason=reason, until=db_after(for_s), failures=failures)

    def changes(new: Any) -> list[tuple[str, Any]]:
        keeps = and_(pauses.c.failures > new.failures, pauses.c.until > new.until)
        until = case((keeps, pauses.c.until), else_=new.until)
        most = case((pauses.c.failures > new.failures, pauses.c.failures), else_=new.failures)
        return [("until", until), ("reason", new.reason), ("failures", most)]

    database.run(lambda connection: connection.execute(upsert(connection.dialect.name, pauses, row, changes)))


def win_probe(database: Database, lane: Lane, seen: AutomaticPause, *, for_s: float) -> bool:
    """Ask for the right to probe a lane whose automatic pause is over; of all that ask, one relay gets it.

    The pause then lasts ``for_s`` seconds more, so that the lane stays quiet during the probe and another relay may try
    should this one die.

    Returns:
        True for the winner: a compare-and-set on the pause's ``until``.

    Raises:
        DatabaseError: see `Database.run`.
    """
    as_seen = and_(pauses.c.until == seen.until, pauses.c.until <= db_now())
    won = update(pauses).where(_of(lane, automatic=True), as_seen).values(until=db_after(for_s))
    return database.run(lambda connection: connection.execute(won).rowcount == 1)


def end_automatic_pause(database: Database, lane: Lane) -> bool:
    """The lane is well again. Returns whether there was an automatic pause.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return database.run(lambda connection: connection.execute(_deletion(lane, automatic=True)).rowcount == 1)


def pause(database: Database, lane: Lane, *, by: str, reason: str, until: datetime | None = None) -> None:
    """An operator's pause; it replaces an earlier one and is written to the audit.

    Args:
        database: the outbox's.
        lane: which.
        by: the operator.
        reason: why, for other operators.
        until: an aware instant at which it ends by itself; None lasts until `resume`.

    Raises:
        DatabaseError: see `Database.run`.
    """
    row = _row(lane, automatic=False, by=author(by), reason=reason, until=until)
    changed = ("until", "by", "reason", "created_at")

    def work(connection: Connection) -> None:
        statement = upsert(connection.dialect.name, pauses, row, lambda new: [(name, new[name]) for name in changed])
        connection.execute(statement)
        write_audit(connection, "pause", [_names(lane)], by=by, reason=reason)

    database.run(work)


def resume(database: Database, lane: Lane, *, by: str, reason: str) -> bool:
    """End an operator's pause; written to the audit. Returns whether there was one.

    Raises:
        DatabaseError: see `Database.run`.
    """

    def work(connection: Connection) -> bool:
        ended = connection.execute(_deletion(lane, automatic=False)).rowcount == 1
        if ended:
            write_audit(connection, "resume", [_names(lane)], by=by, reason=reason)
        return ended

    return database.run(work)


def _names(lane: Lane) -> dict[str, Any]:
    return {"destination": lane.destination, "topic": lane.topic}


def _row(lane: Lane, **values: Any) -> dict[str, Any]:
    return _names(lane) | values


def _of(lane: Lane, *, automatic: bool) -> ColumnElement[bool]:
    is_lane = and_(pauses.c.destination == lane.destination, pauses.c.topic == lane.topic)
    return and_(is_lane, pauses.c.automatic == automatic)


def _deletion(lane: Lane, *, automatic: bool) -> Delete:
    return delete(pauses).where(_of(lane, automatic=automatic))
