"""Django's own log of what was done in the admin, beside the outbox's audit."""

import logging
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import Error
from django.http import HttpRequest

from outbox.admin.visits import Page
from outbox.django.models import OutboxMessage

__all__ = ["note"]

log = logging.getLogger("outbox")

_LACKS = "This was done, and is in the outbox’s audit, but not in Django’s log, which could not be written."


def note(request: HttpRequest, page: Page) -> None:
    """Write down what a page says that was done; an act that did nothing leaves no entry.

    What was done stays done if this cannot be written: the operator is told, and it is logged.
    """
    entries = list(_entries(page))
    if not entries:
        return
    try:
        _write(request, entries)
    except Error:
        log.warning("outbox.django_log_failed", exc_info=True)
        messages.warning(request, _LACKS, fail_silently=True)


def _write(request: HttpRequest, entries: list[tuple[str | None, str, str]]) -> None:
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


def _entries(page: Page) -> Iterator[tuple[str | None, str, str]]:
    given = page.context.get("given", {})
    # As the audit has it: what was typed may hold what no database takes.
    reason, how = given.get("reason"), " by force" if given.get("force") else ""
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
        lane = f"{page.context['destination']}/{page.context['topic']}"
        yield None, f"Topic {lane}", f"{page.context['verb']}: {reason}"
