"""The database's origin: which half messages are this database's to answer for.

A copy of a database has the original's rows, and would answer the broker's checks of the original's half messages. So
an origin is bound to one environment, and for each destination to the endpoint, instance and group that it was first
used with; where they differ, half messages are refused. `quarantine` gives a restored database a new one.
"""

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, delete, select, text, update

from outbox.errors import ConfigError
from outbox.settings import Destination
from outbox.states import State, sources
from outbox.store.audit import write_audit
from outbox.store.conditions import state_is
from outbox.store.database import Database
from outbox.store.dialects import MYSQL, upsert
from outbox.table import checks, messages, meta

__all__ = ["bind", "quarantine"]

_ONE = 1
_MOVED = (
    "half messages of this database belong to {known}; set it back, or, should this be a copy or a restored database,"
    " run outbox quarantine once"
)


def bind(database: Database, environment: str, destination: Destination) -> str:
    """The origin to post and to answer half messages with; made and bound at its first use.

    Args:
        database: the outbox's.
        environment: the setting ``OUTBOX_ENVIRONMENT``.
        destination: where the half messages go.

    Raises:
        ConfigError: the destination has no group id, the database may forget what it has committed, or its origin is
            bound to another environment, endpoint, instance or group.
        DatabaseError: see `Database.run`.
    """
    if not destination.group_id:
        raise ConfigError("OUTBOX_GROUP_ID", f"missing; half messages of the destination {destination.name!r} need it")
    here = [destination.endpoint, destination.instance_id, destination.group_id]

    def work(connection: Connection) -> str:
        _check_durable(connection)
        bound = _locked(connection, environment)
        if bound.environment != environment:
            raise ConfigError("OUTBOX_ENVIRONMENT", _MOVED.format(known=f"the environment {bound.environment!r}"))
        bindings = json.loads(bound.bindings)
        known = bindings.setdefault(destination.name, here)
        if known != here:
            place = f"the endpoint {known[0]}, instance {known[1] or 'none'}, group {known[2]}"
            raise ConfigError("OUTBOX_ENDPOINT", _MOVED.format(known=place))
        connection.execute(update(meta).values(bindings=json.dumps(bindings, sort_keys=True)))
        return str(bound.origin)

    return database.run(work)


def quarantine(database: Database, environment: str, *, by: str, reason: str) -> int:
    """Make a restored or copied database safe: a new origin, and ``in_doubt`` for whatever may have been sent since.

    Those are the half messages' rows that are not finished or ``failed``. Nothing else that uses this database may run
    meanwhile. Written to the audit, row by row.

    Returns:
        How many rows were put ``in_doubt``.

    Raises:
        DatabaseError: see `Database.run`.
    """

    def work(connection: Connection) -> int:
        _locked(connection, environment)
        fresh = {"origin": str(uuid4()), "environment": environment, "bindings": "{}"}
        connection.execute(update(meta).values(fresh))
        # What was posted has the old origin: there is nothing left to ask for, nor to prove.
        connection.execute(delete(checks))
        unsure = (state_is(messages, *sorted(sources("quarantine"))), messages.c.transaction_check_s.is_not(None))
        names = ("id", "outbox_id", "destination", "topic", "keys")
        query = select(*(messages.c[name] for name in names)).where(*unsure).order_by(messages.c.id).with_for_update()
        rows: Sequence[Any] = connection.execute(query).mappings().all()
        changes = {"state": State.IN_DOUBT.value, "lease_until": None, "lease_token": None}
        connection.execute(update(messages).where(*unsure).values(changes))
        write_audit(connection, "quarantine", rows or [{}], by=by, reason=reason)
        return len(rows)

    return database.run(work)


def _locked(connection: Connection, environment: str) -> Any:
    """The one row, made if it is missing."""
    query = select(meta.c.origin, meta.c.environment, meta.c.bindings).where(meta.c.id == _ONE).with_for_update()
    found = connection.execute(query).one_or_none()
    if found is None:
        row = {"id": _ONE, "origin": str(uuid4()), "environment": environment, "bindings": "{}"}
        connection.execute(upsert(connection.dialect.name, meta, row, lambda _new: [("id", _ONE)]))
        found = connection.execute(query).one()
    return found


def _check_durable(connection: Connection) -> None:
    """Refuse a database that may forget an election: another half message of the row would then be committed, too."""
    if connection.dialect.name == "postgresql" and connection.scalar(text("SHOW synchronous_commit")) == "off":
        raise ConfigError("OUTBOX_DATABASE_URL", "synchronous_commit is off there; half messages need on or more")
    if connection.dialect.name in MYSQL and connection.scalar(text("SELECT @@innodb_flush_log_at_trx_commit")) != 1:
        raise ConfigError("OUTBOX_DATABASE_URL", "innodb_flush_log_at_trx_commit is not 1 there; half messages need 1")
