"""Exceptions without the variables of those who raised them."""

import traceback

import pytest

from outbox.rocketmq.frames import without_frames

SECRET = "c4n4ry" + "Secret"


def shown(error):
    """What an error tracker shows that looks at variables."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@without_frames
def lose(given, *, named):
    copied = given + named
    try:
        {}[len(copied)]
    except KeyError:
        # With a context, which has frames of its own.
        raise MemoryError(len(copied))  # noqa: B904


@pytest.fixture
def raised():
    with pytest.raises(MemoryError) as caught:
        lose(SECRET, named=SECRET)
    return caught.value


def test_variables_stay_behind(raised):
    """Neither arguments nor what was made of them, in this exception or the one before it."""
    assert SECRET not in shown(raised)
    assert (None, None) == (raised.__cause__, raised.__context__)


def test_the_place_is_told(raised):
    """A defect can still be found: file, line and source, as text."""
    (note,) = raised.__notes__

    assert "in lose" in note
    assert "raise MemoryError(len(copied))" in note
    assert "in test_the_place" not in note


def test_results_pass():
    """What is not raised is not touched."""
    assert 3 == without_frames(lambda one, *, two: one + two)(1, two=2)
