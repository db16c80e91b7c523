"""What the story is played on: a database, an emulator, a relay process, a Celery worker. Nothing of it stays."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from celery import Celery
from celery.beat import Scheduler, Service

from outbox.celery import QUEUE, install
from outbox.emulator import Emulator
from outbox.settings import Settings
from outbox.wiring import Runtime

__all__ = ["LOG", "Stage", "celery_app", "celery_worker", "relay_process", "stage"]

#: The file for what the processes and threads on the stage log.
LOG = "demo.log"

# Waits are short, so that whatever a killed relay held comes back while one is still watching.
_SETTINGS = {
    "OUTBOX_BATCH_SIZE": "100",
    "OUTBOX_CONCURRENCY": "4",
    "OUTBOX_LEASE_S": "3",
    "OUTBOX_REQUEST_TIMEOUT_S": "1",
    "OUTBOX_BACKOFF_BASE_S": "0.2",
    "OUTBOX_SWEEP_S": "0.5",
}
_LOGGERS = ("outbox", "celery", "kombu")


@dataclass(frozen=True)
class Stage:
    """A database and a broker, and the settings of every process between them."""

    directory: Path
    runtime: Runtime
    emulator: Emulator
    environment: dict[str, str]

    @property
    def database_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.environment["OUTBOX_DATABASE_URL"]


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Set up a stage in an empty directory; the database is not migrated yet."""
    key = {"demo": token_hex(16)}
    with _logged_to(directory / LOG), Emulator(keys=key) as emulator:
        environment = {
            **_SETTINGS,
            "OUTBOX_DATABASE_URL": f"sqlite:///{directory / 'outbox.sqlite'}",
            "OUTBOX_ENDPOINT": emulator.url,
            "OUTBOX_ACCESS_KEY_ID": "demo",
            "OUTBOX_ACCESS_KEY_SECRET": key["demo"],
        }
        runtime = Runtime(Settings.from_mapping(environment))
        try:
            yield Stage(directory, runtime, emulator, environment)
        finally:
            runtime.database.engine.dispose()


@contextmanager
def relay_process(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """``outbox relay``, as an operator starts it; it is killed in the end, if it has not been before."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    command = [sys.executable, "-m", "outbox.cli", "relay"]
    with (stage.directory / LOG).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, env=inherited | stage.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def celery_app(stage: Stage) -> Celery:
    """A shop's Celery application with the outbox installed: from now on each commit nudges."""
    app = Celery("shop", broker="memory://")
    # Threads of a worker's pool look for their tasks there.
    app.set_default()
    app.conf.update(
        broker_transport_options={"polling_interval": 0.01},
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
    )
    install(app, stage.runtime.settings)
    return app


@contextmanager
def celery_worker(app: Celery) -> Iterator[None]:
    """A worker for the queue ``outbox``, and beat, in threads of this process."""
    worker = app.WorkController(
        hostname="worker@demo",
        pool="threads",
        concurrency=2,
        queues=[QUEUE],
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )
    beat = Service(app, scheduler_cls=Scheduler)
    for one in (worker, beat):
        threading.Thread(target=one.start, name=f"celery-{type(one).__name__}", daemon=True).start()
    try:
        yield
    finally:
        beat.stop(wait=True)
        # Ends the tasks, then the pool. The thread that waits for more of them sees it seconds later, or not at all.
        worker.stop()


@contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Have the log events of this process's outbox and Celery in a file, instead of between the lines of the story."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()
