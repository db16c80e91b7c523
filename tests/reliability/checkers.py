"""Relays and checkers that a test can kill, and the ledger of half messages held against the table."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, func, select, update

from outbox.half.decisions import CANARY
from outbox.table import messages

# Windows are shortened here, and nowhere but in tests: for every checker alike, since a canary is everybody's.
_SHORT = """
from outbox.half import CheckConfig
from outbox.store.silence import Pace
from outbox.wiring import Runtime

PACE = Pace(check_s=10, quiet_s=3.0, lost_s=10.0, rest_s=1.0, longest_rest_s=4.0)
SHORT = CheckConfig(request_deadline_s=1.0, pace=PACE, idle_s=0.2)
"""

# As the nursery of relays; the line says what to fork.
_NURSERY = f"""
import os, signal, sys
from outbox.relay import Forever
from outbox.settings import Settings
{_SHORT}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        runtime = Runtime(Settings.from_env())
        working = runtime.relay() if line.strip() == "relay" else runtime.checker(SHORT)
        signal.signal(signal.SIGTERM, lambda *_: working.stop())
        working.run(Forever()) if line.strip() == "relay" else working.run()
        os._exit(0)
    print(pid, flush=True)
"""

_COLD = f"""
from functools import partialmethod
from outbox.cli import main
{_SHORT}
Runtime.checker = partialmethod(Runtime.checker, SHORT)
main()
"""


class Nursery:
    """Forks relays and checkers that are warm from the start."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.kinds: dict[int, str] = {}

    def start(self, kind: str) -> int:
        """The process id of a new ``relay`` or ``check``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(kind, file=self._process.stdin, flush=True)
        pid = int(self._process.stdout.readline())
        self.kinds[pid] = kind
        return pid

    def kill(self, pid: int) -> str:
        """End it where it stands; what it was."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.kinds.pop(pid)


@contextmanager
def nursery(environment: dict[str, str]) -> Iterator[Nursery]:
    """A nursery; whatever it started is killed in the end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _NURSERY], text=True, env=environment, **pipes) as process:
        warm = Nursery(process)
        try:
            yield warm
        finally:
            for pid in list(warm.kinds):
                warm.kill(pid)
            process.kill()


def cold(environment: dict[str, str], command: str) -> subprocess.Popen[str]:
    """``outbox relay`` or ``outbox check`` as a person starts it, but for the windows."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", _COLD, command], env=environment, text=True, **silent)


def states(engine: Engine) -> dict[str, int]:
    """How many rows are in each state."""
    with engine.connect() as connection:
        return dict(connection.execute(select(messages.c.state, func.count()).group_by(messages.c.state)).all())


def until_pending(engine: Engine, *, below: int, within_s: float = 30.0) -> dict[str, int]:
    """Wait until fewer rows are pending; how many rows are in each state then."""
    until = time.monotonic() + within_s
    while (found := states(engine)).get("pending", 0) >= below:
        assert time.monotonic() < until, found
        time.sleep(0.02)
    return found


def make_older(engine: Engine, *, seconds: float) -> None:
    """Have rows that wait for their commit to be confirmed wait for so much longer already."""
    with engine.begin() as connection:
        for row in connection.execute(select(messages).where(messages.c.state == "committing")).all():
            earlier = {"posted_at": row.posted_at - timedelta(seconds=seconds)}
            connection.execute(update(messages).where(messages.c.id == row.id).values(earlier))


def until_sent(engine: Engine, advance: Any, within_s: float) -> bool:
    """Let the broker's time pass four times as fast until every row is sent; whether that came in time."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if set(states(engine)) == {"sent"}:
            return True
        time.sleep(0.5)
        advance(1.5)
    return False


@dataclass
class Findings:
    """What the promise for half messages says, and where it was broken.

    Attributes:
        by: how the rows that are ``sent`` were confirmed.
        halves: half messages that the broker took.
        canary_check_s: check times of the canaries among them.
    """

    rows: int = 0
    unfinished: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    by: dict[str, int] = field(default_factory=dict)
    halves: int = 0
    canary_check_s: set[str] = field(default_factory=set)

    def kept(self) -> bool:
        """Whether every row is sent, and exactly one message of it was ever visible, which is the one it names."""
        return not any((self.unfinished, self.lost, self.twice, self.other, self.altered, self.ghosts))


def compare(engine: Engine, ledger: list[dict[str, Any]]) -> Findings:
    """Hold what the broker shows against what the table says of it."""
    with engine.connect() as connection:
        rows = {row.outbox_id: row for row in connection.execute(select(messages))}
    visible = [one for one in ledger if one["visible"]]
    times = Counter[str]()
    for one in visible:
        times[one["properties"]["outbox_id"]] += one["visible"]
    canaries = [one["properties"] for one in ledger if CANARY in one["properties"]]
    shown = {one["message_id"]: one for one in visible}
    found = Findings(rows=len(rows), halves=len(ledger), ghosts=[one for one in times if one not in rows])
    for outbox_id, row in rows.items():
        if row.state != "sent":
            found.unfinished.append(outbox_id)
        if times[outbox_id] != 1:
            (found.twice if times[outbox_id] else found.lost).append(outbox_id)
        elif row.message_id not in shown:
            found.other.append(outbox_id)
        elif shown[row.message_id]["body"] != row.body:
            found.altered.append(outbox_id)
    found.canary_check_s = {one["__TransCheckT"] for one in canaries}
    found.by = dict(Counter(row.confirmed_by for row in rows.values()))
    return found
