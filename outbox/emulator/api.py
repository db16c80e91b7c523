"""The operations of the HTTP API: a request in, an answer or a poll out. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from outbox.emulator import wire
from outbox.emulator.authority import Authority
from outbox.emulator.broker import Broker, TopicKey
from outbox.emulator.clock import BrokerClock
from outbox.emulator.exchange import Answer, Request
from outbox.emulator.faults import Fault, Faults
from outbox.emulator.publication import Publication
from outbox.emulator.rejection import Rejection
from outbox.emulator.routes import Route, route
from outbox.emulator.stored import Delivery

__all__ = ["Api", "Poll"]

_EMPTY = Rejection("MessageNotExist", "Message not exist.")


@dataclass(frozen=True, slots=True)
class Poll:
    """A request for messages or checks that found nothing yet and is willing to wait.

    Attributes:
        key: the topic whose changes may bring something.
        wait_s: how long to wait, in real seconds.
        attempt: looks again; None when there is still nothing.
        due: when time alone brings something, in the broker's epoch seconds; None if it does not.
        give_up: makes the answer for the end of the wait.
    """

    key: TopicKey
    wait_s: float
    attempt: Callable[[], Answer | None]
    due: Callable[[], float | None]
    give_up: Callable[[], Answer]


class Api:
    """Answers requests.

    Args:
        broker: what the operations work on.
        authority: lets requests in.
        faults: what goes wrong.
        clock: the broker's.
        changed: called with a topic in which polls may find something now.
    """

    def __init__(
        self,
        broker: Broker,
        authority: Authority,
        faults: Faults,
        clock: BrokerClock,
        changed: Callable[[TopicKey], None],
    ) -> None:
        self._broker = broker
        self._authority = authority
        self._faults = faults
        self._clock = clock
        self._changed = changed

    def handle(self, request: Request) -> Answer | Poll:
        """Do what a request asks for; whatever is wrong with it becomes an answer, too."""
        try:
            asked = route(request.method, request.target)
        except Rejection as rejection:
            return _error(rejection, request)
        happening = self._faults.draw(asked.operation, asked.key.name)
        if happening and (instead := happening[-1].kind.instead):
            return _disturb(instead(happening[-1], request), happening, request)
        try:
            self._authority.verify(request)
            result = self._operate(asked, request, [fault.name for fault in happening])
        except Rejection as rejection:
            for fault in happening:
                fault.give_back()
            return _error(rejection, request)
        if isinstance(result, Poll):
            return _disturbed_poll(result, happening, request)
        return _disturb(result, happening, request)

    def _operate(self, asked: Route, request: Request, quirks: Sequence[str]) -> Answer | Poll:
        match asked.operation:
            case "publish":
                return self._publish(asked, request, quirks)
            case "consume" | "check":
                return self._hand_out(asked, request, quirks)
            case "ack" | "commit" | "rollback":
                return self._end(asked, request, quirks)

    def _publish(self, asked: Route, request: Request, quirks: Sequence[str]) -> Answer:
        publication = Publication.of(wire.read_message(request.body), self._clock.now())
        message, handle = self._broker.publish(asked.key, publication, request.request_id, quirks)
        self._changed(asked.key)
        return Answer(201, wire.accepted(message, handle))

    def _end(self, asked: Route, request: Request, quirks: Sequence[str]) -> Answer:
        group, handles = asked.group(), wire.read_receipt_handles(request.body)
        if asked.operation == "ack":
            failed = self._broker.acknowledge(asked.key, group, handles)
        else:
            failed = self._broker.end(asked.key, handles, commit=asked.operation == "commit", quirks=quirks)
        self._changed(asked.key)
        return Answer(404, wire.failures(failed)) if failed else Answer(204)

    def _hand_out(self, asked: Route, request: Request, quirks: Sequence[str]) -> Answer | Poll:
        wait_s = asked.wait_s()
        take, due = self._checks(asked, quirks) if asked.operation == "check" else self._deliveries(asked)
        if "empty" in quirks:
            take, due = list, lambda: None

        def attempt() -> Answer | None:
            taken = take()
            return Answer(200, wire.batch(taken)) if taken else None

        def give_up() -> Answer:
            return _error(_EMPTY, request)

        return attempt() or (Poll(asked.key, wait_s, attempt, due, give_up) if wait_s else give_up())

    def _checks(
        self, asked: Route, quirks: Sequence[str]
    ) -> tuple[Callable[[], list[Delivery]], Callable[[], float | None]]:
        limit = asked.limit()
        asked.group()
        return (
            lambda: self._broker.check(asked.key, limit, quirks),
            lambda: self._broker.next_check(asked.key),
        )

    def _deliveries(self, asked: Route) -> tuple[Callable[[], list[Delivery]], Callable[[], float | None]]:
        group, limit, tags, ordered = asked.group(), asked.limit(), asked.tags(), "trans" in asked.parameters
        return (
            lambda: self._broker.consume(asked.key, group, limit, tags, ordered=ordered),
            lambda: self._broker.next_delivery(asked.key, group, ordered=ordered),
        )


def _error(rejection: Rejection, request: Request) -> Answer:
    host_id = f"http://{request.headers.get('host', 'localhost')}"
    body = wire.error(rejection.code, rejection.text, request.request_id, host_id)
    return Answer(rejection.status, body, headers=rejection.headers)


def _disturb(result: Answer | Rejection, happening: Sequence[Fault], request: Request) -> Answer:
    answer = _error(result, request) if isinstance(result, Rejection) else result
    for fault in happening:
        if fault.kind.after:
            disturbed = fault.kind.after(fault, answer)
            if isinstance(disturbed, Rejection):
                disturbed = replace(_error(disturbed, request), manner=answer.manner)
            answer = disturbed
    return answer


def _disturbed_poll(poll: Poll, happening: Sequence[Fault], request: Request) -> Poll:
    def attempt() -> Answer | None:
        answer = poll.attempt()
        return answer and _disturb(answer, happening, request)

    def give_up() -> Answer:
        return _disturb(poll.give_up(), happening, request)

    return Poll(poll.key, poll.wait_s, attempt, poll.due, give_up)
