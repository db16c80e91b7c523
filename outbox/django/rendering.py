"""The pages' templates, which they share with Flask's, within a template of the admin site."""

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import mark_safe

import outbox.admin
from outbox import __version__
from outbox.admin.visits import Page, Visit, words

__all__ = ["Frame"]

# The model's own pages have the names that Django gives them.
_NAMES = {"messages": "outboxmessage_changelist", "message": "outboxmessage_change", "pause": "pauses"}
_IN_THE_PATH = ("reference", "filename")


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader  # noqa: PLC0415 - who has no pages needs no Jinja

    places = (Path(__file__).parent / "jinja2", Path(outbox.admin.__file__).parent / "templates")
    return Environment(autoescape=True, loader=FileSystemLoader(places))


class Frame:
    """An admin site, around the pages."""

    def __init__(self, site: AdminSite) -> None:
        self._site = site

    def url_for(self, page: str, **values: Any) -> str:
        """Where a page is, by the name that templates use; values that are no part of the path are its query."""
        name = page.removeprefix("outbox.")
        given = {key: str(values.pop(key)) for key in _IN_THE_PATH if key in values}
        url = reverse(f"{self._site.name}:outbox_{_NAMES.get(name, name)}", kwargs=given)
        return f"{url}?{urlencode(values)}" if values else url

    def render(self, request: HttpRequest, visit: Visit | None, page: Page, **more: Any) -> HttpResponse:
        """The page, within the site's own."""
        told = {
            **words(visit),
            "can_act": True,
            "token_field": lambda: _token_field(request),
            "url_for": self.url_for,
            "version": __version__,
        }
        text = _templates().get_template(f"outbox/{page.template}").render({**told, **page.context, **more})
        # The first line is the title, see base.html.
        title, _, content = text.strip().partition("\n")
        context = {
            **self._site.each_context(request),
            "title": mark_safe(title),  # noqa: S308 - Jinja has escaped it
            "content": mark_safe(content),  # noqa: S308 - likewise
            "outbox_css": self.url_for("outbox.static", filename="outbox.css", v=__version__),
            "outbox_js": self.url_for("outbox.static", filename="outbox.js", v=__version__),
            "outbox_index": reverse(f"{self._site.name}:index"),
            "outbox_messages": self.url_for("outbox.messages"),
        }
        request.current_app = self._site.name
        return TemplateResponse(request, "outbox/page.html", context, status=page.status)


def _token_field(request: HttpRequest) -> Any:
    from markupsafe import Markup  # noqa: PLC0415 - it comes with Jinja

    return Markup('<input type="hidden" name="csrfmiddlewaretoken" value="{}">').format(get_token(request))
