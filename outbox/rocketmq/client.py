"""Publishing one message: request, exchange, outcome. Never raises for what the network or the broker did."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Final, Generic, Literal, TypeVar

from outbox.errors import MessageError
from outbox.outcomes import Checked, CheckOutcome, Ended, EndOutcome, Fault, Outcome, Paused, Refused, Sent, Unknown
from outbox.rocketmq.answers import check_outcome_of, end_outcome_of, outcome_of
from outbox.rocketmq.codes import EXPIRED
from outbox.rocketmq.credentials import Keyring
from outbox.rocketmq.frames import without_frames
from outbox.rocketmq.signature import MQ_VERSION, authorization, signature
from outbox.rocketmq.timing import Timing
from outbox.rocketmq.transport import HttpAnswer, HttpRequest, Loop, LoopTransport, NoAnswer, Transport
from outbox.rocketmq.wire import publish_xml, receipt_handles_xml
from outbox.settings import Destination

__all__ = ["Client"]

log = logging.getLogger("outbox")

T = TypeVar("T")

_CONTENT_TYPE: Final = "text/xml;charset=utf-8"
_USER_AGENT: Final = f"rocketmq-outbox/{version('rocketmq-outbox')}"
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORBIDDEN: Final = int(HTTPStatus.FORBIDDEN)
_TAKEN: Final = (Sent, Ended, Checked)

# Nothing is sent to it.
_BAD_TOPIC: Final = Fault("InvalidTopic", "must be 1–64 of A–Z a–z 0–9 _ -")


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class _Call(Generic[T]):
    """A request, and how its answer is read."""

    request: HttpRequest
    read: Callable[[HttpAnswer | NoAnswer], T]


@without_frames
def _tell(call: _Call[T], done: Callable[[T | Unknown], None], answer: HttpAnswer | NoAnswer) -> None:
    try:
        outcome: T | Unknown = call.read(answer)
    except Exception as error:  # a defect of ours must cost this request its outcome, not all others theirs
        log.exception("outbox.publish_broke")
        outcome = Unknown(Fault("PublisherBroke", type(error).__name__, accepted=None))
    done(outcome)


@lru_cache(maxsize=256)
def _target(topic: str, instance_id: str, group_id: str, query: tuple[tuple[str, str], ...]) -> str:
    consumer = [("consumer", group_id)] if query else []
    namespace = [("ns", instance_id)] if instance_id else []
    given = "&".join(f"{name}={value}" for name, value in (*consumer, *namespace, *query))
    return f"/topics/{topic}/messages{'?' if given else ''}{given}"


def _half_properties(properties: str, replay: int, origin: str) -> str:
    return f"{properties}outbox_replay:{replay}|outbox_origin:{origin}|"


class Client:
    """The publishing side of the HTTP API, for one destination. Safe to share between threads.

    `publish` and `end` wait for the answer; `start_publish` and `start_end` have it told, and so keep many requests in
    flight from one thread, where the transport can. Requests are dated as `outbox.rocketmq.timing` says.

    Args:
        destination: instance and credentials; its endpoint is the transport's. A `Keyring` where keys may change while
            the process runs.
        transport: what sends the requests.
        wall_clock: seconds since 1970, for the ``Date`` header, which the broker takes within 15 minutes of its own.
        monotonic: seconds that never go back, by which the broker's clock is remembered.

    Raises:
        ConfigError: an instance id, group id or credential could not be sent unchanged as part of a request line or
            header. Never names a secret's value.
    """

    def __init__(
        self,
        destination: Destination | Keyring,
        transport: Transport,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring = destination if isinstance(destination, Keyring) else Keyring(lambda: destination)
        self._transport = transport
        self._starting = transport if isinstance(transport, LoopTransport) else None
        self._timing = Timing(wall_clock, monotonic, authenticated=self._keyring.endpoint.startswith("https:"))
        self._headers = {
            "Content-Type": _CONTENT_TYPE,
            "x-mq-version": MQ_VERSION,
            "User-Agent": _USER_AGENT,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        }
        self._dated = (0, "")

    def __repr__(self) -> str:
        return f"Client(destination={self._keyring.name!r})"

    @property
    def clock_offset_s(self) -> float | None:
        """Seconds by which the broker's clock is ahead of ours, to about a second; None until an answer has told."""
        return self._timing.offset_s

    @without_frames
    def publish(self, topic: str, body: str, tag: str | None, properties: str, *, deadline_s: float) -> Outcome:
        """Publish one message, once.

        Args:
            topic: 1–64 of ``A–Z a–z 0–9 _ -``.
            body: the text as `outbox.Message` accepted it.
            tag: None for none.
            properties: as the row holds them, ``k:v|k:v|``.
            deadline_s: seconds for all of it: connecting, TLS, sending, and the whole answer.
        """
        call = self._publishing(topic, body, tag, properties, deadline_s)
        return call.read(self._send(call.request)) if isinstance(call, _Call) else call

    @without_frames
    def start_publish(
        self,
        loop: Loop,
        topic: str,
        body: str,
        tag: str | None,
        properties: str,
        *,
        deadline_s: float,
        done: Callable[[Outcome], None],
    ) -> Outcome | None:
        """As `publish`, without waiting: ``done`` is called in the thread of ``loop``. An outcome if nothing is sent.

        Raises:
            RuntimeError: the transport does not send from loops.
        """
        call = self._publishing(topic, body, tag, properties, deadline_s)
        return self._start(loop, call, done) if isinstance(call, _Call) else call

    def request_for(self, topic: str, body: str, tag: str | None, properties: str, *, deadline_s: float) -> HttpRequest:
        """The request that publishes one message, signed now. Arguments as for `publish`.

        Raises:
            MessageError: the topic would not be sent as it is signed.
        """
        if not _TOPIC.fullmatch(topic):
            raise MessageError("topic", "must be 1–64 of A–Z a–z 0–9 _ -")
        return self._request("POST", topic, (), publish_xml(body, tag, properties), deadline_s)

    def post_half(
        self, topic: str, body: str, tag: str | None, properties: str, *, replay: int, origin: str, deadline_s: float
    ) -> Outcome:
        """Publish one half message, once; `Sent` brings the receipt handle that it is ended with.

        Args:
            topic: as for `publish`, and so ``body`` and ``tag``.
            body: the text.
            tag: None for none.
            properties: as the row holds them, ``__TransCheckT`` among them.
            replay: how often the row was replayed.
            origin: the database's.
            deadline_s: seconds for all of it.
        """
        return self.publish(topic, body, tag, _half_properties(properties, replay, origin), deadline_s=deadline_s)

    def start_half(
        self,
        loop: Loop,
        topic: str,
        body: str,
        tag: str | None,
        properties: str,
        *,
        replay: int,
        origin: str,
        deadline_s: float,
        done: Callable[[Outcome], None],
    ) -> Outcome | None:
        """As `post_half`, without waiting; see `start_publish`."""
        whole = _half_properties(properties, replay, origin)
        return self.start_publish(loop, topic, body, tag, whole, deadline_s=deadline_s, done=done)

    @without_frames
    def end(
        self, topic: str, receipt_handle: str, how: Literal["commit", "rollback"], *, deadline_s: float
    ) -> EndOutcome:
        """Commit or roll back one half message, once: a commit is not idempotent, so nothing here repeats it.

        Args:
            topic: where the half message is.
            receipt_handle: from its publish or from an offer.
            how: which.
            deadline_s: seconds for all of it.
        """
        call = self._ending(topic, receipt_handle, how, deadline_s)
        return call.read(self._send(call.request)) if isinstance(call, _Call) else call

    @without_frames
    def start_end(
        self,
        loop: Loop,
        topic: str,
        receipt_handle: str,
        how: Literal["commit", "rollback"],
        *,
        deadline_s: float,
        done: Callable[[EndOutcome], None],
    ) -> EndOutcome | None:
        """As `end`, without waiting; see `start_publish`."""
        call = self._ending(topic, receipt_handle, how, deadline_s)
        return self._start(loop, call, done) if isinstance(call, _Call) else call

    @without_frames
    def check(self, topic: str, limit: int, wait_s: int, *, deadline_s: float) -> CheckOutcome:
        """Ask which half messages of the topic are to be checked.

        Args:
            topic: which.
            limit: half messages at most, 1 to 16.
            wait_s: seconds that the broker may wait for one, 0 to 30; 0 does not wait.
            deadline_s: seconds for all of it, the wait included.
        """
        if not _TOPIC.fullmatch(topic):
            return Paused(_BAD_TOPIC)
        wait = (("waitseconds", str(wait_s)),) if wait_s else ()
        query = (("numOfMessages", str(limit)), *wait, ("trans", "pop"))
        request = self._request("GET", topic, query, b"", deadline_s)
        answer = self._send(request)
        hidden = self._keyring.secrets()
        return self._learnt(request, answer, check_outcome_of(answer, now=self._timing.wall(), hidden=hidden))

    @property
    def group_id(self) -> str:
        """The group that half messages are ended and checked in; empty where the destination has none."""
        return self._keyring.current(self._timing.now()).group_id

    def _request(
        self, method: str, topic: str, query: tuple[tuple[str, str], ...], xml: bytes, deadline_s: float
    ) -> HttpRequest:
        now = self._timing.now()
        destination = self._keyring.current(now)
        target = _target(topic, destination.instance_id, destination.group_id, query)
        return HttpRequest(method, target, self._signed(destination, method, target, xml, now), xml, deadline_s)

    def _publishing(
        self, topic: str, body: str, tag: str | None, properties: str, deadline_s: float
    ) -> "_Call[Outcome] | Refused":
        try:
            request = self.request_for(topic, body, tag, properties, deadline_s=deadline_s)
        except MessageError as error:
            return Refused(Fault(_BAD_TOPIC.code, str(error)))
        return _Call(request, lambda answer: self.outcome_of(request, answer, body))

    def _ending(
        self, topic: str, receipt_handle: str, how: Literal["commit", "rollback"], deadline_s: float
    ) -> "_Call[EndOutcome] | Paused":
        if not _TOPIC.fullmatch(topic):
            return Paused(_BAD_TOPIC)
        xml = receipt_handles_xml([receipt_handle])
        request = self._request("DELETE", topic, (("trans", how),), xml, deadline_s)

        def read(answer: HttpAnswer | NoAnswer) -> EndOutcome:
            hidden = (*self._keyring.secrets(), receipt_handle)
            return self._learnt(request, answer, end_outcome_of(answer, now=self._timing.wall(), hidden=hidden))

        return _Call(request, read)

    def _start(self, loop: Loop, call: "_Call[T]", done: Callable[[T | Unknown], None]) -> T | None:
        refusal = self._timing.refusal()
        if refusal is not None:
            return call.read(NoAnswer(refusal))
        if self._starting is None:
            raise RuntimeError("this transport sends one request at a time")
        self._starting.start(loop, call.request, partial(_tell, call, done))
        return None

    def _send(self, request: HttpRequest) -> HttpAnswer | NoAnswer:
        refusal = self._timing.refusal()
        return self._transport.send(request) if refusal is None else NoAnswer(refusal)

    def outcome_of(self, request: HttpRequest, answer: HttpAnswer | NoAnswer, body: str) -> Outcome:
        """What the answer to ``request`` means for the message whose text was ``body``."""
        hidden = self._keyring.secrets()
        return self._learnt(request, answer, outcome_of(answer, body, now=self._timing.wall(), hidden=hidden))

    def _learnt(self, request: HttpRequest, answer: HttpAnswer | NoAnswer, outcome: T) -> T:
        """The outcome, after what the answer tells of clock and keys has been taken note of."""
        if isinstance(answer, HttpAnswer):
            taken = isinstance(outcome, _TAKEN)
            if taken or (isinstance(outcome, Paused) and outcome.fault.code == EXPIRED):
                self._timing.learn(answer.headers.get("Date", ""), request.headers["Date"], taken=taken)
            if answer.status == _FORBIDDEN:
                self._keyring.refused()
        return outcome

    def _signed(self, destination: Destination, method: str, target: str, body: bytes, now: float) -> dict[str, str]:
        date = self._date(now)
        secret = destination.access_key_secret.get_secret_value()
        proof = signature(secret, method, target, date, _CONTENT_TYPE)
        headers = {
            "Authorization": authorization(destination.access_key_id, proof),
            "Date": date,
            "Content-Length": str(len(body)),
            **self._headers,
        }
        if destination.security_token:
            headers["security-token"] = destination.security_token.get_secret_value()
        return headers

    def _date(self, now: float) -> str:
        second = int(now)
        known, text = self._dated
        if second != known:
            text = formatdate(second, usegmt=True)
            # One assignment, so that no thread can read the second of one date with the text of another.
            self._dated = (second, text)
        return text
