"""A consumer group's place in a topic: what it was handed, what it acknowledged, what is next. No I/O."""

from collections import deque
from collections.abc import Collection
from itertools import takewhile

from outbox.emulator.stored import Delivery, Rules, StoredMessage, new_handle

__all__ = ["Cursor", "Group"]


class Cursor:
    """A position in a growing list of messages, and the messages before it that are not acknowledged yet.

    A message that is not acknowledged in time is handed out again, at most ``max_redeliveries`` times; then it is a
    dead letter.
    """

    def __init__(self, messages: list[StoredMessage], redelivery_s: float, max_redeliveries: int) -> None:
        self._messages = messages
        self._redelivery_s = redelivery_s
        self._max_redeliveries = max_redeliveries
        self._position = 0
        # In the order of next_at, because every delivery waits equally long.
        self._in_flight: dict[str, Delivery] = {}
        self._again: deque[Delivery] = deque()
        self._dead_letters: list[StoredMessage] = []

    def take(self, now: float, limit: int, tags: Collection[str]) -> list[Delivery]:
        """Hand out what is due again, then what is new; messages of other tags are passed over for good."""
        self._expire(now)
        taken = self._hand_out_again(now, limit)
        return taken + self._advance(now, limit - len(taken), tags)

    def take_in_order(self, now: float, limit: int, tags: Collection[str]) -> list[Delivery]:
        """Hand out the same messages again until all of them are acknowledged, and only then the next ones."""
        if any(now < delivery.next_at for delivery in self._in_flight.values()):
            return []
        self._expire(now)
        return self._hand_out_again(now, limit) or self._advance(now, limit, tags)

    def _expire(self, now: float) -> None:
        due = list(takewhile(lambda delivery: delivery.next_at <= now, self._in_flight.values()))
        for delivery in due:
            del self._in_flight[delivery.handle]
        self._dead_letters += [delivery.message for delivery in due if delivery.times > self._max_redeliveries]
        # They were handed out before whatever a small batch has left over.
        self._again.extendleft(delivery for delivery in reversed(due) if delivery.times <= self._max_redeliveries)

    def _hand_out_again(self, now: float, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while self._again and len(taken) < limit:
            delivery = self._again.popleft()
            taken.append(self._hand_out(delivery.message, now, delivery.first_at, delivery.times + 1))
        return taken

    def _advance(self, now: float, limit: int, tags: Collection[str]) -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < limit and self._position < len(self._messages):
            message = self._messages[self._position]
            self._position += 1
            if not tags or message.tag in tags:
                taken.append(self._hand_out(message, now, now, 1))
        return taken

    def _hand_out(self, message: StoredMessage, now: float, first_at: float, times: int) -> Delivery:
        delivery = Delivery(message, new_handle(message), first_at, now + self._redelivery_s, times)
        self._in_flight[delivery.handle] = delivery
        return delivery

    def dead_letters(self, now: float) -> list[StoredMessage]:
        """Return what was handed out too often, in the order in which it was given up."""
        self._expire(now)
        return self._dead_letters

    def acknowledge(self, handle: str, now: float) -> bool:
        """End a delivery; False when its time is over or a later delivery has replaced it."""
        delivery = self._in_flight.get(handle)
        if delivery is None or now >= delivery.next_at:
            return False
        del self._in_flight[handle]
        return True

    def next_due(self) -> float | None:
        """Return when the first message in flight is due again (epoch seconds), None when none is."""
        return next((delivery.next_at for delivery in self._in_flight.values()), None)

    def all_due(self) -> float | None:
        """Return when every message in flight is due again (epoch seconds), None when none is."""
        return max((delivery.next_at for delivery in self._in_flight.values()), default=None)


class Group:
    """One group's cursors in one topic: one for consuming in any order, and one for each shard.

    The two ways of consuming do not know of each other: a group keeps to one of them.
    """

    def __init__(self, log: list[StoredMessage], shards: dict[str, list[StoredMessage]], rules: Rules) -> None:
        self._rules = rules
        self._shards = shards
        self._unordered = Cursor(log, rules.redelivery_s, rules.max_redeliveries)
        self._ordered: dict[str, Cursor] = {}
        # Handles stay here after a redelivery has replaced them, so that a late one is told from an unknown one.
        self._cursor_of: dict[str, Cursor] = {}

    def take(self, now: float, limit: int, tags: Collection[str]) -> list[Delivery]:
        """Hand out up to ``limit`` messages in any order."""
        return self._remember(self._unordered, self._unordered.take(now, limit, tags))

    def take_in_order(self, now: float, limit: int, tags: Collection[str]) -> list[Delivery]:
        """Hand out up to ``limit`` messages, those of one shard in its order; a shard that was served goes last."""
        for shard, messages in self._shards.items():
            if shard not in self._ordered:
                self._ordered[shard] = Cursor(messages, self._rules.ordered_redelivery_s, self._rules.max_redeliveries)
        taken: list[Delivery] = []
        for shard, cursor in list(self._ordered.items()):
            served = self._remember(cursor, cursor.take_in_order(now, limit - len(taken), tags))
            if served:
                self._ordered[shard] = self._ordered.pop(shard)
                taken += served
            if len(taken) == limit:
                break
        return taken

    def _remember(self, cursor: Cursor, taken: list[Delivery]) -> list[Delivery]:
        for delivery in taken:
            self._cursor_of[delivery.handle] = cursor
        return taken

    def acknowledge(self, handle: str, now: float) -> str | None:
        """End a delivery.

        Returns:
            None when it had effect, ``MessageNotExist`` when the handle came too late, ``ReceiptHandleError`` when it
            was never given out or is used already.
        """
        cursor = self._cursor_of.get(handle)
        if cursor is None:
            return "ReceiptHandleError"
        if not cursor.acknowledge(handle, now):
            return "MessageNotExist"
        del self._cursor_of[handle]
        return None

    def dead_letters(self, now: float) -> list[StoredMessage]:
        """Return the messages that were handed out as often as the rules allow and never acknowledged."""
        cursors = [self._unordered, *self._ordered.values()]
        return [message for cursor in cursors for message in cursor.dead_letters(now)]

    def next_due(self, *, ordered: bool) -> float | None:
        """Return when time alone brings something again (epoch seconds), None when nothing is in flight."""
        if not ordered:
            return self._unordered.next_due()
        return min((due for cursor in self._ordered.values() if (due := cursor.all_due()) is not None), default=None)
