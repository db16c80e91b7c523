"""`outbox demo`, as a person runs it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# A small story on a broker that keeps some messages twice and forgets others, which no outbox can help.
ON_A_LYING_BROKER = """
from outbox.demo import story
from outbox.cli import main

story.ORDERS, story.REFUSED, story.RUSH, story.OUTAGE_AFTER, story.OUTAGE_S = 200, 20, 60, 150, 0.1
story.FAULTS |= {"same_message_id": 0.05, "amnesia": 0.05}
main()
"""


@pytest.fixture
def start(tmp_path):
    """A function that starts the demo with these options, in a directory for temporary files of its own."""
    processes = []

    def start(*options, program=("-m", "outbox.cli")):
        process = subprocess.Popen(
            [sys.executable, *program, "demo", *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end(process):
    """Its output, its errors, and its exit code."""
    output, errors = process.communicate(timeout=100)
    return output, errors, process.returncode


def relay_of(output):
    """The process id of the relay that the story is about."""
    return int(re.search(r"a relay starts, process (\d+)", output)[1])


def test_demo_keeps_every_promise_and_leaves_nothing(start, tmp_path):
    """One command, no settings: it exits 0, each promise was kept, and neither file nor process stays behind."""
    output, errors, code = end(start("--seed", "5"))
    kept = re.findall(r"^  kept  (.+?)  +(.+?) *$", output, re.MULTILINE)
    duplicates = int(re.search(r"(\d+) duplicates", output)[1])
    listed = output.partition("Delivered again")[2].partition("\n\n")[0]

    assert (0, "") == (code, errors), output
    assert 6 == len(kept)
    assert ("what commits is published", "900 committed, 900 delivered, 0 lost") == kept[0]
    assert ("what rolls back is not", "100 rolled back, 0 ghosts") == kept[1]
    assert ("order within each ordering key", "50/50 keys in order") == kept[5]
    assert "Every promise held." in output
    assert 0 < len(re.findall(r"…[0-9a-f]{8}", listed)) <= duplicates
    assert "\x1b" not in output
    assert [] == list(tmp_path.iterdir())
    assert not psutil.pid_exists(relay_of(output))


def test_demo_keeps_its_directory_when_asked(start, tmp_path):
    """With --keep the database stays, and what the demo says to type next works as it stands."""
    output, _, code = end(start("--keep"))
    (kept,) = tmp_path.iterdir()
    typed = output.partition("\nNext\n")[2]
    ran = subprocess.run(["bash", "-ec", typed], cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == code
    assert {"demo.log", "ledger.json", "outbox.sqlite"} == {file.name for file in kept.iterdir()}
    assert 3 == len(typed.splitlines())
    assert (0, "") == (ran.returncode, ran.stderr)
    assert 10 == len(re.findall(r"^\d+ +sent ", ran.stdout, re.MULTILINE))
    assert re.search(r"^unknown_outcomes +[1-9]", ran.stdout, re.MULTILINE)


def test_demo_fails_when_a_promise_breaks(start):
    """On a broker that lies the verdict says which promises broke, and the exit code is 1."""
    output, errors, code = end(start(program=("-c", ON_A_LYING_BROKER)))

    assert (1, "") == (code, errors), output
    assert re.search(r"broken  what commits is published +180 committed, \d+ delivered, [1-9]\d* lost", output)
    assert re.search(r"^  what commits is published: order-\d+", output, re.MULTILINE)
    assert re.search(r"^  every duplicate is accounted for: [0-9a-f-]{36}", output, re.MULTILINE)
    assert "no unknown outcome, " in output
    assert "Every promise held" not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_demo_ends_by_signal_and_leaves_nothing(start, tmp_path, number, code):
    """Ctrl-C and SIGTERM end it in the middle of the story, and nothing stays behind then either."""
    process = start()
    told = ""
    while "a relay starts" not in told:
        told += process.stdout.readline()
    process.send_signal(number)
    began = time.monotonic()
    _, errors, returned = end(process)

    assert (code, "") == (returned, errors)
    assert time.monotonic() - began < 10
    assert [] == list(tmp_path.iterdir())
    assert not psutil.pid_exists(relay_of(told))
