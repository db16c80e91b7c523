"""The operators' pages in the frame of an admin site: who gets in, where they are, and what Django's log gets."""

import mimetypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path

import outbox.admin
from outbox.admin import deeds, screens, summary
from outbox.admin.visits import NotAllowedError, Page, Visit, refusal
from outbox.django import actions, logs
from outbox.django.connecting import pages_database
from outbox.django.rendering import Frame
from outbox.errors import ConfigError, DatabaseError, OperationError

__all__ = ["Pages"]

_STATIC = Path(outbox.admin.__file__).parent / "static" / "outbox"
_FILES = ("outbox.css", "outbox.js")
_A_DAY_S = 86_400

_View = Callable[..., HttpResponseBase]
_Answer = Callable[..., Page]

_SCREENS: dict[str, tuple[str, _Answer]] = {
    "overview": ("overview/", screens.overview),
    "failed": ("failed/", screens.failed),
    "audit": ("audit/", screens.audit),
}
_DEEDS: dict[str, tuple[str, _Answer]] = {
    "confirm": ("confirm/", deeds.confirm),
    "act": ("act/", deeds.act),
    "resume": ("pauses/resume/", deeds.resume),
    "body": ("<str:reference>/body/", deeds.body),
}


class Pages:
    """The pages on one admin site.

    Args:
        model_admin: which is registered there; it says who may see the pages.
    """

    def __init__(self, model_admin: Any) -> None:
        self._model_admin = model_admin
        self._site: AdminSite = model_admin.admin_site
        self._frame = Frame(self._site)

    def urls(self) -> list[URLPattern]:
        """Where everything is, below the model's own URL."""
        views: dict[str, tuple[str, _View]] = {
            # A POST is an action on selected rows, as Django's own lists send it.
            "outboxmessage_changelist": ("", self._either(_messages, actions.answer))
        }
        views |= {name: (route, self._screen(answer)) for name, (route, answer) in _SCREENS.items()}
        views |= {name: (route, self._deed(answer)) for name, (route, answer) in _DEEDS.items()}
        views["pauses"] = ("pauses/", self._either(screens.pauses, deeds.pause))
        views["outboxmessage_change"] = ("<str:reference>/change/", self._screen(screens.message))
        found = [path(route, self._guarded(view), name=f"outbox_{name}") for name, (route, view) in views.items()]
        return [path("static/<str:filename>", _static, name="outbox_static"), *found]

    def _guarded(self, view: _View) -> Any:
        """For those who are signed in; each act is a transaction of its own, whatever ATOMIC_REQUESTS says."""
        return transaction.non_atomic_requests(self._site.admin_view(view))

    def _screen(self, answer: _Answer) -> _View:
        return self._either(answer, None)

    def _deed(self, answer: _Answer) -> _View:
        return self._either(None, answer)

    def _either(self, screen: _Answer | None, deed: _Answer | None) -> _View:
        answers = {"GET": screen, "HEAD": screen, "POST": deed}

        def view(request: HttpRequest, **given: str) -> HttpResponseBase:
            answer = answers.get(str(request.method))
            if answer is None:
                return HttpResponseNotAllowed([method for method, one in answers.items() if one])
            return self._answer(request, answer, **given)

        return view

    def _answer(self, request: HttpRequest, answer: _Answer, **given: str) -> HttpResponse:
        user: Any = request.user
        if not self._model_admin.has_view_permission(request):
            raise PermissionDenied(f"{user} may not see the outbox.")
        visit, back = None, ""
        try:
            visit = _visit(request, user)
            page = answer(visit, **given)
            logs.note(request, page)
        except (NotAllowedError, OperationError, DatabaseError) as error:
            page, back = refusal(error), self._frame.url_for("outbox.messages")
        except ConfigError as error:
            page = Page("error.html", {"title": "The settings are wrong", "text": str(error)}, 503)
        if page.elsewhere:
            return HttpResponseRedirect(self._frame.url_for(f"outbox.{page.elsewhere}"))
        return self._frame.render(request, visit, page, back=back)


def _messages(visit: Visit) -> Page:
    """The list, with a summary above."""
    page = screens.messages(visit)
    return replace(page, context={**page.context, "summary": summary(visit.database)})


def _visit(request: HttpRequest, user: Any) -> Visit:
    return Visit(
        pages_database(),
        user.get_username(),
        lambda right: user.has_perm(f"outbox.{right}_outboxmessage"),
        request.GET.dict(),
        dict(request.POST.lists()),
    )


def _static(_request: HttpRequest, filename: str) -> HttpResponse:
    """The style sheet and the script, which need no ``collectstatic`` and no server of their own."""
    if filename not in _FILES:
        return HttpResponse(status=404)
    kind = mimetypes.guess_type(filename)[0] or "text/plain"
    headers = {"Cache-Control": f"public, max-age={_A_DAY_S}"}
    return HttpResponse((_STATIC / filename).read_bytes(), content_type=f"{kind}; charset=utf-8", headers=headers)
