"""The pages in Django's admin in a browser: on a phone, in light and dark, chosen or not, with scripts."""

import re

import pytest
from sqlalchemy import create_engine

from outbox import prepare_sqlite
from outbox.store import matching, operate
from tests.browsers import CONTRAST, NAMELESS, served
from tests.django_projects import ADMIN, Operator, admin_project, migrated_project, set_up
from tests.rows import ago, outbox_id_at, states, write_row

set_up()

from django.contrib.staticfiles.handlers import StaticFilesHandler  # noqa: E402 - Django must be set up first
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402 - likewise
from django.test import override_settings  # noqa: E402 - likewise

PAGES = ["", "?state=failed", "?state=gone&topic=a b", "1/change/", "overview/", "failed/", "pauses/", "audit/"]
LONG = "averylongwordwithoutanyblank" * 8


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A migrated database; and Django lets this thread go on where the browser's event loop is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield migrated_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(source, tmp_path):
    """A small outbox in a project, what it is served at, and the session of somebody who may do everything."""
    with admin_project(tmp_path, source) as database, override_settings(ALLOWED_HOSTS=["127.0.0.1"]):
        engine = create_engine(database)
        prepare_sqlite(engine)
        for seconds in range(0, 600, 60):
            at = ago(seconds)
            state = "sent" if seconds else "pending"
            write_row(engine, outbox_id=outbox_id_at(at), created_at=at, state=state, sent_at=at)
        for text in ("no answer", LONG, "<b>bold</b>"):
            write_row(engine, state="failed", last_error_code="Timeout", last_error=text, keys="order-7", attempts=10)
        with override_settings(ALLOWED_HOSTS=["127.0.0.1", "testserver"]):
            session = Operator("ann", superuser=True).client.cookies["sessionid"].value
        with served(StaticFilesHandler(WSGIHandler())) as url:
            yield engine, url, session
        engine.dispose()


@pytest.fixture
def open_page(browser, project):
    """A function to a page of a new window, signed in, which notes down what the browser complains of."""
    _, url, session = project
    contexts, complaints = [], []

    def open_(path="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.add_cookies([{"name": "sessionid", "value": session, "url": url}])
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url}{ADMIN}{path}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [] == [said for said in complaints if "404" not in said and "400" not in said]


def test_pages_fit_a_phone(open_page, project):
    """At 320 pixels nothing has to be scrolled sideways, however long a word is."""
    page = open_page(viewport={"width": 320, "height": 640})
    widths = {}
    for path in PAGES:
        page.goto(f"{project[1]}{ADMIN}{path}")
        widths[path] = page.evaluate("document.documentElement.scrollWidth")

    assert dict.fromkeys(PAGES, 320) == widths


@pytest.mark.parametrize(("scheme", "theme"), [("dark", "auto"), ("light", "dark"), ("dark", "light")])
def test_texts_can_be_read(open_page, project, scheme, theme):
    """In light and dark, the system's or that chosen in the admin, every text has the contrast that WCAG asks for."""
    page = open_page(color_scheme=scheme)
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
    pale, nameless = [], []
    for path in PAGES:
        page.goto(f"{project[1]}{ADMIN}{path}")
        pale += page.evaluate(CONTRAST, ".ob")
        nameless += page.evaluate(NAMELESS, ".ob")
    surface = page.evaluate("getComputedStyle(document.querySelector('.ob-card')).backgroundColor")

    assert ([], []) == (pale, nameless)
    assert ("rgb(24, 30, 39)" if "dark" in (theme, scheme * (theme == "auto")) else "rgb(255, 255, 255)") == surface


def test_select_all_and_go_on(open_page, project, monkeypatch):
    """With scripts one box selects all, and what is done in chunks goes on by itself."""
    from outbox.admin import deeds

    monkeypatch.setattr(deeds, "_FOR_S", 0.0)
    for module in (operate, matching):
        monkeypatch.setattr(module, "CHUNK", 1)
    page = open_page("?state=failed")
    page.get_by_label("Select all on this page").check()
    picked = page.locator("[data-ob-picked]").inner_text()
    page.get_by_role("button", name="Replay all").click()
    page.get_by_label("Reason").fill("all of them")
    page.get_by_role("button", name="Replay 3").click()
    page.get_by_role("heading", name=re.compile("^3 replayed$")).wait_for()

    assert "3 selected" == picked
    assert "failed" not in states(project[0]).values()


def test_overview_follows(open_page, project):
    """With scripts the overview shows what has changed, without being asked."""
    page = open_page()
    page.clock.install()
    page.goto(f"{project[1]}{ADMIN}overview/")
    before = page.locator(".ob-banner").first.inner_text()
    write_row(project[0], state="failed", last_error_code="Timeout")
    page.clock.run_for(11_000)
    page.get_by_text("4 rows are failed").wait_for()

    assert "3 rows are failed" in before
