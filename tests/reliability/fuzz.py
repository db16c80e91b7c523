"""The fuzzers of every run for as long as you like: ``make fuzz``. Its name keeps it out of ordinary runs.

A seed is one case; what it finds is found again by ``OUTBOX_TEST_FUZZ_SEED`` and the same number of cases.
"""

import os
from math import ceil

import pytest

from tests.reliability.test_fuzz import fuzz
from tests.reliability.test_mutated_answers import mutate
from tests.services import DATABASES, SERVICES, answers

MESSAGES = int(os.environ.get("OUTBOX_TEST_FUZZ_MESSAGES", "200000"))
ANSWERS = int(os.environ.get("OUTBOX_TEST_FUZZ_ANSWERS", "5000000"))
# What one database cannot take the others do.
PRESENT = [kind for kind in DATABASES if kind not in SERVICES or answers(kind)]
# Beyond the seeds of every run.
FIRST_SEED = int(os.environ.get("OUTBOX_TEST_FUZZ_SEED", "1000"))
A_CASE = 3_500
ANSWERS_A_CASE = 5_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + ceil(MESSAGES / A_CASE / len(PRESENT))))
def test_any_text_is_refused_or_delivered_equal(engine, migrated_url, emulator, database_kind, seed):
    """As in every run, on each database: refused when it is made, or delivered as it was given."""
    tried = fuzz(engine, migrated_url, emulator, seed=seed * 10 + DATABASES.index(database_kind), many=A_CASE)

    assert [] == tried.surprises[:3]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + ceil(ANSWERS / ANSWERS_A_CASE)))
def test_mutated_answers_prove_nothing(seed):
    """As in every run: no damaged answer raises, or makes anything sent, ended or offered without what proves it."""
    unproven, _ = mutate(seed, ANSWERS_A_CASE)

    assert [] == unproven[:3]
