"""The program `outbox` as a person or a supervisor runs it: processes, pipes, terminals and signals."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox import __version__
from tests.commands import KEYS, Commands
from tests.emulator_api import ApiClient
from tests.emulator_process import EmulatorProcess

# The keys that interrupt work only on the terminal that a process has taken for its own.
TAKE_THE_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
PROGRAM = [sys.executable, "-m", "outbox.cli"]
BODY = "  <b>]]></b> & \r\n\t💡 \x7f\u2028 [bold]x[/] \n"
SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])[;m]")


class Program:
    """Runs the program with these settings in its environment."""

    def __init__(self, **settings):
        self.environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm-256color", **settings}

    def __call__(self, *arguments, given=b"", **changes):
        """Run one command to its end; bytes in, bytes out."""
        command = [*PROGRAM, *map(str, arguments)]
        return subprocess.run(command, env=self.environment | changes, input=given, capture_output=True, check=False)

    @contextmanager
    def running(self, *arguments):
        """A command that runs until it is told to end."""
        command = [*PROGRAM, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=self.environment, text=True, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def on_a_terminal(self, *arguments, typed="", **changes):
        """Run one command on a terminal of its own; returns its exit code and what the terminal was sent."""
        master, slave = pty.openpty()
        command = [sys.executable, "-c", TAKE_THE_TERMINAL, *PROGRAM[1:], *map(str, arguments)]
        terminal = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
        with subprocess.Popen(command, env=self.environment | changes, **terminal) as process:
            os.close(slave)
            try:
                shown = _talk_to(master, typed)
            finally:
                os.close(master)
                process.kill()
        return process.returncode, shown.decode()


def _talk_to(terminal, typed):
    """What is shown to the end; the answer is typed once something is asked."""
    shown = b""
    while more := _read(terminal):
        shown += more
        while typed and shown.endswith(b"[y/N]: ") and not select.select([terminal], [], [], 0.2)[0]:
            # Again and again: an interrupt between the question and the read is noticed with the next one only.
            os.write(terminal, typed.encode())
    return shown


def _read(terminal):
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the last who had it open is gone
        return b""


def wait_until(condition, seconds=60):
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def settings(migrated_url, emulator):
    """A migrated database, with the emulator as the broker."""
    return {"OUTBOX_DATABASE_URL": migrated_url, "OUTBOX_ENDPOINT": emulator.url, **KEYS}


@pytest.fixture
def outbox(settings):
    """The program."""
    return Program(**settings)


@pytest.fixture
def run(settings):
    """The same commands in this process, for what a test needs around the program."""
    return Commands(settings)


# --- from nothing to a published message --------------------------------------------------------------------------


@SQLITE
def test_first_steps(database_url):
    """Migrate, start the emulator, enqueue, drain, look: each step by the program alone, each byte as it was given."""
    with Program(**KEYS).running("emulator", "--port", "0") as process:
        first_line = process.stdout.readline()
        url = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", first_line)[1]
        outbox = Program(OUTBOX_DATABASE_URL=database_url, OUTBOX_ENDPOINT=url, **KEYS)
        steps = [
            outbox("migrate"),
            outbox("enqueue", "--topic", "orders", "--key", "order-7", "-", given=BODY.encode()),
            outbox("relay", "--drain"),
        ]
        with urllib.request.urlopen(f"{url}/_emulator/ledger") as answer:
            (published,) = json.load(answer)["messages"]
        shown = json.loads(outbox("show", "1", "--json").stdout)
        process.send_signal(signal.SIGTERM)
        banner = process.communicate()[1]

    assert [(0, b""), (0, b"1\n"), (0, b"")] == [(step.returncode, step.stdout) for step in steps], steps
    assert b"sent 1, failed 0, retried 0\n" == steps[2].stderr
    assert [BODY, BODY] == [published["body"], shown["body"]]
    assert ("sent", published["message_id"]) == (shown["state"], shown["message_id"])
    assert (0, True) == (process.returncode, "emulator" in banner)


def test_emulator_redelivers_as_told():
    """When and how often a message comes again is set on the command line; then it is a dead letter."""
    options = ("--redelivery-s", "7", "--ordered-redelivery-s", "5", "--max-redeliveries", "1")
    with Program(**KEYS).running("emulator", "--port", "0", *options) as process:
        emulator = EmulatorProcess(process, process.stdout.readline().strip().removeprefix("listening on "))
        with ApiClient(emulator.url, *KEYS.values()) as client:
            client.publish("orders", "a")
            deliveries = []
            for trans in (None, None, None, "order"):
                deliveries += [client.consume("orders", f"GID_{trans}", trans=trans).messages]
                emulator.advance(7)
        with urllib.request.urlopen(f"{emulator.url}/_emulator/dead_letters") as answer:
            dead = json.load(answer)["messages"]

    waits = [int(one["NextConsumeTime"]) - int(one["FirstConsumeTime"]) for messages in deliveries for one in messages]
    assert [1, 1, 0, 1] == [len(messages) for messages in deliveries]
    assert [7000, 14_000, 5000] == [pytest.approx(wait_ms, abs=1000) for wait_ms in waits]
    assert ["GID_None"] == [one["group"] for one in dead]


def test_version_is_told():
    """The program says which version it is."""
    assert f"outbox, version {__version__}\n".encode() == Program()("--version").stdout


# --- pipes --------------------------------------------------------------------------------------------------------


@SQLITE
def test_reader_may_end_first(outbox, run):
    """Who reads only the first line, as head does, causes no error."""
    run("enqueue", "--jsonl", "-", given='{"topic": "orders", "body": "x"}\n' * 3000)
    with outbox.running("list", "--limit", 3000) as process:
        first = process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        process.wait()

    assert first.startswith("id ")
    assert "" == told


@SQLITE
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_is_told(outbox, unbuffered):
    """Output that cannot be written is one line on stderr."""
    environment = outbox.environment | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        command = [*PROGRAM, "list"]
        result = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)

    assert (1, b"error: No space left on device\n") == (result.returncode, result.stderr)


@SQLITE
@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}])
def test_any_locale_will_do(outbox, run, locale):
    """Bodies stay what they are, and what a locale cannot show is spelled out."""
    enqueued = outbox("enqueue", "--topic", "orders", "-", given=BODY.encode(), **locale)
    shown = outbox("show", "1", **locale)

    assert (0, b"1\n", 0) == (enqueued.returncode, enqueued.stdout, shown.returncode), enqueued
    assert BODY == run.json("show", 1)["body"]
    assert b"\\x7f" in shown.stdout


@SQLITE
def test_argument_that_is_not_utf_8_is_told(outbox, run):
    """Bytes that are no text are refused in one line, and nothing is enqueued."""
    command = [*PROGRAM, "enqueue", "--topic", "orders", b"caf\xe9"]
    result = subprocess.run(command, env=outbox.environment, capture_output=True, check=False)

    assert (1, b"", 1) == (result.returncode, result.stdout, result.stderr.count(b"\n"))
    assert result.stderr.startswith(b"error: body: ")
    assert 0 == run.count()


# --- terminals ----------------------------------------------------------------------------------------------------

DEEDS = {
    "no": ("n\n", 1, "failed"),
    "nothing": ("\n", 1, "failed"),
    "Ctrl-C": ("\x03", 130, "failed"),
    "yes": ("y\n", 0, "pending"),
}


@SQLITE
@pytest.mark.parametrize("answer", DEEDS)
def test_terminal_is_asked_before_a_deed(outbox, run, answer):
    """On a terminal nothing is replayed without a yes."""
    typed, code, state = DEEDS[answer]
    row_id = run.enqueue(state="failed")
    exit_code, shown = outbox.on_a_terminal("replay", "--state", "failed", typed=typed)

    assert (code, {row_id: state}) == (exit_code, run.states())
    assert "1 message to replay" in shown
    assert "Replay 1 message? [y/N]" in shown


@SQLITE
def test_terminal_is_not_asked_with_yes(outbox, run):
    """--yes is the answer in advance."""
    row_id = run.enqueue(state="failed")
    exit_code, shown = outbox.on_a_terminal("discard", row_id, "--yes")

    assert (0, {row_id: "discarded"}) == (exit_code, run.states())
    assert "[y/N]" not in shown


@SQLITE
def test_terminal_gets_a_bar(outbox, run):
    """People see a moving bar, in colours unless NO_COLOR says otherwise."""
    run.enqueue()
    run.enqueue()
    _, bar = outbox.on_a_terminal("relay", "--drain")
    run.enqueue()
    _, plain_bar = outbox.on_a_terminal("relay", "--drain", NO_COLOR="1")

    assert "2/2" in bar
    assert "sent 2, failed 0, retried 0" in bar
    assert COLOUR.search(bar)
    assert "1/1" in plain_bar
    assert not COLOUR.search(plain_bar)


@SQLITE
def test_terminal_gets_a_table(outbox, run):
    """People see a table with lines, programs aligned text; a stored text is inert in both."""
    run.enqueue(last_error_code="X", last_error="[bold red]\x1b[31mx[/]")
    _, table = outbox.on_a_terminal("list")

    assert "│" in table
    assert r"[bold red]\x1b[31mx[/]" in table
    assert not COLOUR.search(table)
    assert "│" not in run("list").stdout


# --- signals ------------------------------------------------------------------------------------------------------


@pytest.fixture
def relay(outbox, run, emulator):
    """A relay that has published a message and now waits for more, and would wait long for an answer."""
    outbox.environment |= {"OUTBOX_REQUEST_TIMEOUT_S": "90", "OUTBOX_LEASE_S": "600"}
    run.enqueue()
    with outbox.running("--log-level", "debug", "relay") as process:
        wait_until(lambda: run.states() == {1: "sent"})
        yield process


@SQLITE
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_relay_stops_warmly(relay, number, code):
    """A supervisor's or a person's signal ends the relay after what is in flight, with a summary."""
    relay.send_signal(number)
    _, told = relay.communicate(timeout=30)

    assert (code, "sent 1, failed 0, retried 0") == (relay.returncode, told.splitlines()[-1])
    assert "debug: outbox.sent row_id=1 message_id=" in told


@SQLITE
def test_second_signal_ends_at_once(relay, run, emulator):
    """Who cannot wait for what is in flight sends the signal again; the row stays for the next relay."""
    emulator.fault("slow", seconds=80)
    row_id = run.enqueue()
    wait_until(lambda: emulator.ledger()["requests"] == 2)
    relay.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping: " in relay.stderr.readline())
    relay.send_signal(signal.SIGTERM)

    assert -signal.SIGTERM == relay.wait(timeout=30)
    assert "pending" == run.states()[row_id]


# --- Celery -------------------------------------------------------------------------------------------------------


@SQLITE
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_worker_relays(outbox, run, broker_url, tmp_path, monkeypatch):
    """One process group is enough for a small deployment: it relays what is due, and leaves no file behind."""
    outbox.environment |= {"OUTBOX_BROKER_URL": broker_url, "OUTBOX_SWEEP_S": "0.5", "PYTHONPATH": str(Path.cwd())}
    row_id = run.enqueue()
    directory = tmp_path / "directory"
    directory.mkdir()
    monkeypatch.chdir(directory)
    with outbox.running("worker", "--pool", "solo", "--loglevel", "warning") as process:
        wait_until(lambda: run.states() == {row_id: "sent"})
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=30)[1]

    assert 0 == process.returncode, told
    assert [] == list(directory.iterdir())
