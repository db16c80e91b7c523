"""The fuzzers of every run for as long as you like: ``make fuzz``. Its name keeps it out of ordinary runs.

A seed is one case; what it finds is found again by ``OUTBOX_TEST_FUZZ_SEED`` and the same number of cases.
"""

import os
from math import ceil

import pytest

from tests.reliability.test_fuzz import fuzz
from tests.services import DATABASES
from tests.unit.test_answers import test_mutated_answers_prove_nothing as damage_answers

MESSAGES = int(os.environ.get("OUTBOX_TEST_FUZZ_MESSAGES", "200000"))
ANSWERS = int(os.environ.get("OUTBOX_TEST_FUZZ_ANSWERS", "5000000"))
# Beyond the seeds of every run.
FIRST_SEED = int(os.environ.get("OUTBOX_TEST_FUZZ_SEED", "1000"))
A_CASE = 3_500
ANSWERS_A_CASE = 5_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + ceil(MESSAGES / A_CASE / len(DATABASES))))
def test_any_text_is_refused_or_delivered_equal(engine, migrated_url, emulator, database_kind, seed):
    """As in every run, on each database: refused when it is made, or delivered as it was given."""
    tried = fuzz(engine, migrated_url, emulator, seed=seed * 10 + DATABASES.index(database_kind), many=A_CASE)

    assert [] == tried.surprises[:3]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + ceil(ANSWERS / ANSWERS_A_CASE)))
def test_mutated_answers_prove_nothing(seed):
    """As in every run: no damaged answer raises, or makes a row sent without MessageId and our MD5."""
    proved = damage_answers(seed)

    assert proved is None
