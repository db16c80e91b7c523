"""A message with a transaction check time: its limits, and what goes on the wire."""

from datetime import UTC, datetime

import pytest

from outbox import Message
from outbox.errors import MessageError
from outbox.message import MAX_PROPERTIES_BYTES, MAX_SCHEDULED_BODY_BYTES
from outbox.table import row_of


@pytest.mark.parametrize("seconds", [10, 11, 60, 299, 300])
def test_message_takes_every_check_time(seconds):
    """10 to 300 go out as the property ``__TransCheckT``, and into their column."""
    row = row_of(Message("orders", "body", transaction_check_s=seconds), 0.0)

    assert seconds == row["transaction_check_s"]
    assert row["properties"].startswith(f"__TransCheckT:{seconds}|")


@pytest.mark.parametrize("seconds", [9, 301, 0, -10, 10.0, "10", True, float("nan")])
def test_message_refuses_another_check_time(seconds):
    """Anything but a whole number in the broker's range is refused before it is written."""
    with pytest.raises(MessageError) as caught:
        Message("orders", "body", transaction_check_s=seconds)

    assert "transaction_check_s" == caught.value.field


@pytest.mark.parametrize("other", [{"ordering_key": "k"}, {"deliver_at": datetime(2030, 1, 1, tzinfo=UTC)}])
def test_message_is_of_one_kind(other):
    """A topic takes one kind of message."""
    with pytest.raises(MessageError, match="one kind of message"):
        Message("orders", "body", transaction_check_s=10, **other)


def test_message_with_a_check_time_is_small():
    """The broker takes 64 KB of a transactional message."""
    largest = Message("orders", "x" * MAX_SCHEDULED_BODY_BYTES, transaction_check_s=10)

    assert MAX_SCHEDULED_BODY_BYTES == largest.body_bytes
    with pytest.raises(MessageError, match="of a transactional message"):
        Message("orders", "x" * (MAX_SCHEDULED_BODY_BYTES + 1), transaction_check_s=10)


def test_message_keeps_room_for_what_the_relay_adds():
    """Origin and replay are added to a half message as it is posted, and must still fit."""
    added = len("outbox_replay:1234567890|outbox_origin:|") + 36
    sizes = range(MAX_PROPERTIES_BYTES - 250, MAX_PROPERTIES_BYTES)
    fitting = [row for size in sizes if (row := _row_with_property(size)) is not None]

    assert MAX_PROPERTIES_BYTES == max(len(row["properties"]) for row in fitting) + added


def _row_with_property(size):
    try:
        return row_of(Message("orders", "body", transaction_check_s=10, properties={"p": "x" * size}), 0.0)
    except MessageError:
        return None
