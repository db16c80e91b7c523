"""Real relay processes: one that dies of a row, and one that is told to stop."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from outbox import Message
from tests.emulator_process import emulator_process
from tests.relaying import history, rows, wait_until, write
from tests.reliability.relays import KEYS, cold_relay, compare, settings

POISON = "poison"

# Forks a relay, and another whenever one dies, until one ends well; prints how often they died.
_MORTAL = """
import os, sys
from sqlalchemy import create_engine
from outbox.retry import Policy
from tests.relaying import Scripted, drained, make_relay

def die(topic, body):
    if body == "poison":
        os._exit(1)

deaths = -1
code = 1
while code:
    deaths += 1
    pid = os.fork()
    if pid == 0:
        engine = create_engine(sys.argv[1])
        limits = {"lease_s": 0.4, "request_deadline_s": 0.05, "policy": Policy(max_attempts=2), "concurrency": 4}
        make_relay(engine, Scripted(die), **limits).run(drained(engine))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(deaths)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_row_that_kills_its_relay_is_failed_in_the_end(engine, migrated_url):
    """It takes others along twice, then dies alone until its attempts are used up; its 499 neighbours are sent."""
    write(engine, *(Message("orders", POISON if n == 100 else str(n)) for n in range(500)))
    command = [sys.executable, "-c", _MORTAL, migrated_url]
    root = Path(__file__).parents[2]
    deaths = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=50).stdout
    found = Counter((row.state, row.attempts) for row in rows(engine))
    (poison,) = rows(engine, body=POISON)

    assert int(deaths) == 4
    assert found == {("sent", 1): 499, ("failed", 2): 1}
    assert (poison.state, poison.crashes, poison.unknown_outcomes) == ("failed", 4, 4)
    assert poison.last_error_code == "Crashed"
    assert "Crashed" in [attempt.code for attempt in history(engine, poison.id)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_sigterm_stops_warmly(engine, migrated_url):
    """What is in flight is finished and marked, the rest is given back, and the process ends well."""
    write(engine, *(Message("orders", str(n)) for n in range(300)))
    with emulator_process(keys=KEYS) as emulator:
        emulator.faults({"fault": "slow", "rate": 1.0, "seconds": 0.2})
        process = cold_relay(settings(migrated_url, emulator.url, OUTBOX_LEASE_S=60))
        started = wait_until(lambda: emulator.ledger()["requests"] >= 20)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        errors = process.communicate(timeout=20)[1]
        took_s = time.monotonic() - begun
        found = compare(engine, emulator.ledger()["messages"])
    states = Counter(row.state for row in rows(engine))

    assert started, errors
    assert process.returncode == 0, errors
    assert took_s < 5
    assert found.leased == found.duplicates == found.unknown_outcomes == 0
    assert states["pending"] > 0
    assert len(found.lost) == states["pending"], "what the broker has must be marked"
