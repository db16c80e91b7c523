"""Relays and workers drain one database together."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from outbox import Message
from outbox.table import messages
from tests.emulator_process import emulator_process
from tests.reliability.relays import KEYS, cold_relay, compare, drain, nursery, settings, write

ROWS = 20_000
KEYS_IN_ORDER = 50


def celery_worker(environment: dict[str, str], name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "celery", "-A", "outbox.celery", "worker", "-B", "-Q", "outbox", "-c", "1"]
    options = ["-n", f"{name}@%h", "-l", "WARNING", "-s", str(Path(environment["TMPDIR"]) / f"beat-{name}")]
    return subprocess.Popen([*command, *options], env=environment, text=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_drain_together(engine, migrated_url, broker_url, tmp_path):
    """Three relay processes and two Celery workers: each row once, none lost, the order kept for 50 keys."""
    many = [Message("orders", {"n": n}) for n in range(ROWS // 2)]
    many += [Message("steps", {"n": n}, ordering_key=f"key-{n % KEYS_IN_ORDER}") for n in range(ROWS // 2)]
    write(engine, many)
    with emulator_process(keys=KEYS) as emulator:
        more = {"OUTBOX_REQUEST_TIMEOUT_S": 10, "OUTBOX_BROKER_URL": broker_url, "OUTBOX_SWEEP_S": 1}
        environment = settings(migrated_url, emulator.url, OUTBOX_LEASE_S=60, **more) | {"TMPDIR": str(tmp_path)}
        workers = [celery_worker(environment, name) for name in ("one", "two")]
        relays = [cold_relay(environment, "--drain") for _ in range(3)]
        errors = [relay.communicate(timeout=200)[1] for relay in relays]
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        endings = [worker.wait(30) for worker in workers]
        found = compare(engine, emulator.ledger()["messages"])

    assert [0, 0, 0] == [relay.returncode for relay in relays], errors
    assert endings == [0, 0]
    assert found.kept(), found
    assert (found.rows, found.duplicates, found.leased) == (ROWS, 0, 0)


@pytest.mark.timeout(120)
def test_lost_answers_lose_nothing(engine, migrated_url):
    """Five in a hundred answers dropped after acceptance: nothing lost, no duplicate that was not counted."""
    write(engine, [Message("orders", {"n": n}) for n in range(1000)])
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults({"fault": "accept_then_drop", "rate": 0.05, "seed": 5})
        drain(settings(migrated_url, emulator.url, OUTBOX_LEASE_S=60))
        found = compare(engine, emulator.ledger()["messages"])

    assert found.kept(), found
    assert 0 < found.duplicates <= found.unknown_outcomes


@pytest.mark.timeout(120)
def test_kill_in_mid_batch_returns_rows_after_the_lease(engine, migrated_url):
    """A relay killed with rows in hand: they are leased until the lease ends, then due again, and none is lost."""
    write(engine, [Message("orders", {"n": n}) for n in range(200)])
    leased = select(func.count()).where(messages.c.lease_token.is_not(None))
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults({"fault": "slow", "rate": 1.0, "seconds": 0.2})
        environment = settings(migrated_url, emulator.url)
        with nursery(environment) as warm:
            pid = warm.start()
            with engine.connect() as connection:
                for _ in range(100):
                    if connection.scalar(leased):
                        break
                    connection.rollback()
                    time.sleep(0.02)
            time.sleep(0.3)
            warm.kill(pid)
        with engine.connect() as connection:
            held = connection.scalar(leased)
        emulator.clear_faults()
        drain(environment)
        found = compare(engine, emulator.ledger()["messages"])

    assert held > 0
    assert found.kept(), found
    assert found.leased == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_no_transaction_is_open_while_a_request_is_in_flight(engine, migrated_url):
    """While sixteen requests stall at the broker, the relay's sessions in the database hold no transaction."""
    write(engine, [Message("orders", {"n": n}) for n in range(50)])
    open_transactions = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
    )
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults({"fault": "slow", "rate": 1.0, "seconds": 0.9})
        with nursery(settings(migrated_url, emulator.url)) as warm, engine.connect() as connection:
            warm.start()
            time.sleep(0.8)
            seen = []
            for _ in range(20):
                seen.append(connection.scalar(open_transactions))
                connection.rollback()
                time.sleep(0.02)
            requests = emulator.ledger()["requests"]

    assert requests >= 16
    # A look at the lanes may be caught in the act; what must not be is a transaction that stays.
    assert sorted(seen)[len(seen) // 2] == 0
