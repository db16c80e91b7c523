"""The endpoint is down, throttles or refuses the keys: rows pay nothing, other lanes go on, all is delivered soon."""

import os
import socket
import time
from contextlib import ExitStack

import pytest
from sqlalchemy import func, select

from outbox import Message
from outbox.table import messages
from tests.emulator_process import emulator_process
from tests.reliability.relays import KEYS, compare, nursery, settings, write

# A minute by hand: OUTBOX_TEST_OUTAGE_S=60 pytest tests/reliability/test_outages.py
OUTAGE_S = float(os.environ.get("OUTBOX_TEST_OUTAGE_S", "10"))
RECOVERED_WITHIN_S = 8
#: Both engines, each with a database of its own.
BOTH = pytest.mark.parametrize(
    ("database_kind", "http_engine"), [("postgresql", "curl"), ("mariadb", "requests"), ("sqlite", "curl")]
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spent(engine) -> tuple[int, int]:
    """The most attempts that any row in trouble has been charged, and how many rows have failed."""
    with engine.connect() as connection:
        charged = connection.scalar(select(func.max(messages.c.attempts)).where(messages.c.topic == "troubled"))
        failed = connection.scalar(select(func.count()).where(messages.c.state == "failed"))
    return charged or 0, failed or 0


def unsent(engine, topic: str) -> int:
    with engine.connect() as connection:
        query = select(func.count()).where(messages.c.topic == topic, messages.c.state != "sent")
        return connection.scalar(query) or 0


def wait_until(condition, within_s: float) -> float:
    """Seconds until the condition held; fails the test when it did not in time."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < within_s, f"not within {within_s} s"
        time.sleep(0.05)
    return time.monotonic() - start


def messages_of(topic: str, many: int, **more) -> list[Message]:
    return [Message(topic, {"n": n}, **more) for n in range(many)]


@pytest.mark.timeout(110 + OUTAGE_S)
@pytest.mark.parametrize("fault", ["refuse", "throttle", "unavailable"])
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_fault_of_the_endpoint_costs_no_attempt(engine, migrated_url, fault):
    """Ten seconds of refused keys, throttling or 503: no attempt charged, no row failed, other topics unharmed."""
    with emulator_process(keys=KEYS) as emulator, nursery(settings(migrated_url, emulator.url)) as warm:
        emulator.faults({"fault": fault, "rate": 1.0, "topic": "troubled"})
        write(engine, messages_of("troubled", 200))
        for _ in range(2):
            warm.start()
        until = time.monotonic() + OUTAGE_S
        turns = 0
        while time.monotonic() < until:
            write(engine, messages_of("other", 10))
            wait_until(lambda: unsent(engine, "other") == 0, 5)
            turns += 1
            time.sleep(0.5)
        during = spent(engine)
        emulator.clear_faults()
        wait_until(lambda: unsent(engine, "troubled") == 0, RECOVERED_WITHIN_S)
        found = compare(engine, emulator.ledger()["messages"])

    assert turns > 3, "the other topic must have gone on all the while"
    assert during == (0, 0)
    assert found.kept(), found
    assert found.duplicates == 0


@pytest.mark.timeout(110 + OUTAGE_S)
@BOTH
def test_endpoint_down_costs_no_attempt(engine, migrated_url, http_engine):
    """Ten seconds without anyone listening: no attempt charged, no row failed, delivered within eight seconds after."""
    port = free_port()
    environment = settings(migrated_url, f"http://127.0.0.1:{port}", OUTBOX_HTTP_ENGINE=http_engine)
    with nursery(environment) as warm, ExitStack() as later:
        write(engine, messages_of("troubled", 200))
        write(engine, [Message("steps", {"n": n}, ordering_key=f"key-{n % 5}") for n in range(50)])
        warm.start()
        time.sleep(OUTAGE_S)
        during = spent(engine)
        emulator = later.enter_context(emulator_process(keys=KEYS, port=port))
        wait_until(lambda: unsent(engine, "troubled") + unsent(engine, "steps") == 0, RECOVERED_WITHIN_S)
        found = compare(engine, emulator.ledger()["messages"])

    assert during == (0, 0)
    assert found.kept(), found
    assert found.unknown_outcomes == 0


@pytest.mark.timeout(110 + OUTAGE_S)
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_lost_answers_of_an_outage_burn_no_attempts(engine, migrated_url):
    """An endpoint that takes everything and answers nothing: a handful of rows pay once, the rest wait."""
    with emulator_process(keys=KEYS) as emulator, nursery(settings(migrated_url, emulator.url)) as warm:
        emulator.faults({"fault": "accept_then_500", "rate": 1.0})
        write(engine, messages_of("troubled", 200))
        warm.start()
        time.sleep(OUTAGE_S / 2)
        with engine.connect() as connection:
            charged = connection.scalar(select(func.sum(messages.c.attempts)))
        emulator.clear_faults()
        wait_until(lambda: unsent(engine, "troubled") == 0, RECOVERED_WITHIN_S)
        found = compare(engine, emulator.ledger()["messages"])

    assert charged <= 2 * 16, "at most what was in flight when the pause began"
    assert found.kept(), found
