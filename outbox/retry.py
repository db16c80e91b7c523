"""What the outcome of a publish means: for the row, and for its lane. Pure.

A row pays for what is its own fault and for nothing else. Ten outages must not use up one attempt of a million innocent
rows, and a row that can never be taken must not hold up the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from outbox.outcomes import Fault, Outcome, Paused, Refused, Retry, Sent, Unknown

__all__ = [
    "Again",
    "Done",
    "Fail",
    "LaneHealth",
    "Policy",
    "Verdict",
    "backoff_s",
    "half_deadline_s",
    "half_margin_s",
    "judge",
    "pause_s",
]

#: Lost answers in a row after which the lane pauses: by then it is the broker's fault, not the rows'.
UNKNOWNS_IN_A_ROW = 5
#: Refusals in a row after which the lane pauses, for good or for now: neither a bad deploy nor an error of the broker's
#: that nobody knows may fail a million rows.
REFUSALS_IN_A_ROW = 20

_PAUSE_FIRST_S = 0.5
_PAUSE_LONGEST_S = 5.0
_LARGEST_EXPONENT = 32

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how soon a row is tried again.

    Attributes:
        max_attempts: charged attempts after which a row is ``failed``; 1 means it is never tried again.
        base_s: the longest wait after the first charged attempt, seconds; it doubles with each further one.
        max_s: the longest wait of all, seconds.
    """

    max_attempts: int = 10
    base_s: float = 1.0
    max_s: float = 300.0


# Not frozen: it is made for each message, and so takes half the time.
@dataclass(slots=True)
class Done:
    """The row is sent, under this MessageId."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Again:
    """The row stays pending and is due again in ``delay_s`` seconds.

    ``charge``: it costs the row an attempt. ``unknown``: the broker may have taken the message.
    """

    delay_s: float
    fault: Fault
    charge: bool
    unknown: bool


@dataclass(frozen=True, slots=True)
class Fail:
    """The row waits for an operator. ``unknown``: the broker may have taken the message all the same."""

    fault: Fault
    unknown: bool


Verdict = Done | Again | Fail


def judge(outcome: Outcome, attempts: int, policy: Policy, uniform: Uniform, *, excused: bool = False) -> Verdict:
    """Decide what becomes of the row that met ``outcome``.

    Args:
        outcome: of this attempt.
        attempts: the row's charged attempts before this one.
        policy: limits and waits.
        uniform: a random number between two, for the jitter.
        excused: the lane is known to be in trouble (paused, or being probed), so a lost answer charges nothing.
    """
    match outcome:
        case Sent(message_id=message_id):
            return Done(message_id)
        case Refused(fault=fault):
            return Fail(fault, unknown=fault.accepted is not False)
        case Paused(fault=fault):
            return Again(0.0, fault, charge=False, unknown=fault.accepted is not False)
        case Unknown(fault=fault) if excused:
            return Again(0.0, fault, charge=False, unknown=True)
        case Retry(fault=fault) | Unknown(fault=fault):
            unknown = isinstance(outcome, Unknown)
            if attempts + 1 >= policy.max_attempts:
                return Fail(fault, unknown=unknown)
            return Again(backoff_s(attempts + 1, policy, uniform), fault, charge=True, unknown=unknown)


def backoff_s(attempts: int, policy: Policy, uniform: Uniform) -> float:
    """Seconds to wait after ``attempts`` (1 or more) charged attempts: full jitter below an exponential ceiling.

    With the default policy the ceilings are 1, 2, 4, 8, … 256, 300, 300 seconds.
    """
    ceiling = policy.base_s * 2.0 ** min(attempts - 1, _LARGEST_EXPONENT)
    return uniform(0.0, min(policy.max_s, ceiling))


def pause_s(failures: int, uniform: Uniform, retry_after_s: float | None = None) -> float:
    """Seconds that a lane rests after ``failures`` (1 or more) failures in a row: 0.5, 1, 2, 4, 5, 5, … ±20 %.

    A longer ``retry_after_s``, as the broker asked for it, is honoured.
    """
    rest = min(_PAUSE_LONGEST_S, _PAUSE_FIRST_S * 2.0 ** min(failures - 1, _LARGEST_EXPONENT))
    return max(rest * uniform(0.8, 1.2), retry_after_s or 0.0)


@dataclass(slots=True)
class LaneHealth:
    """What a relay has seen of one lane since its last success."""

    unknowns: int = field(default=0, init=False)
    refusals: int = field(default=0, init=False)

    def note(self, outcome: Outcome) -> Fault | None:
        """Take note of one outcome.

        Returns:
            The fault for which the lane should pause now, None to go on.
        """
        match outcome:
            case Sent():
                self.unknowns = self.refusals = 0
            case Paused(fault=fault):
                return fault
            case Unknown(fault=fault):
                self.unknowns += 1
                return fault if self.unknowns >= UNKNOWNS_IN_A_ROW else None
            case Refused(fault=fault) | Retry(fault=fault):
                self.refusals += 1
                return fault if self.refusals >= REFUSALS_IN_A_ROW else None
        return None


def half_margin_s(check_s: float) -> float:
    """Seconds around a transaction check time in which neither the sender nor a checker ends the half message.

    The sender commits only below ``check_s`` less the margin, a checker only above ``check_s`` and the margin: two
    commits of one half message, each with a handle of its own, could both be carried out.
    """
    return min(5.0, check_s / 10)


def half_deadline_s(setting_s: float, check_s: float) -> float:
    """Seconds that a POST, an election or an ending of a half message may take."""
    return min(setting_s, check_s / 4)
