"""Celery as the relay's clock: what is installed, and what the tasks do when they run in this process."""

import threading
import time
from multiprocessing import Pipe

import pytest
from celery import Celery
from sqlalchemy import func, select, update

from outbox import Message, after_commit, enqueue
from outbox.celery import install, installation, standalone
from outbox.errors import ConfigError
from outbox.settings import Settings
from outbox.table import db_after, messages
from tests.celery_workers import forgotten_installations, queue_of, wait_for
from tests.reliability.relays import compare, settings, write

pytestmark = pytest.mark.usefixtures("clean_installations")
on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
# SQLite has one writer, so that a claim waits for the commit by itself.
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture
def clean_installations():
    """What a test installs is gone after it."""
    with forgotten_installations():
        yield


@pytest.fixture
def make_shop(migrated_url, emulator):
    """A function to a Celery application that relays from `migrated_url` to `emulator`; more settings may be given."""

    def make(broker_url="memory://", longest_s=30.0, **more):
        app = Celery("shop", broker=broker_url, set_as_current=False)
        # The queues of memory:// are the whole process's: commits of other tests must not send anything there.
        given = Settings.from_env(settings(migrated_url, emulator.url, **{"OUTBOX_NUDGE": "false", **more}))
        installation.install_with(app, lambda: given, longest_s)
        return app

    return make


def run(app, task="outbox.relay", **arguments):
    """Run the task in this thread, as a worker would."""
    app.tasks[task].apply(kwargs=arguments, throw=True)


def sweeper_of(app):
    return installation._installed[app]._sweeper()


def count(engine, *where):
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).where(*where).select_from(messages))


def hold(engine):
    """Have another relay hold every row that there is, for long."""
    with engine.begin() as connection:
        connection.execute(update(messages).values(lease_token="another relay's", lease_until=db_after(3600)))


def orders(number):
    return [Message("orders", {"n": n}) for n in range(number)]


# --- what is installed --------------------------------------------------------------------------------------------

SHOP = {"shop.*": {"queue": "shop"}}
ROUTES = {
    "none": None,
    "dict": SHOP,
    "list": [SHOP, {"other": "others"}],
    "tuple": (SHOP,),
    "callable": lambda name, *_, **__: {"queue": "shop"} if name.startswith("shop.") else None,
}


def queue_for(app, task):
    return app.amqp.router.route({}, task)["queue"].name


@pytest.mark.parametrize("when", ["before", "configured", "finalized"])
@pytest.mark.parametrize("kind", ROUTES)
def test_install_routes_behind_the_applications_own(kind, when):
    """Whenever it is called and however the application routes: our tasks go to `outbox`, its own where they went."""
    app = Celery("shop", set_as_current=False)
    app.conf.task_routes = ROUTES[kind]
    if when == "configured":
        assert app.conf.task_default_queue == "celery"
    if when == "finalized":
        app.finalize()
    install(app, Settings())

    assert ["outbox"] * 3 == [queue_for(app, name) for name in ("outbox.relay", "outbox.check", "outbox.purge")]
    assert ("shop" if ROUTES[kind] else "celery") == queue_for(app, "shop.pack")


def test_install_routes_when_routes_are_set_late():
    """Routes that the application sets after its configuration was read do not send our tasks elsewhere."""
    app = Celery("shop", set_as_current=False)
    install(app, Settings())
    assert app.conf.task_default_queue == "celery"
    app.conf.task_routes = SHOP
    app.finalize()

    assert "outbox" == queue_for(app, "outbox.relay")
    assert "shop" == queue_for(app, "shop.pack")


def test_install_leaves_a_users_route_for_our_tasks():
    """An application that routes `outbox.relay` itself, by whatever pattern, has its way."""
    app = Celery("shop", set_as_current=False)
    app.conf.task_routes = {"outbox.*": {"queue": "slow"}}
    install(app, Settings())

    assert "slow" == queue_for(app, "outbox.relay")


def test_install_ticks_each_sweep_and_purges_hourly():
    """Beat's entries carry no data, and each expires when the next one is due."""
    app = Celery("shop", set_as_current=False)
    install(app, Settings(sweep_s=7))

    expected = {
        "outbox.relay": {"task": "outbox.relay", "schedule": 7.0, "options": {"expires": 7.0}},
        "outbox.check": {"task": "outbox.check", "schedule": 5.0, "options": {"expires": 5.0}},
        "outbox.purge": {"task": "outbox.purge", "schedule": 3600.0, "options": {"expires": 3600.0}},
    }
    assert expected == app.conf.beat_schedule


def test_install_leaves_a_users_beat_schedule():
    """The application's own entries stay, also one that has the name of ours."""
    mine = {"task": "outbox.relay", "schedule": 60}
    app = Celery("shop", set_as_current=False)
    app.conf.beat_schedule = {"outbox.relay": mine, "pack": {"task": "shop.pack", "schedule": 1}}
    install(app, Settings())

    assert mine == app.conf.beat_schedule["outbox.relay"]
    assert {"outbox.relay", "outbox.check", "outbox.purge", "pack"} == set(app.conf.beat_schedule)


def test_install_works_with_prefixed_settings():
    """A configuration whose keys have a prefix, as Django's have, is added to and read alike."""
    source = {"CELERY_TASK_ROUTES": SHOP, "CELERY_BEAT_SCHEDULE": {"pack": {"task": "shop.pack", "schedule": 1}}}
    app = Celery("shop", set_as_current=False)
    app.config_from_object(source, namespace="CELERY")
    install(app, Settings())

    assert ["outbox", "shop"] == [queue_for(app, name) for name in ("outbox.relay", "shop.pack")]
    assert {"outbox.relay", "outbox.check", "outbox.purge", "pack"} == set(app.conf.beat_schedule)


def test_install_changes_no_other_setting():
    """Of the application's configuration, routes and beat's schedule are all that differs."""
    plain, installed = (Celery("shop", set_as_current=False) for _ in range(2))
    install(installed, Settings())
    before, after = (dict(one.conf) for one in (plain, installed))

    assert {"task_routes", "beat_schedule"} == {key for key in after if before.get(key) != after[key]}


def test_install_twice_is_as_good_as_once():
    """A second call adds nothing: no route, no entry, no hook."""
    app = Celery("shop", set_as_current=False)
    install(app, Settings())
    app.finalize()
    once = (
        list(app.conf.task_routes),
        dict(app.conf.beat_schedule),
        set(app.steps["worker"]),
        list(after_commit._hooks),
    )
    install(app, Settings())

    assert once == (app.conf.task_routes, app.conf.beat_schedule, app.steps["worker"], after_commit._hooks)


def test_install_keeps_to_its_application():
    """Another Celery application in the same process gets none of our tasks."""
    install(Celery("shop", set_as_current=False), Settings())
    other = Celery("other", set_as_current=False)

    assert not [name for name in other.tasks if name.startswith("outbox.")]


@pytest.mark.parametrize("name", ["outbox.relay", "outbox.check", "outbox.purge"])
def test_tasks_are_acknowledged_late_and_keep_no_result(name):
    """A tick that a killed worker held comes back; results are nobody's business; only JSON is sent."""
    app = Celery("shop", set_as_current=False)
    install(app, Settings())
    task = app.tasks[name]

    assert (True, True, True) == (task.acks_late, task.reject_on_worker_lost, task.ignore_result)
    assert "json" == task.serializer


def test_standalone_names_the_missing_setting():
    """Without OUTBOX_BROKER_URL its configuration is an error that, uncaught, ends the process with one line."""
    with pytest.raises(ConfigError) as raised:
        standalone._configuration()

    assert "OUTBOX_BROKER_URL: missing; give Celery's broker, such as redis://host:6379/0" == str(raised.value)
    assert isinstance(raised.value, SystemExit)
    assert str(raised.value) == raised.value.code


@on_sqlite
def test_standalone_without_settings_lets_commits_be(engine, caplog):
    """Where the ready-made application cannot nudge, for want of settings, commits go on and one line says why."""
    app = Celery("outbox", set_as_current=False)
    installation.install_with(app, standalone._settings)
    for _ in range(3):
        with engine.begin() as connection:
            enqueue(connection, *orders(1))

    assert ["outbox.nudge_failed"] == [record.getMessage() for record in caplog.records]
    assert "OUTBOX_BROKER_URL: missing" in caplog.records[0].error


# --- what the tasks do --------------------------------------------------------------------------------------------


def test_relay_publishes_what_is_due(engine, emulator, make_shop):
    """One run delivers what is committed and leaves nothing leased, on every database."""
    app = make_shop()
    write(engine, orders(30))

    run(app)
    found = compare(engine, emulator.ledger()["messages"])

    assert found.kept()
    assert (30, 0, 0) == (found.rows, found.leased, found.duplicates)


@on_postgresql
def test_relay_looks_again_after_a_nudge(engine, emulator, make_shop):
    """A nudge that comes before its commit is visible still finds the row: the relay looks thrice more."""
    app = make_shop()
    with engine.begin() as connection:
        enqueue(connection, *orders(1))
        nudged = threading.Thread(target=run, args=(app,), kwargs={"nudged": True})
        nudged.start()
        time.sleep(0.05)
    nudged.join()

    assert 1 == count(engine, messages.c.state == "sent")


@on_sqlite
def test_relay_leaves_waiting_to_ticks(engine, make_shop):
    """After a nudge nobody waits for what is not due: nudges must not fill the pool with tasks that wait."""
    app = make_shop(OUTBOX_SWEEP_S=60)
    write(engine, orders(1))
    hold(engine)
    started = time.monotonic()

    run(app, nudged=True)

    assert time.monotonic() - started < 30
    assert 1 == count(engine, messages.c.state == "pending")


@on_sqlite
def test_relay_wakes_the_one_that_runs(engine, make_shop):
    """A second task in a process leaves the work to the relay that runs there already, which looks at once."""
    app = make_shop(OUTBOX_SWEEP_S=60)
    write(engine, orders(1))
    hold(engine)
    first = threading.Thread(target=run, args=(app,))
    first.start()
    assert wait_for(lambda: sweeper_of(app)._relay)
    relay = sweeper_of(app)._relay
    write(engine, orders(1))

    run(app)
    is_same = sweeper_of(app)._relay is relay
    arrived = wait_for(lambda: count(engine, messages.c.state == "sent"))
    run(app, nudged=True)
    first.join(30)

    assert is_same
    assert arrived
    assert not first.is_alive(), "a nudge ends the waiting: from then on the relay looks as after a nudge"


@on_postgresql
def test_relay_looks_again_after_a_nudge_while_it_runs(engine, make_shop):
    """A nudge before its commit is visible is not lost on a process whose relay is busy waiting for something else."""
    app = make_shop(OUTBOX_SWEEP_S=60)
    write(engine, orders(1))
    hold(engine)
    first = threading.Thread(target=run, args=(app,))
    first.start()
    assert wait_for(lambda: sweeper_of(app)._relay)
    with engine.begin() as connection:
        enqueue(connection, *orders(1))
        run(app, nudged=True)
        time.sleep(0.05)
    first.join()

    assert 1 == count(engine, messages.c.state == "sent")


@on_sqlite
def test_relay_ends_when_time_is_up(engine, emulator, make_shop):
    """A long backlog is left in peace after the longest time, nothing leased, and a nudge has it gone on with."""
    app = make_shop("memory://", longest_s=0.4, OUTBOX_BATCH_SIZE=10, OUTBOX_CONCURRENCY=2)
    emulator.fault("slow", rate=1.0, seconds=0.05)
    write(engine, orders(200))
    with queue_of("memory://", "outbox") as take:
        run(app)
        nudges = take()

    assert 0 < count(engine, messages.c.state == "sent") < 200
    assert 0 == count(engine, messages.c.lease_token.is_not(None))
    assert [{"nudged": True}] == [one.payload[1] for one in nudges]


@on_sqlite
def test_relay_ends_when_the_worker_is_told(engine, emulator, make_shop):
    """Told to stop, it finishes what is in flight, gives back the rest, and begins nothing more."""
    app = make_shop(OUTBOX_BATCH_SIZE=10, OUTBOX_CONCURRENCY=2)
    emulator.fault("slow", rate=1.0, seconds=0.05)
    write(engine, orders(200))
    told, tell = Pipe(duplex=False)
    with told, tell:
        threading.Timer(0.3, tell.send_bytes, (b"!",)).start()
        time_was_up = sweeper_of(app).sweep(told)
        sent = count(engine, messages.c.state == "sent")
        begun_again = sweeper_of(app).sweep(told)

    assert (False, False) == (time_was_up, begun_again)
    assert 0 < sent < 200
    assert sent == len(emulator.ledger()["messages"])
    assert 0 == count(engine, messages.c.lease_token.is_not(None))


@on_sqlite
@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("outbox.relay", {"nudged": "yes"}),
        ("outbox.relay", {"nudged": None}),
        ("outbox.relay", {"body": "x" * 100_000}),
        ("outbox.purge", {"older_than_s": 0}),
    ],
)
def test_task_refuses_other_arguments(task, arguments, engine, make_shop):
    """A forged task with arguments that are not ours does nothing at all."""
    app = make_shop(OUTBOX_RETENTION_S=0)
    write(engine, orders(2))
    with engine.begin() as connection:
        connection.execute(update(messages).where(messages.c.id == 1).values(state="sent", sent_at=db_after(-1)))

    with pytest.raises(TypeError):
        run(app, task, **arguments)
    assert (1, 1) == (count(engine, messages.c.state == "sent"), count(engine, messages.c.state == "pending"))


def test_purge_deletes_what_is_older_than_the_retention(engine, make_shop):
    """Finished rows past the retention go; younger and unfinished ones stay."""
    app = make_shop(OUTBOX_RETENTION_S=100)
    write(engine, orders(3))
    with engine.begin() as connection:
        old = update(messages).where(messages.c.id < 3).values(created_at=db_after(-500))
        connection.execute(old)
        connection.execute(update(messages).where(messages.c.id == 1).values(state="sent", sent_at=db_after(-200)))
        connection.execute(update(messages).where(messages.c.id == 3).values(state="sent", sent_at=db_after(-50)))

    run(app, "outbox.purge")

    with engine.connect() as connection:
        assert [2, 3] == connection.scalars(select(messages.c.id).order_by(messages.c.id)).all()


@on_sqlite
def test_purge_ends_when_the_worker_is_told(engine, make_shop):
    """A purge of many batches ends after the one that it is at."""
    app = make_shop(OUTBOX_RETENTION_S=1)
    write(engine, orders(2500))
    with engine.begin() as connection:
        connection.execute(update(messages).values(state="sent", created_at=db_after(-9), sent_at=db_after(-9)))
    told, tell = Pipe(duplex=False)
    with told, tell:
        tell.send_bytes(b"!")
        deleted = sweeper_of(app).purge(told)

    assert 1000 == deleted
    assert 1500 == count(engine)
