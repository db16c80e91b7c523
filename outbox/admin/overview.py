"""What the pages show of the whole outbox, and of one message."""

from dataclasses import dataclass
from typing import Any

from outbox.errors import DatabaseError
from outbox.store import look, silence
from outbox.store.audit import Act, acts
from outbox.store.database import Database
from outbox.store.pauses import BREAKER
from outbox.store.tally import Tally, tally

__all__ = ["Detail", "Overview", "detail", "overview", "paused", "summary"]

_ACTS = 100


@dataclass(frozen=True, slots=True)
class Overview:
    """How the outbox is.

    Attributes:
        tally: how many messages are where, and how long the oldest has waited.
        paused: the pauses in force, see `outbox.store.look.paused`, and whether each is ``automatic``.
        half_messages: what waits for a checker, and when one last had an answer, see `outbox.store.silence.progress`.
        schema_version: the database's; None where it is not known, or was not asked for.
    """

    tally: Tally
    paused: list[dict[str, Any]]
    half_messages: list[dict[str, Any]]
    schema_version: str | None


@dataclass(frozen=True, slots=True)
class Detail:
    """One message.

    Attributes:
        message: every column but the lease and the body, and ``history``, see `outbox.store.look.show`.
        acts: what operators did to it, newest first, the newest 100.
    """

    message: dict[str, Any]
    acts: list[Act]


def overview(database: Database) -> Overview:
    """How the outbox is.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return Overview(tally(database), paused(database), silence.progress(database), _schema_version(database))


def summary(database: Database) -> Overview:
    """As `overview`, in fewer statements: without the version of the schema.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return Overview(tally(database), paused(database), silence.progress(database), None)


def _schema_version(database: Database) -> str | None:
    try:
        return look.schema_version(database, is_migrated=True)
    except DatabaseError:
        # Tables that somebody has made without a migration have none.
        return None


def paused(database: Database) -> list[dict[str, Any]]:
    """The pauses in force, see `Overview`.

    Raises:
        DatabaseError: see `Database.run`.
    """
    return [pause | {"automatic": pause["by"] == BREAKER} for pause in look.paused(database)]


def detail(database: Database, reference: int | str) -> Detail:
    """One message, without its body.

    Args:
        database: the outbox's.
        reference: a row id or an outbox_id.

    Raises:
        OperationError: there is no such message.
        DatabaseError: see `Database.run`.
    """
    message = look.show(database, reference, with_body=False)
    return Detail(message, acts(database, outbox_id=message["outbox_id"], limit=_ACTS)[0])
