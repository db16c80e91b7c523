"""What is to happen after the commit of a transaction that enqueued something; the Celery adapter hangs its nudge here.

Exactly one call of each hook for an outermost commit with new rows in it, none for a rollback, and none for rows that a
savepoint took along when it was rolled back.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

__all__ = ["after_commit", "call_after_commit", "call_hooks"]

log = logging.getLogger("outbox")

_hooks: list[Callable[[], None]] = []
# Of Sessions: the transactions and savepoints with new rows in them.
_waiting: WeakSet[Any] = WeakSet()
# Of Connections: whether new rows are in the innermost savepoint (the last), in the one around it, and so on.
_levels: WeakKeyDictionary[Connection, list[bool]] = WeakKeyDictionary()


def after_commit(hook: Callable[[], None]) -> None:
    """Have ``hook`` called after each outermost commit that enqueued something new; it must not block.

    What it raises is logged and goes no further: the caller has committed, and the sweep finds the rows anyway. For a
    bare Connection it is called just before the commit, the latest moment that SQLAlchemy tells of.
    """
    if hook not in _hooks:
        _hooks.append(hook)
    _listen(Session, {"after_commit": _on_session_commit})


def call_after_commit(target: Session | Connection, connection: Connection) -> None:
    """Have the hooks called if the present transaction commits, and with it every savepoint that is open now.

    Args:
        target: whose transaction it is.
        connection: the one that new rows were written through.
    """
    if not _hooks:
        return
    # Where a Session has joined the transaction of a Connection, that one's commit is the outermost.
    if isinstance(target, Session) and target.get_bind() is not connection:
        _waiting.add(_innermost(target))
    else:
        _listen(connection, _CONNECTION_EVENTS)
        _levels.setdefault(connection, [False])[-1] = True


def call_hooks() -> None:
    """Call every hook now, as after a commit; none of them can fail the caller."""
    for hook in _hooks:
        try:
            hook()
        except Exception:  # the caller has committed; nothing of ours may fail it now
            log.warning("outbox.nudge_failed", exc_info=True)


def _listen(target: Any, listeners: Mapping[str, Callable[..., None]]) -> None:
    for name, listener in listeners.items():
        if not event.contains(target, name, listener):
            event.listen(target, name, listener)


def _innermost(session: Session) -> Any:
    return session.get_nested_transaction() or session.get_transaction()


def _on_session_commit(session: Session) -> None:
    # Comes when a savepoint is released, too. What is rolled back is just forgotten: no Session comes back to it.
    transaction = _innermost(session)
    if transaction in _waiting:
        if transaction.parent is None:
            call_hooks()
        else:
            _waiting.add(transaction.parent)


def _on_savepoint(connection: Connection, _name: str) -> None:
    if connection in _levels:
        _levels[connection].append(False)


def _on_savepoint_end(connection: Connection, *, released: bool) -> None:
    levels = _levels.get(connection)
    if levels:
        has_rows = levels.pop() and released
        # A savepoint that was there before the first row hands over to one that was not counted yet.
        around = levels.pop() if levels else False
        levels.append(around or has_rows)


def _on_release_savepoint(connection: Connection, _name: str, _context: None) -> None:
    _on_savepoint_end(connection, released=True)


def _on_rollback_savepoint(connection: Connection, _name: str, _context: None) -> None:
    _on_savepoint_end(connection, released=False)


def _on_connection_commit(connection: Connection) -> None:
    if any(_levels.pop(connection, ())):
        call_hooks()


def _on_connection_rollback(connection: Connection) -> None:
    _levels.pop(connection, None)


_CONNECTION_EVENTS: Mapping[str, Callable[..., None]] = {
    "savepoint": _on_savepoint,
    "release_savepoint": _on_release_savepoint,
    "rollback_savepoint": _on_rollback_savepoint,
    "commit": _on_connection_commit,
    "rollback": _on_connection_rollback,
}
