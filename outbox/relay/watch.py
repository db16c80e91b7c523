"""How the lanes fare, as far as one relay has seen: what a row is charged, and when its lane must rest."""

import math
from collections.abc import Iterable

from outbox.outcomes import Fault, Outcome, Paused
from outbox.relay.chains import Chain
from outbox.relay.findings import LanePause
from outbox.retry import LaneHealth, Policy, Uniform, Verdict, judge, pause_s
from outbox.store.claim import ClaimedRow
from outbox.store.lanes import Lane

__all__ = ["LaneWatch"]


class LaneWatch:
    """Not safe to share: the board asks under its lock.

    Args:
        policy: limits and waits of retries.
        uniform: a random number between two, for the jitter.

    Attributes:
        pauses: grows when a lane pauses and again when the database knows of it, to tell a look from a later one.
    """

    def __init__(self, policy: Policy, uniform: Uniform) -> None:
        self.pauses = 0
        self._policy = policy
        self._uniform = uniform
        self._health: dict[Lane, LaneHealth] = {}
        self._paused_at: dict[Lane, float] = {}

    def is_stale(self, lane: Lane, seen: int) -> bool:
        """Whether the lane has paused since the look that ``seen`` is of."""
        return self._paused_at.get(lane, 0) > seen

    def verdict(self, chain: Chain, row: ClaimedRow, outcome: Outcome) -> Verdict:
        """What becomes of the row; where the lane is known to be in trouble, what is unclear is not charged to it."""
        excused = chain.probe is not None or self.is_stale(chain.lane, chain.seen)
        return judge(outcome, row.attempts, self._policy, self._uniform, excused=excused)

    def succeeded(self, lane: Lane) -> None:
        """A row of the lane was taken."""
        self._health.pop(lane, None)

    def failed(self, chain: Chain, fault: Fault, outcome: Outcome) -> LanePause | None:
        """A row was not taken: what its lane must rest for, None to go on or where it rests already."""
        if self.is_stale(chain.lane, chain.seen):
            return None
        found = fault if chain.probe else self._health.setdefault(chain.lane, LaneHealth()).note(outcome)
        return self.pause(chain, found, outcome) if found else None

    def pause(self, chain: Chain, fault: Fault, outcome: object) -> LanePause:
        """Have the lane rest; no look can know of it before `told`."""
        failures = chain.probe.failures + 1 if chain.probe else 1
        asked = outcome.retry_after_s if isinstance(outcome, Paused) else None
        self._health.pop(chain.lane, None)
        self._paused_at[chain.lane] = math.inf
        self.pauses += 1
        return LanePause(chain.lane, pause_s(failures, self._uniform, asked), fault, failures)

    def told(self, pauses: Iterable[LanePause]) -> None:
        """The database knows of these pauses now."""
        for pause in pauses:
            self.pauses += 1
            self._paused_at[pause.lane] = self.pauses
