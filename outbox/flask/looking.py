"""The pages on which operators look; none of them changes anything."""

from typing import Any, cast

from flask import Blueprint, current_app, render_template, request
from markupsafe import Markup

from outbox import admin
from outbox.errors import FilterError
from outbox.flask import access, forms
from outbox.states import State, sources
from outbox.store.database import Database

__all__ = ["add_to", "database"]

_PAGE = 50


def add_to(pages: Blueprint) -> None:
    """Register the views."""
    pages.add_url_rule("/", "overview", overview)
    pages.add_url_rule("/messages", "messages", messages)
    pages.add_url_rule("/messages/<reference>", "message", message)
    pages.add_url_rule("/failed", "failed", failed)
    pages.add_url_rule("/pauses", "pauses", pauses)
    pages.add_url_rule("/audit", "audit", audit)


def database() -> Database:
    """The outbox's, of the app that serves this request."""
    return cast("Database", current_app.extensions["outbox"].database)


def overview() -> str:
    """How the outbox is, and how the last hour was."""
    now = admin.overview(database())
    hour = admin.charts(database(), now.tally)
    drawn = [Markup(one) for one in admin.draw(hour)]  # noqa: S704 - `draw` escapes what strangers wrote
    return render_template("outbox/overview.html", now=now, charts=drawn, hour=hour, concerns=admin.concerns(now))


def messages() -> tuple[str, int]:
    """A page of the messages that a filter means."""
    given = request.args.to_dict()
    try:
        meant = admin.parse_filter(given)
    except FilterError as error:
        return _messages(given, problems=error.problems), 400
    before = forms.number("before")
    found = admin.search(database(), meant, before=before, limit=_PAGE)
    return _messages(admin.written(meant), found=found, before=before), 200


def _messages(given: dict[str, str], **more: Any) -> str:
    told = {"problems": {}, "found": None, "before": None} | more
    return render_template(
        "outbox/messages.html", given=given, states=list(State), target_text=admin.target_text, **told
    )


def message(reference: str) -> str:
    """One message, its body masked."""
    return render_template("outbox/message.html", body=None, **shown(reference))


def shown(reference: str) -> dict[str, Any]:
    """What the page of one message shows."""
    one = admin.detail(database(), reference)
    state = State(one.message["state"])
    verbs = {verb: state not in sources(verb) for verb in ("replay", "discard") if state in sources(verb, forced=True)}
    return {
        "message": one.message,
        "events": admin.timeline(one),
        "target": admin.target_text(one.message),
        "verbs": [verb for verb, force in verbs.items() if access.may(verb, force=force)],
    }


def failed() -> str:
    """Failed rows by what failed."""
    return render_template("outbox/failed.html", found=admin.failures(database()))


def pauses() -> str:
    """The lanes that are paused."""
    return render_template("outbox/pauses.html", paused=admin.paused(database()), given={})


def audit() -> str:
    """What operators did."""
    before = forms.number("before")
    acts, older = admin.acts(database(), before=before, limit=_PAGE)
    return render_template("outbox/audit.html", acts=acts, older=older, before=before)
