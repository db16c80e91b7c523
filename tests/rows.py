"""Rows written, read and aged by hand, for tests of what the store does with them."""

import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import event, insert, select, update

from outbox.store.claim import claim, claim_ordered
from outbox.store.lanes import Lane
from outbox.table import attempts, audit, db_after, messages, outbox_ids_from

ORDERS = Lane("default", "orders")


def ago(seconds):
    """The instant so long ago; negative for one to come. The databases are on this machine."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def outbox_id_at(instant):
    """An outbox_id such as one that was made at that instant."""
    return f"{outbox_ids_from(instant)}-7{uuid.uuid4().hex[:3]}-8{uuid.uuid4().hex[:3]}-{uuid.uuid4().hex[:12]}"


def new_row(**over):
    """The columns of a message as an enqueue would write them; *over* replaces any."""
    outbox_id = str(uuid.uuid4())
    row = {
        "outbox_id": outbox_id,
        "destination": ORDERS.destination,
        "topic": ORDERS.topic,
        "tag": "created",
        "properties": f"KEYS:order-7|outbox_id:{outbox_id}|",
        "body": '{"id":7}',
        "body_bytes": 8,
    }
    return row | over


def write_row(engine, **over):
    """Insert one message; its row id."""
    with engine.begin() as connection:
        return connection.execute(insert(messages).values(new_row(**over))).inserted_primary_key[0]


def write_rows(engine, count, **over):
    """Insert *count* messages at once; the ids of all rows, in order."""
    return write_all(engine, [new_row(**over) for _ in range(count)])


def write_all(engine, rows):
    """Insert rows of the same columns at once; the ids of all rows, in order."""
    with engine.begin() as connection:
        connection.execute(insert(messages), rows)
        return list(connection.scalars(select(messages.c.id).order_by(messages.c.id)))


def write_key(engine, key, *states, **over):
    """Insert one message of the ordering key for each state given; their ids."""
    return [write_row(engine, ordering_key=key, state=state, **over) for state in states]


def change(engine, row_id, **columns):
    """Write columns of one row behind the store's back."""
    with engine.begin() as connection:
        connection.execute(update(messages).where(messages.c.id == row_id).values(columns))


def lease_row(engine, row_id, *, seconds=60, token="another relay's"):
    """Another process's lease of the row; negative seconds for one that has ended."""
    change(engine, row_id, lease_until=db_after(seconds), lease_token=token)


def expire_leases(engine):
    """Let the time of every lease pass."""
    with engine.begin() as connection:
        leased = messages.c.lease_token.is_not(None)
        connection.execute(update(messages).where(leased).values(lease_until=db_after(-1)))


def read_row(engine, row_id):
    """All columns of one row."""
    with engine.connect() as connection:
        return connection.execute(select(messages).where(messages.c.id == row_id)).mappings().one()


def states(engine):
    """From row id to state."""
    with engine.connect() as connection:
        return dict(connection.execute(select(messages.c.id, messages.c.state)).all())


def history(engine, row_id):
    """The attempts written down for one row, oldest first."""
    with engine.connect() as connection:
        query = select(attempts).where(attempts.c.message_row_id == row_id).order_by(attempts.c.id)
        return connection.execute(query).mappings().all()


def audits(engine):
    """The audit, oldest first."""
    with engine.connect() as connection:
        return connection.execute(select(audit).order_by(audit.c.id)).mappings().all()


def take(database, *, lane=ORDERS, limit=500, lease_s=60.0, max_attempts=10, behind=None):
    """Claim unordered rows on ordinary terms."""
    return claim(database, lane, limit=limit, lease_s=lease_s, max_attempts=max_attempts, behind=behind)


def take_ordered(database, *, after_key="", limit=500, skip_failed_heads=False, lane=ORDERS, max_attempts=10):
    """Claim ordered rows on ordinary terms."""
    return claim_ordered(
        database,
        lane,
        limit=limit,
        lease_s=60.0,
        max_attempts=max_attempts,
        after_key=after_key,
        skip_failed_heads=skip_failed_heads,
    )


def ids(rows):
    """The ids of claimed rows, in their order."""
    return [row.id for row in rows]


@contextmanager
def locked(engine, *row_ids):
    """Another transaction that holds the rows' locks while the block runs; SQLite locks no rows."""
    with engine.connect() as connection, connection.begin():
        connection.execute(select(messages.c.id).where(messages.c.id.in_(row_ids)).with_for_update()).all()
        yield


@contextmanager
def statements(engine):
    """A list that fills with the SQL sent while the block runs, without BEGINs."""
    seen = []

    def listen(_connection, _cursor, statement, *_):
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    yield seen
    event.remove(engine, "before_cursor_execute", listen)
