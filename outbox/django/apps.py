"""The app as Django knows it: ``INSTALLED_APPS += ["outbox.django"]``."""

from django.apps import AppConfig

__all__ = ["OutboxConfig"]


class OutboxConfig(AppConfig):
    """The app ``outbox``."""

    name = "outbox.django"
    label = "outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from outbox.django import checks  # noqa: PLC0415 - Django asks for it here

        checks.register()
