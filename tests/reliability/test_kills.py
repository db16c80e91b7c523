"""Relays killed at random instants, with answers lost on top."""

import random
import time

import pytest

from outbox import Message
from tests.emulator_process import emulator_process
from tests.reliability.relays import KEYS, cold_relay, compare, drain, nursery, settings, write

ROWS = 2000
WARM_KILLS = 50
COLD_KILLS = 10
#: Both engines, each with a database of its own.
BOTH = pytest.mark.parametrize(
    ("database_kind", "http_engine"), [("postgresql", "curl"), ("mariadb", "requests"), ("sqlite", "curl")]
)
FAULTS = [{"fault": name, "rate": 0.03, "seed": 7} for name in ("accept_then_drop", "accept_then_500", "drop_before")]


def orders(count: int) -> list[Message]:
    """Half of them ordered by 50 keys, half not."""
    return [
        Message("orders", {"n": n}) if n % 2 else Message("steps", {"n": n}, ordering_key=f"key-{n // 2 % 50}")
        for n in range(count)
    ]


@pytest.mark.timeout(240)
@BOTH
def test_kill_loses_nothing(engine, migrated_url, http_engine):
    """Whatever instant a relay dies at: nothing is lost, altered or out of order, and every duplicate was counted."""
    write(engine, orders(ROWS))
    chance = random.Random(7)
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults(*FAULTS, {"fault": "slow", "rate": 1.0, "seconds": 0.005})
        limits = {"OUTBOX_BATCH_SIZE": 50, "OUTBOX_MAX_ATTEMPTS": 1000, "OUTBOX_HTTP_ENGINE": http_engine}
        environment = settings(migrated_url, emulator.url, **limits)
        with nursery(environment) as warm:
            for _ in range(3):
                warm.start()
            for _ in range(WARM_KILLS):
                time.sleep(chance.uniform(0.01, 0.25))
                warm.kill(chance.choice(warm.pids))
                warm.start()
        for _ in range(COLD_KILLS):
            with cold_relay(environment) as process:
                time.sleep(chance.uniform(0.7, 1.3))
                process.kill()
        emulator.clear_faults()
        drain(environment)
        found = compare(engine, emulator.ledger()["messages"])

    assert found.kept(), found
    assert found.rows == ROWS
    assert found.leased == 0
    assert found.unknown_outcomes > 0, "the faults must have been met, or this shows nothing"
