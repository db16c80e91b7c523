"""The outbox in Django's admin: the operators' pages under ``/admin/outbox/outboxmessage/``."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import URLPattern

from outbox.django.models import OutboxMessage
from outbox.django.pages import Pages

__all__ = ["OutboxMessageAdmin"]


@admin.register(OutboxMessage)
class OutboxMessageAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's takes no parameter when it runs
    """Messages are looked at and acted on, never added, changed or deleted.

    The pages are the outbox's own, within the frame of the admin site. Who may do what is a matter of Django's
    permissions, see `outbox.django.models.OutboxMessage`; what was done is in the outbox's audit, and in Django's log.
    """

    actions = ()
    show_full_result_count = False

    def get_urls(self) -> list[URLPattern]:
        """The pages', instead of those by which a model is edited."""
        return Pages(self).urls()

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - the base class's signature
        """Nobody: messages are enqueued."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - likewise
        """Nobody: what was promised is sent as it is."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - likewise
        """Nobody: messages are discarded, and purged."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - likewise
        """Whoever has the permission to."""
        user: Any = request.user
        return bool(user.has_perm("outbox.view_outboxmessage"))
