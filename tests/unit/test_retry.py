"""What an outcome means for the row and for its lane."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.outcomes import Fault, Outcome, Paused, Refused, Retry, Sent, Unknown
from outbox.retry import Again, Done, Fail, LaneHealth, Policy, backoff_s, judge, pause_s

NO = Fault("SomeCode", "a text")
PERHAPS = Fault("Timeout", "a text", accepted=None)
POLICY = Policy(max_attempts=3, base_s=1.0, max_s=10.0)


def highest(_low: float, high: float) -> float:
    """A random number that is always the highest it may be."""
    return high


def test_judge_marks_a_sent_row():
    """A 201 ends the row's way."""
    assert judge(Sent("ABC"), 2, POLICY, highest) == Done("ABC")


@pytest.mark.parametrize(("attempts", "delay_s"), [(0, 1.0), (1, 2.0)])
def test_judge_charges_a_retry(attempts: int, delay_s: float):
    """A row's own fault costs an attempt and a wait that doubles."""
    assert judge(Retry(NO), attempts, POLICY, highest) == Again(delay_s, NO, charge=True, unknown=False)


@pytest.mark.parametrize("outcome", [Retry(NO), Unknown(PERHAPS)])
def test_judge_fails_a_row_out_of_attempts(outcome: Outcome):
    """The attempt that uses up the last charge fails the row."""
    verdict = judge(outcome, 2, POLICY, highest)

    assert isinstance(verdict, Fail)
    assert verdict.unknown == isinstance(outcome, Unknown)


def test_judge_fails_a_refused_row_at_once():
    """A message that breaks a rule is not tried again."""
    assert judge(Refused(NO), 0, POLICY, highest) == Fail(NO, unknown=False)


def test_judge_counts_a_body_mismatch_as_unknown():
    """The broker has an altered message: failed, and perhaps published."""
    altered = Fault("BodyMismatch", "a text", accepted=True)

    assert judge(Refused(altered), 0, POLICY, highest) == Fail(altered, unknown=True)


@pytest.mark.parametrize(("fault", "unknown"), [(NO, False), (PERHAPS, True)])
def test_judge_charges_nothing_for_a_paused_lane(fault: Fault, unknown: bool):
    """An endpoint's fault is not the row's, however many attempts it has had."""
    assert judge(Paused(fault), 99, POLICY, highest) == Again(0.0, fault, charge=False, unknown=unknown)


def test_judge_excuses_a_lost_answer_while_the_lane_is_in_trouble():
    """Probes and stragglers of a paused lane count the unknown outcome and nothing else."""
    assert judge(Unknown(PERHAPS), 99, POLICY, highest, excused=True) == Again(0.0, PERHAPS, charge=False, unknown=True)


def test_judge_charges_a_lost_answer_otherwise():
    """A single lost answer is this row's own."""
    assert judge(Unknown(PERHAPS), 0, POLICY, highest) == Again(1.0, PERHAPS, charge=True, unknown=True)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_stays_within_its_ceiling(attempts: int, point: float):
    """Full jitter: anything from nothing to the ceiling, and never beyond the longest wait."""
    wait = backoff_s(attempts, Policy(), lambda low, high: low + point * (high - low))

    assert 0 <= wait <= min(300.0, 2.0 ** min(attempts - 1, 32))


def test_pauses_double_up_to_five_seconds():
    """A lane's rest doubles from half a second to five."""
    rests = [pause_s(failures, lambda low, high: (low + high) / 2) for failures in range(1, 7)]

    assert rests == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0])


def test_pauses_honour_what_the_broker_asked_for():
    """A longer Retry-After wins; a shorter one does not shorten the rest."""
    assert pause_s(1, highest, 30.0) == 30.0
    assert pause_s(10, highest, 0.1) == 6.0


@pytest.mark.parametrize(
    ("outcome", "enough"), [(Unknown(PERHAPS), 5), (Refused(NO), 20), (Retry(NO), 20), (Paused(NO), 1)]
)
def test_health_pauses_a_lane_after_so_many_in_a_row(outcome: Outcome, enough: int):
    """Five lost answers, twenty refusals for good or for now, or one fault of the endpoint's pause the lane."""
    health = LaneHealth()
    noted = [health.note(outcome) for _ in range(enough)]

    assert noted[:-1] == [None] * (enough - 1)
    assert noted[-1] is not None


def test_health_forgets_at_a_success():
    """Only what happens in a row counts."""
    health = LaneHealth()
    for _ in range(4):
        health.note(Unknown(PERHAPS))
    for _ in range(19):
        health.note(Retry(NO))
    health.note(Sent("ABC"))

    assert health.note(Unknown(PERHAPS)) is None
    assert health.note(Refused(NO)) is None
