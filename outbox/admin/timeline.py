"""The life of one message, from its enqueue to whatever came last, as one list of events."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outbox.admin.overview import Detail
from outbox.states import State
from outbox.store.audit import Act

__all__ = ["Event", "timeline"]

_UNKNOWN = "the broker may have accepted it all the same"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a message.

    Attributes:
        at: when.
        kind: ``enqueued``, ``attempt``, ``act``, ``sent`` or ``due``.
        title: what, in a few words.
        text: more of it, perhaps a stranger's words; empty where there is no more.
    """

    at: datetime
    kind: str
    title: str
    text: str = ""


def timeline(detail: Detail) -> list[Event]:
    """The events in their order; of attempts that did not end well, the newest 20 are known."""
    events = [*_events(detail.message), *map(_attempt, detail.message["history"]), *map(_act, detail.acts)]
    return sorted(events, key=lambda event: event.at)


def _events(message: dict[str, Any]) -> Iterator[Event]:
    yield Event(_at(message["created_at"]), "enqueued", "Enqueued")
    if message["posted_at"]:
        yield Event(_at(message["posted_at"]), "sent", "Half message elected", f"MessageId {message['message_id']}")
    if message["sent_at"]:
        how = "settled by silence" if message["confirmed_by"] == "silence" else "the broker answered"
        yield Event(_at(message["sent_at"]), "sent", f"Sent: {how}", f"MessageId {message['message_id']}")
    if message["state"] == State.PENDING:
        scheduled = message["deliver_at"] and not message["attempts"]
        title = "Within the broker's reach" if scheduled else "Due"
        yield Event(_at(message["available_at"]), "due", title)


def _attempt(attempt: dict[str, Any]) -> Event:
    status = f", HTTP {attempt['http_status']}" if attempt["http_status"] else ""
    told = [attempt["text"]]
    told += [f"request {attempt['request_id']}"] if attempt["request_id"] else []
    told += [] if attempt["outcome_known"] else [_UNKNOWN]
    return Event(_at(attempt["at"]), "attempt", f"Attempt ended with {attempt['code']}{status}", " · ".join(told))


def _act(act: Act) -> Event:
    return Event(act.at, "act", f"{act.action.replace('_', ' ').capitalize()} by {act.by}", act.reason)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
