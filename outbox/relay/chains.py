"""What goes from the claimer to the publishers: rows, in chains where their order matters."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from outbox.store.claim import ClaimedRow
from outbox.store.lanes import AutomaticPause, Lane

__all__ = ["Assignment", "Chain", "in_chains"]


@dataclass(slots=True)
class Chain:
    """Rows to publish one after the other: those of one ordering key, or a single row without one.

    Attributes:
        lane: where they go.
        rows: in order; the one in flight is not among them.
        start_before: monotonic time after which no publish may start, for the lease could end under it.
        probe: the automatic pause that this row tests, None in the ordinary case.
        seen: what `Board.pauses` was at the look that found the lane.
    """

    lane: Lane
    rows: deque[ClaimedRow]
    start_before: float
    probe: AutomaticPause | None
    seen: int


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class Assignment:
    """One row for one publisher."""

    chain: Chain
    row: ClaimedRow


def in_chains(rows: Sequence[ClaimedRow]) -> Iterable[deque[ClaimedRow]]:
    """Rows of one ordering key, which stand together and in order, make one chain; every other row is its own."""
    by_key: dict[str, deque[ClaimedRow]] = {}
    for row in rows:
        if row.ordering_key is None:
            yield deque((row,))
        else:
            by_key.setdefault(row.ordering_key, deque()).append(row)
    yield from by_key.values()
