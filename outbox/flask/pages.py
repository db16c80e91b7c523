"""The operators' pages as a blueprint: who gets in, what every answer carries, and how errors are told."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, g, render_template, request, url_for
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

import outbox.admin
from outbox import __version__, admin
from outbox.errors import DatabaseError, OperationError
from outbox.flask import access, acting, forms, looking

__all__ = ["register_pages"]

_STATIC = Path(outbox.admin.__file__).parent / "static" / "outbox"
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
        template_folder="templates",
        static_folder=str(_STATIC),
        static_url_path="/static",
    )
    pages.before_request(lambda: _let_in(auth))
    pages.after_request(_protect)
    pages.context_processor(_words)
    for kind, tell in ((HTTPException, _told), (OperationError, _refused), (DatabaseError, _unreachable)):
        pages.register_error_handler(kind, tell)
    looking.add_to(pages)
    acting.add_to(pages)
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
    return {
        "age": admin.age_text,
        "can_act": forms.can_act(),
        "count": admin.count_text,
        "inert": admin.inert,
        "instant": admin.instant_text,
        "may": access.may,
        "operator": getattr(g.get("outbox_user"), "name", None),
        "token_field": _token_field,
        "version": __version__,
    }


def _token_field() -> Markup:
    return Markup('<input type="hidden" name="{}" value="{}">').format(forms.field_name(), forms.token())


# --- errors -------------------------------------------------------------------------------------------------------


def _told(error: HTTPException) -> tuple[str, int]:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return _page(HTTPStatus(status).phrase, error.description or "", status)


def _refused(error: OperationError) -> tuple[str, int]:
    unknown = str(error).startswith("there is no message")
    return _page("Not done", str(error), HTTPStatus.NOT_FOUND if unknown else HTTPStatus.BAD_REQUEST)


def _unreachable(error: DatabaseError) -> tuple[str, int]:
    return _page("The database does not answer as it should", str(error), HTTPStatus.SERVICE_UNAVAILABLE)


def _page(title: str, text: str, status: int) -> tuple[str, int]:
    back = url_for("outbox.overview") if g.get("outbox_user") else None
    return render_template("outbox/error.html", title=title, text=text, back=back), status
