"""What goes wrong, when: every choice of a schedule that is not the scheduler's, from one seed."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.reliability.sim_clock import SimClock

__all__ = ["FAULTS", "HALF_FAULTS", "PROFILES", "Chaos"]

#: Each fault, and the highest chance of it at each opportunity; a schedule has some of them, at some rate below.
FAULTS = {
    "crash": 0.02,
    "freeze": 0.02,
    "stall": 0.02,
    "db_busy": 0.06,
    "db_lost": 0.06,
    "commit_lost": 0.10,
    "commit_done_then_lost": 0.10,
    "db_down": 0.01,
    "refused": 0.10,
    "request_lost": 0.20,
    "answer_lost": 0.30,
    "request_late": 0.25,
    "answer_late": 0.20,
    "after_500": 0.15,
    "before_503": 0.08,
    "throttle": 0.08,
    "forbidden": 0.06,
    "garbled": 0.10,
}

#: Those that only half messages meet.
HALF_FAULTS = {
    "post_doubled": 0.20,
    "frozen_after_post": 0.10,
    "frozen_after_check": 0.05,
    "wrong_md5": 0.08,
    "wrong_clock": 0.08,
    "early_check": 0.10,
    "empty": 0.10,
    "commit_lost_before": 0.20,
    "commit_answer_lost": 0.30,
}


#: What some schedules of half messages have beside: much of what belongs together.
PROFILES: tuple[dict[str, float], ...] = (
    {},
    {},
    {"commit_lost_before": 0.3, "commit_answer_lost": 0.5},
    {"commit_lost_before": 0.4, "commit_answer_lost": 0.3, "request_late": 0.2, "answer_lost": 0.2, "crash": 0.01},
    {"commit_lost_before": 0.5, "early_check": 0.2, "wrong_clock": 0.3, "empty": 0.1},
    {"frozen_after_post": 0.3, "frozen_after_check": 0.2, "commit_lost_before": 0.2, "early_check": 0.1},
    {"commit_lost_before": 0.8, "early_check": 0.6},
)


@dataclass
class Chaos:
    """Decides about faults until `stop`.

    Attributes:
        seed: of all decisions.
        lease_s: of the relays; what takes long now and then takes longer.
        check_s: the half messages' check time, in the same sense; 0 where there are none.
        happened: how often each fault did.
        crashable: whether a process of that name may crash or freeze.
        on_crash: called with the name of a process that has just been killed.
    """

    seed: str
    clock: SimClock
    lease_s: float
    check_s: float = 0.0
    crashable: Callable[[str], bool] = lambda _process: False
    on_crash: Callable[[str], None] = lambda _process: None
    happened: Counter[str] = field(default_factory=Counter)
    log: list[str] | None = None

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.active = True
        self.down_until = 0.0
        pick = self.chance
        some = pick.choice((0.15, 0.4, 0.8))
        harm = pick.choice((0.2, 0.6, 1.0))
        self.rates = {name: rate * harm for name, rate in {**FAULTS, **HALF_FAULTS}.items() if pick.random() < some}

    def strikes(self, fault: str) -> bool:
        """Whether a fault happens now."""
        rate = self.rates.get(fault) if self.active else None
        if rate is None or self.chance.random() >= rate:
            return False
        self.happened[fault] += 1
        self.note(fault)
        return True

    def note(self, what: str) -> None:
        """Write something into the log of the schedule, if there is one."""
        if self.log is not None:
            running = self.clock.running
            self.log.append(f"{self.clock.now:10.3f}  {running.process}/{running.name}  {what}")

    def long(self) -> float:
        """Seconds that something takes when it takes long; now and then longer than a lease."""
        return self.chance.choice((0.01, 0.2, 1.0, 3.0, self.lease_s, self.lease_s * 2.5)) * self.chance.uniform(
            0.5, 1.5
        )

    def pass_by(self, what: str) -> None:
        """A point at which others may go on, and at which this process may stop for a while, or for good."""
        clock = self.clock
        if self.active:
            process = clock.running.process
            if self.rates and self.crashable(process):
                if self.strikes("crash"):
                    clock.kill(process)
                    self.on_crash(process)
                elif self.strikes("freeze"):
                    clock.freeze(process, self.long())
            if self.strikes("stall"):
                clock.sleep(self.long())
        clock.step(what)

    def stop(self) -> None:
        """Let nothing go wrong any more."""
        self.active = False
        self.down_until = 0.0
