"""The operators' pages in a browser: on a phone, by keyboard, in light and dark, with scripts and without."""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine

from outbox import prepare_sqlite
from outbox.store import matching, operate
from outbox.store.database import Database
from outbox.store.lanes import Lane
from outbox.store.pauses import pause
from tests.browsers import CONTRAST, NAMELESS, served
from tests.flask_apps import flask_app
from tests.rows import ago, outbox_id_at, states, write_row

PAGES = ["/", "/messages?state=failed", "/messages?state=gone&topic=a b", "/messages/1", "/failed", "/pauses", "/audit"]
LONG = "averylongwordwithoutanyblank" * 8


@pytest.fixture
def engine(make_database):
    """A small outbox with something of everything in it."""
    engine = create_engine(make_database("sqlite", migrated=True))
    prepare_sqlite(engine)
    for seconds in range(0, 1800, 60):
        at = ago(seconds)
        write_row(engine, outbox_id=outbox_id_at(at), created_at=at, state="sent" if seconds else "pending", sent_at=at)
    for text in ("no answer", LONG, "<b>bold</b>"):
        write_row(engine, state="failed", last_error_code="Timeout", last_error=text, keys="order-7", attempts=10)
    pause(Database(engine), Lane("default", "emails"), by="ann", reason=LONG)
    yield engine
    engine.dispose()


@pytest.fixture
def url(engine):
    """Where its pages are."""
    address = engine.url.render_as_string(hide_password=False)
    with flask_app(address, admin_auth=lambda _request: "ann") as app, served(app) as url:
        yield f"{url}/outbox"


@pytest.fixture
def open_page(browser, url):
    """A function to a page of a new window, which notes down what the browser complains of."""
    contexts, complaints = [], []

    def open_(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url}{path}")
        return page

    yield open_
    for context in contexts:
        context.close()
    # A browser that asks for an icon is answered by the application, not by these pages.
    assert [] == [said for said in complaints if "404" not in said and "400" not in said]


def test_pages_fit_a_phone(open_page, url):
    """At 320 pixels nothing has to be scrolled sideways, however long a word is."""
    page = open_page("/", viewport={"width": 320, "height": 640})
    widths = {}
    for path in PAGES:
        page.goto(f"{url}{path}")
        widths[path] = page.evaluate("document.documentElement.scrollWidth")

    assert dict.fromkeys(PAGES, 320) == widths


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(open_page, url, scheme):
    """In light and in dark every text has the contrast that WCAG AA asks for, and every control a name."""
    page = open_page("/", color_scheme=scheme)
    pale, nameless = [], []
    for path in PAGES:
        page.goto(f"{url}{path}")
        pale += page.evaluate(CONTRAST, "body")
        nameless += page.evaluate(NAMELESS, "body")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ([], []) == (pale, nameless)
    assert ("rgb(245, 246, 248)" if scheme == "light" else "rgb(15, 19, 25)") == ground


def test_replay_by_keyboard(open_page, engine):
    """With the keyboard alone: skip to the content, select a row, confirm, and read what came of it."""
    page = open_page("/messages?state=failed")
    page.keyboard.press("Tab")
    first = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "selected":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Space")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.value") == "replay selected":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/confirm")
    page.get_by_label("Reason").focus()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="1 replayed").wait_for()

    assert "To the content" == first
    assert "solid" == outline
    assert 2 == list(states(engine).values()).count("failed")


def test_select_all_and_go_on(open_page, engine, monkeypatch):
    """With scripts one box selects all, and what is done in chunks goes on by itself."""
    from outbox.admin import deeds

    monkeypatch.setattr(deeds, "_FOR_S", 0.0)
    for module in (operate, matching):
        monkeypatch.setattr(module, "CHUNK", 1)
    page = open_page("/messages?state=failed")
    page.get_by_label("Select all on this page").check()
    picked = page.locator("[data-ob-picked]").inner_text()
    page.get_by_role("button", name="Replay all").click()
    page.get_by_label("Reason").fill("all of them")
    page.get_by_role("button", name="Replay 3").click()
    page.get_by_role("heading", name=re.compile("^3 replayed$")).wait_for()

    assert "3 selected" == picked
    assert "failed" not in states(engine).values()


def test_overview_follows(open_page, engine, url):
    """With scripts the overview shows what has changed, without being asked."""
    page = open_page("/")
    page.clock.install(time=datetime.now(UTC))
    page.goto(f"{url}/")
    before = page.get_by_role("listitem").first.inner_text()
    write_row(engine, state="failed", last_error_code="Timeout")
    page.clock.run_for(11_000)
    page.get_by_text("4 rows are failed").wait_for()

    assert "3 rows are failed" in before


def test_charts_tell_numbers_under_the_pointer(open_page):
    """Each minute of a chart has its numbers, and the chart a name and a table."""
    page = open_page("/")
    chart = page.get_by_role("img", name="Messages a minute")
    hints = [one.text_content() for one in chart.locator(".ob-hints title").all()]
    page.get_by_text("In numbers").nth(2).click()

    assert 59 == len(hints)
    assert re.fullmatch(r"\d\d:\d\d UTC\nenqueued \d+\nsent \d+\nfailed \d+", hints[-1])
    assert page.get_by_role("table", name=re.compile("Messages a minute")).is_visible()


def test_body_is_revealed(open_page):
    """The body appears where it was asked for."""
    page = open_page("/messages/1")
    page.get_by_role("button", name="Show the body").click()

    assert '{"id":7}' == page.locator("pre").inner_text()
