"""Real relay processes that a test can kill, and the comparison of what they did with what was promised."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, insert, select

from outbox import Message
from outbox.table import messages, row_of

KEYS = {"FAKEAKID": "FAKESECRET"}

# Imports everything once, then forks a relay for each line it reads: a cold start costs most of a second.
_NURSERY = """
import os, signal, sys
from outbox.relay import Forever
from outbox.settings import Settings
from outbox.wiring import Runtime

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        relay = Runtime(Settings.from_env()).relay()
        signal.signal(signal.SIGTERM, lambda *_: relay.stop())
        relay.run(Forever())
        os._exit(0)
    print(pid, flush=True)
"""


def settings(database_url: str, endpoint: str, **more: Any) -> dict[str, str]:
    """The environment of a process that relays from this database to this endpoint."""
    given = {
        "OUTBOX_DATABASE_URL": database_url,
        "OUTBOX_ENDPOINT": endpoint,
        "OUTBOX_ACCESS_KEY_ID": "FAKEAKID",
        "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET",
        "OUTBOX_LEASE_S": 3,
        "OUTBOX_REQUEST_TIMEOUT_S": 1,
        "OUTBOX_BACKOFF_BASE_S": 0.1,
        "OUTBOX_BACKOFF_MAX_S": 0.5,
        **more,
    }
    return {**os.environ, **{key: str(value) for key, value in given.items()}}


class Nursery:
    """Forks relay processes that are warm from the start."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pids: list[int] = []

    def start(self) -> int:
        """A new relay's process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        self.pids.append(int(self._process.stdout.readline()))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        """End it where it stands."""
        self.pids.remove(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def nursery(environment: dict[str, str]) -> Iterator[Nursery]:
    """A nursery; whatever it started is killed in the end."""
    command = [sys.executable, "-c", _NURSERY]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        warm = Nursery(process)
        try:
            yield warm
        finally:
            for pid in list(warm.pids):
                warm.kill(pid)
            process.kill()


def cold_relay(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """``outbox relay`` as a person starts it."""
    command = [sys.executable, "-m", "outbox.cli", "relay", *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def drain(environment: dict[str, str], timeout_s: int = 60) -> None:
    """Relay until nothing is left to do."""
    process = cold_relay(environment, "--drain", "--timeout", str(timeout_s))
    _, errors = process.communicate(timeout=2 * timeout_s)
    assert process.returncode == 0, errors


def write(engine: Engine, many: list[Message]) -> None:
    """Enqueue, faster than a caller would: many rows in one transaction."""
    with engine.begin() as connection:
        connection.execute(insert(messages), [row_of(message, 0.0) for message in many])


@dataclass
class Findings:
    """The ledger held against the table."""

    rows: int = 0
    lost: list[str] = field(default_factory=list)
    false_sent: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    leased: int = 0
    duplicates: int = 0
    unknown_outcomes: int = 0
    out_of_order: list[str] = field(default_factory=list)

    def kept(self) -> bool:
        """Whether every promise for normal messages held."""
        broken = (self.lost, self.false_sent, self.altered, self.ghosts, self.unfinished, self.out_of_order)
        return not any(broken) and self.duplicates <= self.unknown_outcomes


def compare(engine: Engine, delivered: list[dict[str, Any]]) -> Findings:
    """Hold what the broker has against what the table says of it."""
    with engine.connect() as connection:
        rows = {row.outbox_id: row for row in connection.execute(select(messages).order_by(messages.c.id))}
    times = Counter(one["properties"]["outbox_id"] for one in delivered)
    found = Findings(rows=len(rows), ghosts=[one for one in times if one not in rows])
    found.duplicates = sum(times.values()) - len(times)
    by_message_id = {one["message_id"]: one for one in delivered}
    for outbox_id, row in rows.items():
        found.unknown_outcomes += row.unknown_outcomes
        found.leased += row.lease_token is not None
        if row.state != "sent":
            found.unfinished.append(outbox_id)
        if not times[outbox_id]:
            found.lost.append(outbox_id)
        elif row.state == "sent" and row.message_id not in by_message_id:
            found.false_sent.append(outbox_id)
    found.altered = [one["message_id"] for one in delivered if not _equal(one, rows)]
    found.out_of_order = _out_of_order(rows, delivered)
    return found


def _equal(one: dict[str, Any], rows: dict[str, Any]) -> bool:
    row = rows.get(one["properties"]["outbox_id"])
    return row is None or (one["topic"], one["tag"] or None, one["body"]) == (row.topic, row.tag, row.body)


def _out_of_order(rows: dict[str, Any], delivered: list[dict[str, Any]]) -> list[str]:
    """Ordering keys whose first deliveries are not in the order of the row ids."""
    first: dict[str, list[int]] = {}
    seen = set()
    for one in delivered:
        row = rows.get(one["properties"]["outbox_id"])
        if row is not None and row.ordering_key is not None and row.id not in seen:
            seen.add(row.id)
            first.setdefault(row.ordering_key, []).append(row.id)
    return [key for key, ids in first.items() if ids != sorted(ids)]
