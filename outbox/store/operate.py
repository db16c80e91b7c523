"""What operators do to messages: replay, discard, purge; and to see a body.

A deed on messages has two steps. `find` says which rows are meant, and refuses where a row's state forbids it; `replay`
and `discard` then change those rows that are still as they were found: in the same state, replayed as often. So of two
operators, or of two clicks, one wins. Each deed writes its audit in its own transaction.

A page does the same with what it has shown, by `act`, which says of each row what came of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, FromClause, Row, RowMapping, Select, or_, select, update

from outbox.errors import OperationError
from outbox.states import TRANSITIONS, State, sources
from outbox.store.audit import write_audit
from outbox.store.conditions import is_message, outbox_id, row_id, state_is
from outbox.store.database import Database
from outbox.store.dialects import by_id, has_id
from outbox.store.purge import purge
from outbox.table import db_now, messages

__all__ = [
    "CHUNK",
    "Outcome",
    "Refusal",
    "Target",
    "act",
    "check",
    "discard",
    "find",
    "purge",
    "replay",
    "view_body",
]

#: Rows changed in one transaction.
CHUNK = 500
_IN_FLIGHT = frozenset({State.PENDING, State.COMMITTING})

OnProgress = Callable[[int], None]
Changes = Callable[[FromClause], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Target:
    """A row as an operator saw it: the deed is done if it still is so."""

    id: int
    state: State
    replays: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was left alone, and why, in words that follow its name: ``is sent by now``."""

    id: int
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a deed: the ids of the rows that were changed, and the others."""

    done: tuple[int, ...] = ()
    refused: tuple[Refusal, ...] = ()


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
        check(verb, state, force=force)
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
    on_progress: OnProgress = lambda _done: None,
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
    return _act(database, "replay", targets, by=by, reason=reason, force=force, on_progress=on_progress)


def discard(
    database: Database,
    targets: Sequence[Target],
    *,
    by: str,
    reason: str,
    force: bool = False,
    on_progress: OnProgress = lambda _done: None,
) -> int:
    """Close rows for good, as ``discarded``; what waits behind them in their ordering keys goes on.

    Same arguments, return and errors as `replay`.
    """
    return _act(database, "discard", targets, by=by, reason=reason, force=force, on_progress=on_progress)


def act(
    database: Database, verb: str, targets: Sequence[Target], *, by: str, reason: str, force: bool = False
) -> Outcome:
    """Same as `replay` or `discard`, as ``verb`` says, but rows that cannot be changed are named instead of raised.

    Args:
        database: the outbox's.
        verb: ``"replay"`` or ``"discard"``.
        targets: as a page showed them.
        by: the operator.
        reason: for the audit.
        force: as for `find`.

    Raises:
        DatabaseError: see `Database.run`. Chunks done before stay done.
    """
    outcomes = list(_in_chunks(database, verb, targets, by=by, reason=reason, force=force))
    done = (row_id for one in outcomes for row_id in one.done)
    return Outcome(tuple(done), tuple(refusal for one in outcomes for refusal in one.refused))


def view_body(database: Database, reference: int | str, *, by: str, reason: str) -> str:
    """The body of a message; that somebody has seen it is written to the audit.

    Args:
        database: the outbox's.
        reference: a row id or an outbox_id.
        by: who sees it.
        reason: for the audit.

    Raises:
        OperationError: there is no such message.
        DatabaseError: see `Database.run`.
    """
    names = ("body", "outbox_id", "destination", "topic", "keys")
    query = select(*(messages.c[name] for name in names)).where(is_message(messages, reference))

    def work(connection: Connection) -> str:
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise OperationError(f"there is no message {reference}")
        write_audit(connection, "view_body", [row], by=by, reason=reason)
        return str(row["body"])

    return database.run(work)


def _fresh(rows: FromClause) -> dict[str, Any]:
    names = ("message_id", "posted_at", "sent_at", "confirmed_by", "heard_at", "reoffered_at")
    nothing = dict.fromkeys(names)
    counts = {"attempts": 0, "crashes": 0, "replays": rows.c.replays + 1}
    return {"state": State.PENDING.value, "available_at": db_now(), **counts, **nothing}


def _closed(_rows: FromClause) -> dict[str, Any]:
    return {"state": State.DISCARDED.value}


def _changes(verb: str) -> Changes:
    return _fresh if verb == "replay" else _closed


def _act(
    database: Database,
    verb: str,
    targets: Sequence[Target],
    *,
    by: str,
    reason: str,
    force: bool,
    on_progress: OnProgress,
) -> int:
    for target in targets:
        check(verb, target.state, force=force, row_id=target.id)
    done = 0
    for outcome in _in_chunks(database, verb, targets, by=by, reason=reason, force=force):
        done += len(outcome.done)
        on_progress(done)
    return done


def _in_chunks(
    database: Database, verb: str, targets: Sequence[Target], *, by: str, reason: str, force: bool
) -> Iterator[Outcome]:
    for chunk in _chunks(targets):
        yield database.run(
            partial(_act_on_chunk, verb=verb, targets=chunk, by=by, reason=reason, allowed=sources(verb, forced=force))
        )


def _act_on_chunk(
    connection: Connection,
    *,
    verb: str,
    targets: Sequence[Target],
    by: str,
    reason: str,
    allowed: frozenset[State],
) -> Outcome:
    rows = by_id()
    names = ("id", "state", "replays", "lease_token", "outbox_id", "destination", "topic", "keys")
    query = select(*(rows.c[name] for name in names)).where(has_id(rows)).order_by(rows.c.id).with_for_update()
    locked = connection.execute(query, {"ids": [target.id for target in targets]}).mappings()
    found = {row["id"]: row for row in locked}
    refused = {target.id: _why_not(target, found.get(target.id), verb, allowed) for target in targets}
    done = [row for row_id, row in found.items() if refused[row_id] is None]
    ids = tuple(row["id"] for row in done)
    connection.execute(update(rows).where(has_id(rows)).values(_changes(verb)(rows)), {"ids": ids})
    for state in sorted({row["state"] for row in done}):
        of_state = [row for row in done if row["state"] == state]
        write_audit(connection, _action(verb, State(state)), of_state, by=by, reason=reason)
    return Outcome(ids, tuple(Refusal(row_id, why) for row_id, why in refused.items() if why))


def _why_not(target: Target, row: RowMapping | None, verb: str, allowed: frozenset[State]) -> str | None:
    """Why a row, as it is under its lock, is left alone; None where nothing speaks against the deed."""
    if row is None:
        return "is not there any more"
    if row["replays"] != target.replays:
        return f"has been replayed meanwhile, and is {row['state']} now"
    if row["state"] != target.state:
        return f"is {row['state']} by now"
    if row["lease_token"] is not None or (target.state in _IN_FLIGHT and target.state not in allowed):
        return "is in flight; wait until that has ended"
    if target.state not in allowed:
        return f"is {target.state}, which {verb} leaves alone{_unless_forced(verb, target.state)}"
    return None


def _unless_forced(verb: str, state: State) -> str:
    return " unless it is forced" if state in sources(verb, forced=True) else ""


def _by_id(connection: Connection, query: Select[Any], ids: Sequence[int | str]) -> Iterator[Row[Any]]:
    """One row for each id, in order."""
    for chunk in _chunks(ids):
        row_ids = [number for one in chunk if (number := row_id(one)) is not None]
        outbox_ids = [outbox_id(one) for one in chunk if row_id(one) is None]
        rows = connection.execute(query.where(or_(messages.c.id.in_(row_ids), messages.c.outbox_id.in_(outbox_ids))))
        found = {name: row for row in rows for name in (row.id, row.outbox_id)}
        for one in chunk:
            number = row_id(one)
            if (name := outbox_id(one) if number is None else number) not in found:
                raise OperationError(f"there is no message {one}")
            yield found[name]


def _target(verb: str, row: Row[Any], *, force: bool) -> Target:
    check(verb, State(row.state), force=force, row_id=row.id)
    return Target(row.id, State(row.state), row.replays)


def check(verb: str, state: State, *, force: bool, row_id: int | None = None) -> None:
    """Whether a deed may leave a state.

    Raises:
        OperationError: it may not; the text names the row, if one is given.
    """
    if state in sources(verb, forced=force):
        return
    what = f"messages that are {state}" if row_id is None else f"message {row_id}, which is {state}"
    if state in _IN_FLIGHT:
        raise OperationError(f"cannot {verb} {what}: it is still to be published, wait until that has ended")
    if state in sources(verb, forced=True):
        raise OperationError(f"cannot {verb} {what}: that needs --force")
    raise OperationError(f"cannot {verb} {what}: only {', '.join(sorted(sources(verb, forced=True)))}")


def _action(verb: str, state: State) -> str:
    forced = any(one.forced for one in TRANSITIONS if (one.verb, one.source) == (verb, state))
    return f"{verb} --force" if forced else verb


def _chunks(many: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(many), CHUNK):
        yield many[start : start + CHUNK]
