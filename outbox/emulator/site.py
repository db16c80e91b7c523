"""The emulator without its sockets: requests in, answers out, from the HTTP API or from ``/_emulator``."""

import logging
from collections.abc import Mapping
from itertools import count

from outbox.emulator import wire
from outbox.emulator.api import Api, Poll
from outbox.emulator.authority import Authority
from outbox.emulator.broker import Broker
from outbox.emulator.clock import BrokerClock
from outbox.emulator.control import PREFIX, Control
from outbox.emulator.exchange import Answer, Request
from outbox.emulator.faults import Faults
from outbox.emulator.stored import Rules
from outbox.emulator.waiting import Waiters

__all__ = ["Site"]

_logger = logging.getLogger("outbox.emulator")


class Site:
    """Builds the parts and routes requests between them.

    Args:
        keys: AccessKeyId → AccessKeySecret.
        security_token: see `Authority`.
        strict_topics: see `Broker`.
        rules: see `Broker`.

    Raises:
        ValueError: for a strict topic of an unknown kind.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        security_token: str | None = None,
        strict_topics: Mapping[str, str] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.clock = BrokerClock()
        self.faults = Faults()
        self.waiters = Waiters(self.clock)
        self.broker = Broker(self.clock, strict_topics, rules)
        self.authority = Authority(keys, security_token, self.clock)
        self.control = Control(self.broker, self.authority, self.faults, self.clock)
        self._api = Api(self.broker, self.authority, self.faults, self.clock, self.waiters.wake)
        self._serial = count(1)

    def answer(self, request: Request) -> Answer | Poll:
        """Answer one request, and give it its request id."""
        request.request_id = f"{int(self.clock.now()) & 0xFFFFFFFF:08X}{next(self._serial):016X}"
        if request.target.startswith(PREFIX):
            answer = self.control.handle(request)
            self.waiters.wake_all()
            return answer
        self.control.requests += 1
        try:
            return self._api.handle(request)
        except Exception:
            # A defect of the emulator must not look to its client like a lost connection.
            _logger.exception("outbox.emulator.failed")
            text = "The emulator has a defect; its log says more."
            return Answer(500, wire.error("InternalError", text, request.request_id, "http://localhost"))
