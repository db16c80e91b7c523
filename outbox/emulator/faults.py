"""Named faults: what a broker, or the network before it, does wrong on demand. No I/O.

A fault works at one of three stages. *Instead* of the broker: the request has no effect. As a *quirk* of the broker:
the operation itself goes wrong. *After* the broker: the operation had its effect, its answer is disturbed. For one
request the faults are tried in the order in which they were set; the first *instead* ends the search, quirks and
*after*s add up. A request that the broker refuses is answered as ever, and uses up no quirk or *after*.
"""

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from outbox.emulator.exchange import Answer, Manner, Request
from outbox.emulator.rejection import STATUS, Rejection
from outbox.emulator.routes import OPERATIONS

__all__ = ["EVERY_FAULT_TAKES", "KINDS", "Fault", "FaultError", "Faults", "Kind"]

Result = Answer | Rejection
_ANY = "any"
_WANTED = {str: "a text", int: "a whole number", float: "a number"}
_HEX = str.maketrans("0123456789ABCDEF", "123456789ABCDEF0")
_BODY_MD5 = re.compile(rb"(?<=<MessageBodyMD5>)[0-9A-F]{32}")
_LARGEST_ERROR_S = 1e9


class FaultError(ValueError):
    """A fault that cannot be set; the text says why in one line."""


def _retry_after(fault: "Fault") -> tuple[tuple[str, str], ...]:
    seconds = fault.parameters["retry_after_s"]
    return () if seconds is None else (("Retry-After", f"{seconds:g}"),)


def _refuse(fault: "Fault", _request: Request) -> Result:
    code = fault.parameters["code"]
    return Rejection(code, "Refused by a fault.", fault.parameters["status"] or STATUS.get(code, 403))


def _throttle(fault: "Fault", _request: Request) -> Result:
    return Rejection("QpsLimitExceeded", "Throttled by a fault.", headers=_retry_after(fault))


def _unavailable(fault: "Fault", _request: Request) -> Result:
    return Rejection("ServiceUnavailable", "Unavailable by a fault.", headers=_retry_after(fault))


def _drop_before(_fault: "Fault", _request: Request) -> Result:
    return Answer(200, manner=Manner(cut=0))


def _reset(_fault: "Fault", _request: Request) -> Result:
    return Answer(200, manner=Manner(cut=0, reset=True))


def _page(status: int, title: str, *headers: tuple[str, str]) -> Answer:
    html = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return Answer(status, html.encode(), "text/html", headers)


def _html_502(_fault: "Fault", _request: Request) -> Result:
    return _page(502, "502 Bad Gateway")


def _redirect(fault: "Fault", request: Request) -> Result:
    location = fault.parameters["location"] or f"http://{request.headers.get('host', 'localhost')}{request.target}"
    return _page(fault.parameters["status"], "Moved", ("Location", location))


def _with_manner(answer: Answer, **manner: Any) -> Answer:
    return replace(answer, manner=replace(answer.manner, **manner))


def _slow(fault: "Fault", answer: Answer) -> Result:
    return _with_manner(answer, delay_s=answer.manner.delay_s + fault.parameters["seconds"])


def _accept_then_drop(_fault: "Fault", answer: Answer) -> Result:
    return _with_manner(answer, cut=0)


def _accept_then_500(fault: "Fault", _answer: Answer) -> Result:
    return Rejection(fault.parameters["code"], "Failed by a fault, after the effect.", fault.parameters["status"])


def _truncated(fault: "Fault", answer: Answer) -> Result:
    cut = fault.parameters["bytes"]
    # Negative: so many bytes short of the whole answer.
    return _with_manner(answer, cut=-max(len(answer.body) // 2, 1) if cut is None else cut)


def _garbled(_fault: "Fault", answer: Answer) -> Result:
    # 0xFF is in no UTF-8 text, so nothing can take the result for XML.
    return replace(answer, body=answer.body.replace(b"<", b"\xff"))


def _wrong_md5(_fault: "Fault", answer: Answer) -> Result:
    return replace(answer, body=_BODY_MD5.sub(lambda found: found[0].decode().translate(_HEX).encode(), answer.body))


def _wrong_clock(fault: "Fault", answer: Answer) -> Result:
    return _with_manner(answer, clock_off_s=fault.parameters["seconds"])


def _drip(fault: "Fault", answer: Answer) -> Result:
    return _with_manner(answer, drip_s=fault.parameters["seconds"])


def _huge_body(fault: "Fault", answer: Answer) -> Result:
    return _with_manner(answer, pad=fault.parameters["bytes"])


def _many_headers(fault: "Fault", answer: Answer) -> Result:
    filler = tuple((f"X-Filler-{number}", "1") for number in range(1, fault.parameters["headers"] + 1))
    return replace(answer, headers=answer.headers + filler)


def _close_after(_fault: "Fault", answer: Answer) -> Result:
    return _with_manner(answer, close=True)


class Parameter(NamedTuple):
    """A field that a fault takes: its type, its value where it is not given, and the range of a number."""

    type: type
    default: Any = None
    low: float = -math.inf
    high: float = math.inf

    def read(self, name: str, value: Any) -> Any:
        """Check a value; None stands for the default."""
        if value is None:
            return self.default
        accepted = int | float if self.type is float else self.type
        # bool is an int to Python, but never a count.
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise FaultError(f"{name} {value!r} is not {_WANTED[self.type]}")
        if isinstance(value, int | float) and not self.low <= value <= self.high:
            bound = f"between {self.low:g} and {self.high:g}" if self.high < math.inf else f"{self.low:g} or more"
            raise FaultError(f"{name} {value!r} is not {bound}")
        return value


@dataclass(frozen=True)
class Kind:
    """What a fault's name stands for: at which stage it works, on which operation unless told, and how."""

    op: str
    parameters: Mapping[str, Parameter]
    instead: Callable[["Fault", Request], Result] | None = None
    after: Callable[["Fault", Answer], Result] | None = None

    @property
    def stage(self) -> str:
        """``instead``, ``after`` or ``quirk``."""
        return "instead" if self.instead else "after" if self.after else "quirk"

    def describe(self) -> dict[str, Any]:
        """Return its stage, its operation, and its own fields with the values they have unless given."""
        return {
            "stage": self.stage,
            "op": self.op,
            "takes": {name: one.default for name, one in self.parameters.items()},
        }


_COMMON = {
    "fault": Parameter(str),
    "rate": Parameter(float, 1.0, 0, 1),
    "count": Parameter(int, None, 1),
    "topic": Parameter(str),
    "op": Parameter(str),
    "seed": Parameter(int),
}
_RETRY_AFTER = {"retry_after_s": Parameter(float, None, 0)}


def _quirk(op: str) -> Kind:
    return Kind(op, {})


KINDS: Mapping[str, Kind] = {
    "refuse": Kind(
        "publish", {"code": Parameter(str, "AccessDenied"), "status": Parameter(int, None, 200, 599)}, instead=_refuse
    ),
    "throttle": Kind("publish", _RETRY_AFTER, instead=_throttle),
    "unavailable": Kind("publish", _RETRY_AFTER, instead=_unavailable),
    "drop_before": Kind("publish", {}, instead=_drop_before),
    "reset": Kind("publish", {}, instead=_reset),
    "html_502": Kind("publish", {}, instead=_html_502),
    "redirect": Kind(
        "publish", {"location": Parameter(str), "status": Parameter(int, 307, 200, 599)}, instead=_redirect
    ),
    "commit_dropped_before": Kind("commit", {}, instead=_drop_before),
    "early_check": _quirk("check"),
    "repeated_check": _quirk("check"),
    "empty": _quirk("check"),
    "commit_delivers_twice": _quirk("commit"),
    "hostile": _quirk("commit"),
    "same_message_id": _quirk("publish"),
    "amnesia": _quirk("publish"),
    "slow": Kind("publish", {"seconds": Parameter(float, 1.0, 0)}, after=_slow),
    "accept_then_drop": Kind("publish", {}, after=_accept_then_drop),
    "accept_then_500": Kind(
        "publish",
        {"code": Parameter(str, "InternalError"), "status": Parameter(int, 500, 200, 599)},
        after=_accept_then_500,
    ),
    "truncated": Kind("publish", {"bytes": Parameter(int, None, 0)}, after=_truncated),
    "garbled": Kind("publish", {}, after=_garbled),
    "wrong_md5": Kind("publish", {}, after=_wrong_md5),
    "wrong_clock": Kind(
        "publish", {"seconds": Parameter(float, 3600.0, -_LARGEST_ERROR_S, _LARGEST_ERROR_S)}, after=_wrong_clock
    ),
    "drip": Kind("publish", {"seconds": Parameter(float, 0.05, 0)}, after=_drip),
    "huge_body": Kind("publish", {"bytes": Parameter(int, 1_073_741_824, 1)}, after=_huge_body),
    "many_headers": Kind("publish", {"headers": Parameter(int, 100_000, 1, 1_000_000)}, after=_many_headers),
    "close_after": Kind("publish", {}, after=_close_after),
    "lost_commit": Kind("commit", {}, after=_accept_then_drop),
}
"""Every fault there is, by name."""

EVERY_FAULT_TAKES: Mapping[str, Any] = {name: one.default for name, one in _COMMON.items() if name != "fault"}
"""The fields that all faults have, and their values unless given; without ``op`` it is the kind's."""


class Fault:
    """A fault that is set.

    Args:
        specification: ``fault`` (its name), and as far as wanted ``rate`` (0 to 1), ``count`` (how many times it still
            happens), ``topic``, ``op`` (an operation, or ``any``), ``seed`` (of its own random numbers) and the
            parameters of its kind.

    Raises:
        FaultError: naming what is wrong, and what there is to choose from.
    """

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self.name = _COMMON["fault"].read("fault", specification.get("fault"))
        kind = KINDS.get(self.name)
        if kind is None:
            raise FaultError(f"unknown fault {self.name!r}; known: {', '.join(sorted(KINDS))}")
        fields = {**_COMMON, **kind.parameters}
        if unknown := [name for name in specification if name not in fields]:
            raise FaultError(f"unknown field {unknown[0]!r} of {self.name}; known: {', '.join(sorted(fields))}")
        values = {name: parameter.read(name, specification.get(name)) for name, parameter in fields.items()}
        self.kind = kind
        self.op = values["op"] or kind.op
        if self.op not in (*OPERATIONS, _ANY):
            raise FaultError(f"unknown op {self.op!r}; known: {', '.join((*OPERATIONS, _ANY))}")
        self.rate = values["rate"]
        self.remaining = values["count"]
        self.topic = values["topic"]
        self.seed = values["seed"]
        self.parameters = {name: values[name] for name in kind.parameters}
        self._random = random.Random(self.seed)  # noqa: S311 - no secret

    def happens(self, operation: str, topic: str) -> bool:
        """Decide about one request; a decision by rate draws one random number."""
        if self.remaining == 0 or self.op not in (_ANY, operation) or self.topic not in (None, topic):
            return False
        if self.rate < 1 and self._random.random() >= self.rate:
            return False
        if self.remaining is not None:
            self.remaining -= 1
        return True

    def give_back(self) -> None:
        """It has not happened after all: the broker had refused the request."""
        if self.remaining is not None:
            self.remaining += 1

    def describe(self) -> dict[str, Any]:
        """Return the fields it is set with; ``count`` is what is left of it."""
        fields = {"fault": self.name, "op": self.op, "topic": self.topic, "rate": self.rate, "count": self.remaining}
        return {**fields, "seed": self.seed, **self.parameters}


class Faults:
    """The faults that are set, in order."""

    def __init__(self) -> None:
        self._set: list[Fault] = []

    def add(self, *specifications: Mapping[str, Any]) -> None:
        """Set faults, all or none.

        Raises:
            FaultError: see `Fault`.
        """
        self._set += [Fault(specification) for specification in specifications]

    def clear(self) -> None:
        """Unset every fault."""
        self._set.clear()

    def describe(self) -> list[dict[str, Any]]:
        """Return the faults that may still happen."""
        return [fault.describe() for fault in self._set if fault.remaining != 0]

    def draw(self, operation: str, topic: str) -> list[Fault]:
        """Decide which faults happen to one request; one that answers instead of the broker is the last."""
        happening: list[Fault] = []
        for fault in self._set:
            if fault.happens(operation, topic):
                happening.append(fault)
                if fault.kind.instead:
                    break
        return happening
