"""What acceptance tests share: a browser. Where there is none, one line at the end says so; under CI=true it fails."""

import os

import pytest

MISSING = "Chromium is not installed: apt-get install chromium, or name it by OUTBOX_TEST_CHROMIUM"


@pytest.fixture(scope="module")
def running_browser():
    """Chromium, started once a module: as long as it runs, so does an event loop, and other tests run their own."""
    from tests.browsers import chromium

    with chromium() as running:
        yield running


@pytest.fixture
def browser(request):
    """Chromium."""
    from tests.browsers import CHROMIUM

    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING, pytrace=False)
        request.node.user_properties.append(("missing", MISSING))
        pytest.skip(MISSING)
    return request.getfixturevalue("running_browser")


def pytest_terminal_summary(terminalreporter):
    """Say that the browser was not there."""
    properties = [pair for report in terminalreporter.stats.get("skipped", ()) for pair in report.user_properties]
    if ("missing", MISSING) in properties:
        terminalreporter.write_line(f"Not tested in a browser: {MISSING}", yellow=True)
