"""How a task learns that its worker is to end, in whichever process it runs.

Celery tells only the worker's main process of a shutdown, and waits for the tasks; with a prefork pool those run in
others. A pipe made before these are forked reaches them all: what is written to it is never read, so it stays readable
for each of them, those forked later included.
"""

import os
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from celery import Celery, bootsteps, signals

__all__ = ["end_with_parent", "hook_into", "told_to_stop"]


class _StopPipe:
    """Readable once the worker has been told to stop."""

    def __init__(self) -> None:
        self.reader, self._writer = Pipe(duplex=False)

    def tell(self) -> None:
        self._writer.send_bytes(b"!")


_LOOK_S = 1.0
# By the worker's node name: a test may run two workers in one process.
_pipes: dict[str, _StopPipe] = {}


def told_to_stop(hostname: str | None) -> Connection | None:
    """What becomes readable when the worker of this node name is told to stop; None where no such worker runs."""
    pipe = _pipes.get(hostname or "")
    return pipe.reader if pipe else None


def hook_into(app: Celery) -> None:
    """Have every worker of the app tell its tasks when it is to stop. Calling it again changes nothing."""
    app.steps["worker"].add(_TellTasks)
    # Comes from within the signal's handler: with a solo pool nothing else runs before the task is over.
    signals.worker_shutting_down.connect(_on_shutting_down, weak=False)


def end_with_parent(**_: Any) -> None:
    """Have this process, a beat that a worker has started, end when the worker is gone, however that came to be.

    A worker that is killed tells nobody, and its beat would go on sending ticks beside the next worker's.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="outbox-parent", daemon=True).start()


def _on_shutting_down(sender: str, **_: Any) -> None:
    if sender in _pipes:
        _pipes[sender].tell()


class _TellTasks(bootsteps.StartStopStep):
    """Makes the pipe before the pool forks, and tells the tasks of every shutdown before the pool waits for them.

    The ways to shut a worker down that send no signal, such as the remote control command ``shutdown``, come by here.
    """

    label = "Outbox"

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        pipe = _pipes[parent.hostname] = _StopPipe()
        wait = parent.wait_for_soft_shutdown

        # Celery announces a soft shutdown when it is over; the time that it grants is for finishing, so tell at once.
        def tell_and_wait() -> None:
            pipe.tell()
            wait()

        parent.wait_for_soft_shutdown = tell_and_wait

    def close(self, parent: Any) -> None:
        """Told by Celery before any of its parts is stopped."""
        _pipes[parent.hostname].tell()
