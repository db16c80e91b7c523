"""The example shop on Flask: one command starts it, and an operator mends in a browser what went wrong there."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

SHOP = Path(__file__).parents[2] / "examples" / "flask_shop"
# The shop's own config, which only shortens waits.
QUICK = {"FLASK_OUTBOX_SWEEP_S": "0.5"}
SENT = "messages?state=sent&topic=invoices"


class Shop:
    """A running example, and where it is."""

    def __init__(self, process, directory):
        self.process = process
        self.directory = directory
        told = [process.stdout.readline() for _ in range(4)]
        self.url, _, ledger = (re.search(r"http://\S+", line)[0] for line in told[:3])
        self.password = re.search(r"password (\S+)\)", told[1])[1]
        self._ledger = ledger

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
            yield Shop(process, tmp_path / "shop")
        finally:
            process.kill()


def signed_in(shop, context):
    """A page of the overview, for the operator ann."""
    page = context.new_page()
    page.goto(shop.url)
    page.get_by_label("Operator").fill("ann")
    page.get_by_label("Password").fill(shop.password)
    page.get_by_role("button", name="Sign in").click()
    return page


def give_a_reason(page, why):
    """Fill in the confirmation, and confirm it."""
    page.get_by_label("Reason").fill(why)
    page.get_by_role("main").get_by_role("button").click()


def see(page, path, text):
    """Load a page again and again, as an operator without scripts does, until a text is on it."""
    for _ in range(100):
        page.goto(re.sub(r"/outbox/.*", f"/outbox/{path}", page.url))
        if page.get_by_text(text).count():
            return
        page.wait_for_timeout(200)
    pytest.fail(page.inner_text("main"))


def test_operator_mends_the_shop(shop, browser):
    """Without any script: see what failed, read why, replay one, replay all, watch them sent, find it in the audit."""
    context = browser.new_context(java_script_enabled=False)
    page = signed_in(shop, context)
    see(page, "", "5 rows are failed")
    page.get_by_role("link", name="Look at failed").click()
    why = page.inner_text("main")
    page.get_by_role("link", name="See rows").click()
    page.get_by_role("link", name=re.compile(r"^#\d+$")).first.click()
    one = re.search(r"Message #(\d+)", page.inner_text("h1"))[1]
    story = page.inner_text("main")
    page.get_by_role("button", name="Replay").click()
    give_a_reason(page, "the first of five")
    page.get_by_text("1 replayed").wait_for()
    see(page, SENT, "4 messages match")
    page.get_by_role("link", name="Failed", exact=True).click()
    page.get_by_role("button", name="Replay all").click()
    asked = page.inner_text("h1")
    give_a_reason(page, "currency fixed")
    page.get_by_text("4 replayed").wait_for()
    see(page, SENT, "8 messages match")
    page.get_by_role("link", name="Failed", exact=True).click()
    page.get_by_text("Nothing has failed").wait_for()
    page.get_by_role("link", name="Audit").click()
    audit = page.get_by_role("table").inner_text()
    page.get_by_role("link", name="order-").first.click()
    lived = page.inner_text("main")
    context.close()

    assert "InvalidArgument in invoices" in why
    assert "Refused by a fault." in why
    assert "Attempt ended with InvalidArgument, HTTP 400" in story
    assert "Replay 4 messages?" == asked
    assert re.search(r"ann\s+replay\s+4\s+invoices\s+currency fixed", audit)
    assert re.search(r"ann\s+replay\s+1\s+invoices order-\d\s+the first of five", audit)
    assert f"Message #{one} sent" in " ".join(lived.split())
    assert "Replay by ann" in lived
    assert {f"order-{number}" for number in range(1, 9)} == shop.published("invoices") == shop.published("orders")
    assert 0 == shop.stop()


def test_example_leaves_nothing_to_migrate(tmp_path):
    """`flask db migrate` in the example proposes nothing, with the outbox's tables beside the shop's."""
    url = f"sqlite:///{tmp_path / 'shop.sqlite'}"
    config = {"SECRET_KEY": "x", "SQLALCHEMY_DATABASE_URI": url, "CELERY__broker_url": "memory://"}
    environment = {**os.environ, **{f"FLASK_{key}": value for key, value in config.items()}, "FLASK_APP": "shop"}

    def flask(*arguments):
        command = [sys.executable, "-m", "flask", *arguments]
        ran = subprocess.run(command, cwd=SHOP, env=environment, capture_output=True, text=True, check=False)
        assert 0 == ran.returncode, ran.stderr
        return ran.stdout

    before = set((SHOP / "migrations").rglob("*.py"))
    flask("db", "upgrade")
    flask("outbox", "migrate")
    said = flask("db", "migrate")
    engine = create_engine(url)
    tables = inspect(engine).get_table_names()
    engine.dispose()

    assert "No changes in schema detected" in said
    assert before == set((SHOP / "migrations").rglob("*.py"))
    assert {"orders", "outbox_messages"} < set(tables)
