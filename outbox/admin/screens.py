"""The pages on which operators look; none of them changes anything."""

from http import HTTPStatus
from typing import Any

from outbox.admin import acting
from outbox.admin.charts import charts
from outbox.admin.concerns import concerns
from outbox.admin.drawing import draw
from outbox.admin.filters import parse_filter, written
from outbox.admin.overview import detail
from outbox.admin.overview import overview as look
from outbox.admin.overview import paused as lanes_paused
from outbox.admin.timeline import timeline
from outbox.admin.visits import Page, Visit
from outbox.errors import FilterError
from outbox.states import State, sources
from outbox.store.audit import acts
from outbox.store.search import failures, search

__all__ = ["audit", "failed", "message", "messages", "overview", "pauses", "shown"]

_PAGE = 50


def overview(visit: Visit) -> Page:
    """How the outbox is, and how the last hour was."""
    now = look(visit.database)
    hour = charts(visit.database, now.tally)
    return Page("overview.html", {"now": now, "charts": draw(hour), "hour": hour, "concerns": concerns(now)})


def messages(visit: Visit) -> Page:
    """A page of the messages that a filter means."""
    try:
        meant = parse_filter(visit.query)
    except FilterError as error:
        return _messages(dict(visit.query), HTTPStatus.BAD_REQUEST, problems=error.problems)
    before = visit.number("before")
    found = search(visit.database, meant, before=before, limit=_PAGE)
    return _messages(written(meant), found=found, before=before)


def _messages(given: dict[str, str], status: int = HTTPStatus.OK, **more: Any) -> Page:
    told = {"problems": {}, "found": None, "before": None, "given": given, "states": list(State)}
    return Page("messages.html", {**told, "target_text": acting.target_text, **more}, status)


def message(visit: Visit, reference: str) -> Page:
    """One message, its body masked."""
    return Page("message.html", {"body": None, **shown(visit, reference)})


def shown(visit: Visit, reference: str) -> dict[str, Any]:
    """What the page of one message shows."""
    one = detail(visit.database, reference)
    state = State(one.message["state"])
    verbs = {verb: state not in sources(verb) for verb in ("replay", "discard") if state in sources(verb, forced=True)}
    return {
        "message": one.message,
        "events": timeline(one),
        "target": acting.target_text(one.message),
        "verbs": [verb for verb, force in verbs.items() if visit.may(verb, force=force)],
    }


def failed(visit: Visit) -> Page:
    """Failed rows by what failed."""
    return Page("failed.html", {"found": failures(visit.database)})


def pauses(visit: Visit) -> Page:
    """The lanes that are paused."""
    return Page("pauses.html", {"paused": lanes_paused(visit.database), "given": {}})


def audit(visit: Visit) -> Page:
    """What operators did."""
    before = visit.number("before")
    found, older = acts(visit.database, before=before, limit=_PAGE)
    return Page("audit.html", {"acts": found, "older": older, "before": before})
