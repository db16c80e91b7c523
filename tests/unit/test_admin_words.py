"""Numbers, ages, instants and strangers' texts, as pages write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from outbox.admin import Count, age_text, count_text, inert, instant_text
from outbox.admin.words import short_number


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (Count(0), "0"),
        (Count(1234567), "1,234,567"),
        (Count(10_000, at_least=True), "10,000+"),
        (Count(934_567, about=True), "about 935,000"),
        (Count(999_999, about=True), "about 1,000,000"),
        (Count(45, about=True), "about 45"),
        (Count(0, about=True), "0"),
    ],
)
def test_count_text(count, text):
    """A count says whether it is exact, and an estimate is no more precise than it can be."""
    assert text == count_text(count)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
    ],
)
def test_age_text(seconds, text):
    """An age is told in the largest unit that fits, from an hour on with the next one."""
    assert text == age_text(seconds)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (None, "–"),
        ("2030-01-31T08:00:00.000001Z", "2030-01-31 08:00:00"),
        (datetime(2030, 1, 31, 8, tzinfo=UTC), "2030-01-31 08:00:00"),
        (datetime(2030, 1, 31, 8, tzinfo=timezone(timedelta(hours=2))), "2030-01-31 06:00:00"),
    ],
)
def test_instant_text(instant, text):
    """Instants are told in UTC, to the second."""
    assert text == instant_text(instant)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (1000, "1k"), (1200, "1.2k"), (20_000, "20k"), (3.4e6, "3.4M"), (5e9, "5G")],
)
def test_short_number(number, text):
    """An axis has room for few characters."""
    assert text == short_number(number)


def test_inert():
    """What could act on a page or a terminal is spelled out; the rest stays as it is."""
    assert r"a\x1b[31m\u202e\x00\nÜ <b>" == inert("a\x1b[31m\u202e\x00\nÜ <b>")
