"""The forms by which operators act. Replay and discard are confirmed before they are done."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from outbox.admin import acting, screens
from outbox.admin.filters import parse_filter, written
from outbox.admin.overview import paused
from outbox.admin.visits import Page, Visit
from outbox.admin.words import inert
from outbox.errors import FilterError, OperationError
from outbox.states import State, sources
from outbox.store.filter import Filter
from outbox.store.matching import Progress
from outbox.store.operate import Target
from outbox.store.tally import Count

__all__ = ["Intent", "act", "body", "confirm", "pause", "resume"]

_VERBS = ("replay", "discard")
_SCOPES = ("selected", "matching")
# Seconds of work for each request; then the page tells how far it came, and goes on.
_FOR_S = 2.0


def body(visit: Visit, reference: str) -> Page:
    """One message with its body; that it was looked at is audited."""
    visit.demand("view_body")
    text = acting.view_body(visit.database, reference, by=visit.operator)
    lines = [inert(line) for line in text.split("\n")]
    return Page("message.html", {"body": "\n".join(lines), **screens.shown(visit, reference)})


# --- replay and discard -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Intent:
    """What a form asks for.

    Attributes:
        verb: ``replay`` or ``discard``.
        scope: ``selected`` rows, or all ``matching`` a filter.
        selected: as the page showed them.
        meant: which rows match.
    """

    verb: str
    scope: str
    selected: tuple[str, ...]
    meant: Filter

    @property
    def targets(self) -> list[Target]:
        """The selected rows."""
        return acting.parse_targets(self.selected)

    @property
    def states(self) -> set[State]:
        """In which the rows were when they were seen; none where a filter names none."""
        if self.scope == "matching":
            return {self.meant.state} if self.meant.state else set()
        return {target.state for target in self.targets}

    @property
    def needs_force(self) -> bool:
        """Whether some are in a state from which it may publish twice, or forget."""
        return bool(self.states - sources(self.verb))


def _intent(visit: Visit) -> Intent:
    verb, _, scope = visit.text("do").partition(" ")
    if verb not in _VERBS or scope not in _SCOPES:
        raise OperationError("do: is no act of these pages; go back and choose one")
    visit.demand(verb)
    given = {name: visit.text(name) for name in visit.form}
    try:
        meant = parse_filter(given) if scope == "matching" else Filter()
    except FilterError as error:
        raise OperationError(str(error)) from None
    return Intent(verb, scope, tuple(visit.texts("selected")), meant)


def confirm(visit: Visit) -> Page:
    """What is about to be done, and to how many; nothing is done yet."""
    return _confirmation(visit, _intent(visit))


def _confirmation(visit: Visit, intent: Intent, problem: str | None = None) -> Page:
    states, possible = intent.states, sources(intent.verb, forced=True)
    if not states:
        raise _no_state(intent)
    if not states & possible:
        raise OperationError(f"cannot {intent.verb} what is {_listed(states)}: only what is {_listed(possible)}")
    question = acting.ask(visit.database, intent.verb, intent.meant) if intent.scope == "matching" else None
    context = {
        "intent": intent,
        "written": written(intent.meant),
        "total": question.total if question else Count(len(intent.targets)),
        "question": question,
        "reason": visit.text("reason"),
        "problem": problem,
    }
    return Page("confirm.html", context, HTTPStatus.BAD_REQUEST if problem else HTTPStatus.OK)


def _no_state(intent: Intent) -> OperationError:
    return OperationError(f"choose a state first: all of which are to {intent.verb}?")


def _listed(states: set[State] | frozenset[State]) -> str:
    return " or ".join(sorted(states))


def act(visit: Visit) -> Page:
    """Do it, and say of each row, or of each chunk, what came of it."""
    intent, force = _intent(visit), bool(visit.text("force"))
    visit.demand(intent.verb, force=force)
    try:
        reason = acting.checked_reason(visit.text("reason"))
    except OperationError as error:
        return _confirmation(visit, intent, str(error))
    if intent.scope == "matching" and not force and intent.needs_force:
        return _confirmation(visit, intent, f"what is {_listed(intent.states)} is {intent.verb}ed by force alone")
    given = {"by": visit.operator, "reason": reason, "force": force}
    return (_act_on_selected if intent.scope == "selected" else _act_on_matching)(visit, intent, given)


def _act_on_selected(visit: Visit, intent: Intent, given: dict[str, Any]) -> Page:
    outcome = acting.act_on_selected(visit.database, intent.verb, intent.selected, **given)
    return Page("done.html", {"intent": intent, "outcome": outcome, "given": given})


def _act_on_matching(visit: Visit, intent: Intent, given: dict[str, Any]) -> Page:
    confirmed, upto = visit.text("confirmed"), visit.number("upto")
    if not confirmed or (confirmed == acting.ALL and upto is None):
        return _confirmation(visit, intent, "this was not confirmed; look again at what matches")
    before = visit.number("done") or 0
    progress, left = _go_on(visit, intent, given, confirmed)
    hidden = written(intent.meant) | {
        "do": f"{intent.verb} matching",
        "reason": given["reason"],
        "force": "yes" if given["force"] else "",
        "after": progress.after,
        "upto": "" if upto is None else upto,
        "confirmed": left,
        "done": before + progress.done,
    }
    return Page("progress.html", {"intent": intent, "progress": progress, "hidden": hidden, "given": given})


def _go_on(visit: Visit, intent: Intent, given: dict[str, Any], confirmed: str) -> tuple[Progress, str]:
    """How far it came, and what of that which was confirmed is left."""
    given = given | {"for_s": _FOR_S}
    after, upto = visit.number("after") or 0, visit.number("upto")
    if confirmed == acting.ALL:
        whole = acting.act_on_matching(visit.database, intent.verb, intent.meant, after=after, upto=upto, **given)
        return whole, confirmed
    if intent.meant.state is None:
        raise _no_state(intent)
    targets = acting.parse_confirmed(confirmed, intent.meant.state)
    progress = acting.act_on_confirmed(visit.database, intent.verb, targets, **given)
    left = [] if progress.after is None else [one for one in targets if one.id > progress.after]
    return progress, acting.confirmed_text(left)


# --- pauses -------------------------------------------------------------------------------------------------------


def pause(visit: Visit) -> Page:
    """Stop claims in a lane."""
    visit.demand("pause")
    lane = {"destination": visit.text("destination").strip() or "default", "topic": visit.text("topic").strip()}
    try:
        given = {"by": visit.operator, "reason": acting.checked_reason(visit.text("reason"))}
        acting.pause(visit.database, **lane, **given)
    except OperationError as error:
        return _pauses(visit, str(error), lane | {"reason": visit.text("reason")})
    return Page(elsewhere="pauses", context={"verb": "pause", **lane, "given": given})


def resume(visit: Visit) -> Page:
    """End an operator's pause."""
    visit.demand("resume")
    lane = {"destination": visit.text("destination").strip(), "topic": visit.text("topic").strip()}
    try:
        given = {"by": visit.operator, "reason": acting.checked_reason(visit.text("reason"))}
        acting.resume(visit.database, **lane, **given)
    except OperationError as error:
        return _pauses(visit, str(error), {})
    return Page(elsewhere="pauses", context={"verb": "resume", **lane, "given": given})


def _pauses(visit: Visit, problem: str, given: dict[str, str]) -> Page:
    context = {"paused": paused(visit.database), "given": given, "problem": problem}
    return Page("pauses.html", context, HTTPStatus.BAD_REQUEST)
