"""The states and their transitions as data: complete, unambiguous, and the same in the table's constraint."""

import re

import pytest

from outbox.states import FINISHED, TRANSITIONS, State, sources
from outbox.table import messages


def constraint(name):
    """The text of one of the messages' CHECK constraints."""
    return next(str(one.sqltext) for one in messages.constraints if one.name == name)


def test_states_are_those_of_the_constraint():
    """The database takes every state, and nothing else."""
    assert list(State) == re.findall(r"'(\w+)'", constraint("ck_outbox_messages_state"))


def test_state_column_holds_every_state():
    """No state is longer than its column."""
    assert max(map(len, State)) <= messages.c.state.type.length


def test_state_of_a_new_row():
    """What is enqueued is pending."""
    assert State.PENDING == messages.c.state.default.arg


def test_transition_has_one_target():
    """A verb leads from one state to one other."""
    ways = [(one.verb, one.source) for one in TRANSITIONS]

    assert len(ways) == len(set(ways))
    assert all(one.source != one.target for one in TRANSITIONS)


def test_finished_rows_come_back_by_force_only():
    """What a purge may delete, nobody takes up again by the way."""
    assert all(one.forced for one in TRANSITIONS if one.source in FINISHED)


def test_what_waits_for_an_operator_is_left_by_few():
    """Operators leave both states; a restored database doubts what failed, and a late answer may end the doubt."""
    verbs = {state: {one.verb for one in TRANSITIONS if one.source == state} for state in State}

    assert {"replay", "discard", "quarantine"} == verbs[State.FAILED]
    assert {"replay", "discard", "confirm"} == verbs[State.IN_DOUBT]


def test_every_way_ends_finished_or_pending():
    """A deed of an operator's either closes a row or gives it back to the relay."""
    targets = {one.target for one in TRANSITIONS if one.verb in {"replay", "discard"}}

    assert {State.PENDING, State.DISCARDED} == targets


@pytest.mark.parametrize(
    ("verb", "unforced", "forced"),
    [
        ("publish", {"pending"}, {"pending"}),
        ("replay", {"failed"}, {"failed", "sent", "in_doubt"}),
        ("discard", {"failed"}, {"failed", "in_doubt"}),
        ("dance", set(), set()),
    ],
)
def test_sources(verb, unforced, forced):
    """The states that a verb may leave, and those that it may leave with force."""
    assert (unforced, forced) == (sources(verb), sources(verb, forced=True))
