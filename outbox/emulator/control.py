"""What the emulator offers beside the HTTP API, under ``/_emulator``: ledger, faults, clock, keys. JSON, no I/O."""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from outbox.emulator.authority import Authority
from outbox.emulator.broker import Broker
from outbox.emulator.clock import BrokerClock, ClockError
from outbox.emulator.exchange import Answer, Request
from outbox.emulator.faults import EVERY_FAULT_TAKES, KINDS, FaultError, Faults

__all__ = ["BANNER", "PREFIX", "Control"]

PREFIX = "/_emulator"
BANNER = (
    "An emulator of the HTTP API of Message Queue for Apache RocketMQ, part of rocketmq-outbox. It is made for "
    "development and tests, keeps everything in memory, and is not the service."
)

_Json = dict[str, Any]


class _BadRequestError(ValueError):
    """The request cannot be done; the text says why in one line."""


class Control:
    """Answers ``/_emulator…``, as ``docs/emulator.md`` says.

    Attributes:
        requests: how many requests to the HTTP API there were since the ledger was cleared.
    """

    def __init__(self, broker: Broker, authority: Authority, faults: Faults, clock: BrokerClock) -> None:
        self.requests = 0
        self._broker = broker
        self._authority = authority
        self._faults = faults
        self._clock = clock
        self._actions: dict[tuple[str, str], Callable[[dict[str, str], bytes], _Json]] = {
            ("GET", ""): self._about,
            ("DELETE", ""): self._begin_anew,
            ("GET", "/ledger"): self._read_ledger,
            ("DELETE", "/ledger"): self._clear_ledger,
            ("GET", "/dead_letters"): self._read_dead_letters,
            ("GET", "/faults"): self._read_faults,
            ("POST", "/faults"): self._add_faults,
            ("DELETE", "/faults"): self._clear_faults,
            ("GET", "/clock"): self._read_clock,
            ("POST", "/clock"): self._move_clock,
            ("GET", "/keys"): self._read_keys,
            ("POST", "/keys"): self._change_keys,
        }

    def handle(self, request: Request) -> Answer:
        """Do what a request asks for; 400 with ``{"error": …}`` when it cannot be done, 404 when it is nothing here."""
        path, _, query = request.target.partition("?")
        action = self._actions.get((request.method, path.removeprefix(PREFIX).rstrip("/")))
        if action is None:
            known = ", ".join(f"{method} {PREFIX}{tail}" for method, tail in self._actions)
            return _json(404, {"error": f"no such endpoint; known: {known}"})
        try:
            return _json(200, action(dict(parse_qsl(query, keep_blank_values=True)), request.body))
        except (_BadRequestError, ClockError, FaultError) as error:
            return _json(400, {"error": str(error)})

    def ledger(self, after: int = 0, *, bodies: bool = True) -> _Json:
        """Return ``{"requests": n, "messages": […]}``, see `Broker.ledger`."""
        return {"requests": self.requests, "messages": self._broker.ledger(after, bodies=bodies)}

    def forget(self) -> None:
        """Clear the ledger, and count requests from 0 again."""
        self.requests = 0
        self._broker.clear_ledger()

    def begin_anew(self) -> None:
        """Be as at the start: no topics, messages and faults, the first keys, the wall clock's time."""
        self._broker.clear()
        self._authority.reset()
        self._faults.clear()
        self._clock.reset()
        self.requests = 0

    def _about(self, _query: dict[str, str], _body: bytes) -> _Json:
        endpoints = [f"{method} {PREFIX}{tail}" for method, tail in self._actions]
        faults = {name: kind.describe() for name, kind in KINDS.items()}
        return {"about": BANNER, "endpoints": endpoints, "every_fault_takes": EVERY_FAULT_TAKES, "faults": faults}

    def _begin_anew(self, query: dict[str, str], _body: bytes) -> _Json:
        self.begin_anew()
        return self._about(query, b"")

    def _read_ledger(self, query: dict[str, str], _body: bytes) -> _Json:
        after, bodies = query.pop("after", "0"), query.pop("bodies", "true")
        if query or not (after.isascii() and after.isdigit()) or bodies not in ("true", "false"):
            raise _BadRequestError("the ledger takes after=N (a whole number) and bodies=true|false")
        return self.ledger(int(after), bodies=bodies == "true")

    def _clear_ledger(self, _query: dict[str, str], _body: bytes) -> _Json:
        self.forget()
        return self.ledger()

    def _read_dead_letters(self, _query: dict[str, str], _body: bytes) -> _Json:
        return {"messages": self._broker.dead_letters()}

    def _read_faults(self, _query: dict[str, str], _body: bytes) -> _Json:
        return {"faults": self._faults.describe()}

    def _add_faults(self, query: dict[str, str], body: bytes) -> _Json:
        given = _parse(body)
        specifications = given if isinstance(given, list) else [given]
        if not all(isinstance(one, Mapping) for one in specifications):
            raise _BadRequestError("a fault is a JSON object, or a list of them is given")
        self._faults.add(*specifications)
        return self._read_faults(query, b"")

    def _clear_faults(self, query: dict[str, str], _body: bytes) -> _Json:
        self._faults.clear()
        return self._read_faults(query, b"")

    def _read_clock(self, _query: dict[str, str], _body: bytes) -> _Json:
        return {"now": self._clock.now()}

    def _move_clock(self, query: dict[str, str], body: bytes) -> _Json:
        match _parse(body):
            case {"advance_s": int() | float() as seconds, **rest} if not rest:
                self._clock.advance(seconds)
            case {"set": int() | float() as epoch, **rest} if not rest:
                self._clock.set(epoch)
            case _:
                raise _BadRequestError('the clock takes {"advance_s": seconds} or {"set": epoch seconds}')
        return self._read_clock(query, b"")

    def _read_keys(self, _query: dict[str, str], _body: bytes) -> _Json:
        return {"keys": self._authority.key_ids()}

    def _change_keys(self, query: dict[str, str], body: bytes) -> _Json:
        changes = _parse(body)
        if not isinstance(changes, dict) or not all(_is_key(*change) for change in changes.items()):
            raise _BadRequestError('the keys take {"AccessKeyId": "secret"}, or null to take one away')
        self._authority.change_keys(changes)
        return self._read_keys(query, b"")


def _is_key(key_id: str, secret: Any) -> bool:
    return bool(key_id) and (secret is None or (isinstance(secret, str) and bool(secret)))


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise _BadRequestError(f"not JSON: {error}") from None


def _json(status: int, document: _Json) -> Answer:
    return Answer(status, json.dumps(document, ensure_ascii=False).encode(), "application/json")
