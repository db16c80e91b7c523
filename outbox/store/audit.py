"""The audit: what operators did, written in the same transaction as the deed. Nothing of ours ever deletes it.

Each row that a deed changed has a row here. Those of one transaction bear one instant, so that they can be told as one
act again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, Select, func, insert, select

from outbox.store.database import Database, one_line
from outbox.table import audit, db_now

__all__ = ["Act", "acts", "author", "write_audit"]

_BY_CHARACTERS = 150
_COLUMNS = ("outbox_id", "destination", "topic", "keys")
_COMMON = ("destination", "topic", "outbox_id", "keys")
# More rows than a page's acts have, unless one had more than a chunk.
_READ = 26_000


def write_audit(
    connection: Connection, action: str, objects: Iterable[Mapping[str, Any] | RowMapping], *, by: str, reason: str
) -> None:
    """Write down one act on each object.

    Args:
        connection: of the transaction that does the deed.
        action: a verb of the glossary.
        objects: messages or lanes, at least one; ``outbox_id``, ``destination``, ``topic`` and ``keys``, as far as they
            have them.
        by: the operator.
        reason: as the operator gave it.
    """
    act = {"action": action, "by": author(by), "reason": reason}
    rows = [act | {name: one.get(name) for name in _COLUMNS} for one in objects]
    if len(rows) > 1:
        at = connection.scalar(select(db_now()))
        rows = [row | {"at": at} for row in rows]
    connection.execute(insert(audit), rows)


def author(by: str) -> str:
    """Who did it, as the tables hold it: one line of at most 150 characters."""
    return one_line(by, _BY_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did to one row, or at once to several.

    Attributes:
        id: of the newest row of the audit that tells of it.
        at: when.
        by: who.
        action: what.
        reason: why.
        rows: to how many.
        destination: of the rows' lane; None where they are of several, or of none.
        topic: as ``destination``.
        outbox_id: the row's, where it was one.
        keys: as ``outbox_id``.
    """

    id: int
    at: datetime
    by: str
    action: str
    reason: str
    rows: int
    destination: str | None
    topic: str | None
    outbox_id: str | None
    keys: str | None


def acts(
    database: Database, *, before: int | None = None, outbox_id: str | None = None, limit: int = 50
) -> tuple[list[Act], int | None]:
    """What operators did, newest first.

    Args:
        database: the outbox's.
        before: where the page before this one ended.
        outbox_id: only what was done to this message.
        limit: at most so many.

    Returns:
        The acts, and the ``before`` of the next page, None where there are no more.

    Raises:
        DatabaseError: see `Database.run`.
    """
    query = _acts(before, outbox_id).limit(limit + 1)
    found = database.read(lambda connection: connection.execute(query).all())
    page = [_act(row) for row in found[:limit]]
    return page, found[limit - 1].first_id if len(found) > limit else None


def _acts(before: int | None, outbox_id: str | None) -> Select[Any]:
    newest = select(audit).order_by(audit.c.id.desc()).limit(_READ)
    newest = newest.where(audit.c.id < before) if before is not None else newest
    newest = newest.where(audit.c.outbox_id == outbox_id) if outbox_id is not None else newest
    rows = newest.subquery("newest")
    act = (rows.c.at, rows.c.by, rows.c.action, rows.c.reason)
    ids = (func.min(rows.c.id).label("first_id"), func.max(rows.c.id).label("last_id"))
    first = (func.min(rows.c[name]).label(f"first_{name}") for name in _COLUMNS)
    last = (func.max(rows.c[name]).label(f"last_{name}") for name in _COLUMNS)
    query = select(*act, *ids, func.count().label("rows"), *first, *last)
    return query.group_by(*act).order_by(func.max(rows.c.id).desc())


def _act(row: Row[Any]) -> Act:
    def common(name: str) -> str | None:
        first, last = getattr(row, f"first_{name}"), getattr(row, f"last_{name}")
        return first if first == last else None

    return Act(row.last_id, row.at, row.by, row.action, row.reason, row.rows, *map(common, _COMMON))
