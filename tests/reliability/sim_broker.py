"""The broker and the network inside the simulation: the emulator's own code, behind requests that may go astray."""

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from requests.structures import CaseInsensitiveDict

from outbox.emulator.api import Api, Poll
from outbox.emulator.authority import Authority
from outbox.emulator.broker import Broker
from outbox.emulator.clock import BrokerClock
from outbox.emulator.exchange import Answer, Request
from outbox.emulator.faults import Faults
from outbox.outcomes import Fault
from outbox.rocketmq.transport import HttpAnswer, HttpRequest, NoAnswer
from tests.reliability.sim_chaos import Chaos

__all__ = ["KEYS", "SimBroker", "SimTransport"]

KEYS = {"FAKEAKID": "FAKESECRET"}

_INSTEAD = {
    "before_503": {"fault": "unavailable", "op": "any"},
    "throttle": {"fault": "throttle", "op": "any"},
    "forbidden": {"fault": "refuse", "op": "any"},
}
_AFTER = {
    "after_500": {"fault": "accept_then_500", "op": "any"},
    "garbled": {"fault": "garbled", "op": "any"},
}
_QUIRKS = {
    "wrong_md5": {"fault": "wrong_md5", "op": "publish"},
    "wrong_clock": {"fault": "wrong_clock", "op": "check"},
    "early_check": {"fault": "early_check"},
    "empty": {"fault": "empty"},
}
_QUIRKS_OF = {"POST": ("wrong_md5",), "GET": ("wrong_clock", "early_check", "empty"), "DELETE": ()}
_POLL_EVERY_S = 1.0
# Seconds by which a Date is wrong: so little that it may be believed, or so much that nobody would.
_SKEWS = (-100.0, -30.0, -5.0, 5.0, 11.0, 60.0, 3600.0)
_MESSAGE_ID = re.compile(rb"<MessageId>([0-9A-F]+)<")


class SimBroker:
    """The emulator without sockets, on the schedule's clock.

    Args:
        chaos: what goes wrong.
        hostile: a commit that is repeated on a handle that is still valid delivers again.
        halves: whether half messages are simulated, with what can go wrong with them.

    Attributes:
        on_its_way: requests that have not arrived yet, or whose answers have not.
        twins: of half messages whose POST was doubled, MessageId by MessageId.
        unheard: MessageIds that were offered in polls which arrived when nobody waited for them any more.
    """

    #: The one of the schedule at hand.
    latest: "SimBroker | None" = None

    def __init__(self, chaos: Chaos, *, hostile: bool = False, halves: bool = False) -> None:
        SimBroker.latest = self
        self.chaos = chaos
        self.halves = halves
        self.on_its_way = 0
        self.quirks: tuple[str, ...] = ("hostile",) if hostile else ()
        self.twins: dict[str, str] = {}
        self.unheard: set[str] = set()
        clock = BrokerClock(chaos.clock.wall)
        self.clock = clock
        self.faults = Faults()
        self.broker = Broker(clock)
        self._api = Api(self.broker, Authority(KEYS, None, clock), self.faults, clock, lambda _key: None)

    def handle(self, request: HttpRequest, extra: list[dict[str, Any]]) -> Answer | Poll:
        """Do what a request asks for, with these faults."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.faults.clear()
        self.faults.add(*extra)
        return self._api.handle(Request(request.method, request.target, headers, request.body, "SIMULATED"))

    def ledger(self) -> list[dict[str, Any]]:
        """Everything that was accepted."""
        return self.broker.ledger()

    def open_halves(self) -> list[str]:
        """MessageIds of half messages that wait for their end."""
        topics = self.broker._topics.values()
        return [one.message.message_id for topic in topics for _, _, one in topic.halves._open if not one.ended]


@dataclass
class _Exchange:
    request: HttpRequest
    sent_at: float
    answers: list[HttpAnswer | NoAnswer] = field(default_factory=list)

    def is_over(self) -> bool:
        return bool(self.answers)


class SimTransport:
    """A `Transport` of one process; what it sends travels on when the process dies."""

    def __init__(self, broker: SimBroker) -> None:
        self._broker = broker

    def send(self, request: HttpRequest) -> HttpAnswer | NoAnswer:
        """Send one request once; every fate that a request can have is possible."""
        chaos, clock = self._broker.chaos, self._broker.chaos.clock
        chaos.pass_by(f"{request.method} {request.target}")
        if chaos.strikes("refused"):
            return NoAnswer(Fault("ConnectionRefused", "nobody listens", accepted=False))
        exchange = _Exchange(request, clock.now)
        self._broker.on_its_way += 1
        clock.start("network", "request", lambda: self._travel(exchange))
        clock.wait_until(exchange.is_over, request.deadline_s)
        answer = exchange.answers[0] if exchange.answers else _TIMEOUT
        if self._broker.halves and request.method == "POST" and chaos.strikes("frozen_after_post"):
            clock.freeze(clock.running.process, min(chaos.check_s, 60.0) * chaos.chance.uniform(0.9, 3.0))
        if request.method == "GET" and self._broker.halves and chaos.strikes("frozen_after_check"):
            clock.freeze(clock.running.process, chaos.chance.choice((3.0, 8.0, 20.0, 60.0)))
        chaos.pass_by("answered")
        return answer

    def close(self) -> None:
        """Nothing is kept."""

    def _travel(self, exchange: _Exchange) -> None:
        chaos, clock, broker = self._broker.chaos, self._broker.chaos.clock, self._broker
        try:
            if chaos.strikes("request_lost"):
                return
            commits = exchange.request.method == "DELETE"
            if commits and chaos.strikes("commit_lost_before"):
                return
            if chaos.strikes("request_late"):
                clock.sleep(chaos.long())
            clock.step("arrive")
            answer = self._at_broker(exchange.request)
            if exchange.request.method == "GET" and clock.now > exchange.sent_at + exchange.request.deadline_s:
                broker.unheard |= {one.decode() for one in _MESSAGE_ID.findall(answer.body)}
            if broker.halves and exchange.request.method == "POST" and chaos.strikes("post_doubled"):
                self._double(exchange.request)
            if chaos.log is not None:
                chaos.note(f"{exchange.request.method} {exchange.request.target} -> {answer.status}")
            if (commits and chaos.strikes("commit_answer_lost")) or chaos.strikes("answer_lost"):
                if chaos.chance.random() < 0.5:
                    exchange.answers.append(_RESET)
                return
            if chaos.strikes("answer_late"):
                clock.sleep(chaos.long())
            date = _date(int(broker.clock.now() + answer.manner.clock_off_s))
            headers = CaseInsensitiveDict({"Date": date, **dict(answer.headers)})
            exchange.answers.append(HttpAnswer(answer.status, headers, answer.body))
        finally:
            broker.on_its_way -= 1

    def _quirk(self, name: str) -> dict[str, Any]:
        fault = _QUIRKS[name]
        return fault | {"seconds": self._broker.chaos.chance.choice(_SKEWS)} if name == "wrong_clock" else fault

    def _double(self, request: HttpRequest) -> None:
        """Have the broker take a POST twice; neither the sender nor the broker knows."""
        before = len(self._broker.ledger())
        self._at_broker(request)
        for entry in self._broker.ledger()[before:]:
            twin, first = entry["message_id"], self._broker.ledger()[before - 1]["message_id"]
            self._broker.twins |= {twin: first, first: twin}

    def _at_broker(self, request: HttpRequest) -> Answer:
        chaos, broker = self._broker.chaos, self._broker
        faults = [fault for name, fault in _INSTEAD.items() if chaos.strikes(name)][:1]
        faults += [fault for name, fault in _AFTER.items() if chaos.strikes(name)]
        faults += [{"fault": name} for name in broker.quirks]
        if broker.halves:
            faults += [self._quirk(name) for name in _QUIRKS_OF[request.method] if chaos.strikes(name)]
        answer = broker.handle(request, faults)
        if isinstance(answer, Answer):
            return answer
        until = chaos.clock.now + answer.wait_s
        while (left := until - chaos.clock.now) > 0:
            chaos.clock.sleep(min(left, _POLL_EVERY_S))
            if (found := answer.attempt()) is not None:
                return found
        return answer.give_up()


_TIMEOUT = NoAnswer(Fault("Timeout", "no answer in time", accepted=None))
_RESET = NoAnswer(Fault("ConnectionReset", "the connection broke", accepted=None))


@lru_cache(maxsize=64)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
