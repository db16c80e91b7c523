"""The example shop on Django: one command starts it, and an operator mends in a browser what went wrong there."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "examples" / "django_shop"
# The shop's own settings, which only shorten waits.
QUICK = {"OUTBOX_SWEEP_S": "0.5"}
SENT = "?state=sent&topic=invoices"


class Shop:
    """A running example, and where it is."""

    def __init__(self, process):
        self.process = process
        told = [process.stdout.readline() for _ in range(4)]
        self.url, self.pages, self._ledger = (re.search(r"http://\S+", line)[0] for line in told[:3])
        self.password = re.search(r"password (\S+)\)", told[1])[1]

    def published(self, topic):
        """The keys of what the broker has, once each."""
        with urllib.request.urlopen(self._ledger, timeout=5) as answer:
            ledger = json.load(answer)["messages"]
        return {one["properties"]["KEYS"] for one in ledger if one["topic"] == topic}

    def stop(self):
        """End it as Ctrl-C does; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def shop(tmp_path):
    """The example, started by its one command."""
    command = [sys.executable, str(SHOP / "run.py"), "--port", "0", "--keep", str(tmp_path / "shop")]
    with subprocess.Popen(command, env=os.environ | QUICK, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Shop(process)
        finally:
            process.kill()


def give_a_reason(page, why):
    """Fill in the confirmation, and confirm it."""
    page.get_by_label("Reason").fill(why)
    page.locator(".ob-main").get_by_role("button").click()


def see(page, url, text):
    """Load a page again and again, as an operator without scripts does, until a text is on it."""
    for _ in range(100):
        page.goto(url)
        if page.get_by_text(text).count():
            return
        page.wait_for_timeout(200)
    pytest.fail(page.inner_text("main"))


def test_operator_mends_the_shop(shop, browser):
    """Without any script: see what failed, read why, replay one, replay all, watch them sent, find it in the audit."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(shop.pages)
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill(shop.password)
    page.get_by_role("button", name="Log in").click()
    see(page, f"{shop.pages}overview/", "5 rows are failed")
    page.get_by_role("link", name="Look at failed").click()
    why = page.inner_text("main")
    page.get_by_role("link", name="See rows").click()
    page.get_by_role("link", name=re.compile(r"^#\d+$")).first.click()
    one = re.search(r"Message #(\d+)", page.inner_text("h1"))[1]
    story = page.inner_text("main")
    page.get_by_role("button", name="Replay").click()
    give_a_reason(page, "the first of five")
    page.get_by_text("1 replayed").wait_for()
    see(page, f"{shop.pages}{SENT}", "4 messages match")
    page.get_by_role("link", name="Failed", exact=True).click()
    page.get_by_role("button", name="Replay all").click()
    asked = page.locator(".ob-main h1").inner_text()
    give_a_reason(page, "currency fixed")
    page.get_by_text("4 replayed").wait_for()
    see(page, f"{shop.pages}{SENT}", "8 messages match")
    page.get_by_role("link", name="Failed", exact=True).click()
    page.get_by_text("Nothing has failed").wait_for()
    page.get_by_role("link", name="Audit").click()
    audit = page.get_by_role("table").inner_text()
    page.get_by_role("link", name="order-").first.click()
    lived = page.inner_text("main")
    page.goto(f"{shop.url}admin/")
    recent = page.inner_text("#recent-actions-module")
    context.close()

    assert "InvalidArgument in invoices" in why
    assert "Refused by a fault." in why
    assert "Attempt ended with InvalidArgument, HTTP 400" in story
    assert "Replay 4 messages?" == asked
    assert re.search(r"ann\s+replay\s+4\s+invoices\s+currency fixed", audit)
    assert re.search(r"ann\s+replay\s+1\s+invoices order-\d\s+the first of five", audit)
    assert f"Message #{one} sent" in " ".join(lived.split())
    assert "Replay by ann" in lived
    assert f"Message #{one}" in recent
    assert {f"order-{number}" for number in range(1, 9)} == shop.published("invoices") == shop.published("orders")
    assert 0 == shop.stop()


def test_example_leaves_nothing_to_migrate(tmp_path):
    """`makemigrations --check` in the example is clean, for the shop and for the outbox."""
    environment = {**os.environ, "SHOP_DIRECTORY": str(tmp_path)}
    command = [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"]
    ran = subprocess.run(command, cwd=SHOP, env=environment, capture_output=True, text=True, check=False)

    assert (0, "No changes detected") == (ran.returncode, ran.stdout.strip()), ran.stderr
