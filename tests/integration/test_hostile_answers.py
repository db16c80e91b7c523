"""Answers that are meant to use the client up: bounded in memory and time, with the outcome that the table states."""

import json
import subprocess
import sys

import pytest

from tests.emulator_process import emulator_process

# A process of its own, whose memory nothing else has made large before.
PROGRAM = """
import json, resource, sys, time
from outbox.rocketmq.client import Client
from outbox.rocketmq.engines import engine_named
from outbox.settings import Destination

destination = Destination(endpoint=sys.argv[1], access_key_id="FAKEAKID", access_key_secret="FAKESECRET")
client = Client(destination, engine_named(sys.argv[2]).transport(destination.endpoint, pool_size=1))
for topic in ["calm", *["struck"] * 3, "calm"]:
    started = time.monotonic()
    outcome = client.publish(topic, "body", None, "", deadline_s=30)
    fault = getattr(outcome, "fault", None)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = [type(outcome).__name__, fault and fault.code, fault and fault.accepted]
    print(json.dumps({"outcome": told, "memory": memory, "seconds": time.monotonic() - started}))
"""


@pytest.mark.parametrize(("fault", "code"), [("huge_body", "AnswerTooLarge"), ("many_headers", "UnreadableAnswer")])
def test_survive_an_answer_without_end(http_engine, fault, code):
    """A gigabyte of body or 100,000 headers: unknown, soon, in a few megabytes; the next publish is as good as ever."""
    with emulator_process() as emulator:
        emulator.faults({"fault": fault, "topic": "struck"})
        command = [sys.executable, "-c", PROGRAM, emulator.url, http_engine]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        taken = [message["topic"] for message in emulator.ledger()["messages"]]
    calm, *struck, after = map(json.loads, run.stdout.splitlines())

    assert [["Unknown", code, None]] * 3 == [one["outcome"] for one in struck]
    assert ["Sent", None, None] == calm["outcome"] == after["outcome"]
    assert ["calm", "struck", "struck", "struck", "calm"] == taken, "sent again, or not at all"
    assert max(one["seconds"] for one in struck) < 10
    assert after["memory"] - calm["memory"] < 10_000_000
