"""Keys change while messages flow: none is lost, none fails, none pays an attempt, and the lane hardly rests."""

import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select

from outbox import Message
from outbox.relay import Forever
from outbox.rocketmq import credentials
from outbox.settings import Settings
from outbox.table import messages, pauses
from outbox.wiring import Runtime
from tests.reliability.relays import compare, write

SECONDS = 3
pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])


@contextmanager
def relaying(url, **settings):
    """A relay in a thread of this process, until the block is left."""
    given = {"database_url": url, "batch_size": 20, "concurrency": 8, **settings}
    runtime = Runtime(Settings.from_mapping({key.upper(): value for key, value in given.items()}, prefix=""))
    relay = runtime.relay()
    thread = threading.Thread(target=relay.run, args=(Forever(),))
    thread.start()
    try:
        yield
    finally:
        relay.stop()
        thread.join()
        runtime.database.engine.dispose()


def keep_writing(engine, meanwhile):
    """Write messages for some seconds and call ``meanwhile`` ten times a second; then wait until all are sent."""
    longest_rest_s, last, sent = 0.0, time.monotonic(), 0
    started = time.monotonic()
    while time.monotonic() < started + SECONDS or sent < total(engine):
        if time.monotonic() < started + SECONDS:
            write(engine, [Message("orders", {"n": n}) for n in range(10)])
            meanwhile(time.monotonic() - started)
        time.sleep(0.1)
        if total(engine, "sent") > sent:
            sent, last = total(engine, "sent"), time.monotonic()
        longest_rest_s = max(longest_rest_s, time.monotonic() - last)
        assert time.monotonic() < started + 6 * SECONDS, f"{sent} of {total(engine)} rows are sent"
    return longest_rest_s


def total(engine, state=None):
    query = select(func.count()).select_from(messages)
    with engine.connect() as connection:
        return connection.scalar(query if state is None else query.where(messages.c.state == state))


def spent(engine):
    """The most attempts that any row took, and how many pauses are still there."""
    with engine.connect() as connection:
        most = connection.scalar(select(func.max(messages.c.attempts)))
        return most, connection.scalar(select(func.count()).select_from(pauses))


@pytest.fixture
def key_files(tmp_path):
    """A function that writes a key into files, as an orchestrator mounts them; and the settings that name these."""

    def put(turn):
        (tmp_path / "id").write_text(f"AKID{turn}\n")
        (tmp_path / "secret").write_text(f"SECRET-{turn}\n")

    put(1)
    return put, {"access_key_id_file": str(tmp_path / "id"), "access_key_secret_file": str(tmp_path / "secret")}


def test_rotate_keys_in_files(engine, migrated_url, emulator, key_files, monkeypatch):
    """The new key is let in, the files change, the old key ends some seconds later: not one request is refused."""
    monkeypatch.setattr(credentials, "REFRESH_S", 0.5)
    put, files = key_files
    emulator.change_keys({"AKID1": "SECRET-1", "FAKEAKID": None})
    steps = iter([(0.5, "AKID2"), (0.7, None), (2.0, "AKID1")])
    due = next(steps)

    def meanwhile(elapsed_s):
        nonlocal due
        if elapsed_s < due[0]:
            return
        match due[1]:
            case "AKID2":
                emulator.change_keys({"AKID2": "SECRET-2"})
            case None:
                put(2)
            case old:
                emulator.change_keys({old: None})
        due = next(steps, (SECONDS * 2, None))

    with relaying(migrated_url, endpoint=emulator.url, **files):
        rest_s = keep_writing(engine, meanwhile)
    ledger = emulator.ledger()

    assert compare(engine, ledger["messages"]).kept()
    assert len(ledger["messages"]) == ledger["requests"], "a request was refused"
    assert (1, 0) == spent(engine)
    assert rest_s < 2


def test_rotate_keys_without_notice(engine, migrated_url, emulator, key_files):
    """The old key ends and the files change at one moment: the lane rests for a second or two, and nothing pays."""
    put, files = key_files
    emulator.change_keys({"AKID1": "SECRET-1", "FAKEAKID": None})
    turn = 1

    def meanwhile(elapsed_s):
        nonlocal turn
        if turn <= elapsed_s < SECONDS - 0.5:
            turn += 1
            emulator.change_keys({f"AKID{turn}": f"SECRET-{turn}", f"AKID{turn - 1}": None})
            put(turn)

    with relaying(migrated_url, endpoint=emulator.url, **files):
        rest_s = keep_writing(engine, meanwhile)
    ledger = emulator.ledger()

    assert turn > 2
    assert compare(engine, ledger["messages"]).kept()
    assert len(ledger["messages"]) < ledger["requests"], "no request met the old key"
    assert (1, 0) == spent(engine)
    assert rest_s < 3


def test_refresh_temporary_keys_before_they_end(engine, migrated_url, emulator, monkeypatch):
    """Keys of a second's life, from a callable: each is replaced before it ends, and not one request is refused."""
    monkeypatch.setattr(credentials, "REFRESH_S", 0.05)
    monkeypatch.setattr(credentials, "EARLY_S", 0.5)
    issued = []
    emulator.change_keys({"FAKEAKID": None})

    def provide():
        turn = len(issued)
        issued.append(time.time() + 1)
        emulator.change_keys({f"STS.{turn}": f"SECRET-{turn}"})
        return {
            "access_key_id": f"STS.{turn}",
            "access_key_secret": f"SECRET-{turn}",
            "security_token": f"TOKEN-{turn}",
            "expires_at": issued[-1],
        }

    def meanwhile(_elapsed_s):
        emulator.change_keys({f"STS.{turn}": None for turn, ends in enumerate(issued) if ends < time.time()})

    with relaying(migrated_url, endpoint=emulator.url, credentials=provide):
        keep_writing(engine, meanwhile)
    ledger = emulator.ledger()

    assert 3 <= len(issued) <= 20
    assert compare(engine, ledger["messages"]).kept()
    assert len(ledger["messages"]) == ledger["requests"], "a request was refused"
    assert (1, 0) == spent(engine)
