"""What a relay claims, look by look.

A look finds the lanes that have something due. Until the next one, each claim of a lane goes on behind the last row of
the claim before: in front of it lie index entries of rows sent meanwhile, which a database cannot remove while any
transaction is open that might still see those rows, and a claim from the lane's beginning would read them all.

Nothing depends on that place. Rows become due in front of it at any time, by a commit that came late or a lease that
ended; the first claim after the next look begins at the beginning, and finds them. Rows with ordering keys are always
claimed from the beginning of their key, for only there does it show whether one is behind another that failed.
"""

from outbox.clock import Clock
from outbox.relay.endings import LOOK_S
from outbox.retry import Policy
from outbox.store import claim as claims
from outbox.store import lanes
from outbox.store.claim import ClaimedRow, Place
from outbox.store.database import Database
from outbox.store.lanes import DueLane, Lane

__all__ = ["Claimer"]

# Looks and claims from the beginning may take this part of the time, but a new lane waits no longer than this.
_LOOKING_SHARE = 0.1
_LONGEST_LOOK_S = 3.0


class Claimer:
    """One relay's claims. For one thread.

    Args:
        database: the outbox's.
        clock: time.
        lease_s: seconds that a claimed row is the relay's.
        policy: limits of retries.
        skip_failed_heads: topics whose ordering keys go on past a failed head.
    """

    def __init__(
        self, database: Database, clock: Clock, *, lease_s: float, policy: Policy, skip_failed_heads: frozenset[str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_s = lease_s
        self._max_attempts = policy.max_attempts
        self._skip_failed_heads = skip_failed_heads
        self._keys: dict[Lane, str] = {}
        self._places: dict[Lane, Place] = {}
        self._looked_at = 0.0
        self._looking_s = 0.0

    def look(self) -> list[DueLane]:
        """The lanes that have something due; from now on each is claimed from its beginning again.

        Raises:
            DatabaseError: see `Database.run`.
        """
        self._places.clear()
        started = self._clock.monotonic()
        due = lanes.due_lanes(self._database)
        # Its age counts from here: one that took longer than it lasts must still be of use.
        self._looked_at = self._clock.monotonic()
        self._looking_s = self._looked_at - started
        return due

    def is_look_old(self) -> bool:
        """Whether it is time for another look: after a second, or later where looking takes long."""
        return self._clock.monotonic() - self._looked_at > self._look_lasts_s()

    def rest_s(self, wanted_s: float) -> float:
        """Seconds to the next look of an idle relay: ``wanted_s``, or more where looking takes long.

        Who wants to look again sooner than is usual expects something: that is not put off.
        """
        return max(wanted_s, self._look_lasts_s()) if wanted_s >= LOOK_S else wanted_s

    def claim(self, due: DueLane, limit: int) -> list[ClaimedRow]:
        """Lease up to ``limit`` rows of a lane that the last look has found.

        Raises:
            DatabaseError: see `Database.run`.
        """
        rows = self._claim_unordered(due.lane, limit) if due.unordered else []
        if due.ordered and len(rows) < limit and not any(row.alone for row in rows):
            rows += self._claim_ordered(due.lane, limit - len(rows))
        return rows

    def _look_lasts_s(self) -> float:
        return min(max(LOOK_S, self._looking_s / _LOOKING_SHARE), _LONGEST_LOOK_S)

    def _claim_unordered(self, lane: Lane, limit: int) -> list[ClaimedRow]:
        place, started = self._places.get(lane), self._clock.monotonic()
        rows = claims.claim(
            self._database, lane, limit=limit, lease_s=self._lease_s, max_attempts=self._max_attempts, behind=place
        )
        if place is None:
            self._looking_s += self._clock.monotonic() - started
        if rows:
            self._places[lane] = Place(rows[-1].available_at, rows[-1].id)
        return rows

    def _claim_ordered(self, lane: Lane, limit: int) -> list[ClaimedRow]:
        rows = claims.claim_ordered(
            self._database,
            lane,
            limit=limit,
            lease_s=self._lease_s,
            max_attempts=self._max_attempts,
            after_key=self._keys.get(lane, ""),
            skip_failed_heads=lane.topic in self._skip_failed_heads,
        )
        if rows:
            self._keys[lane] = rows[-1].ordering_key or ""
        return rows
