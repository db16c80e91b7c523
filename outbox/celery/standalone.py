"""A Celery application made from the environment: ``celery -A outbox.celery worker -B``.

It can be imported without any setting; they are looked at when Celery first needs its configuration.
"""

from functools import cache
from typing import Any

from celery import Celery

from outbox.celery.installation import QUEUE, install_with
from outbox.errors import ConfigError
from outbox.settings import NotConfiguredError, Settings

__all__ = ["app", "use"]


_given: list[Settings] = []


def use(settings: Settings) -> None:
    """Follow these settings instead of the environment's; it must come before Celery first needs them."""
    _given.append(settings)


@cache
def _settings() -> Settings:
    try:
        settings = _given[-1] if _given else Settings.from_env()
        settings.require("broker_url")
    except ConfigError as error:
        raise NotConfiguredError(error) from None
    return settings


def _configuration() -> dict[str, Any]:
    return {
        "broker_url": _settings().require("broker_url"),
        "broker_connection_retry_on_startup": True,
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_default_queue": QUEUE,
        "worker_prefetch_multiplier": 1,
        # Both entries are intervals and need no memory: without one, no file is left in the working directory.
        "beat_scheduler": "celery.beat:Scheduler",
        # Nor is there any result for beat to clean up.
        "result_expires": None,
    }


# Processes that are spawned instead of forked, as on macOS, find the tasks by importing this module.
app = Celery("outbox", include=[__name__], set_as_current=False)
app.add_defaults(_configuration)
install_with(app, _settings)
