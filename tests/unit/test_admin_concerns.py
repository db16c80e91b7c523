"""What needs a person, and the life of a message, in sentences."""

from datetime import UTC, datetime

import pytest

from outbox.admin import Act, Count, Detail, Overview, Tally, concerns, timeline
from outbox.states import State

PAUSE = {"destination": "default", "topic": "orders", "until": None, "by": "ann", "reason": "maintenance"}
CHECKED = {"destination": "default", "topic": "pay", "group_id": "GID", "unsettled": 3}


def overview(*, counts=None, oldest_s=None, paused=(), half_messages=()):
    numbers = dict.fromkeys(State, Count(0)) | (counts or {})
    return Overview(Tally(numbers, {}, oldest_s), list(paused), list(half_messages), "0001")


@pytest.mark.parametrize(
    ("given", "level", "about", "text"),
    [
        ({"counts": {State.FAILED: Count(1)}}, "bad", "failed", "1 row is failed"),
        ({"counts": {State.FAILED: Count(9_000, about=True)}}, "bad", "failed", "About 9,000 rows are failed"),
        ({"counts": {State.IN_DOUBT: Count(2)}}, "bad", "in_doubt", "2 rows are in doubt"),
        ({"oldest_s": 301}, "warn", "pending", "has waited 5 min"),
        ({"paused": [PAUSE | {"automatic": True}]}, "warn", "pauses", "default/orders pauses by itself: maintenance"),
        ({"paused": [PAUSE | {"automatic": False}]}, "note", "pauses", "default/orders is paused by ann: maintenance"),
        ({"half_messages": [CHECKED | {"checked_s": None}]}, "warn", "checks", "default/pay has 3 unsettled"),
        ({"half_messages": [CHECKED | {"checked_s": 400.0}]}, "warn", "checks", "default/pay has 3 unsettled"),
    ],
)
def test_concern(given, level, about, text):
    """Each thing that needs a person is told once, with where to look."""
    (found,) = concerns(overview(**given))

    assert (level, about) == (found.level, found.about)
    assert text in found.text


def test_no_concern():
    """An outbox that works needs nobody: fresh rows, checks that come, rows that were sent."""
    fine = overview(
        counts={State.PENDING: Count(5), State.SENT: Count(9), State.DISCARDED: Count(1)},
        oldest_s=299.0,
        half_messages=[CHECKED | {"checked_s": 9.0}, CHECKED | {"unsettled": 0, "checked_s": None}],
    )

    assert [] == concerns(fine)


def test_worst_concern_comes_first():
    """Who looks at the first line sees the worst."""
    found = concerns(overview(counts={State.FAILED: Count(1)}, oldest_s=999, paused=[PAUSE | {"automatic": False}]))

    assert ["bad", "warn", "note"] == [one.level for one in found]


# --- the life of a message ----------------------------------------------------------------------------------------

MESSAGE = {
    "created_at": "2030-01-31T08:00:00.000000Z",
    "available_at": "2030-01-31T08:05:00.000000Z",
    "deliver_at": None,
    "posted_at": None,
    "sent_at": None,
    "confirmed_by": None,
    "message_id": None,
    "attempts": 1,
    "state": "pending",
    "history": [],
}
ATTEMPT = {
    "at": "2030-01-31T08:01:00.000000Z",
    "code": "InternalError",
    "http_status": 500,
    "request_id": "req-9",
    "text": "try later",
    "outcome_known": False,
}


def at(minute):
    return datetime(2030, 1, 31, 8, minute, tzinfo=UTC)


def told(acts=(), **message):
    return [(one.kind, one.title, one.text) for one in timeline(Detail(MESSAGE | message, list(acts)))]


def test_timeline_in_order():
    """Enqueue, attempts, operators' acts and what comes next stand in the order of their instants."""
    act = Act(1, at(3), "ann", "view_body", "why", 1, "default", "orders", "id", None)

    assert [
        ("enqueued", "Enqueued", ""),
        (
            "attempt",
            "Attempt ended with InternalError, HTTP 500",
            "try later · request req-9 · the broker may have accepted it all the same",
        ),
        ("act", "View body by ann", "why"),
        ("due", "Due", ""),
    ] == told([act], history=[ATTEMPT])


def test_timeline_of_a_sent_message():
    """A message that was sent ends with its MessageId, and is not due any more."""
    sent = {"state": "sent", "sent_at": "2030-01-31T08:02:00.000000Z", "message_id": "0A", "confirmed_by": "answer"}

    assert ("sent", "Sent: the broker answered", "MessageId 0A") == told(**sent)[-1]
    assert "settled by silence" in told(**sent | {"confirmed_by": "silence"})[-1][1]


def test_timeline_of_a_half_message():
    """Its election is told beside its confirmation."""
    half = {"state": "committing", "posted_at": "2030-01-31T08:02:00.000000Z", "message_id": "0A"}

    assert ("sent", "Half message elected", "MessageId 0A") == told(**half)[-1]


def test_timeline_of_a_scheduled_message():
    """One that waits for its time is due when the broker would take it."""
    assert "Within the broker's reach" == told(deliver_at="2030-02-01T00:00:00.000000Z", attempts=0)[-1][1]


def test_timeline_of_a_plain_attempt():
    """An attempt that was surely refused, without any answer's status, says just that."""
    plain = ATTEMPT | {"http_status": None, "request_id": None, "outcome_known": True}

    assert ("attempt", "Attempt ended with InternalError", "try later") == told(history=[plain])[1]
