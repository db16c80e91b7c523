"""Where half messages are posted: what ``outbox_checks`` is about.

It holds a mark for each checker, topic and group (`outbox.store.polls`), and under no checker's name (`TOPIC`) what
concerns the topic: that half messages were posted there, and its canary (`outbox.store.silence`).
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, select

from outbox.store.database import Database
from outbox.store.dialects import upsert
from outbox.table import checks

__all__ = ["TOPIC", "Topic", "is_of", "is_of_checker", "register", "topics"]

#: The ``checker`` of a topic's own row.
TOPIC = ""


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """Where half messages are posted, and the group that checks them."""

    destination: str
    topic: str
    group_id: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The topic as parameters of a statement; their names are no column's, or an UPDATE would set it."""
        return {"of_destination": self.destination, "of_topic": self.topic, "of_group_id": self.group_id}


def is_of() -> ColumnElement[bool]:
    """Marks of the topic in the parameters, whoever made them."""
    return and_(
        checks.c.destination == bindparam("of_destination"),
        checks.c.topic == bindparam("of_topic"),
        checks.c.group_id == bindparam("of_group_id"),
    )


def is_of_checker(checker: str | None = None) -> ColumnElement[bool]:
    """The mark of one checker, by default the one in the parameter ``of_checker``; of the topic in the parameters."""
    return and_(is_of(), checks.c.checker == (bindparam("of_checker") if checker is None else checker))


def register(database: Database, topic: Topic) -> None:
    """Have the topic's half messages checked from now on; called before the first is posted.

    Raises:
        DatabaseError: see `Database.run`.
    """
    names = {"destination": topic.destination, "topic": topic.topic, "group_id": topic.group_id}
    row = {"checker": TOPIC, **names, "mark": "closed"}
    database.run(lambda one: one.execute(upsert(one.dialect.name, checks, row, lambda _new: [("mark", "closed")])))


def topics(database: Database) -> list[Topic]:
    """Where half messages were ever posted, in order.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return sorted(Topic(*row) for row in database.read(lambda connection: connection.execute(_TOPICS).all()))


_TOPICS = select(checks.c.destination, checks.c.topic, checks.c.group_id).where(checks.c.checker == TOPIC)
