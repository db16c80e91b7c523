"""What goes from the publishers to the marker: what the database must be told."""

from dataclasses import dataclass, field

from outbox.outcomes import Fault
from outbox.relay.halves import InHand
from outbox.retry import Again, Done, Fail, Verdict
from outbox.store.claim import ClaimedRow
from outbox.store.halves import Committed
from outbox.store.lanes import Lane
from outbox.store.mark import Mark, MarkFailed, MarkRetry, MarkSent

__all__ = ["Findings", "LanePause", "mark_of"]


@dataclass(frozen=True, slots=True)
class LanePause:
    """A lane must rest for ``for_s`` seconds; ``failures`` in a row led to it."""

    lane: Lane
    for_s: float
    fault: Fault
    failures: int


@dataclass(slots=True)
class Findings:
    """What the database must be told next: pauses before the marks that free rows, ends of pauses after.

    Attributes:
        elections: half messages that the broker has taken.
        committed: half messages whose commit the broker has confirmed.
        unsettled: half messages left to a checker since the last findings; nothing to tell, but to count.
    """

    pauses: list[LanePause] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    ended: list[Lane] = field(default_factory=list)
    elections: list[InHand] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    unsettled: int = 0
    ordered: bool = False

    def __bool__(self) -> bool:
        return bool(self.marks or self.pauses or self.ended or self.elections or self.committed or self.unsettled)

    @property
    def size(self) -> int:
        """Of the longest statement that it takes to tell."""
        return max(len(self.marks), len(self.elections), len(self.committed))


def mark_of(row: ClaimedRow, verdict: Verdict) -> Mark:
    """The mark that writes down a verdict."""
    match verdict:
        case Done(message_id=message_id):
            return MarkSent(row.id, row.lease_token, message_id)
        case Again(delay_s=delay_s, fault=fault, charge=charge, unknown=unknown):
            return MarkRetry(row.id, row.lease_token, delay_s, fault, charge=charge, unknown=unknown)
        case Fail(fault=fault, unknown=unknown):
            return MarkFailed(row.id, row.lease_token, fault, unknown=unknown)
