"""What acceptance tests share: a browser."""

import os

import pytest


@pytest.fixture(scope="session")
def browser():
    """Chromium; where it is not installed its tests are skipped, with a line, and fail under CI=true."""
    from tests.browsers import CHROMIUM, chromium

    if CHROMIUM is None:
        said = "Chromium is not installed (the Debian package chromium, or OUTBOX_TEST_CHROMIUM with its path)"
        if os.environ.get("CI") == "true":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)
    with chromium() as running:
        yield running
