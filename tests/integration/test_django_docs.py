"""The programs of docs/django.md run."""

import re
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest

from outbox.settings import Settings
from tests.django_projects import django_databases, set_up
from tests.rows import read_row

set_up()

from django.http import HttpResponse  # noqa: E402 - Django must be set up first
from django.test import override_settings  # noqa: E402 - likewise
from django.urls import path  # noqa: E402 - likewise

ROOT = Path(__file__).parents[2]
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "django.md").read_text(), re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])


def program(part):
    """The one program of the page that holds this text."""
    (found,) = [one for one in PROGRAMS if part in one]
    return found


@pytest.fixture
def django(migrated_url):
    with django_databases(default=migrated_url):
        yield


def test_programs_of_the_page_are_tested(database_kind):
    """A program that is added to the page is added to the tests; that of Celery runs in the worker's own."""
    tested = ("INSTALLED_APPS", "def take", "install(app)", "transaction_mode", "CheckoutTest")

    assert sorted(PROGRAMS) == sorted(program(part) for part in tested)


def test_settings_of_the_page(database_kind):
    """The settings shown are settings, and SQLite is configured as the example does it."""
    names = {"INSTALLED_APPS": []}
    exec(program("INSTALLED_APPS"), names)
    exec(program("transaction_mode"), names)
    settings = Settings.from_mapping(names["OUTBOX"], prefix="")
    example = (ROOT / "examples/django_shop/shop/settings.py").read_text()

    assert ["outbox.django"] == names["INSTALLED_APPS"]
    assert settings.endpoint.startswith("https://")
    assert f'"OPTIONS": {str(names["DATABASES"]["default"]["OPTIONS"]).replace(chr(39), chr(34))}' in example


def test_enqueue_of_the_page(django, engine):
    """An order is saved and promised."""
    names, saved = {}, []
    exec(program("def take"), names)
    names["take"](SimpleNamespace(id=7, save=lambda: saved.append(7)))

    assert ("orders", "order-7", [7]) == (read_row(engine, 1)["topic"], read_row(engine, 1)["keys"], saved)


def test_test_case_of_the_page(django):
    """The TestCase shown passes, on the README's view; and fails where nothing is promised."""
    names = {}
    exec(program("CheckoutTest"), names)
    view = {"__name__": "views"}
    (readme,) = re.findall(
        r"^```python\n([^`]*?def sign_up.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    exec(readme, view)
    view["User"] = SimpleNamespace(
        objects=SimpleNamespace(create_user=lambda name: SimpleNamespace(id=1, username=name))
    )

    found = []
    for sign_up in (view["sign_up"], lambda _request: HttpResponse()):
        urls = type("urls", (), {"urlpatterns": [path("sign-up", sign_up)]})
        with override_settings(ROOT_URLCONF=urls):
            suite = unittest.defaultTestLoader.loadTestsFromTestCase(names["CheckoutTest"])
            result = suite.run(unittest.TestResult())
        found.append((result.testsRun, result.wasSuccessful()))

    assert [(1, True), (1, False)] == found
