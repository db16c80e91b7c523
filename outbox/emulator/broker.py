"""The broker's state: topics, their messages, groups and half messages. No I/O; the clock is given.

Nothing is ever written down: a broker lives as long as its process.
"""

import heapq
import secrets
from collections.abc import Collection, Mapping, Sequence
from hashlib import md5
from itertools import count
from typing import Any, NamedTuple

from outbox.emulator.clock import BrokerClock
from outbox.emulator.groups import Group
from outbox.emulator.halves import Halves
from outbox.emulator.publication import KINDS, Kind, Publication
from outbox.emulator.rejection import Rejection
from outbox.emulator.stored import Delivery, Failure, Rules, StoredMessage

__all__ = ["Broker", "Topic", "TopicKey"]


class TopicKey(NamedTuple):
    """An instance id (empty for a default instance) and a topic's name."""

    ns: str
    name: str


class Topic:
    """One topic's messages and groups."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._log: list[StoredMessage] = []
        self._shards: dict[str, list[StoredMessage]] = {}
        self._scheduled: list[tuple[float, int, StoredMessage]] = []
        self._serial = count()
        self.groups: dict[str, Group] = {}
        self.halves = Halves(rules)

    def show(self, message: StoredMessage) -> None:
        """Make a message visible to every group."""
        message.visible += 1
        self._log.append(message)
        self._shards.setdefault(message.properties.get("__SHARDINGKEY", ""), []).append(message)

    def schedule(self, message: StoredMessage, deliver_at: float) -> None:
        """Make a message visible at ``deliver_at`` (epoch seconds)."""
        heapq.heappush(self._scheduled, (deliver_at, next(self._serial), message))

    def settle(self, now: float) -> None:
        """Make visible what was scheduled and whose time has come."""
        while self._scheduled and self._scheduled[0][0] <= now:
            self.show(heapq.heappop(self._scheduled)[2])

    def group(self, name: str) -> Group:
        """Return a group; a new one begins at the topic's beginning."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(self._log, self._shards, self._rules)
        return group

    def next_delivery(self, group: str, *, ordered: bool) -> float | None:
        """Return when time alone brings this group a message (epoch seconds), None if it does not."""
        scheduled = self._scheduled[0][0] if self._scheduled else None
        due = (scheduled, self.group(group).next_due(ordered=ordered))
        return min((instant for instant in due if instant is not None), default=None)


class Broker:
    """All topics, and the ledger of everything that was accepted.

    Args:
        clock: tells the time of every decision.
        strict_topics: topic name → its only kind of message. Without it topics spring into being and take every kind.
        rules: how long and how often.

    Raises:
        ValueError: for a kind of message that does not exist.
    """

    def __init__(
        self, clock: BrokerClock, strict_topics: Mapping[str, str] | None = None, rules: Rules | None = None
    ) -> None:
        for name, kind in (strict_topics or {}).items():
            if kind not in KINDS:
                raise ValueError(f"topic {name!r}: {kind!r} is none of {', '.join(KINDS)}")
        self._clock = clock
        self._strict_topics = None if strict_topics is None else dict(strict_topics)
        self._rules = rules or Rules()
        self._topics: dict[TopicKey, Topic] = {}
        self._ledger: list[StoredMessage] = []
        self._id_prefix = secrets.token_hex(10).upper()
        self._id_serial = count(1)

    def topic(self, key: TopicKey, kind: Kind | None = None) -> Topic:
        """Return a topic, up to date.

        Raises:
            Rejection: ``TopicNotExist`` where topics are strict and this one is unknown or not of this ``kind``.
        """
        if self._strict_topics is not None:
            _check_strict(self._strict_topics.get(key.name), kind)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(self._rules)
        topic.settle(self._clock.now())
        return topic

    def publish(
        self, key: TopicKey, publication: Publication, request_id: str, quirks: Collection[str] = ()
    ) -> tuple[StoredMessage, str | None]:
        """Accept a message.

        ``quirks`` are names of faults: ``same_message_id`` keeps it twice, ``amnesia`` forgets it at once.

        Returns:
            The message, and the publish handle of a half message.
        """
        topic = self.topic(key, publication.kind)
        message = self._message(key, publication, request_id)
        self._ledger.append(message)
        if "amnesia" in quirks:
            return message, f"{message.message_id}-forgotten" if publication.check_s else None
        handle = self._keep(topic, message, publication)
        if "same_message_id" in quirks:
            twin = self._message(key, publication, request_id)
            twin.message_id = message.message_id
            self._ledger.append(twin)
            self._keep(topic, twin, publication)
        return message, handle

    def _message(self, key: TopicKey, publication: Publication, request_id: str) -> StoredMessage:
        return StoredMessage(
            key.ns,
            key.name,
            f"{self._id_prefix}{next(self._id_serial):012X}",
            publication.tag,
            publication.body,
            md5(publication.body.encode(), usedforsecurity=False).hexdigest().upper(),
            publication.properties,
            request_id,
            self._clock.now(),
        )

    def _keep(self, topic: Topic, message: StoredMessage, publication: Publication) -> str | None:
        if publication.check_s is not None:
            return topic.halves.add(message, publication.check_s)
        if publication.deliver_at is not None and publication.deliver_at > message.at:
            topic.schedule(message, publication.deliver_at)
        else:
            topic.show(message)
        return None

    def consume(
        self, key: TopicKey, group: str, limit: int, tags: Collection[str] = (), *, ordered: bool = False
    ) -> list[Delivery]:
        """Hand up to ``limit`` messages to a group; empty ``tags`` stand for all."""
        member = self.topic(key).group(group)
        take = member.take_in_order if ordered else member.take
        return take(self._clock.now(), limit, tags)

    def acknowledge(self, key: TopicKey, group: str, handles: Sequence[str]) -> list[Failure]:
        """End deliveries; return the handles that had no effect."""
        member, now = self.topic(key).group(group), self._clock.now()
        return [Failure(handle, code) for handle in handles if (code := member.acknowledge(handle, now)) is not None]

    def check(self, key: TopicKey, limit: int, quirks: Collection[str] = ()) -> list[Delivery]:
        """Hand out half messages to be checked; ``quirks`` may be ``early_check`` and ``repeated_check``."""
        early, ended_too = "early_check" in quirks, "repeated_check" in quirks
        return self.topic(key).halves.offer(self._clock.now(), limit, early=early, ended_too=ended_too)

    def end(
        self, key: TopicKey, handles: Sequence[str], *, commit: bool, quirks: Collection[str] = ()
    ) -> list[Failure]:
        """Commit or roll back half messages; return the handles that had no effect.

        ``quirks`` may be ``hostile`` (a used handle works again) and ``commit_delivers_twice``.
        """
        topic, now = self.topic(key), self._clock.now()
        failed: list[Failure] = []
        for handle in handles:
            ended = topic.halves.end(handle, now, again="hostile" in quirks)
            if isinstance(ended, str):
                failed.append(Failure(handle, ended))
            elif commit:
                for _ in range(2 if "commit_delivers_twice" in quirks else 1):
                    topic.show(ended)
        return failed

    def next_delivery(self, key: TopicKey, group: str, *, ordered: bool) -> float | None:
        """Return when time alone brings this group a message, in epoch seconds; None if it does not."""
        return self.topic(key).next_delivery(group, ordered=ordered)

    def next_check(self, key: TopicKey) -> float | None:
        """Return when a half message is to be offered next, in epoch seconds; None when none is kept."""
        return self.topic(key).halves.next_due()

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return what groups were given too often: entries as in the ledger, and the ``group``."""
        now = self._clock.now()
        return [
            {"group": name, **_entry(message, bodies=True)}
            for topic in self._topics.values()
            for name, group in topic.groups.items()
            for message in group.dead_letters(now)
        ]

    def ledger(self, after: int = 0, *, bodies: bool = True) -> list[dict[str, Any]]:
        """Return everything that was accepted since the ledger was cleared, in order, without the first ``after``."""
        now = self._clock.now()
        for topic in self._topics.values():
            topic.settle(now)
        return [_entry(message, bodies=bodies) for message in self._ledger[after:]]

    def clear_ledger(self) -> None:
        """Forget what was accepted; topics and groups keep their messages."""
        self._ledger.clear()

    def clear(self) -> None:
        """Forget everything: topics, groups, half messages and the ledger."""
        self._topics.clear()
        self._ledger.clear()


def _check_strict(known: str | None, kind: Kind | None) -> None:
    if known is None:
        raise Rejection("TopicNotExist", "The topic you provided does not exist.")
    if kind not in (None, known):
        raise Rejection("TopicNotExist", f"The topic you provided takes {known} messages, not {kind} ones.")


def _entry(message: StoredMessage, *, bodies: bool) -> dict[str, Any]:
    entry = {
        "topic": message.topic,
        "ns": message.ns,
        "message_id": message.message_id,
        "tag": message.tag,
        "body": message.body,
        "properties": message.properties,
        "visible": message.visible,
        "at": message.at,
    }
    if not bodies:
        del entry["body"]
    return entry
