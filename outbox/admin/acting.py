"""What operators do on the pages: replay, discard, pause, resume, see a body. Each act is audited where it is done."""

import re
from collections.abc import Sequence
from typing import Any

from outbox.admin.filters import checked_name
from outbox.errors import OperationError
from outbox.states import State
from outbox.store import matching, operate, pauses
from outbox.store.database import Database, one_line
from outbox.store.filter import Filter
from outbox.store.lanes import Lane
from outbox.store.matching import Progress
from outbox.store.operate import Outcome, Target

__all__ = [
    "act_on_matching",
    "act_on_selected",
    "checked_reason",
    "parse_targets",
    "pause",
    "resume",
    "target_text",
    "view_body",
]

_VERBS = frozenset({"replay", "discard"})
_REASON_CHARACTERS = 500
_TARGET = re.compile(r"([0-9]{1,18})\.([a-z_]{1,16})\.([0-9]{1,9})")


def target_text(row: dict[str, Any]) -> str:
    """A row as the page shows it, in one word: what a selection holds, so that a deed is done to what was seen."""
    return f"{row['id']}.{row['state']}.{row['replays']}"


def parse_targets(selected: Sequence[str]) -> list[Target]:
    """The rows that are meant by `target_text`, each once.

    Raises:
        OperationError: nothing is selected, or something that no page has shown.
    """
    if not selected:
        raise OperationError("no row is selected; select at least one")
    found = [_TARGET.fullmatch(text) for text in dict.fromkeys(selected)]
    if not all(one and one[2] in frozenset(State) for one in found):
        raise OperationError("the selection is not one that this page has made; look again and select anew")
    return [Target(int(one[1]), State(one[2]), int(one[3])) for one in found if one]


def act_on_selected(
    database: Database, verb: str, selected: Sequence[str], *, by: str, reason: str, force: bool = False
) -> Outcome:
    """Replay or discard those of the selected rows that are still as they were seen, and say why not of each other.

    Args:
        database: the outbox's.
        verb: ``"replay"`` or ``"discard"``.
        selected: of `target_text`.
        by: the operator.
        reason: why; see `checked_reason`.
        force: also where it may publish twice, or forget.

    Raises:
        OperationError: the selection or the reason is missing or wrong; nothing is changed.
        DatabaseError: see `Database.run`. Chunks done before stay done.
    """
    targets = parse_targets(selected)
    return operate.act(database, _verb(verb), targets, by=by, reason=checked_reason(reason), force=force)


def act_on_matching(
    database: Database,
    verb: str,
    meant: Filter,
    *,
    by: str,
    reason: str,
    force: bool = False,
    after: int = 0,
    upto: int | None = None,
    for_s: float = 2.0,
) -> Progress:
    """Same as `outbox.store.matching.act_on_matching`, with a reason that is checked."""
    checked = checked_reason(reason)
    return matching.act_on_matching(
        database, _verb(verb), meant, by=by, reason=checked, force=force, after=after, upto=upto, for_s=for_s
    )


def view_body(database: Database, reference: int | str, *, by: str, reason: str = "looked at on a page") -> str:
    """The body of a message; that somebody has seen it is audited.

    Raises:
        OperationError: there is no such message.
        DatabaseError: see `Database.run`.
    """
    return operate.view_body(database, reference, by=by, reason=one_line(reason, _REASON_CHARACTERS))


def pause(database: Database, destination: str, topic: str, *, by: str, reason: str) -> None:
    """Stop claims in a lane until it is resumed.

    Raises:
        OperationError: the lane or the reason is missing or wrong.
        DatabaseError: see `Database.run`.
    """
    pauses.pause(database, _lane(destination, topic), by=by, reason=checked_reason(reason))


def resume(database: Database, destination: str, topic: str, *, by: str, reason: str) -> None:
    """End an operator's pause.

    Raises:
        OperationError: no operator has paused it, or the lane or the reason is missing or wrong.
        DatabaseError: see `Database.run`.
    """
    lane = _lane(destination, topic)
    if not pauses.resume(database, lane, by=by, reason=checked_reason(reason)):
        raise OperationError(f"{lane.destination}/{lane.topic} is not paused by an operator; nothing was done")


def checked_reason(reason: str) -> str:
    """The reason as the audit gets it: one line.

    Raises:
        OperationError: it is blank, or longer than 500 characters.
    """
    text = one_line(reason.strip(), len(reason))
    if not text:
        raise OperationError("reason: missing; say why, for the audit")
    if len(text) > _REASON_CHARACTERS:
        raise OperationError(f"reason: got {len(text)} characters; give at most {_REASON_CHARACTERS}")
    return text


def _verb(verb: str) -> str:
    if verb not in _VERBS:
        raise OperationError("the act is neither replay nor discard")
    return verb


def _lane(destination: str, topic: str) -> Lane:
    names = {}
    for field, text in (("destination", destination), ("topic", topic)):
        try:
            names[field] = checked_name(text.strip())
        except ValueError as error:
            raise OperationError(f"{field}: {error}") from None
    return Lane(**names)
