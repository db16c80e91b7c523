"""The history of a message: its attempts that did not end well, the newest 20 of each."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, func, insert, select

from outbox.outcomes import Fault
from outbox.store.database import one_line
from outbox.table import attempts

__all__ = ["CODE_CHARACTERS", "TEXT_CHARACTERS", "add_history"]

CODE_CHARACTERS = 64
TEXT_CHARACTERS = 512
_KEPT = 20


def add_history(connection: Connection, faults: Iterable[tuple[int, Fault]]) -> None:
    """Write down one fault for each row id, and delete what grew too old by it."""
    rows = [
        {
            "message_row_id": row_id,
            "code": one_line(fault.code, CODE_CHARACTERS),
            "http_status": fault.http_status,
            "request_id": one_line(fault.request_id, CODE_CHARACTERS) if fault.request_id else None,
            "text": one_line(fault.text, TEXT_CHARACTERS),
            "outcome_known": fault.accepted is not None,
        }
        for row_id, fault in faults
    ]
    if not rows:
        return
    connection.execute(insert(attempts), rows)
    newest_first = func.row_number().over(partition_by=attempts.c.message_row_id, order_by=attempts.c.id.desc())
    of_rows = attempts.c.message_row_id.in_([row["message_row_id"] for row in rows])
    ranked = select(attempts.c.id, newest_first.label("place")).where(of_rows).subquery("ranked")
    # First the ids: MariaDB would read the whole table for a DELETE with this subquery.
    too_old = connection.scalars(select(ranked.c.id).where(ranked.c.place > _KEPT)).all()
    if too_old:
        connection.execute(delete(attempts).where(attempts.c.id.in_(too_old)))
