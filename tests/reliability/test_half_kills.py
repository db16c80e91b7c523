"""Relays and checkers of half messages killed at random instants, while every answer may be lost, before or after."""

import os
import random
import time

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from outbox import Message
from outbox.migrate import upgrade
from tests.database_servers import database_server, is_installed
from tests.emulator_process import emulator_process
from tests.reliability.checkers import cold, compare, make_older, nursery, until_pending, until_sent
from tests.reliability.relays import KEYS, settings, write

ROWS = 2000
# Three hundred by hand: OUTBOX_TEST_KILLS=300 pytest tests/reliability/test_half_kills.py
KILLS = int(os.environ.get("OUTBOX_TEST_KILLS", "60"))
COLD_KILLS = KILLS // 6
WARM_KILLS = KILLS - COLD_KILLS
#: Of a database server.
RESTARTS = 3
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


@pytest.fixture
def server(request):
    """A database server of the test's own, with the current schema; skipped, or failed under CI=true, without one."""
    kind = request.param
    if not is_installed(kind):
        missing = f"no programs of a {kind} server"
        pytest.fail(missing, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(missing)
    with database_server(kind) as started:
        yield started


@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["postgresql", "mariadb"], indirect=True)
def test_database_that_is_killed_in_mid_flight_costs_no_message(server):
    """Three times the server ends where it stands and comes back, like all that was committed: none too many or few."""
    engine = create_engine(server.url, poolclass=NullPool, isolation_level="READ COMMITTED")
    upgrade(engine)
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults(*FAULTS, *PERSONALITIES["hostile"])
        url = server.url.render_as_string(hide_password=False)
        environment = settings(
            url, emulator.url, OUTBOX_BATCH_SIZE=50, OUTBOX_MAX_ATTEMPTS=1000, OUTBOX_GROUP_ID="GID_orders"
        )
        under_way = []
        with nursery(environment) as warm:
            for kind in ("relay", "relay", "check", "check"):
                warm.start(kind)
            for _ in range(RESTARTS):
                write(
                    engine, [Message("orders", {"n": n}, transaction_check_s=10) for n in range(ROWS // 2 // RESTARTS)]
                )
                under_way.append(until_pending(engine, below=ROWS // 2 // RESTARTS))
                server.kill()
                server.start()
            until_pending(engine, below=1)
            # What silence proves while polls fail is shown above; here it would take its time, as check times would.
            emulator.clear_faults()
            emulator.faults(*PERSONALITIES["hostile"])
            emulator.advance(20.0)
            make_older(engine, seconds=20.0)
            in_time = until_sent(engine, emulator.advance, within_s=60)
        found = compare(engine, emulator.ledger()["messages"])

    assert in_time, found
    assert found.kept(), found
    assert any(one.keys() & {"pending", "committing"} for one in under_way), "it must have been in mid-flight"
