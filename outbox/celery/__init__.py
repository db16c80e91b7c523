"""Celery as the relay's clock and worker pool: ticks, nudges, purges. Its tasks carry no messages.

In an application that has Celery::

    from outbox.celery import install

    install(celery_app)

and then a worker for the queue ``outbox``, and beat. Without an application of one's own, `app` is made from the
environment::

    celery -A outbox.celery worker -B

That messages arrive needs only that ``outbox.relay`` runs now and then, anywhere: a tick or a nudge that is lost makes
them later, one that comes twice costs a look at the database.
"""

from typing import Any

from celery import Celery

from outbox.celery.hosts import settings_of_host
from outbox.celery.installation import CHECK, PURGE, QUEUE, RELAY, install_with
from outbox.settings import Settings

__all__ = ["CHECK", "PURGE", "QUEUE", "RELAY", "app", "install"]

#: A Celery application for small deployments; see `outbox.celery.standalone`.
app: Celery


def install(celery_app: Celery, settings: Settings | None = None) -> None:
    """Add the outbox to a Celery application: tasks, routes, beat entries, worker hooks, and the nudge after a commit.

    It may be called before or after the application is configured, and again: twice is as good as once. What the
    application itself says under ``task_routes`` and ``beat_schedule`` stays and goes before what is added there;
    nothing else of its configuration is touched.

    Args:
        celery_app: call it wherever this application is made: for workers, for beat, in the processes that enqueue.
        settings: unless given, the project's ``settings.OUTBOX`` in Django with ``outbox.django``, else those of the
            environment.

    Raises:
        ConfigError: a setting is wrong. What is missing is said by the task that needs it.
    """
    install_with(celery_app, (lambda: settings) if settings else settings_of_host())


def __getattr__(name: str) -> Any:
    # Made when it is asked for: whoever has an application of their own must not get a second one along with it.
    if name == "app":
        from outbox.celery import standalone  # noqa: PLC0415 - see above

        return standalone.app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
