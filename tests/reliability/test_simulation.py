"""Schedules of the whole system on virtual time, each from a seed: no promise is broken, and naive designs are caught."""

import re
from collections import Counter

import pytest

from tests.reliability.sim import simulate, simulator
from tests.reliability.sim_chaos import FAULTS
from tests.reliability.sim_naive import HALVES, NORMAL, switched

_SHARDS = 4
_SCHEDULES = 2000


@pytest.fixture(scope="module")
def database():
    with simulator() as simulated:
        yield simulated


def _first_caught(database, most, *, halves):
    """In how many schedules the first violation was found, and which it is; None if there was none."""
    for seed in range(most):
        story = simulate(database, seed, halves=halves)
        if story.violations:
            return seed + 1, story.violations[0]
    return None


def _without_names(log):
    """A log without what is random by nature: ids, tokens and receipt handles."""
    return [re.sub(r"[0-9a-f]{4,8}-[0-9a-f-]*|[0-9A-F]{20,32}(-[\w-]+)?", "…", line) for line in log]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", range(_SHARDS))
def test_simulate_keeps_every_promise_for_normal_messages(database, shard):
    """Nothing lost, nothing sent that is not, no duplicate uncounted, every key in order, no row stuck."""
    broken = {
        seed: story.violations
        for seed in range(shard * _SCHEDULES // _SHARDS, (shard + 1) * _SCHEDULES // _SHARDS)
        if (story := simulate(database, seed)).violations
    }

    assert {} == broken, "replay one with: python -m tests.reliability.sim SEED"


def test_simulate_lets_everything_go_wrong(database):
    """In a few hundred schedules each fault happens, or the rest of these tests would prove little."""
    happened = Counter()
    for seed in range(300):
        happened += simulate(database, seed).faults

    assert set(FAULTS) == set(happened)


@pytest.mark.parametrize("seed", [3, 7, 11])
def test_simulate_replays_from_its_seed(database, seed):
    """A seed is a schedule, the same every time."""
    one, other = (simulate(database, seed, log=True) for _ in range(2))

    assert _without_names(one.log) == _without_names(other.log)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("naive", "halves"), [*((one, False) for one in NORMAL), *((one, True) for one in HALVES)])
def test_simulate_catches_naive_designs(database, naive, halves, capsys):
    """Each naive design breaks a promise within 2,000 schedules."""
    with switched((HALVES if halves else NORMAL)[naive]):
        caught = _first_caught(database, _SCHEDULES, halves=halves)
    with capsys.disabled():
        print(f"\n{naive}: {f'caught in schedule {caught[0]}: {caught[1]}' if caught else 'not caught'}")  # noqa: T201

    assert caught is not None
