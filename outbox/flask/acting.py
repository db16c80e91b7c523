"""The forms by which operators act: each a POST with a token. Replay and discard are confirmed before they are done."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug import Response

from outbox import admin
from outbox.admin import Filter, Target
from outbox.errors import FilterError, OperationError
from outbox.flask import access, forms, looking
from outbox.flask.looking import database
from outbox.states import State, sources

__all__ = ["add_to"]

_VERBS = ("replay", "discard")
_SCOPES = ("selected", "matching")
# Seconds of work for each request; then the page tells how far it came, and goes on.
_FOR_S = 2.0


def add_to(pages: Blueprint) -> None:
    """Register the views."""
    pages.add_url_rule("/messages/<reference>/body", "body", body, methods=["POST"])
    pages.add_url_rule("/confirm", "confirm", confirm, methods=["POST"])
    pages.add_url_rule("/act", "act", act, methods=["POST"])
    pages.add_url_rule("/pauses", "pause", pause, methods=["POST"])
    pages.add_url_rule("/pauses/resume", "resume", resume, methods=["POST"])


def body(reference: str) -> str:
    """One message with its body; that it was looked at is audited."""
    access.demand("view_body")
    text = admin.view_body(database(), reference, by=access.user().name)
    lines = [admin.inert(line) for line in text.split("\n")]
    return render_template("outbox/message.html", body="\n".join(lines), **looking.shown(reference))


# --- replay and discard -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Intent:
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
        return admin.parse_targets(self.selected)

    @property
    def states(self) -> set[State]:
        if self.scope == "matching":
            return {self.meant.state} if self.meant.state else set()
        return {target.state for target in self.targets}

    @property
    def needs_force(self) -> bool:
        return bool(self.states - sources(self.verb))


def _intent() -> _Intent:
    verb, _, scope = forms.text("do").partition(" ")
    if verb not in _VERBS or scope not in _SCOPES:
        raise OperationError("do: is no act of these pages; go back and choose one")
    access.demand(verb)
    try:
        meant = admin.parse_filter(request.form.to_dict()) if scope == "matching" else Filter()
    except FilterError as error:
        raise OperationError(str(error)) from None
    return _Intent(verb, scope, tuple(request.form.getlist("selected")), meant)


def confirm() -> str:
    """What is about to be done, and to how many; nothing is done yet."""
    return _confirmation(_intent())


def _confirmation(intent: _Intent, problem: str | None = None) -> str:
    states, possible = intent.states, sources(intent.verb, forced=True)
    if not states:
        raise OperationError(f"choose a state first: all of which are to {intent.verb}?")
    if not states & possible:
        raise OperationError(f"cannot {intent.verb} what is {_listed(states)}: only what is {_listed(possible)}")
    found = admin.search(database(), intent.meant, limit=1) if intent.scope == "matching" else None
    return render_template(
        "outbox/confirm.html",
        intent=intent,
        written=admin.written(intent.meant),
        total=found.total if found else admin.Count(len(intent.targets)),
        upto=found.rows[0]["id"] if found and found.rows else "",
        reason=forms.text("reason"),
        problem=problem,
    )


def _listed(states: set[State] | frozenset[State]) -> str:
    return " or ".join(sorted(states))


def act() -> str | tuple[str, int]:
    """Do it, and say of each row, or of each chunk, what came of it."""
    intent, force = _intent(), bool(forms.text("force"))
    access.demand(intent.verb, force=force)
    try:
        reason = admin.checked_reason(forms.text("reason"))
    except OperationError as error:
        return _confirmation(intent, str(error)), 400
    if intent.scope == "matching" and not force and intent.needs_force:
        return _confirmation(intent, f"what is {_listed(intent.states)} is {intent.verb}ed by force alone"), 400
    given = {"by": access.user().name, "reason": reason, "force": force}
    return _act_on_selected(intent, given) if intent.scope == "selected" else _act_on_matching(intent, given)


def _act_on_selected(intent: _Intent, given: dict[str, Any]) -> str:
    outcome = admin.act_on_selected(database(), intent.verb, intent.selected, **given)
    return render_template("outbox/done.html", intent=intent, outcome=outcome)


def _act_on_matching(intent: _Intent, given: dict[str, Any]) -> str:
    after, upto, before = forms.number("after") or 0, forms.number("upto"), forms.number("done") or 0
    progress = admin.act_on_matching(
        database(), intent.verb, intent.meant, after=after, upto=upto, for_s=_FOR_S, **given
    )
    hidden = admin.written(intent.meant) | {
        "do": f"{intent.verb} matching",
        "reason": given["reason"],
        "force": "yes" if given["force"] else "",
        "after": progress.after,
        "upto": "" if upto is None else upto,
        "done": before + progress.done,
    }
    return render_template("outbox/progress.html", intent=intent, progress=progress, hidden=hidden)


# --- pauses -------------------------------------------------------------------------------------------------------


def pause() -> Response | tuple[str, int]:
    """Stop claims in a lane."""
    access.demand("pause")
    given = {"destination": forms.text("destination") or "default", "topic": forms.text("topic")}
    try:
        admin.pause(database(), **given, by=access.user().name, reason=forms.text("reason"))
    except OperationError as error:
        return _pauses(str(error), given | {"reason": forms.text("reason")})
    return redirect(url_for("outbox.pauses"), 303)


def resume() -> Response | tuple[str, int]:
    """End an operator's pause."""
    access.demand("resume")
    lane = {"destination": forms.text("destination"), "topic": forms.text("topic")}
    try:
        admin.resume(database(), **lane, by=access.user().name, reason=forms.text("reason"))
    except OperationError as error:
        return _pauses(str(error), {})
    return redirect(url_for("outbox.pauses"), 303)


def _pauses(problem: str, given: dict[str, str]) -> tuple[str, int]:
    paused = admin.paused(database())
    return render_template("outbox/pauses.html", paused=paused, given=given, problem=problem), 400
