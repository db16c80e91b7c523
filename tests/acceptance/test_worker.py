"""Real workers on real brokers: `celery worker` is started, told to stop, killed, and given nonsense."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from celery import Celery
from kombu import Connection
from sqlalchemy import func, select, text

from outbox import Message, enqueue
from outbox.celery import install
from outbox.settings import Settings
from outbox.table import messages
from tests.celery_workers import forgotten_installations, wait_for, worker
from tests.emulator_process import emulator_process
from tests.reliability.relays import compare, settings, write

PROJECT = str(Path(__file__).parents[2])

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
on_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
on_rabbitmq = pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)

# An application such as a user's, whose main process relayed before the pool forks.
SHOP = """
from celery import Celery
from outbox.celery import install

app = Celery("shop", broker={broker_url!r})
install(app)
app.tasks["outbox.relay"]()
"""


@pytest.fixture
def broker():
    """The emulator, in a process of its own."""
    with emulator_process() as running:
        yield running


@pytest.fixture
def start(migrated_url, broker, broker_url, tmp_path):
    """A function to a running worker: ``(*options, app="outbox.celery", name="one", **settings)``."""

    def start(*options, app="outbox.celery", name="one", **more):
        patient = {"OUTBOX_LEASE_S": 60, "OUTBOX_REQUEST_TIMEOUT_S": 10}
        given = settings(migrated_url, broker.url, OUTBOX_BROKER_URL=broker_url, **patient | more)
        return worker(given | {"PYTHONPATH": f"{PROJECT}:{tmp_path}"}, tmp_path, *options, app=app, name=name)

    return start


@pytest.fixture
def commit(engine, broker_url):
    """A function that enqueues messages in one committed transaction of an application which nudges."""
    with forgotten_installations():
        install(Celery("shop", broker=broker_url, set_as_current=False), Settings())

        def commit(*bodies):
            with engine.begin() as connection:
                enqueue(connection, *(Message("orders", body) for body in bodies))

        yield commit


def orders(number):
    return [Message("orders", {"n": n}) for n in range(number)]


def leased(engine):
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).where(messages.c.lease_token.is_not(None)))


def last_used(engine, pid):
    """When each of the connections to PostgreSQL that this process holds was last used, by whichever process."""
    peers = psutil.Process(pid).net_connections()
    ports = [one.laddr.port for one in peers if one.raddr and one.raddr.port == engine.url.port]
    query = text("SELECT client_port, state_change FROM pg_stat_activity WHERE client_port = ANY(:ports)")
    with engine.connect() as connection:
        return dict(connection.execute(query, {"ports": ports}).all())


@on_postgresql
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_worker_delivers_after_a_nudge(pool, engine, start, broker, commit):
    """Each commit is announced and arrives, without any beat."""
    with start("-P", pool, "-c", "2") as running:
        for n in range(1, 6):
            commit(f"{n}-a", f"{n}-b")
            assert wait_for(lambda so_far=n: len(broker.ledger()["messages"]) == 2 * so_far), running.log
        code = running.stop()

    assert 0 == code
    assert 1 <= running.tasks("outbox.relay")
    found = compare(engine, broker.ledger()["messages"])
    assert found.kept()
    assert (10, 0, 0) == (found.rows, found.leased, found.duplicates)


@on_postgresql
@on_rabbitmq
def test_worker_forks_without_its_connections(engine, start, broker, broker_url, tmp_path):
    """Forked from a process that has relayed already, the pool's processes never touch the connections of that one."""
    (tmp_path / "shop.py").write_text(SHOP.format(broker_url=broker_url))
    write(engine, orders(10))
    shop = Celery(broker=broker_url, set_as_current=False)
    with start("-Q", "outbox", "-c", "4", app="shop", OUTBOX_BATCH_SIZE=5) as running:
        before = last_used(engine, running.process.pid)
        write(engine, orders(500))
        for _ in range(20):
            shop.send_task("outbox.relay", queue="outbox")
        assert wait_for(lambda: running.log.count("succeeded in") == 20), running.log
        after = last_used(engine, running.process.pid)

    assert before
    assert before == after
    assert "Traceback" not in running.log
    found = compare(engine, broker.ledger()["messages"])
    assert found.kept()
    assert (510, 0, 0) == (found.rows, found.leased, found.duplicates)


@on_postgresql
@on_redis
def test_workers_share_a_backlog(engine, start, broker, tmp_path):
    """Two workers, each with a beat too many and two processes, deliver every row once."""
    broker.faults({"fault": "slow", "rate": 1.0, "seconds": 0.005})
    given = {"OUTBOX_SWEEP_S": 0.5, "OUTBOX_BATCH_SIZE": 50}
    write(engine, orders(2000))
    with (
        start("-B", "-c", "2", name="one", **given) as one,
        start("-B", "-c", "2", name="two", **given) as two,
    ):
        drained = wait_for(lambda: len(broker.ledger()["messages"]) >= 2000)
        codes = one.stop(), two.stop()

    assert drained
    assert (0, 0) == codes
    found = compare(engine, broker.ledger()["messages"])
    assert found.kept()
    assert (2000, 0, 0) == (found.rows, found.leased, found.duplicates)
    assert not list(tmp_path.glob("celerybeat*")), "beat leaves no file behind"


STOPS = {
    "term-prefork": ("prefork", signal.SIGTERM, {}),
    "term-solo": ("solo", signal.SIGTERM, {}),
    "soft": ("prefork", signal.SIGTERM, {"REMAP_SIGTERM": "SIGQUIT"}),
}


@on_postgresql
@pytest.mark.parametrize("how", STOPS)
@on_rabbitmq
def test_worker_leaves_no_lease(how, engine, start, broker, tmp_path):
    """Told to end in the middle of a long backlog, it ends soon, and all that it held is free for others."""
    pool, number, more = STOPS[how]
    broker.faults({"fault": "slow", "rate": 1.0, "seconds": 0.05})
    (tmp_path / "soft.py").write_text("from outbox.celery import app\napp.conf.worker_soft_shutdown_timeout = 3\n")
    write(engine, orders(5000))
    given = {"OUTBOX_SWEEP_S": 0.5, "OUTBOX_LEASE_S": 600, **more}
    app = "soft" if how == "soft" else "outbox.celery"
    with start("-B", "-c", "2", "-P", pool, app=app, **given) as running:
        assert wait_for(lambda: len(broker.ledger()["messages"]) >= 100), running.log
        running.stop(number, timeout_s=20)

    found = compare(engine, broker.ledger()["messages"])
    assert "succeeded in" in running.log, "the task ended by itself"
    assert 0 == found.leased
    assert 0 < len(found.unfinished) < 5000
    assert len(found.lost) == len(found.unfinished), "what was published is marked"


@on_postgresql
@on_rabbitmq
def test_worker_killed_loses_nothing(engine, start, broker):
    """What a killed worker held is due again when its lease is over, and another delivers it."""
    broker.faults({"fault": "slow", "rate": 1.0, "seconds": 0.05})
    write(engine, orders(400))
    given = {"OUTBOX_SWEEP_S": 0.5, "OUTBOX_LEASE_S": 3, "OUTBOX_REQUEST_TIMEOUT_S": 1}
    with start("-B", "-c", "2", name="killed", **given) as running:
        assert wait_for(lambda: len(broker.ledger()["messages"]) >= 100), running.log
        running.kill()
    held = leased(engine)
    broker.clear_faults()
    with start("-B", "-c", "2", name="next", **given) as running:
        finished = wait_for(lambda: not compare(engine, []).unfinished)
        code = running.stop()

    assert held > 0
    assert finished
    assert 0 == code
    found = compare(engine, broker.ledger()["messages"])
    assert found.kept()
    assert 0 == found.leased


@on_postgresql
@on_redis
def test_worker_withstands_nonsense(start, broker, broker_url, commit, tmp_path):
    """Pickles, garbage and other arguments do nothing, and the next nudge is obeyed."""
    trap = tmp_path / "sprung"
    with start("-P", "threads", "-c", "1") as running:
        with Connection(broker_url) as connection, connection.SimpleQueue("outbox") as queue:
            for body, kind in (
                (pickle.dumps(_Trap(trap)), "application/x-python-serialize"),
                (b"\x80{", "application/json"),
            ):
                queue.put(
                    body, content_type=kind, content_encoding="binary", headers={"task": "outbox.relay", "id": "x"}
                )
        app = Celery(broker=broker_url, set_as_current=False)
        app.send_task("outbox.relay", kwargs={"database_url": "sqlite://"}, queue="outbox")
        app.send_task("outbox.relay", args=[True], queue="outbox")
        app.send_task("outbox.relay", kwargs={"nudged": "x" * 1_000_000}, queue="outbox")
        commit("after the nonsense")
        arrived = wait_for(lambda: len(broker.ledger()["messages"]) == 1)
        code = running.stop()

    assert arrived, running.log
    assert 0 == code
    assert not trap.exists()


class _Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


BROKERS = {
    "foo://host": "no URL that Celery knows; give one such as redis://host:6379/0",
    "amqp://guest:wrong@127.0.0.1:5672//": "the broker refuses it (AccessRefused); check user, password and",
    "amqp://guest:guest@127.0.0.1:5672/nowhere": "the broker refuses it (NotAllowed); check user, password and",
}


@pytest.mark.parametrize("url", BROKERS)
def test_worker_tells_of_a_broker_that_cannot_be_used(url, need):
    """What Celery would tell in a traceback, and then end as if all were well, is a line and exit code 1."""
    need("rabbitmq")
    command = [sys.executable, "-m", "outbox.cli", "worker"]
    given = {"OUTBOX_BROKER_URL": url, "PATH": os.environ["PATH"]}
    ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)

    assert (1, "", 1) == (ended.returncode, ended.stdout, ended.stderr.count("\n"))
    assert ended.stderr.startswith(f"error: OUTBOX_BROKER_URL: {BROKERS[url]}")


@on_redis
def test_worker_that_is_killed_takes_its_beat_along(broker_url, tmp_path):
    """A beat that is left behind would send ticks for ever, beside the next worker's."""
    command = [sys.executable, "-m", "outbox.cli", "worker", "--pool", "solo"]
    given = {
        "OUTBOX_BROKER_URL": broker_url,
        "OUTBOX_SWEEP_S": "0.3",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PROJECT,
    }
    with (tmp_path / "log").open("w+") as log, subprocess.Popen(command, env=given, stdout=log, stderr=log) as process:
        try:
            has_begun = wait_for(lambda: "outbox.task_failed" in Path(log.name).read_text())
            beats = psutil.Process(process.pid).children()
        finally:
            process.kill()

    assert (True, 1) == (has_begun, len(beats))
    assert wait_for(lambda: not beats[0].is_running() or beats[0].status() == psutil.STATUS_ZOMBIE)
    told = Path(log.name).read_text()
    assert "outbox.task_failed task=outbox.relay error=OUTBOX_DATABASE_URL: missing; give an SQLAlchemy URL" in told
    assert "Traceback" not in told


def test_standalone_says_what_is_missing(tmp_path):
    """`celery -A outbox.celery` without a broker ends with one line that names the setting."""
    command = [sys.executable, "-m", "celery", "-A", "outbox.celery", "worker", "-B"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": PROJECT}, capture_output=True, text=True, timeout=60, check=False
    )

    assert 1 == ended.returncode
    assert "OUTBOX_BROKER_URL: missing; give Celery's broker, such as redis://host:6379/0\n" == ended.stderr
