"""A half message from its POST to its end, in the hands of the relay that posted it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from outbox.relay.chains import Chain
from outbox.retry import half_deadline_s, half_margin_s
from outbox.store.claim import ClaimedRow
from outbox.store.halves import Committed, Election, Standing

__all__ = ["HalfEnd", "InHand", "endings"]


@dataclass(frozen=True, slots=True)
class InHand:
    """A half message that the broker has taken from us.

    Attributes:
        chain: what its row came with.
        posted_at: monotonic time from before its POST.
        receipt_handle: None where the broker gave none; then only a checker can end it.
    """

    chain: Chain
    row: ClaimedRow
    message_id: str
    posted_at: float
    receipt_handle: str | None = field(repr=False)

    @property
    def check_s(self) -> int:
        """Its transaction check time."""
        return self.row.transaction_check_s or 0

    def may_commit(self, now: float) -> bool:
        """Whether there is time left: from then on a checker may commit it with another handle."""
        return now - self.posted_at < self.check_s - half_margin_s(self.check_s)

    def election(self, lease_s: float) -> Election:
        """What is put to the database: posted no earlier than the row was claimed, and elected within its lease."""
        row = self.row
        return Election(
            row.id, row.replays, self.message_id, row.claimed_at, row.claimed_at + timedelta(seconds=lease_s)
        )

    def committed(self) -> Committed:
        """What a 204 proves."""
        return Committed(self.row.id, self.message_id)


@dataclass(frozen=True, slots=True)
class HalfEnd:
    """A commit or a rollback for a publisher to send, once."""

    half: InHand
    how: Literal["commit", "rollback"]

    def deadline_s(self, setting_s: float) -> float:
        """Seconds that it may take."""
        return half_deadline_s(setting_s, self.half.check_s)


def endings(halves: Iterable[InHand], standings: Mapping[str, Standing], now: float) -> list[HalfEnd]:
    """How to end each half message, as the election has gone.

    The elected one is committed if there is time. What lost is rolled back. Everything else is left alone: a database
    that did not answer may have elected it, and a checker will know.
    """
    ends: list[HalfEnd] = []
    for half in halves:
        if half.receipt_handle is None:
            continue
        match standings.get(half.message_id):
            case Standing.WON if half.may_commit(now):
                ends.append(HalfEnd(half, "commit"))
            case Standing.LOST:
                ends.append(HalfEnd(half, "rollback"))
            case Standing.WON | Standing.OVER | Standing.OPEN | None:
                pass
    return ends
