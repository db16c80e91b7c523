"""The nudge: after a commit, tell the workers' relays to look now instead of at the next tick."""

import atexit
import concurrent.futures.thread  # noqa: F401 - redis imports it, perhaps in a flush at exit, when it would be too late
import logging
import os
import threading
from contextlib import suppress
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

__all__ = ["Nudger"]

log = logging.getLogger("outbox")

_TIMEOUT_S = 1.0
# Of every transport at once: each takes those that it knows.
_TRANSPORT_OPTIONS = {
    "max_retries": 0,
    # RabbitMQ: a publish that is not confirmed seems to succeed on a connection that is long dead.
    "confirm_publish": True,
    "read_timeout": _TIMEOUT_S,
    "write_timeout": _TIMEOUT_S,
    # Redis
    "socket_connect_timeout": _TIMEOUT_S,
    "socket_timeout": _TIMEOUT_S,
    "retry_on_timeout": False,
}
# Between two nudges, doubling for as long as commits keep coming.
_REST_S, _LONGEST_REST_S = 0.01, 0.16
# Between two attempts while the broker is away, doubling likewise.
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 30.0
_FLUSH_S = 0.5


class Nudger:
    """Sends nudges from a thread of its own, so that the one that commits neither waits nor fails.

    Any number of commits while one nudge is on its way make one more. Nothing is started or opened before the first.

    Args:
        app: its broker and its routes are used, over a connection of our own.
        task: the name of the task to send.
        expires_s: seconds after which an unread nudge is worth nothing, since a tick has come meanwhile.
    """

    def __init__(self, app: Celery, task: str, expires_s: float) -> None:
        self._app = app
        self._task = task
        self._expires_s = expires_s
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wanted = self._sending = self._failing = self._exiting = self._forking = False
        self._pid = 0
        self._connection: Connection | None = None
        self._producer: Any = None

    def nudge(self) -> None:
        """Ask for a nudge and return at once; never raises."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            if self._thread is None:
                self._start()

    def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until what was asked for is sent, or has failed, at most ``timeout_s`` seconds; whether it has been.

        A short script's last commit would else go unannounced: the thread dies with the process.
        """
        with self._changed:
            self._exiting = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not (self._wanted or self._sending), timeout_s)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="outbox-nudge", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down, or the machine has no thread left; the sweep will do
            return
        self._thread = thread
        self._pid = os.getpid()
        atexit.register(self._flush_at_exit)
        os.register_at_fork(
            before=self._pause_to_fork, after_in_parent=self._go_on_after_fork, after_in_child=self._go_on_after_fork
        )

    # A forked child inherits what is registered above, but not the thread nor what it had to do.

    def _flush_at_exit(self) -> None:
        if os.getpid() == self._pid:
            self.flush()

    def _pause_to_fork(self) -> None:
        """Fork between two nudges: a module that the thread is importing would stay half imported in the child."""
        if os.getpid() == self._pid:
            self._changed.acquire()
            self._changed.wait_for(lambda: not self._sending, _TIMEOUT_S)
            self._forking = True

    def _go_on_after_fork(self) -> None:
        if self._forking:
            self._forking = False
            self._changed.release()

    # --- the thread's side ---

    def _run(self) -> None:
        rest_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                self._wanted, self._sending = False, True
            sent = self._send()
            shortest_s, longest_s = (_REST_S, _LONGEST_REST_S) if sent else (_BACKOFF_S, _LONGEST_BACKOFF_S)
            rest_s = min(max(2 * rest_s, shortest_s), longest_s)
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._exiting, rest_s)
                if sent and not self._wanted:
                    rest_s = 0.0

    def _send(self) -> bool:
        try:
            # In eager mode, which is for tests, there is no broker to speak of.
            if not self._app.conf.task_always_eager:
                self._publish()
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep finds the rows without us
            if not self._failing:
                log.warning("outbox.nudge_failed", extra={"error": _explain(error)})
            self._failing = True
            return False
        if self._failing:
            log.info("outbox.nudge_resumed")
        self._failing = False
        return True

    def _publish(self) -> None:
        is_fresh = self._connection is None
        try:
            self._publish_once()
        except Exception:
            self._disconnect()
            if is_fresh:
                raise
            # The broker, or a firewall on the way, may have closed a connection that stood idle.
            self._publish_once()

    def _publish_once(self) -> None:
        if self._connection is None:
            self._connect()
        self._app.send_task(
            self._task,
            kwargs={"nudged": True},
            producer=self._producer,
            serializer="json",
            ignore_result=True,
            expires=self._expires_s,
            retry=False,
        )

    def _connect(self) -> None:
        connection = self._app.connection_for_write(connect_timeout=_TIMEOUT_S, transport_options=_TRANSPORT_OPTIONS)
        # Each of the brokers to fail over to is tried once.
        connection.ensure_connection(max_retries=max(len(connection.alt), 1) - 1, interval_start=0, interval_step=0)
        self._connection = connection
        self._producer = self._app.amqp.Producer(connection, auto_declare=False)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.release()


def _explain(error: Exception) -> str:
    """The text of errors that the network or the broker made; others may quote the broker's URL, password and all."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, OSError | OperationalError) else name
