"""Long polls: requests that wait until their topic changes, time brings something, or they give up."""

import asyncio
from collections import defaultdict

from outbox.emulator.api import Poll
from outbox.emulator.broker import TopicKey
from outbox.emulator.clock import BrokerClock
from outbox.emulator.exchange import Answer

__all__ = ["Waiters"]

_SHORTEST_PAUSE_S = 0.001


class Waiters:
    """Everyone who waits, by topic; belongs to one event loop."""

    def __init__(self, clock: BrokerClock) -> None:
        self._clock = clock
        self._sleeping: dict[TopicKey, set[asyncio.Future[None]]] = defaultdict(set)

    def wake(self, key: TopicKey) -> None:
        """Let the polls of one topic look again."""
        for sleeper in self._sleeping.get(key, ()):
            _rouse(sleeper)

    def wake_all(self) -> None:
        """Let every poll look again, as when the clock was moved."""
        for key in self._sleeping:
            self.wake(key)

    async def outlast(self, poll: Poll) -> Answer:
        """Wait as long as ``poll`` is willing to, in real time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + poll.wait_s
        while (left := end - loop.time()) > 0:
            due = poll.due()
            pause = left if due is None else min(left, max(due - self._clock.now(), _SHORTEST_PAUSE_S))
            await self._sleep(poll.key, pause)
            answer = poll.attempt()
            if answer is not None:
                return answer
        return poll.give_up()

    async def _sleep(self, key: TopicKey, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        alarm = loop.call_later(seconds, _rouse, sleeper)
        self._sleeping[key].add(sleeper)
        try:
            await sleeper
        finally:
            alarm.cancel()
            self._sleeping[key].discard(sleeper)


def _rouse(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
