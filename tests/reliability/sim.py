"""Deterministic simulation of the outbox: the product's own code on virtual time, with everything going wrong.

One seed is one schedule: which process goes on at every database call and every request, what is lost, late, done and
then reported as failed, and which process dies when. ``python -m tests.reliability.sim SEED`` replays one and tells its
story; ``python -m tests.reliability.sim --count 100000 [--first SEED]`` looks for schedules that break a promise.
"""

import argparse
import gc
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from outbox import Message, enqueue
from outbox.errors import DatabaseError, OperationError
from outbox.half import CheckConfig, Checker
from outbox.relay import Relay
from outbox.rocketmq.client import Client
from outbox.settings import Settings
from outbox.states import State
from outbox.store import operate, pauses
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.silence import Pace
from outbox.wiring import Runtime
from tests.reliability.sim_broker import KEYS, SimBroker, SimTransport
from tests.reliability.sim_chaos import PROFILES, Chaos
from tests.reliability.sim_clock import SimClock
from tests.reliability.sim_database import SimDatabase
from tests.reliability.sim_judge import Witness, violations
from tests.virtual_clock import Deadlock

__all__ = ["Schedule", "Story", "simulate", "simulator"]

_REST_S = 2.0
_LOOK_S = 5.0
_QUIET_WITHIN_S = 900.0
# Longer than the broker keeps a half message.
_DAYS_S = 100_000.0


@lru_cache(maxsize=256)
def _settings(**given: float) -> Settings:
    fixed = {
        "OUTBOX_ENDPOINT": "http://127.0.0.1:1",
        "OUTBOX_GROUP_ID": "GID_simulated",
        "OUTBOX_ENVIRONMENT": "simulated",
        "OUTBOX_ACCESS_KEY_ID": "FAKEAKID",
        "OUTBOX_ACCESS_KEY_SECRET": KEYS["FAKEAKID"],
        "OUTBOX_HTTP_ENGINE": "requests",
        "OUTBOX_BACKOFF_BASE_S": "0.5",
        "OUTBOX_BACKOFF_MAX_S": "4",
    }
    return Settings.from_env(fixed | {f"OUTBOX_{name.upper()}": str(value) for name, value in given.items()})


class _RollBackError(Exception):
    """The application changed its mind."""


class Idle:
    """An ending that never comes, and looks seldom."""

    def __init__(self, rest_s: float) -> None:
        self._rest_s = rest_s

    def rest_s(self, finished: int) -> float | None:
        """Look again then."""
        return self._rest_s


@dataclass
class Story:
    """What became of one schedule."""

    seed: int
    violations: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    log: list[str] | None = None
    virtual_s: float = 0.0
    settled: Counter[str] = field(default_factory=Counter)


class Schedule:
    """One world, from its first row to its last.

    Args:
        database: emptied for it.
        seed: of everything.
        halves: whether its messages are half messages, or normal and ordered ones.
        log: filled with every step, if given.
    """

    #: A naive design lets operators replay rows in flight.
    meddles_in_flight = False

    def __init__(self, database: SimDatabase, seed: int, *, halves: bool = False, log: list[str] | None = None) -> None:
        # What the product draws from the random module itself, such as the jitter between two tries of a transaction.
        random.seed(seed)
        self.seed = seed
        self.choose = random.Random(f"world {seed}")
        self.database = database
        self.rolled_back: set[str] = set()
        self.operating = True
        self.serial = 0
        self.halves = halves
        self.living: dict[str, Relay | Checker] = {}
        choose = self.choose
        # Shorter than any check time, or longer than most.
        lease_s = choose.choice((3.0, 6.0, 40.0) if halves else (3.0, 6.0))
        limit_s = min(lease_s, 6.0) / 3
        self.settings = _settings(
            batch_size=choose.choice((1, 2, 10)),
            concurrency=choose.choice((1, 2, 4)),
            lease_s=lease_s,
            request_timeout_s=limit_s,
            max_attempts=choose.choice((1, 2, 10) if halves else (2, 4, 10)),
            keep_sent=choose.random() < 0.85,
        )
        self.clock = SimClock(seed)
        profile = choose.choice(PROFILES) if halves else {}
        self.chaos = Chaos(f"chaos {seed}", self.clock, 3 * limit_s, crashable=_is_mortal, on_crash=self._bury, log=log)
        self.chaos.rates |= profile
        self.broker = SimBroker(self.chaos, hostile=choose.random() < 0.5, halves=halves)
        self.check_s = choose.choice((10, 10, 10, 12, 30, 60, 300)) if halves else None
        self.chaos.check_s = self.check_s or 0.0
        self.check_config = CheckConfig(
            request_deadline_s=limit_s,
            pace=Pace(
                check_s=choose.choice((10, 60)),
                quiet_s=choose.choice((3.0, 20.0)),
                rest_s=choose.choice((2.0, 30.0)),
                longest_rest_s=120.0,
            ),
            idle_s=choose.choice((4.0, 12.0)),
        )
        self.dark_s = choose.choice((0.0,) * 16 + (120.0, 3600.0, _DAYS_S)) if halves else 0.0
        self.is_dark = False
        self.mends, self.purges = choose.random() < 0.5, halves and choose.random() < 0.3
        self.suspends = choose.random() < 0.5
        self.witness = Witness(self.broker)

    def run(self) -> Story:
        """Let it happen, and judge it."""
        self.database.enter(self.chaos, self.clock.wall, self.witness.see if self.halves else lambda _change: None)
        story = Story(self.seed, log=self.chaos.log)
        try:
            with self.clock:
                self._people()
                rests = (15.0, 15.0, 30.0, 30.0, 60.0) if self.halves else (3.0, 10.0, 25.0)
                self.clock.sleep(self.choose.choice(rests))
                if self.dark_s:
                    self._darken()
                    self.clock.sleep(self.choose.choice((0.0, 30.0)))
                self.chaos.stop()
                if not self._rests():
                    story.violations += [f"not at rest: {self._unrest()} {self.broker.open_halves()}"]
                self.operating = False
            story.violations += self.witness.violations()
            story.violations += violations(self.database, self.broker, self.rolled_back)
        except Deadlock as error:
            story.violations.append(f"deadlock: {error}")
        story.violations += [f"broke: {error!r}" for error in self.clock.broke]
        story.faults, story.virtual_s = self.chaos.happened, self.clock.now
        story.settled = self.witness.settled
        story.rows = Counter(row["state"] for row in self.database.raw.execute("SELECT state FROM outbox_messages"))
        self.database.leave()
        return story

    # --- who lives there ---

    def _people(self) -> None:
        self.clock.start("app", "main", self._application)
        for number in range(self.choose.choice((1, 1, 2, 3) if self.halves else (1, 2, 2, 3))):
            self._start(f"relay-{number}")
        for number in range(self.choose.choice((1, 1, 2)) if self.halves else 0):
            self._start(f"checker-{number}")
        self.clock.start("operator", "main", self._operator)

    def _bury(self, process: str) -> None:
        """Have another process in the place of one that has ended, some time later."""
        self.living.pop(process, None)
        self.serial += 1
        name = f"{process.partition('.')[0]}.{self.serial}"

        def rise() -> None:
            self.clock.sleep(self.choose.choice((0.0, 0.5, 4.0)))
            self.clock.wait_until(self._is_light)
            self._start(name)

        self.clock.start("supervisor", name, rise)

    def _start(self, name: str) -> None:
        clock = self.clock.of(name, stops=self.suspends)
        runtime = Runtime(self.settings, clock)
        runtime.__dict__["database"] = self._database()
        client = Client(self.settings.destination("default"), SimTransport(self.broker), clock.wall, clock.monotonic)
        runtime.__dict__["publishers"] = {"default": client}
        if name.startswith("relay"):
            relay = self.living[name] = runtime.relay()
            self.clock.start(
                name, "main", lambda: self._live(name, lambda: relay.run(Idle(_REST_S * (3 if self.halves else 1))))
            )
        else:
            checker = self.living[name] = runtime.checker(self.check_config)
            self.clock.start(name, "main", lambda: self._live(name, checker.run))

    def _live(self, name: str, run: Callable[[], object]) -> None:
        try:
            run()
        except Exception as error:  # noqa: BLE001 - a defect, but the rest goes on
            self.clock.broke.append(error)
        self._bury(name)

    def _darken(self) -> None:
        """Stop every process, for good or until hours or days have gone by."""
        self.is_dark = True
        for name in sorted(self.living):
            if self.choose.random() < 0.4:
                self.clock.freeze(name, self.dark_s)
                continue
            self.clock.kill(name)
            self._bury(name)
        self.clock.sleep(self.dark_s)
        self.is_dark = False

    def _is_light(self) -> bool:
        return not self.is_dark

    def _database(self) -> Database:
        return Database(self.database.engine, sleep=self.clock.sleep)

    def _application(self) -> None:
        choose, database = self.choose, self._database()
        keys = choose.choice(((None,), (None, "a"), ("a", "b")))
        for number in range(choose.choice((1, 2, 3) if self.halves else (1, 2, 3, 5, 8))):
            kind = {"transaction_check_s": self.check_s} if self.halves else {"ordering_key": choose.choice(keys)}
            message = Message(f"topic-{choose.randrange(2)}", f"body {number}", tag="t", **kind)
            with suppress(DatabaseError, _RollBackError):
                database.run(lambda connection, message=message: self._write(connection, message))
            self.clock.sleep(choose.choice((0.0, 0.1, 2.0)))

    def _write(self, connection: Connection, message: Message) -> None:
        (row_id,) = enqueue(connection, message)
        if self.choose.random() < 0.1:
            found = connection.exec_driver_sql("SELECT outbox_id FROM outbox_messages WHERE id = ?", (row_id,))
            self.rolled_back.add(found.scalar_one())
            raise _RollBackError

    def _operator(self) -> None:
        choose, database = self.choose, self._database()
        meddles = choose.random() < 0.5
        while self.operating:
            self.clock.sleep(choose.choice((1.0, 3.0, 8.0)))
            self.clock.wait_until(self._is_light)
            with suppress(DatabaseError, OperationError):
                if self.purges:
                    operate.purge(database, 0.0)
                if self.chaos.active and meddles:
                    self._meddle(database)
                elif not self.chaos.active:
                    self._mend(database)

    def _meddle(self, database: Database) -> None:
        choose, lane = self.choose, Lane("default", f"topic-{self.choose.randrange(2)}")
        match choose.choice(("replay", "discard", "force", "pause", "resume", "purge", "stop")):
            case "replay":
                self._act(database, "replay", State.FAILED)
            case "discard":
                self._act(database, "discard", State.FAILED)
            case "force":
                state = State.COMMITTING if self.meddles_in_flight else choose.choice((State.SENT, State.IN_DOUBT))
                self._act(database, "replay", state)
            case "pause":
                pauses.pause(database, lane, by="operator", reason="simulated")
            case "resume":
                pauses.resume(database, lane, by="operator", reason="simulated")
            case "stop" if self.living:
                name = choose.choice(sorted(self.living))
                self.clock.start(name, "signal", self.living[name].stop)
            case "purge":
                operate.purge(database, choose.choice((0.0, 5.0)), batch=2)

    def _act(self, database: Database, verb: str, state: State) -> None:
        force = state is not State.FAILED
        targets = operate.find(database, verb, state=state, force=force)
        if force:
            targets = targets[:1]
        do = operate.replay if verb == "replay" else operate.discard
        do(database, targets, by="operator", reason="simulated", force=force)

    def _mend(self, database: Database) -> None:
        """Decide what must be decided: a failed head blocks its key until somebody does. Half messages have no keys."""
        paused = self.database.raw.execute("SELECT 1 FROM outbox_pauses").fetchone()
        for number in range(2 if paused else 0):
            pauses.resume(database, Lane("default", f"topic-{number}"), by="operator", reason="simulated")
        if not self.halves or self.mends:
            self._act(database, self.choose.choice(("replay", "discard")), State.FAILED)

    # --- rest ---

    def _rests(self) -> bool:
        until = self.clock.now + _QUIET_WITHIN_S
        while self.clock.now < until:
            self.clock.sleep(_LOOK_S)
            if not self.broker.on_its_way and not self._unrest() and not self.broker.open_halves():
                return True
        return False

    def _unrest(self) -> list[tuple[Any, ...]]:
        query = (
            "SELECT id, state, lease_token, attempts, available_at FROM outbox_messages"
            " WHERE state IN ('pending', 'committing') OR lease_token IS NOT NULL"
        )
        return [tuple(row) for row in self.database.raw.execute(query)]


def _is_mortal(process: str) -> bool:
    return process.startswith(("relay", "checker"))


@contextmanager
def simulator() -> Iterator[SimDatabase]:
    """A database for any number of schedules, in memory if the machine has a directory there."""
    shared = Path("/dev/shm")
    logger = logging.getLogger("outbox")
    disabled, logger.disabled = logger.disabled, True
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        database = SimDatabase(Path(directory))
        try:
            yield database
        finally:
            database.close()
            logger.disabled = disabled
            gc.set_threshold(*thresholds)


def simulate(database: SimDatabase, seed: int, *, halves: bool = False, log: bool = False) -> Story:
    """Run one schedule."""
    return Schedule(database, seed, halves=halves, log=[] if log else None).run()


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    parser.add_argument("--halves", action="store_true", help="half messages instead of normal and ordered ones")
    parser.add_argument("--count", type=int, default=0, help="look through so many schedules instead")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    given = parser.parse_args()
    with simulator() as database:
        look = _look_through if given.count else _tell
        return look(database, given)


def _tell(database: SimDatabase, given: argparse.Namespace) -> int:
    story = simulate(database, given.seed, halves=given.halves, log=True)
    _say(*(story.log or ()), f"seed {story.seed}: {dict(story.faults)} {dict(story.rows)}", *story.violations)
    return bool(story.violations)


def _look_through(database: SimDatabase, given: argparse.Namespace) -> int:
    began, broken = time.process_time(), 0
    faults, rows, settled = Counter[str](), Counter[str](), Counter[str]()
    for seed in range(given.first, given.first + given.count):
        story = simulate(database, seed, halves=given.halves)
        faults, rows, settled = faults + story.faults, rows + story.rows, settled + story.settled
        if story.violations:
            broken += 1
            _say(f"seed {seed}: {story.violations[:3]}")
    rate = given.count / (time.process_time() - began)
    _say(f"{given.count} schedules, {rate:.0f} a second of one core, {broken} broken")
    _say(*(str(dict(counted)) for counted in (faults, rows, settled)))
    return bool(broken)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(_main())
