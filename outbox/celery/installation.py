"""What `outbox.celery.install` adds to a Celery application."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

from celery import Celery, Task

from outbox.celery.nudge import Nudger
from outbox.celery.process import PerProcess
from outbox.celery.stopping import hook_into, told_to_stop
from outbox.celery.sweep import LONGEST_S, Sweeper
from outbox.enqueue import after_commit
from outbox.errors import ConfigError, DatabaseError
from outbox.settings import Settings
from outbox.wiring import Runtime

__all__ = ["CHECK", "PURGE", "QUEUE", "RELAY", "install_with"]

log = logging.getLogger("outbox")

#: The queue that the tasks are routed to, unless the application's own routes say otherwise.
QUEUE = "outbox"
#: The task that relays what is due.
RELAY = "outbox.relay"
#: The task that answers the broker's checks of half messages.
CHECK = "outbox.check"
#: The task that deletes finished rows older than the retention.
PURGE = "outbox.purge"

_ROUTES = {RELAY: {"queue": QUEUE}, CHECK: {"queue": QUEUE}, PURGE: {"queue": QUEUE}}
# The broker asks first after 10 s at the least, and again about every 10 s.
_CHECK_EVERY_S = 5.0
_PURGE_EVERY_S = 3600.0
# A nudge is worth nothing once a tick has come, and a worker that was away must not find thousands of them.
_LONGEST_NUDGE_S = 60.0
_TASK: Mapping[str, Any] = {
    "bind": True,
    "shared": False,
    "ignore_result": True,
    "acks_late": True,
    "reject_on_worker_lost": True,
    "serializer": "json",
}

_installed: dict[Celery, "_Installation"] = {}


def install_with(celery_app: Celery, settings: Callable[[], Settings], longest_s: float = LONGEST_S) -> None:
    """Same as `outbox.celery.install`, with settings that are loaded when they are first needed.

    Args:
        celery_app: the application.
        settings: called whenever they are needed.
        longest_s: seconds after which a task begins nothing more, and sends a nudge if there is more to do.
    """
    if celery_app in _installed:
        return
    installation = _installed[celery_app] = _Installation(celery_app, settings, longest_s)
    installation.add_tasks()
    hook_into(celery_app)
    # At both moments: between them the application may set its routes once more.
    celery_app.on_after_configure.connect(installation.configure, weak=False)
    celery_app.on_after_finalize.connect(installation.configure, weak=False)
    if cast("Any", celery_app).configured:  # not in the stubs
        installation.configure()
    after_commit(installation.nudge)


@contextmanager
def _told_in_one_line(task: str) -> Iterator[None]:
    """A setting or a database that is wrong is for an operator to mend: a line says all, and a tick says it again."""
    try:
        yield
    except (ConfigError, DatabaseError) as error:
        log.error("outbox.task_failed", extra={"task": task, "error": str(error)})  # noqa: TRY400 - see above


class _Installation:
    def __init__(self, celery_app: Celery, settings: Callable[[], Settings], longest_s: float) -> None:
        self._app = celery_app
        self._settings = settings
        self._sweeper = PerProcess(lambda: Sweeper(Runtime(settings()), longest_s))
        self._nudger = PerProcess(lambda: Nudger(celery_app, RELAY, min(settings().sweep_s, _LONGEST_NUDGE_S)))

    def nudge(self) -> None:
        """Called after each commit that enqueued something."""
        if self._nudges:
            self._nudger().nudge()

    @cached_property
    def _nudges(self) -> bool:
        try:
            return self._settings().nudge
        except ConfigError as error:
            log.warning("outbox.nudge_failed", extra={"error": str(error)})
            return False

    def add_tasks(self) -> None:
        @self._app.task(name=RELAY, **_TASK)
        def relay(task: "Task[Any, Any]", *, nudged: bool = False) -> None:
            if not isinstance(nudged, bool):
                raise TypeError("nudged is true or false")
            with _told_in_one_line(RELAY):
                time_was_up = self._sweeper().sweep(told_to_stop(task.request.hostname), nudged=nudged)
                if time_was_up:
                    self._nudger().nudge()

        @self._app.task(name=CHECK, **_TASK)
        def check(task: "Task[Any, Any]") -> None:
            with _told_in_one_line(CHECK):
                self._sweeper().check(told_to_stop(task.request.hostname))

        @self._app.task(name=PURGE, **_TASK)
        def purge(task: "Task[Any, Any]") -> None:
            with _told_in_one_line(PURGE):
                self._sweeper().purge(told_to_stop(task.request.hostname))

    def configure(self, **_: Any) -> None:
        """Add routes and beat entries to those that the application has; no more the second time."""
        conf = self._app.conf
        routes = conf.task_routes or []
        routes = list(routes) if isinstance(routes, list | tuple) else [routes]
        if _ROUTES not in routes:
            conf.update(task_routes=[*routes, _ROUTES])
        sweep_s = self._settings().sweep_s
        ours = {
            RELAY: {"task": RELAY, "schedule": sweep_s, "options": {"expires": sweep_s}},
            CHECK: {"task": CHECK, "schedule": _CHECK_EVERY_S, "options": {"expires": _CHECK_EVERY_S}},
            PURGE: {"task": PURGE, "schedule": _PURGE_EVERY_S, "options": {"expires": _PURGE_EVERY_S}},
        }
        conf.update(beat_schedule=ours | dict(conf.beat_schedule))
