"""Filters from forms and links: strings that anybody may have written."""

from datetime import UTC, datetime

import pytest

from outbox.admin import Filter, parse_filter, written
from outbox.errors import FilterError
from outbox.states import State

EVERYTHING = {
    "state": "in_doubt",
    "destination": "billing",
    "topic": "orders",
    "error_code": "Timeout",
    "key": "größe-7",
    "outbox_id": "0190a5b0-0000-7000-8000-000000000000",
    "message_id": "0A0B",
    "created_from": "2030-01-31T08:00:00Z",
    "created_until": "2030-01-31T09:00:00.000001Z",
}


def test_parse_every_field():
    """Each string becomes the value that it is written for."""
    found = parse_filter(EVERYTHING)

    assert State.IN_DOUBT is found.state
    assert datetime(2030, 1, 31, 8, tzinfo=UTC) == found.created_from
    assert ("billing", "orders", "Timeout", "größe-7", "0A0B") == (
        found.destination,
        found.topic,
        found.error_code,
        found.key,
        found.message_id,
    )


def test_written_reads_as_the_same():
    """What a filter is written as is read as that filter again."""
    assert EVERYTHING == written(parse_filter(EVERYTHING))
    assert parse_filter(EVERYTHING) == parse_filter(written(parse_filter(EVERYTHING)))
    assert {} == written(Filter())


def test_parse_blanks_and_strangers():
    """A blank field is none, and what is no field is not looked at."""
    assert Filter() == parse_filter({"state": "", "topic": "  ", "before": "17", "csrf_token": "x"})


def test_parse_an_instant_without_a_zone():
    """An instant that names no zone is UTC; one that does is told in UTC."""
    naive, zoned = (
        parse_filter({"created_from": "2030-01-31T08:00"}),
        parse_filter({"created_from": "2030-01-31T08:00+02:00"}),
    )

    assert datetime(2030, 1, 31, 8, tzinfo=UTC) == naive.created_from
    assert datetime(2030, 1, 31, 6, tzinfo=UTC) == zoned.created_from


@pytest.mark.parametrize(
    ("field", "forged"),
    [
        ("state", "gone"),
        ("state", "failed' OR 1=1 --"),
        ("state", "PENDING"),
        ("topic", "a b"),
        ("topic", "x" * 65),
        ("topic", "orders;DROP TABLE outbox_messages"),
        ("destination", "../etc"),
        ("error_code", "x" * 65),
        ("error_code", "a\x00b"),
        ("key", "two words"),
        ("key", "a\x1b[31mb"),
        ("key", "\ud800"),
        ("key", "x" * 1001),
        ("outbox_id", "%"),
        ("outbox_id", "0" * 37),
        ("outbox_id", "\u0661\u0662"),
        ("message_id", "x" * 129),
        ("message_id", "a\u202eb"),
        ("created_from", "yesterday"),
        ("created_from", "0001-01-01T00:00+23:59"),
        ("created_from", "9999-12-31T23:59-23:59"),
        ("created_until", "2030-02-30"),
        ("created_from", "0001-01-01"),
        ("created_from", "1969-12-31T23:59:59"),
        ("created_until", "9999-12-31T23:59:59"),
        ("created_until", "9991-01-01T00:00+00:01"),
    ],
)
def test_parse_refuses_what_cannot_be_meant(field, forged):
    """A forged value is an error that names its field, says what to give, and repeats nothing of it."""
    with pytest.raises(FilterError) as refused:
        parse_filter({field: forged, "topic" if field != "topic" else "state": ""})

    assert [field] == list(refused.value.problems)
    assert str(refused.value).startswith(f"{field}: ")
    assert "give" in refused.value.problems[field]
    assert forged not in str(refused.value) or forged == "0"


def test_parse_tells_of_every_field():
    """All that is wrong is told at once."""
    with pytest.raises(FilterError) as refused:
        parse_filter({"state": "gone", "topic": "a b", "key": "k"})

    assert {"state", "topic"} == set(refused.value.problems)


def test_parse_refuses_an_empty_range():
    """A range that ends before it begins finds nothing, and was not meant."""
    given = {"created_from": "2030-01-31T09:00", "created_until": "2030-01-31T09:00"}

    with pytest.raises(FilterError, match="created_until: is not after created_from"):
        parse_filter(given)
