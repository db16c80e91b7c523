"""The audit: what operators did, written in the same transaction as the deed. Nothing of ours ever deletes it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert

from outbox.store.database import one_line
from outbox.table import audit

__all__ = ["write_audit"]

_BY_CHARACTERS = 150
_COLUMNS = ("outbox_id", "destination", "topic", "keys")


def write_audit(
    connection: Connection, action: str, objects: Iterable[Mapping[str, Any]], *, by: str, reason: str
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
    act = {"action": action, "by": one_line(by, _BY_CHARACTERS), "reason": reason}
    connection.execute(insert(audit), [act | {name: one.get(name) for name in _COLUMNS} for one in objects])
