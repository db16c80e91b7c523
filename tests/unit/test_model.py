"""The model of half messages: the design keeps its promises in every state, naive ones do not, and the code is it."""

import pytest

from outbox.states import TRANSITIONS
from tests.reliability.model import NAIVE, Rules, explore, naive


@pytest.fixture(scope="module")
def explored():
    return explore(Rules())


def test_model_keeps_every_promise(explored):
    """At most one commit for each replay, nothing sent or failed falsely, and always a way to rest."""
    assert ("", []) == (explored.violation, explored.trace)
    assert explored.states > 10_000


def test_model_keeps_every_promise_with_more_half_messages():
    """The same with a third half message, one relay and no replay."""
    explored = explore(Rules(relays=1, halves=3, replays=0))

    assert ("", []) == (explored.violation, explored.trace)


def test_model_has_the_transitions_of_the_code(explored):
    """Every transition that the code permits is taken in the model, and no other."""
    permitted = {(one.verb, one.source.value, one.target.value) for one in TRANSITIONS}

    assert permitted == explored.transitions


@pytest.mark.parametrize("design", NAIVE)
def test_model_refutes_naive_designs(design):
    """Each breaks a promise, and the model tells on which way."""
    explored = explore(naive(design))

    assert explored.violation
    assert explored.trace
