"""A relay over a real database and a publisher that answers as a test tells it."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from outbox import Message
from outbox.clock import SYSTEM, Clock, SystemClock
from outbox.outcomes import Ended, Fault, Outcome, Paused, Refused, Retry, Sent, Unknown
from outbox.relay import Counts, Drained, Relay
from outbox.relay.endings import Ending
from outbox.relay.pipeline import RelayConfig
from outbox.retry import Policy
from outbox.rocketmq.loops import KeptLoops
from outbox.store.database import Database
from outbox.store.lanes import Lane, left_to_do
from outbox.table import attempts, messages, row_of

__all__ = [
    "DOWN",
    "LOST",
    "ODD",
    "WRONG",
    "NoJitter",
    "Once",
    "Scripted",
    "ScriptedLoop",
    "change",
    "drained",
    "history",
    "make_relay",
    "publishers_kind",
    "relay_once",
    "rows",
    "wait_until",
    "write",
]

DOWN = Paused(Fault("ConnectionRefused", "nobody listens"))
LOST = Unknown(Fault("Timeout", "no answer", accepted=None))
ODD = Retry(Fault("SomethingNew", "try again", 400, "req-1"))
WRONG = Refused(Fault("InvalidArgument", "never", 400, "req-2"))

#: "threads" or "loop": the kind of publishers that `make_relay` has, see `publishers_kind`.
KIND = "threads"

#: From topic and body to what comes of it; None for a MessageId of its own.
Answer = Callable[[str, str], Outcome | None]


class Scripted:
    """A publisher that does as told and remembers it all.

    Attributes:
        posts: topic and body of each publish, in the order of their starts.
        ends: how each half message was ended, and its receipt handle.
        most_bytes: of the bodies in flight at once.
    """

    def __init__(self, answer: Answer = lambda _topic, _body: None, sleep_s: float = 0, clock: Clock = SYSTEM) -> None:
        self.posts: list[tuple[str, str]] = []
        self.ends: list[tuple[str, str]] = []
        self.most_bytes = 0
        self._bytes = 0
        self._answer = answer
        self._sleep_s = sleep_s
        self._clock = clock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def publish(self, topic: str, body: str, tag: str | None, properties: str, *, deadline_s: float) -> Outcome:
        with self._lock:
            self.posts.append((topic, body))
            self._bytes += len(body)
            self.most_bytes = max(self.most_bytes, self._bytes)
        if self._sleep_s:
            self._clock.sleep(self._sleep_s)
        try:
            return self._answer(topic, body) or Sent(f"{next(self._ids):032X}")
        finally:
            with self._lock:
                self._bytes -= len(body)

    def start_publish(self, loop, topic, body, tag, properties, *, deadline_s, done):
        """The same from a loop: as the client that is shipped, it makes an outcome of what `publish` raises."""

        def over() -> None:
            try:
                outcome = self._answer(topic, body) or Sent(f"{next(self._ids):032X}")
            except Exception as error:
                logging.getLogger("outbox").exception("outbox.publish_broke")
                outcome = Unknown(Fault("PublisherBroke", type(error).__name__, accepted=None))
            finally:
                self._bytes -= len(body)
            done(outcome)

        self.posts.append((topic, body))
        self._bytes += len(body)
        self.most_bytes = max(self.most_bytes, self._bytes)
        loop.call_after(self._sleep_s, over)

    def post_half(self, topic, body, tag, properties, *, replay, origin, deadline_s):
        return self._with_handle(self.publish(topic, body, tag, properties, deadline_s=deadline_s))

    def start_half(self, loop, topic, body, tag, properties, *, replay, origin, deadline_s, done):
        def over(outcome):
            done(self._with_handle(outcome))

        self.start_publish(loop, topic, body, tag, properties, deadline_s=deadline_s, done=over)

    def end(self, topic, receipt_handle, how, *, deadline_s):
        with self._lock:
            self.ends.append((how, receipt_handle))
        return Ended()

    def start_end(self, loop, topic, receipt_handle, how, *, deadline_s, done):
        loop.call_after(0, lambda: done(self.end(topic, receipt_handle, how, deadline_s=deadline_s)))

    @staticmethod
    def _with_handle(outcome: Outcome) -> Outcome:
        return replace(outcome, receipt_handle=f"handle-{outcome.message_id}") if isinstance(outcome, Sent) else outcome

    def bodies(self, topic: str) -> list[str]:
        return [body for posted, body in self.posts if posted == topic]


class ScriptedLoop:
    """A loop of requests that only take time; see `outbox.rocketmq.transport.Loop`."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._turns = itertools.count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._lock = clock.lock()
        self._news = clock.condition(self._lock)
        self._woken = False

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def call_after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self._clock.monotonic() + seconds, next(self._turns), call))

    def step(self, timeout_s: float | None = None) -> None:
        with self._lock:
            while not self._woken:
                left = self._calls[0][0] - self._clock.monotonic() if self._calls else None
                if left is not None and left <= 0:
                    break
                self._news.wait(left)
            self._woken = False
        while self._calls and self._calls[0][0] <= self._clock.monotonic():
            heapq.heappop(self._calls)[2]()

    def wake(self) -> None:
        with self._lock:
            self._woken = True
            self._news.notify()

    def close(self) -> None:
        pass


@pytest.fixture(params=["threads", "loop"], autouse=True)
def publishers_kind(request, monkeypatch):
    """Runs each test of a module that imports this once with each kind of publishers."""
    monkeypatch.setitem(globals(), "KIND", request.param)
    return request.param


class Once:
    """The ending that comes when nothing is due."""

    def rest_s(self, finished: int) -> float | None:
        return None


class NoJitter(SystemClock):
    """Each wait is the longest it may be."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return high


def make_relay(
    engine: Engine,
    publisher: Any,
    clock: Clock = SYSTEM,
    *,
    on_progress: Callable[[Counts], None] | None = None,
    origin: Callable[[Lane], str] | None = None,
    **config: Any,
) -> Relay:
    """``publisher``: the default destination's, or a mapping of all. ``origin``: of half messages, if there are any."""
    publishers = publisher if isinstance(publisher, dict) else {"default": publisher}
    policy = {"policy": Policy(max_attempts=3, base_s=1000.0, max_s=1000.0)}
    given = {"on_progress": on_progress, "origin": origin}
    more: dict[str, Any] = {name: one for name, one in given.items() if one}
    if KIND == "loop":
        more["loops"] = KeptLoops(lambda _connections: ScriptedLoop(clock))
    return Relay(Database(engine, sleep=clock.sleep), publishers, RelayConfig(**(policy | config)), clock, **more)


def relay_once(
    engine: Engine, publisher: Any, clock: Clock | None = None, ending: Ending | None = None, **config: Any
) -> Counts:
    """Relay until nothing is due."""
    return make_relay(engine, publisher, clock or NoJitter(), **config).run(ending or Once())


def drained(
    engine: Engine, clock: Clock = SYSTEM, timeout_s: float = 10, skip: frozenset[str] = frozenset()
) -> Drained:
    return Drained(clock, lambda: left_to_do(Database(engine), skip), timeout_s)


def write(engine: Engine, *many: Message, horizon_s: float = 0.0) -> None:
    """Enqueue, faster than a caller would."""
    with engine.begin() as connection:
        connection.execute(insert(messages), [row_of(message, horizon_s) for message in many])


def rows(engine: Engine, **equal: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(messages).filter_by(**equal).order_by(messages.c.id)))


def history(engine: Engine, row_id: int) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(attempts).filter_by(message_row_id=row_id).order_by(attempts.c.id)))


def change(engine: Engine, topic: str, **values: Any) -> None:
    """Set columns of a topic's rows by hand."""
    with engine.begin() as connection:
        connection.execute(update(messages).where(messages.c.topic == topic).values(**values))


def wait_until(condition: Callable[[], bool], within_s: float = 10) -> bool:
    """Ask again and again; returns the last answer."""
    until = time.monotonic() + within_s
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.01)
    return met
