"""The views: each makes a visit of the request, and renders the page that answers it."""

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug import Response

from outbox.admin import deeds, screens
from outbox.admin.visits import Page, Visit
from outbox.flask import access

__all__ = ["add_to", "render"]

_SCREENS: dict[str, tuple[str, Callable[..., Page]]] = {
    "overview": ("/", screens.overview),
    "messages": ("/messages", screens.messages),
    "message": ("/messages/<reference>", screens.message),
    "failed": ("/failed", screens.failed),
    "pauses": ("/pauses", screens.pauses),
    "audit": ("/audit", screens.audit),
}
_DEEDS: dict[str, tuple[str, Callable[..., Page]]] = {
    "body": ("/messages/<reference>/body", deeds.body),
    "confirm": ("/confirm", deeds.confirm),
    "act": ("/act", deeds.act),
    "pause": ("/pauses", deeds.pause),
    "resume": ("/pauses/resume", deeds.resume),
}


def add_to(pages: Blueprint) -> None:
    """Register the views."""
    for methods, views in ((["GET"], _SCREENS), (["POST"], _DEEDS)):
        for name, (rule, answer) in views.items():
            # With the name that others look for, such as Flask-WTF.
            pages.add_url_rule(rule, name, update_wrapper(partial(_view, answer), answer), methods=methods)


def _view(answer: Callable[..., Page], **given: Any) -> Response | tuple[str, int]:
    page = answer(_visit(), **given)
    return redirect(url_for(f"outbox.{page.elsewhere}"), 303) if page.elsewhere else render(page)


def _visit() -> Visit:
    database = current_app.extensions["outbox"].database
    user = access.user()
    return Visit(database, user.name, user.can, request.args.to_dict(), request.form.to_dict(flat=False))


def render(page: Page, **more: Any) -> tuple[str, int]:
    """A page's text and status."""
    return render_template(f"outbox/{page.template}", **page.context, **more), page.status
