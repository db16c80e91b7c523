"""Half messages of one topic: accepted, invisible, offered for checks until they are ended. No I/O.

A half message has a publish handle, valid until its transaction check time has passed. From then on it is offered to
whoever asks for checks, about every ten seconds for a day, each time with a new handle that is valid until the next
offer. Handles are for single use, and the first one that is used ends the half message.
"""

import heapq
from dataclasses import dataclass
from itertools import count

from outbox.emulator.stored import Delivery, Rules, StoredMessage, new_handle

__all__ = ["Half", "Halves"]


@dataclass(slots=True, eq=False)
class Half:
    """A half message.

    Attributes:
        gone_at: when it is dropped if it was not ended, epoch seconds.
        next_at: when it is offered next.
        ended: True once it was committed or rolled back.
    """

    message: StoredMessage
    gone_at: float
    next_at: float
    ended: bool = False
    first_at: float | None = None
    times: int = 0


@dataclass(slots=True, eq=False)
class _Handle:
    half: Half
    valid_until: float
    used: bool = False
    # An offer of a half that had been ended: the broker has forgotten that, so the handle works.
    amnesiac: bool = False


class Halves:
    """The half messages of one topic."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._handles: dict[str, _Handle] = {}
        self._open: list[tuple[float, int, Half]] = []
        self._ended: list[Half] = []
        self._serial = count()

    def add(self, message: StoredMessage, check_s: float) -> str:
        """Keep a half message, first offered ``check_s`` seconds after it was accepted; return its publish handle."""
        half = Half(message, message.at + self._rules.half_life_s, message.at + check_s)
        self._queue(half)
        handle = new_handle(message)
        self._handles[handle] = _Handle(half, half.next_at)
        return handle

    def _queue(self, half: Half) -> None:
        heapq.heappush(self._open, (half.next_at, next(self._serial), half))

    def offer(self, now: float, limit: int, *, early: bool = False, ended_too: bool = False) -> list[Delivery]:
        """Hand out half messages to be checked.

        Args:
            now: epoch seconds.
            limit: at most so many.
            early: those that were never offered as well, however young.
            ended_too: those that were committed or rolled back ten seconds ago or earlier as well.
        """
        if early:
            self._open = [(min(at, now) if half.times == 0 else at, serial, half) for at, serial, half in self._open]
            heapq.heapify(self._open)
        due = self._due(now, limit)
        if ended_too:
            due += [half for half in self._ended if half.next_at <= now < half.gone_at][: limit - len(due)]
        return [self._hand_out(half, now) for half in due]

    def _due(self, now: float, limit: int) -> list[Half]:
        due: list[Half] = []
        while self._open and len(due) < limit and self._open[0][0] <= now:
            half = heapq.heappop(self._open)[2]
            if not half.ended and now < half.gone_at:
                due.append(half)
        return due

    def _hand_out(self, half: Half, now: float) -> Delivery:
        half.next_at = now + self._rules.offer_every_s
        half.times += 1
        half.first_at = half.first_at or now
        handle = new_handle(half.message)
        self._handles[handle] = _Handle(half, half.next_at, amnesiac=half.ended)
        if not half.ended:
            self._queue(half)
        return Delivery(half.message, handle, half.first_at, half.next_at, half.times)

    def end(self, handle: str, now: float, *, again: bool = False) -> StoredMessage | str:
        """Use a handle to commit or roll back.

        Args:
            handle: from the publish or from an offer.
            now: epoch seconds.
            again: let a handle that is still valid in time work more than once.

        Returns:
            The message that is ended; ``ReceiptHandleError`` when the handle is unknown, used or belongs to a half
            message that was ended by another; ``MessageNotExist`` when it is too late.
        """
        known = self._handles.get(handle)
        if known is None:
            return "ReceiptHandleError"
        spent = known.used or (known.half.ended and not known.amnesiac)
        if spent and not again:
            return "ReceiptHandleError"
        if now >= min(known.valid_until, known.half.gone_at):
            return "MessageNotExist"
        known.used = True
        self._close(known.half, now)
        return known.half.message

    def _close(self, half: Half, now: float) -> None:
        if not half.ended:
            half.ended = True
            half.next_at = now + self._rules.offer_every_s
            self._ended.append(half)

    def next_due(self) -> float | None:
        """Return when a half message may be offered next (epoch seconds), None when none is kept."""
        while self._open and self._open[0][2].ended:
            heapq.heappop(self._open)
        return self._open[0][0] if self._open else None
