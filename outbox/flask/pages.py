"""The operators' pages as a blueprint: who gets in, what every answer carries, and how errors are told."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request, url_for
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

import outbox.admin
from outbox import __version__
from outbox.admin.visits import NotAllowedError, Page, Visit, refusal, words
from outbox.errors import DatabaseError, OperationError
from outbox.flask import access, forms, views

__all__ = ["register_pages"]

_SHARED = Path(outbox.admin.__file__).parent
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def register_pages(app: Flask, auth: access.AdminAuth) -> None:
    """Put the pages under ``/outbox/``."""
    pages = Blueprint(
        "outbox",
        __name__,
        url_prefix="/outbox",
        template_folder=str(_SHARED / "templates"),
        static_folder=str(_SHARED / "static" / "outbox"),
        static_url_path="/static",
    )
    pages.before_request(lambda: _let_in(auth))
    pages.after_request(_protect)
    pages.context_processor(_words)
    pages.register_error_handler(HTTPException, _told)
    for kind in (NotAllowedError, OperationError, DatabaseError):
        pages.register_error_handler(kind, _refused)
    views.add_to(pages)
    app.register_blueprint(pages)


def _let_in(auth: access.AdminAuth) -> None:
    if request.endpoint == "outbox.static":
        return
    access.identify(auth)
    if request.method not in {"GET", "HEAD", "OPTIONS"}:
        forms.check_token()


def _protect(answer: Response) -> Response:
    for name, value in _HEADERS.items():
        if name != "Cache-Control" or request.endpoint != "outbox.static":
            answer.headers[name] = value
    return answer


def _words() -> dict[str, Any]:
    """What the templates of these pages, and no others, may say."""
    user = g.get("outbox_user")
    visit = Visit(current_app.extensions["outbox"].database, user.name, user.can) if user else None
    return {**words(visit), "can_act": forms.can_act(), "token_field": _token_field, "version": __version__}


def _token_field() -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(forms.field_name(), forms.token())


# --- errors -------------------------------------------------------------------------------------------------------


def _told(error: HTTPException) -> tuple[str, int]:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    return _page(Page("error.html", {"title": status.phrase, "text": error.description or ""}, status))


def _refused(error: NotAllowedError | OperationError | DatabaseError) -> tuple[str, int]:
    return _page(refusal(error))


def _page(page: Page) -> tuple[str, int]:
    return views.render(page, back=url_for("outbox.overview") if g.get("outbox_user") else None)
