"""What operators do to everything that a filter means, or meant: chunk after chunk, as far as the time allows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select

from outbox.errors import OperationError
from outbox.states import State
from outbox.store.conditions import HELD, held
from outbox.store.database import Database
from outbox.store.dialects import MYSQL, by_state
from outbox.store.filter import Filter
from outbox.store.operate import CHUNK, Refusal, Target, act, check
from outbox.table import messages

__all__ = ["Progress", "act_on_matching", "act_on_seen", "seen"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a deed on everything that matches came.

    Attributes:
        done: rows that were changed this time.
        refused: rows that were not.
        after: go on after this row id; None where nothing is left.
    """

    done: int
    refused: tuple[Refusal, ...]
    after: int | None


def act_on_matching(
    database: Database,
    verb: str,
    meant: Filter,
    *,
    by: str,
    reason: str,
    force: bool = False,
    after: int = 0,
    upto: int | None = None,
    for_s: float = 2.0,
) -> Progress:
    """Replay or discard everything that a filter means, in the order of the ids and in chunks.

    Args:
        database: the outbox's.
        verb: ``"replay"`` or ``"discard"``.
        meant: which rows; it must say in which state.
        by: the operator.
        reason: for the audit.
        force: as for `find`.
        after: only rows with larger ids, to go on with what a call before left.
        upto: no rows with larger ids, such as those that came since the operator looked.
        for_s: seconds after which no further chunk begins; the first one always does.

    Raises:
        OperationError: no state is given, or one that the deed may not leave; nothing is changed.
        DatabaseError: see `Database.run`. Chunks done before stay done.
    """
    if meant.state is None:
        raise OperationError(f"nothing to {verb}: give ids, or a state")
    check(verb, meant.state, force=force)
    until, done = time.monotonic() + for_s, 0
    refused: tuple[Refusal, ...] = ()
    while True:
        targets = database.read(partial(_matching, meant=meant, after=after, upto=upto))
        outcome = act(database, verb, targets, by=by, reason=reason, force=force)
        done, refused = done + len(outcome.done), refused + outcome.refused
        if len(targets) < CHUNK:
            return Progress(done, refused, None)
        after = targets[-1].id
        if time.monotonic() >= until:
            return Progress(done, refused, after)


def seen(database: Database, meant: Filter, *, most: int) -> list[Target]:
    """What a filter means now, at most so many rows, in the order of the ids: what `act_on_seen` can be told to change.

    Raises:
        DatabaseError: see `Database.run`.
    """
    is_held = meant.state in HELD
    rows = by_state("found") if is_held else messages.alias("found")
    query = select(rows.c.id, rows.c.state, rows.c.replays).where(*meant.conditions(rows)).limit(most)
    query = query.where(held(rows)) if is_held else query
    found = database.read(lambda connection: connection.execute(query).all())
    return sorted((Target(row.id, State(row.state), row.replays) for row in found), key=lambda one: one.id)


def act_on_seen(
    database: Database,
    verb: str,
    targets: Sequence[Target],
    *,
    by: str,
    reason: str,
    force: bool = False,
    for_s: float = 2.0,
) -> Progress:
    """Replay or discard what `seen` gave, as far as it still is so, in chunks; whatever matches since is left alone.

    Args:
        database: the outbox's.
        verb: ``"replay"`` or ``"discard"``.
        targets: in the order of their ids.
        by: the operator.
        reason: for the audit.
        force: as for `find`.
        for_s: seconds after which no further chunk begins; the first one always does.

    Raises:
        DatabaseError: see `Database.run`. Chunks done before stay done.
    """
    until, done = time.monotonic() + for_s, 0
    refused: tuple[Refusal, ...] = ()
    for start in range(0, len(targets), CHUNK):
        if start and time.monotonic() >= until:
            return Progress(done, refused, targets[start - 1].id)
        outcome = act(database, verb, targets[start : start + CHUNK], by=by, reason=reason, force=force)
        done, refused = done + len(outcome.done), refused + outcome.refused
    return Progress(done, refused, None)


def _matching(connection: Connection, *, meant: Filter, after: int, upto: int | None) -> list[Target]:
    """The next chunk of what a filter means."""
    # MariaDB and MySQL would sort all rows in a state for each chunk; along the ids they read each row once.
    is_held = meant.state in HELD and connection.dialect.name not in MYSQL
    rows = by_state("found") if is_held else messages.alias("found")
    query = select(rows.c.id, rows.c.state, rows.c.replays).where(rows.c.id > after, *meant.conditions(rows))
    query = query.where(held(rows)) if is_held else query
    query = query.where(rows.c.id <= upto) if upto is not None else query
    found = connection.execute(query.order_by(rows.c.id).limit(CHUNK))
    return [Target(row.id, State(row.state), row.replays) for row in found]
