"""Schedules of the whole system on virtual time, each from a seed: promises hold, and naive designs are caught."""

import os
import re
import sys

import pytest

from tests.reliability.sim import simulate, simulator
from tests.reliability.sim_chaos import FAULTS, HALF_FAULTS
from tests.reliability.sim_naive import HALVES, NORMAL, switched

_SHARDS = 8
#: Half of them with normal and ordered messages, half with half messages.
_SCHEDULES = int(os.environ.get("SIMULATED_SCHEDULES", "2000")) // 2
#: Within so many each naive design must be caught.
_ENOUGH = 2000


@pytest.fixture(autouse=True)
def untraced():
    """Coverage has the same lines from other tests; to trace them here as well would double what this takes."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture(scope="module")
def database():
    with simulator() as simulated:
        yield simulated


def _first_caught(database, most, *, halves):
    """In how many schedules the first violation was found, and which it is; None if there was none."""
    for seed in range(most):
        violations = simulate(database, seed, halves=halves).violations
        # A forbidden change of a state is no harm yet: what counts is what became of messages. And a switch that broke
        # the relay itself would show in that it never rests.
        harmless = ("table: ",) if halves else ("table: ", "not at rest")
        harm = [violation for violation in violations if not violation.startswith(harmless)]
        if harm:
            return seed + 1, harm[0]
    return None


def _without_names(log):
    """A log without what is random by nature: ids, tokens and receipt handles."""
    return [re.sub(r"[0-9a-f]{4,8}-[0-9a-f-]*|[0-9A-F]{8,32}(-[\w-]+)?", "…", line) for line in log]


def _broken(database, shard, *, halves):
    """Violations by seed in one shard of the schedules."""
    size = _SCHEDULES // _SHARDS
    stories = (simulate(database, seed, halves=halves) for seed in range(shard * size, (shard + 1) * size))
    return {story.seed: story.violations for story in stories if story.violations}


@pytest.mark.timeout(600 + _SCHEDULES)
@pytest.mark.parametrize("shard", range(_SHARDS))
def test_simulate_keeps_every_promise_for_normal_messages(database, shard):
    """Nothing lost, nothing sent that is not, no duplicate uncounted, every key in order, no row stuck."""
    broken = _broken(database, shard, halves=False)

    assert {} == broken, "replay one with: python -m tests.reliability.sim SEED"


@pytest.mark.timeout(600 + _SCHEDULES)
@pytest.mark.parametrize("shard", range(_SHARDS))
def test_simulate_keeps_every_promise_for_half_messages(database, shard):
    """At most one MessageId is committed for each row and replay; sent means committed, failed means it never is."""
    broken = _broken(database, shard, halves=True)

    assert {} == broken, "replay one with: python -m tests.reliability.sim --halves SEED"


@pytest.mark.parametrize("halves", [False, True])
def test_simulate_lets_everything_go_wrong(database, halves):
    """In a few hundred schedules each fault happens, or the rest of these tests would prove little."""
    possible, happened = set(FAULTS | HALF_FAULTS if halves else FAULTS), set()
    for seed in range(300):
        happened |= set(simulate(database, seed, halves=halves).faults)
        if possible <= happened:
            break

    assert possible == happened


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("seed", [3, 7, 11])
def test_simulate_replays_from_its_seed(database, seed, halves):
    """A seed is a schedule, the same every time."""
    one, other = (simulate(database, seed, halves=halves, log=True) for _ in range(2))

    assert _without_names(one.log) == _without_names(other.log)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("naive", "halves"), [*((one, False) for one in NORMAL), *((one, True) for one in HALVES)])
def test_simulate_catches_naive_designs(database, naive, halves, capsys):
    """Each naive design breaks a promise within 2,000 schedules."""
    with switched((HALVES if halves else NORMAL)[naive]):
        caught = _first_caught(database, _ENOUGH, halves=halves)
    with capsys.disabled():
        print(f"\n{naive}: {f'caught in schedule {caught[0]}: {caught[1]}' if caught else 'not caught'}")  # noqa: T201

    assert caught is not None
