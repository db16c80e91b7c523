"""The emulator as users start it: `outbox emulator` with its keys from the environment, one for all tests of a run."""

import os
import subprocess
import sys

import pytest

from tests.emulator_process import EmulatorProcess

KEYS = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}


@pytest.fixture(scope="session")
def emulator_command():
    """The running command."""
    command = [sys.executable, "-m", "outbox.cli", "emulator", "--port", "0"]
    bare = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    with subprocess.Popen(command, env=bare | KEYS, stdout=subprocess.PIPE, text=True) as process:
        running = EmulatorProcess(process, process.stdout.readline().strip().removeprefix("listening on "))
        yield running
        running.stop()


@pytest.fixture
def emulator(emulator_command):
    """The same for each test, without anything of the tests before."""
    emulator_command.begin_anew()
    return emulator_command
