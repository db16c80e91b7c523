"""What operators do to messages: replay, discard, purge.

A deed on messages has two steps. `find` says which rows are meant, and refuses where a row's state forbids it; `replay`
and `discard` then change those rows that are still as they were found: in the same state, replayed as often. So of two
operators, or of two clicks, one wins. Each deed writes its audit in its own transaction.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, FromClause, Row, Select, or_, select, update

from outbox.errors import OperationError
from outbox.states import TRANSITIONS, State, sources
from outbox.store.audit import write_audit
from outbox.store.conditions import row_id, state_is
from outbox.store.database import Database
from outbox.store.dialects import by_id, has_id
from outbox.store.purge import purge
from outbox.table import db_now, messages

__all__ = ["Target", "discard", "find", "purge", "replay"]

_CHUNK = 500
_IN_FLIGHT = frozenset({State.PENDING, State.COMMITTING})

Progress = Callable[[int], None]
Changes = Callable[[FromClause], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Target:
    """A row as an operator saw it: the deed is done if it still is so."""

    id: int
    state: State
    replays: int


def find(
    database: Database,
    verb: str,
    *,
    ids: Sequence[int | str] = (),
    state: State | None = None,
    topic: str | None = None,
    destination: str | None = None,
    force: bool = False,
) -> list[Target]:
    """The rows that ``verb`` (``"replay"`` or ``"discard"``) would change; also what a dry run counts.

    Args:
        database: the outbox's.
        verb: a verb of `outbox.states.TRANSITIONS`.
        ids: row ids or outbox_ids. Without any, all rows in ``state``, which must then be given.
        state: only rows in this state.
        topic: only rows of this topic.
        destination: only rows of this destination.
        force: allow the transitions that may publish twice, or forget.

    Raises:
        OperationError: there is no such row, or the state of one, or ``state``, does not allow it; nothing is changed.
        DatabaseError: see `Database.run`.
    """
    if not ids:
        if state is None:
            raise OperationError(f"nothing to {verb}: give ids, or a state")
        _check(verb, state, force=force)
    filters = [state_is(messages, state)] if state else []
    filters += [messages.c.topic == topic] if topic else []
    filters += [messages.c.destination == destination] if destination else []

    def work(connection: Connection) -> list[Target]:
        query = select(messages.c.id, messages.c.state, messages.c.replays, messages.c.outbox_id).where(*filters)
        if not ids:
            return [Target(row.id, State(row.state), row.replays) for row in connection.execute(query)]
        return [_target(verb, row, force=force) for row in _by_id(connection, query, ids)]

    return database.read(work)


def replay(
    database: Database,
    targets: Sequence[Target],
    *,
    by: str,
    reason: str,
    force: bool = False,
    on_progress: Progress = lambda _done: None,
) -> int:
    """Put rows back to ``pending``, due at once, with no attempts or crashes and one replay more.

    A replayed row that was ``sent`` or ``in_doubt`` may be delivered twice, which is why those need ``force``.

    Args:
        database: the outbox's.
        targets: from `find`, or as a page showed them.
        by: the operator.
        reason: for the audit.
        force: as for `find`.
        on_progress: called after each chunk of 500 with the number changed so far.

    Returns:
        How many rows were changed; the others were no longer as they had been found.

    Raises:
        OperationError: the state of a target does not allow it; nothing is changed.
        DatabaseError: see `Database.run`. Chunks done before stay done.
    """
    return _act(database, "replay", targets, _fresh, by=by, reason=reason, force=force, on_progress=on_progress)


def discard(
    database: Database,
    targets: Sequence[Target],
    *,
    by: str,
    reason: str,
    force: bool = False,
    on_progress: Progress = lambda _done: None,
) -> int:
    """Close rows for good, as ``discarded``; what waits behind them in their ordering keys goes on.

    Same arguments, return and errors as `replay`.
    """
    return _act(database, "discard", targets, _closed, by=by, reason=reason, force=force, on_progress=on_progress)


def _fresh(rows: FromClause) -> dict[str, Any]:
    names = ("message_id", "posted_at", "sent_at", "confirmed_by", "heard_at", "reoffered_at")
    nothing = dict.fromkeys(names)
    counts = {"attempts": 0, "crashes": 0, "replays": rows.c.replays + 1}
    return {"state": State.PENDING.value, "available_at": db_now(), **counts, **nothing}


def _closed(_rows: FromClause) -> dict[str, Any]:
    return {"state": State.DISCARDED.value}


def _act(
    database: Database,
    verb: str,
    targets: Sequence[Target],
    changes: Changes,
    *,
    by: str,
    reason: str,
    force: bool,
    on_progress: Progress,
) -> int:
    for target in targets:
        _check(verb, target.state, force=force, row_id=target.id)
    done = 0
    for chunk in _chunks(targets):
        done += database.run(partial(_act_on_chunk, verb=verb, targets=chunk, changes=changes, by=by, reason=reason))
        on_progress(done)
    return done


def _act_on_chunk(
    connection: Connection, *, verb: str, targets: Sequence[Target], changes: Changes, by: str, reason: str
) -> int:
    rows = by_id()
    names = ("id", "state", "replays", "outbox_id", "destination", "topic", "keys")
    query = select(*(rows.c[name] for name in names)).where(has_id(rows), rows.c.lease_token.is_(None))
    query = query.order_by(rows.c.id).with_for_update()
    found = {target.id: (target.state, target.replays) for target in targets}
    locked = connection.execute(query, {"ids": list(found)}).mappings()
    still_so = [row for row in locked if found[row["id"]] == (row["state"], row["replays"])]
    changed = {"ids": [row["id"] for row in still_so]}
    connection.execute(update(rows).where(has_id(rows)).values(changes(rows)), changed)
    for state in sorted({row["state"] for row in still_so}):
        of_state = [dict(row) for row in still_so if row["state"] == state]
        write_audit(connection, _action(verb, State(state)), of_state, by=by, reason=reason)
    return len(still_so)


def _by_id(connection: Connection, query: Select[Any], ids: Sequence[int | str]) -> Iterator[Row[Any]]:
    """One row for each id, in order."""
    for chunk in _chunks(ids):
        row_ids = [number for one in chunk if (number := row_id(one)) is not None]
        outbox_ids = [str(one) for one in chunk if row_id(one) is None]
        rows = connection.execute(query.where(or_(messages.c.id.in_(row_ids), messages.c.outbox_id.in_(outbox_ids))))
        found = {name: row for row in rows for name in (row.id, row.outbox_id)}
        for one in chunk:
            number = row_id(one)
            if (name := one if number is None else number) not in found:
                raise OperationError(f"there is no message {one}")
            yield found[name]


def _target(verb: str, row: Row[Any], *, force: bool) -> Target:
    _check(verb, State(row.state), force=force, row_id=row.id)
    return Target(row.id, State(row.state), row.replays)


def _check(verb: str, state: State, *, force: bool, row_id: int | None = None) -> None:
    if state in sources(verb, forced=force):
        return
    what = f"messages that are {state}" if row_id is None else f"message {row_id}, which is {state}"
    if state in _IN_FLIGHT:
        raise OperationError(f"cannot {verb} {what}: in flight, wait until that has ended")
    if state in sources(verb, forced=True):
        raise OperationError(f"cannot {verb} {what}: that needs --force")
    raise OperationError(f"cannot {verb} {what}: only {', '.join(sorted(sources(verb, forced=True)))}")


def _action(verb: str, state: State) -> str:
    forced = any(one.forced for one in TRANSITIONS if (one.verb, one.source) == (verb, state))
    return f"{verb} --force" if forced else verb


def _chunks(many: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(many), _CHUNK):
        yield many[start : start + _CHUNK]
