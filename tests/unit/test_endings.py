"""When a relay with nothing to do looks again, and when it ends."""

import pytest

from outbox.errors import DatabaseError
from outbox.relay import Drained, Forever, Swept


class StillClock:
    """A clock that moves only when told."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock():
    return StillClock()


def unanswered():
    raise DatabaseError("cannot reach the database")


def test_forever_looks_each_second():
    """A relay without an end looks again in a second, whatever it has done."""
    ending = Forever()

    assert [1.0, 1.0] == [ending.rest_s(0), ending.rest_s(1000)]


def test_drained_ends_when_nothing_is_left(clock):
    """Nothing left is the good end."""
    ending = Drained(clock, lambda: False, 60)

    assert ending.rest_s(0) is None
    assert not ending.stalled


def test_drained_waits_while_something_is_left(clock):
    """It looks four times a second while rows will become due by themselves."""
    ending = Drained(clock, lambda: True, 60)

    assert ending.rest_s(0) == 0.25


def test_drained_stalls_without_progress(clock):
    """After the timeout without a finished row it ends, and says that it stalled."""
    ending = Drained(clock, lambda: True, 60)
    ending.rest_s(0)
    clock.now += 59.9
    before = ending.rest_s(0)
    clock.now += 0.1

    assert (before, ending.rest_s(0)) == (0.25, None)
    assert ending.stalled


def test_drained_counts_from_the_last_progress(clock):
    """Each finished row gives it the whole timeout again."""
    ending = Drained(clock, lambda: True, 60)
    for finished in range(5):
        clock.now += 59
        assert ending.rest_s(finished) is not None
    clock.now += 60

    assert ending.rest_s(4) is None


def test_drained_is_not_stalled_when_the_last_row_came_late(clock):
    """Nothing left is no stall, however long it took."""
    ending = Drained(clock, lambda: False, 60)
    clock.now += 100

    assert ending.rest_s(0) is None
    assert not ending.stalled


def test_drained_takes_silence_for_something_left(clock):
    """A database that cannot be asked is waited for, within the timeout."""
    ending = Drained(clock, unanswered, 60)
    first = ending.rest_s(0)
    clock.now += 60

    assert (first, ending.rest_s(0)) == (0.25, None)
    assert ending.stalled


def test_swept_ends_when_nothing_is_left(clock):
    """A tick that finds nothing is over at once."""
    assert Swept(clock, lambda: False, 30).rest_s(0) is None


def test_swept_waits_until_its_time_is_up(clock):
    """It looks each second for rows that will become due, as long as it may."""
    ending = Swept(clock, lambda: True, 30)
    first = ending.rest_s(0)
    clock.now += 30

    assert (first, ending.rest_s(0)) == (1.0, None)


def test_swept_looks_thrice_more_after_a_nudge(clock):
    """A nudge may come just before its commit is visible."""
    ending = Swept(clock, lambda: False, 0, nudged=True)

    assert [0.02, 0.1, 0.4, None] == [ending.rest_s(0) for _ in range(4)]


def test_swept_looks_no_more_once_the_nudge_was_served(clock):
    """When the row was found, the further looks are spared."""
    ending = Swept(clock, lambda: False, 0, nudged=True)

    assert [0.02, None] == [ending.rest_s(0), ending.rest_s(1)]


def test_swept_takes_silence_for_something_left(clock):
    """A database that cannot be asked is asked again while there is time."""
    assert Swept(clock, unanswered, 30).rest_s(0) == 1.0
