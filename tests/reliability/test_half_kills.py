"""Relays and checkers of half messages killed at random instants, while every answer may be lost, before or after."""

import os
import random
import time

import pytest
from sqlalchemy import text

from outbox import Message
from tests.emulator_process import emulator_process
from tests.reliability.checkers import cold, compare, nursery, until_sent
from tests.reliability.relays import KEYS, settings, write

ROWS = 2000
# Three hundred by hand: OUTBOX_TEST_KILLS=300 pytest tests/reliability/test_half_kills.py
KILLS = int(os.environ.get("OUTBOX_TEST_KILLS", "60"))
COLD_KILLS = KILLS // 6
WARM_KILLS = KILLS - COLD_KILLS
LOST = ("accept_then_drop", "accept_then_500", "drop_before")
FAULTS = [
    *({"fault": name, "op": op, "rate": 0.03, "seed": 7} for name in LOST for op in ("publish", "check", "rollback")),
    *({"fault": name, "rate": 0.03, "seed": 7} for name in ("lost_commit", "commit_dropped_before")),
    {"fault": "accept_then_500", "op": "commit", "rate": 0.03, "seed": 7},
    *({"fault": "slow", "op": op, "rate": 1.0, "seconds": 0.01} for op in ("publish", "commit")),
]


#: How the broker behaves beside: whoever sends a commit twice on a handle that is still valid is found out; or, as an
#: open-source broker that checks in rounds of its own, it asks too early or says that it has nothing to ask.
PERSONALITIES = {
    "hostile": [{"fault": "hostile", "rate": 1.0}],
    "open source": [{"fault": "early_check", "rate": 0.05, "seed": 7}, {"fault": "empty", "rate": 0.05, "seed": 7}],
}


@pytest.mark.timeout(300 + KILLS)
@pytest.mark.parametrize(
    ("personality", "database_kind"),
    [*(("hostile", kind) for kind in ("postgresql", "mariadb", "sqlite")), ("open source", "postgresql")],
)
def test_kill_commits_one_half_message_of_each_row(engine, migrated_url, personality):
    """Whatever instant a relay or a checker dies at, whichever answers are lost: every row sent, each visible once."""
    write(engine, [Message("orders", {"n": n}, transaction_check_s=10) for n in range(ROWS)])
    chance = random.Random(7)
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults(*FAULTS, *PERSONALITIES[personality])
        environment = settings(
            migrated_url, emulator.url, OUTBOX_BATCH_SIZE=50, OUTBOX_MAX_ATTEMPTS=1000, OUTBOX_GROUP_ID="GID_orders"
        )
        with nursery(environment) as warm:
            for kind in ("relay", "relay", "relay", "check", "check"):
                warm.start(kind)
            for _ in range(WARM_KILLS):
                time.sleep(chance.uniform(0.05, 0.35))
                emulator.advance(chance.uniform(0.0, 1.0))
                warm.start(warm.kill(chance.choice(list(warm.kinds))))
            for number in range(COLD_KILLS):
                with cold(environment, ("relay", "check")[number % 2]) as process:
                    time.sleep(chance.uniform(0.7, 1.3))
                    emulator.advance(1.0)
                    process.kill()
            in_time = until_sent(engine, emulator.advance, within_s=120)
        found = compare(engine, emulator.ledger()["messages"])

    assert found.canary_check_s <= {"10"}, "a canary with its full window holds up everybody's proof"
    assert in_time, found
    assert found.kept(), found
    assert found.rows == ROWS
    assert found.halves > ROWS, "faults must have cost half messages, or this shows nothing"
    assert set(found.by) == {"answer", "silence"}, "both ways of being sent must have been met"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_database_that_restarts_in_mid_flight_costs_no_message(engine, migrated_url):
    """Every connection ends at once, whatever it was doing, as when the server restarts: no commit too many or few."""
    sever = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    write(engine, [Message("orders", {"n": n}, transaction_check_s=10) for n in range(ROWS // 4)])
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults(*FAULTS, *PERSONALITIES["hostile"])
        environment = settings(
            migrated_url, emulator.url, OUTBOX_BATCH_SIZE=50, OUTBOX_MAX_ATTEMPTS=1000, OUTBOX_GROUP_ID="GID_orders"
        )
        severed = 0
        with nursery(environment) as warm:
            for kind in ("relay", "relay", "check"):
                warm.start(kind)
            for _ in range(8):
                time.sleep(0.4)
                emulator.advance(1.0)
                with engine.connect() as connection:
                    severed += connection.scalar(sever)
            in_time = until_sent(engine, emulator.advance, within_s=60)
        found = compare(engine, emulator.ledger()["messages"])

    assert in_time, found
    assert found.kept(), found
    assert severed > 10, "they must have been at work, or this shows nothing"
