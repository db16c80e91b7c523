"""The program `outbox` as a person or a supervisor runs it: processes, pipes, terminals and signals."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from outbox import __version__

KEYS = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}
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
                shown = b"".join(self._talk_to(master, typed))
            finally:
                os.close(master)
                process.kill()
        return process.returncode, shown.decode()

    @staticmethod
    def _talk_to(terminal, typed):
        """Read to the end; type once something is asked."""
        while shown := _read(terminal):
            yield shown
            if typed and b"[y/N]" in shown:
                os.write(terminal, typed.encode())


def _read(terminal):
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the last who had it open is gone
        return b""


def wait_until(condition, seconds=15):
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def outbox(migrated_url, emulator):
    """The program on a migrated database, with the emulator as the broker."""
    return Program(OUTBOX_DATABASE_URL=migrated_url, OUTBOX_ENDPOINT=emulator.url, **KEYS)


# --- from nothing to a published message --------------------------------------------------------------------------


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
            outbox("status"),
        ]
        with urllib.request.urlopen(f"{url}/_emulator/ledger") as answer:
            (published,) = json.load(answer)["messages"]
        shown = json.loads(outbox("show", "1", "--json").stdout)
        process.send_signal(signal.SIGTERM)
        banner = process.communicate()[1]

    assert [0, 0, 0, 0] == [step.returncode for step in steps], steps
    assert [b"", b"1\n", b""] == [step.stdout for step in steps[:3]]
    assert b"sent 1, failed 0, retried 0\n" == steps[2].stderr
    assert [BODY, BODY] == [published["body"], shown["body"]]
    assert ("sent", published["message_id"]) == (shown["state"], shown["message_id"])
    assert 0 == process.returncode
    assert "emulator" in banner


def test_version_is_told():
    """The program says which version it is."""
    assert f"outbox, version {__version__}\n".encode() == Program()("--version").stdout


# --- pipes --------------------------------------------------------------------------------------------------------


@SQLITE
def test_reader_may_end_first(outbox):
    """Who reads only the first line, as head does, causes no error."""
    lines = '{"topic": "orders", "body": "x"}\n' * 3000
    assert 0 == outbox("enqueue", "--jsonl", "-", given=lines.encode()).returncode
    with outbox.running("list", "--limit", 3000) as process:
        first = process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        process.wait()

    assert first.startswith("id ")
    assert "" == told


@SQLITE
def test_full_disk_is_told(outbox):
    """Output that cannot be written is one line on stderr."""
    with Path("/dev/full").open("wb") as full:
        command = [*PROGRAM, "list"]
        result = subprocess.run(command, env=outbox.environment, stdout=full, stderr=subprocess.PIPE, check=False)

    assert (1, b"error: No space left on device\n") == (result.returncode, result.stderr)


@SQLITE
@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}])
def test_any_locale_will_do(outbox, locale):
    """Bodies stay what they are, and what a locale cannot show is spelled out."""
    enqueued = outbox("enqueue", "--topic", "orders", "--tag", "名", "-", given=BODY.encode(), **locale)
    listed = outbox("show", "1", **locale)

    assert (0, b"1\n", 0) == (enqueued.returncode, enqueued.stdout, listed.returncode), enqueued
    assert BODY == json.loads(outbox("show", "1", "--json", **locale).stdout)["body"]
    assert b"\\x7f" in listed.stdout


@SQLITE
def test_argument_that_is_not_utf_8_is_told(outbox):
    """Bytes that are no text are refused in one line, and nothing is enqueued."""
    command = [*PROGRAM, "enqueue", "--topic", "orders", b"caf\xe9"]
    result = subprocess.run(command, env=outbox.environment, capture_output=True, check=False)

    assert (1, b"", 1) == (result.returncode, result.stdout, result.stderr.count(b"\n"))
    assert result.stderr.startswith(b"error: body: ")
    assert 0 == json.loads(outbox("status", "--json").stdout)["pending"]


# --- terminals ----------------------------------------------------------------------------------------------------


@SQLITE
def test_terminal_is_asked_before_a_deed(outbox):
    """On a terminal nothing is replayed without a yes; --yes is one."""
    replay = ["replay", "--state", "failed"]
    outbox("enqueue", "--topic", "broken", "hello")
    fail(outbox)
    refused = outbox.on_a_terminal(*replay, typed="n\n")
    left_alone = counts(outbox)
    interrupted = outbox.on_a_terminal(*replay, typed="\x03")
    agreed = outbox.on_a_terminal(*replay, typed="y\n")
    replayed = counts(outbox)
    fail(outbox)
    unasked = outbox.on_a_terminal(*replay, "--yes")

    assert (1, 1, 0) == (refused[0], left_alone["failed"], left_alone["pending"])
    assert "1 message to replay" in refused[1]
    assert "Replay 1 message? [y/N]" in refused[1]
    assert "error: nothing was done, as you said" in refused[1]
    assert (130, 0, 1) == (interrupted[0], agreed[0], replayed["pending"])
    assert 0 == unasked[0]
    assert "[y/N]" not in unasked[1]


def fail(outbox):
    """Have the outbox's rows fail for good."""
    change = "UPDATE outbox_messages SET state = 'failed'"
    program = "import os, sys, sqlite3; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    path = outbox.environment["OUTBOX_DATABASE_URL"].removeprefix("sqlite:///")
    subprocess.run([sys.executable, "-c", program, path, change], check=True)


def counts(outbox):
    """The document of the status."""
    return json.loads(outbox("status", "--json").stdout)


@SQLITE
def test_terminal_gets_a_table_and_a_bar(outbox):
    """People see lines and a moving bar, in colours unless NO_COLOR says otherwise; programs see neither."""
    for _ in range(2):
        outbox("enqueue", "--topic", "orders", "hello")
    _, bar = outbox.on_a_terminal("relay", "--drain")
    outbox("enqueue", "--topic", "orders", "hello")
    _, plain_bar = outbox.on_a_terminal("relay", "--drain", NO_COLOR="1")
    _, table = outbox.on_a_terminal("list")
    piped = outbox("list").stdout.decode()

    assert "2/2" in bar
    assert "sent 2, failed 0, retried 0" in bar
    assert COLOUR.search(bar)
    assert "1/1" in plain_bar
    assert not COLOUR.search(plain_bar)
    assert "│" in table
    assert not set(piped) & set("│\x1b")


# --- signals ------------------------------------------------------------------------------------------------------


@pytest.fixture
def relay(outbox, emulator):
    """A relay that has published a message and now waits for more."""
    with outbox.running("--log-level", "debug", "relay") as process:
        assert 0 == outbox("enqueue", "--topic", "orders", "hello").returncode
        wait_until(lambda: emulator.ledger()["messages"])
        yield process


@SQLITE
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_relay_stops_warmly(outbox, relay, number, code):
    """A supervisor's or a person's signal ends the relay after what is in flight, with a summary."""
    relay.send_signal(number)
    _, told = relay.communicate(timeout=15)

    assert (code, "sent 1, failed 0, retried 0") == (relay.returncode, told.splitlines()[-1])
    assert "debug: outbox.sent " in told
    assert 1 == counts(outbox)["sent"]


@SQLITE
def test_second_signal_ends_at_once(outbox, relay, emulator):
    """Who cannot wait for what is in flight sends the signal again; the row stays for the next relay."""
    emulator.fault("slow", seconds=30)
    assert 0 == outbox("enqueue", "--topic", "orders", "slow").returncode
    wait_until(lambda: emulator.ledger()["requests"] == 2)
    relay.send_signal(signal.SIGTERM)
    assert relay.stderr.readline()
    wait_until(lambda: "stopping: " in relay.stderr.readline())
    relay.send_signal(signal.SIGTERM)

    assert -signal.SIGTERM == relay.wait(timeout=5)
    assert 1 == counts(outbox)["pending"]


# --- Celery -------------------------------------------------------------------------------------------------------


@SQLITE
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_worker_relays(outbox, emulator, broker_url, tmp_path, monkeypatch):
    """One process group is enough for a small deployment: it relays what is due, and leaves no file behind."""
    empty = tmp_path / "cwd"
    empty.mkdir()
    outbox.environment |= {"OUTBOX_BROKER_URL": broker_url, "OUTBOX_SWEEP_S": "0.5"}
    assert 0 == outbox("enqueue", "--topic", "orders", "hello").returncode
    outbox.environment["PYTHONPATH"] = str(Path.cwd())
    monkeypatch.chdir(empty)
    with outbox.running("worker", "--pool", "solo", "--loglevel", "warning") as process:
        wait_until(lambda: emulator.ledger()["messages"], 30)
        wait_until(lambda: counts(outbox)["sent"] == 1)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=30)[1]

    assert 0 == process.returncode, told
    assert [] == list(empty.iterdir())
