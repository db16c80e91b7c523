"""What operators do on the pages: replay, discard, pause, resume, see a body. Each act is audited where it is done."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
from outbox.store.search import search
from outbox.store.tally import Count

__all__ = [
    "ALL",
    "Question",
    "act_on_confirmed",
    "act_on_matching",
    "act_on_selected",
    "ask",
    "checked_reason",
    "confirmed_text",
    "parse_confirmed",
    "parse_targets",
    "pause",
    "resume",
    "target_text",
    "view_body",
]

#: What is confirmed where the rows are too many to be counted: all up to the newest.
ALL = "all"

# So many rows are confirmed one by one; their names fit into any framework's form.
_MOST = 10_000
_CONFIRMED = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")
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


@dataclass(frozen=True, slots=True)
class Question:
    """What an operator is asked to confirm of everything that a filter means.

    Attributes:
        total: how many rows.
        confirmed: which, of `confirmed_text`; `ALL` where they are too many to be counted.
        upto: the newest row's id.
    """

    total: Count
    confirmed: str
    upto: int


def ask(database: Database, verb: str, meant: Filter) -> Question:
    """Look which rows a deed on everything that a filter means would be done to.

    Raises:
        OperationError: there are none.
        DatabaseError: see `Database.run`.
    """
    found = search(database, meant, limit=1, most=_MOST)
    targets = [] if found.total.at_least else matching.seen(database, meant, most=_MOST + 1)
    if found.rows and (found.total.at_least or len(targets) > _MOST):
        return Question(Count(min(found.total.number, _MOST), at_least=True), ALL, found.rows[0]["id"])
    if not targets:
        said = "was found in time; narrow the filter" if found.time_was_up else "matches"
        raise OperationError(f"nothing to {verb}: no message {said}")
    return Question(Count(len(targets)), confirmed_text(targets), targets[-1].id)


def confirmed_text(targets: Sequence[Target]) -> str:
    """Rows of one state as a form holds them, so that a deed is done to what was confirmed, and to nothing else."""
    return " ".join(f"{target.id}.{target.replays}" for target in targets)


def parse_confirmed(text: str, state: State) -> list[Target]:
    """The rows, in this state, that are meant by `confirmed_text`, in the order of their ids, each once.

    Raises:
        OperationError: no page has made the text.
    """
    found = [_CONFIRMED.fullmatch(one) for one in dict.fromkeys(text.split(" "))]
    if not all(found) or len(found) > _MOST:
        raise OperationError("confirmed: is not as this page has made it; go back and look again")
    targets = (Target(int(one[1]), state, int(one[2])) for one in found if one)
    return sorted(targets, key=lambda target: target.id)


def act_on_confirmed(
    database: Database,
    verb: str,
    targets: Sequence[Target],
    *,
    by: str,
    reason: str,
    force: bool = False,
    for_s: float = 2.0,
) -> Progress:
    """Same as `outbox.store.matching.act_on_seen`, with a reason that is checked."""
    checked = checked_reason(reason)
    return matching.act_on_seen(database, _verb(verb), targets, by=by, reason=checked, force=force, for_s=for_s)


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
