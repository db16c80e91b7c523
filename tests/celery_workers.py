"""Celery workers as processes of their own, which a test can signal and kill; and what lies in a broker's queues."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from kombu import Connection, Queue

from outbox import after_commit
from outbox.celery import installation

# Workers of one test need not get to know each other, which takes a second.
_QUICK = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Worker:
    """A running worker, and what it has logged."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def tasks(self, name: str) -> int:
        """How many tasks of this name it has received."""
        return self.log.count(f"Task {name}[")

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Signal its main process and wait; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it and the processes of its pool where they stand."""
        for one in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()


@contextmanager
def worker(
    environment: Mapping[str, str], directory: Path, *options: str, app: str = "outbox.celery", name: str = "one"
) -> Iterator[Worker]:
    """``celery worker``, ready; whatever is left of it in the end is killed."""
    log = directory / f"worker-{name}.log"
    node = f"{name}-{os.getpid()}@test"
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", node, "-l", "info", *_QUICK, *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=dict(environment), cwd=directory, stdout=file, stderr=file)
    running = Worker(process, log)
    try:
        wait_for(lambda: " ready." in running.log or process.poll() is not None, 60)
        assert process.poll() is None, running.log
        yield running
    finally:
        if process.poll() is None:
            running.kill()


def wait_for(happened: Callable[[], object], timeout_s: float = 30) -> bool:
    """Whether something happens in time; asked again and again."""
    until = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def queue_of(url: str, name: str) -> Iterator[Callable[..., list[Any]]]:
    """A function to the messages that lie in a queue, taken out of it; it waits ``timeout_s`` seconds for the first."""
    with Connection(url) as connection, connection.SimpleQueue(Queue(name, routing_key=name)) as queue:

        def take(timeout_s: float = 5) -> list[Any]:
            taken: list[Any] = []

            def take_one() -> bool:
                with suppress(Empty):
                    taken.append(queue.get_nowait())
                    taken[-1].ack()
                    return True
                return False

            wait_for(take_one, timeout_s)
            while take_one():
                pass
            return taken

        yield take


@contextmanager
def forgotten_installations() -> Iterator[None]:
    """Commits nudge only the Celery applications that the outbox is installed in meanwhile, and none of these after."""
    hooks_before, installed_before = list(after_commit._hooks), dict(installation._installed)
    after_commit._hooks.clear()
    try:
        yield
    finally:
        after_commit._hooks[:] = hooks_before
        for app in installation._installed.keys() - installed_before.keys():
            _dispose(installation._installed.pop(app))


def _dispose(installed: Any) -> None:
    for nudger in installed._nudger._made.values():
        nudger._disconnect()
    for sweeper in installed._sweeper._made.values():
        if "database" in vars(sweeper._runtime):
            sweeper._runtime.database.engine.dispose()
