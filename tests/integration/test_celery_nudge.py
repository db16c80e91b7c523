"""The nudge after a commit, sent to real brokers, and to brokers that are away, silent or come back."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
from celery import Celery
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from outbox import Message, enqueue
from outbox.celery import install, installation
from outbox.settings import Settings
from tests.celery_workers import forgotten_installations, queue_of, wait_for

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

UNREACHABLE = "redis://127.0.0.1:1/0"


@pytest.fixture
def shop():
    """A function to a Celery application with the outbox installed."""
    with forgotten_installations():

        def make(broker_url, **given):
            app = Celery("shop", broker=broker_url, set_as_current=False)
            install(app, Settings(**given))
            return app

        yield make


def commit(engine, body="x"):
    with Session(engine) as session, session.begin():
        enqueue(session, Message("orders", body))


def settled(app):
    """This process's nudger of the application, once it has sent, or failed to send, what it was asked for."""
    nudger = installation._installed[app]._nudger()
    assert wait_for(lambda: not (nudger._wanted or nudger._sending))
    return nudger


def events(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "outbox"]


class Gate:
    """A way to a broker that can be shut, and opened again at the same port."""

    def __init__(self, url):
        self._to = make_url(url)
        self._sockets = []
        self._listener = None
        self._port = 0
        self.open()
        self.url = self._to.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)

    def open(self):
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self):
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self):
        """End every connection; new ones are let through."""
        while self._sockets:
            one = self._sockets.pop()
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener):
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection((self._to.host, self._to.port))
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    @staticmethod
    def _pump(source, target):
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def gate(broker_url):
    """A gate before the broker."""
    gate = Gate(broker_url)
    yield gate
    gate.shut()


def test_commit_sends_one_nudge(engine, broker_url, shop):
    """One JSON task without data, which expires; nothing of the message or of the settings travels along."""
    app = shop(broker_url, access_key_secret="canary-secret", sweep_s=7)
    with queue_of(broker_url, "outbox") as take:
        commit(engine, "canary-body")
        settled(app)
        (nudge,) = take()

    positional, named, _ = nudge.payload
    assert ([], {"nudged": True}) == (positional, named)
    assert "application/json" == nudge.content_type
    assert ("outbox.relay", True) == (nudge.headers["task"], nudge.headers["ignore_result"])
    assert nudge.headers["expires"]
    assert "canary" not in json.dumps([nudge.payload, nudge.headers, nudge.properties], default=str)


def test_rollback_sends_nothing(engine, broker_url, shop):
    """Without a commit of new rows there is no nudge, and neither a thread nor a connection that could send one."""
    app = shop(broker_url)
    with Session(engine) as session:
        enqueue(session, Message("orders", "x"))
        session.rollback()
        session.commit()
    nudger = installation._installed[app]._nudger()

    assert nudger._thread is None
    assert nudger._connection is None
    with queue_of(broker_url, "outbox") as take:
        assert [] == take(0.2)


def test_thousand_commits_send_a_handful(engine, broker_url, shop):
    """Commits in quick succession share nudges, and the last of them is not forgotten."""
    app = shop(broker_url)
    started = time.monotonic()
    with engine.connect() as connection:
        for n in range(1000):
            with connection.begin():
                enqueue(connection, Message("orders", {"n": n}))
    took_s = time.monotonic() - started
    settled(app)
    with queue_of(broker_url, "outbox") as take:
        nudges = take()

    assert 1 <= len(nudges) <= 10 + took_s / 0.16


@pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)
def test_nudge_can_be_turned_off(engine, broker_url, shop):
    """With OUTBOX_NUDGE=false, and in Celery's eager mode, a commit sends nothing."""
    off, eager = shop(broker_url, nudge=False), shop(broker_url)
    eager.conf.task_always_eager = True
    commit(engine)
    settled(eager)

    assert installation._installed[off]._nudger()._thread is None
    with queue_of(broker_url, "outbox") as take:
        assert [] == take(0.2)


def test_commit_ignores_a_broker_that_is_away(engine, shop, monkeypatch, caplog):
    """Nothing is raised, one line a outage is logged, and the thread that commits touches no socket."""
    app = shop(UNREACHABLE)
    connecting = []
    connect = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda *args: (connecting.append(threading.current_thread().name), connect(*args))
    )
    for _ in range(5):
        commit(engine)
    settled(app)
    monkeypatch.setattr(installation._installed[app]._nudger(), "_exiting", True)
    commit(engine)
    settled(app)

    assert {"outbox-nudge"} == set(connecting)
    assert ["outbox.nudge_failed"] == events(caplog)
    assert "Connection refused" in caplog.records[-1].error


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_nudge_gives_up_on_a_silent_broker(scheme, engine, shop, caplog):
    """A broker that takes the connection and says nothing costs a background thread seconds, and nobody else any."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = shop(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}//")
        commit(engine)
        flushed_early = installation._installed[app]._nudger().flush(0.1)
        nudger = settled(app)

    assert not flushed_early, "an exit waits for it no longer than it is told to"
    assert nudger._failing
    assert ["outbox.nudge_failed"] == events(caplog)


def test_nudge_replaces_a_connection_that_was_closed(engine, gate, broker_url, shop, caplog):
    """Brokers and firewalls close idle connections: the next nudge goes over a new one, without a word."""
    app = shop(gate.url)
    commit(engine)
    settled(app)
    gate.cut()
    commit(engine)
    settled(app)
    with queue_of(broker_url, "outbox") as take:
        nudges = take()

    assert 2 == len(nudges)
    assert [] == events(caplog)


def test_nudge_resumes_when_the_broker_is_back(engine, gate, broker_url, shop, caplog):
    """One line when an outage begins, one when a nudge is the first to get through again."""
    caplog.set_level(logging.INFO, "outbox")
    app = shop(gate.url)
    gate.shut()
    commit(engine)
    settled(app)
    gate.open()
    commit(engine)
    settled(app)
    with queue_of(broker_url, "outbox") as take:
        nudges = take()

    assert 1 == len(nudges)
    assert ["outbox.nudge_failed", "outbox.nudge_resumed"] == events(caplog)


FORKING_SCRIPT = """
import os, sys
from celery import Celery
from sqlalchemy import create_engine
from outbox import Message, enqueue, prepare_sqlite
from outbox.celery import install

def commit():
    engine = create_engine(sys.argv[1])
    prepare_sqlite(engine)
    with engine.begin() as connection:
        enqueue(connection, Message("orders", "x"))
    engine.dispose()

install(Celery("shop", broker=sys.argv[2]))
commit()
child = os.fork()
commit()
if child:
    os.waitpid(child, 0)
"""


def test_nudge_survives_forks_and_exits(migrated_url, broker_url):
    """A script's last commit is announced although it exits at once, and a forked child's own commit by the child."""
    script = [sys.executable, "-c", FORKING_SCRIPT, migrated_url, broker_url]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    with queue_of(broker_url, "outbox") as take:
        nudges = take()

    assert (0, "") == (ended.returncode, ended.stderr)
    assert 2 <= len(nudges) <= 3
    assert 2 == len({one.headers["origin"] for one in nudges}), "each process sends its own"
