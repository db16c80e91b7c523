"""Django's own log of what was done in the admin, beside the outbox's audit."""

from collections.abc import Iterator
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest

from outbox.admin.visits import Page
from outbox.django.models import OutboxMessage

__all__ = ["note"]


def note(request: HttpRequest, page: Page) -> None:
    """Write down what a page says that was done; an act that did nothing leaves no entry."""
    entries = list(_entries(page, request))
    if entries:
        kind = ContentType.objects.get_for_model(OutboxMessage)
        user: Any = request.user
        LogEntry.objects.bulk_create(
            LogEntry(
                user_id=user.pk,
                content_type=kind,
                object_id=object_id,
                object_repr=told,
                action_flag=CHANGE,
                change_message=message,
            )
            for object_id, told, message in entries
        )


def _entries(page: Page, request: HttpRequest) -> Iterator[tuple[str | None, str, str]]:
    reason = request.POST.get("reason", "")
    how = " by force" if request.POST.get("force") else ""
    if page.template == "done.html":
        for row in page.context["outcome"].done:
            yield str(row), f"Message #{row}", f"{page.context['intent'].verb}{how}: {reason}"
    elif page.template == "progress.html" and page.context["progress"].done:
        done, intent = page.context["progress"].done, page.context["intent"]
        yield None, f"{done} messages", f"{intent.verb}{how} of all that match: {reason}"
    elif page.template == "message.html" and page.context["body"] is not None:
        row = page.context["message"]["id"]
        yield str(row), f"Message #{row}", "looked at the body"
    elif page.elsewhere:
        verb = "resume" if request.path.endswith("/resume/") else "pause"
        lane = f"{request.POST.get('destination') or 'default'}/{request.POST.get('topic', '')}"
        yield None, f"Topic {lane}"[:200], f"{verb}: {reason}"
