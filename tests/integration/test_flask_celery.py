"""Flask and Celery: the programs of docs/flask.md run, and a commit in a request nudges a worker."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery, current_app
from flask import Flask, has_app_context
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from outbox import Message, enqueue
from outbox.celery import installation
from outbox.flask import Outbox
from tests.celery_workers import forgotten_installations, queue_of
from tests.flask_apps import flask_app
from tests.rows import states

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
on_redis = pytest.mark.parametrize("broker_url", ["redis"], indirect=True)

PAGE = (Path(__file__).parents[2] / "docs" / "flask.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def program(part):
    """The one program of the page that holds this text, as the names that it defines."""
    (found,) = [one for one in PROGRAMS if part in one]
    return found


@pytest.fixture
def make_celery():
    """The page's factory."""
    names = {}
    exec(program("class FlaskTask"), names)
    before = current_app._get_current_object()
    with forgotten_installations():
        yield names["make_celery"]
    before.set_default()


@pytest.fixture
def shop(migrated_url, emulator, broker_url, make_celery):
    """An app with a Celery application, as the page has it."""
    keys = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}
    config = keys | {"OUTBOX_ENDPOINT": emulator.url, "CELERY": {"broker_url": broker_url}}
    with flask_app(migrated_url, **config) as app:
        make_celery(app)
        yield app


def test_programs_of_the_page_are_tested():
    """A program that is added to the page is added to the tests below."""
    tested = ("def create_app", "class FlaskTask", "from shop import", "include_object=include_object")

    assert sorted(PROGRAMS) == sorted(program(part) for part in tested)


@on_sqlite
@on_redis
def test_commit_in_a_request_nudges(shop, engine, broker_url, emulator):
    """A commit of the app's session sends a nudge; tasks run in the app's context, the relay with its settings."""
    db, celery_app = shop.extensions["sqlalchemy"], shop.extensions["celery"]

    @shop.post("/orders")
    def take_order():
        enqueue(db.session, Message("orders", "from a request"))
        db.session.commit()
        return "", 204

    contexts = []

    @celery_app.task(name="shop.look")
    def look():
        contexts.append(has_app_context())

    with queue_of(broker_url, "outbox") as taken:
        answer = shop.test_client().post("/orders")
        nudges = taken()
    celery_app.tasks["shop.look"]()
    celery_app.tasks["outbox.relay"](nudged=True)

    assert 204 == answer.status_code
    assert ["outbox.relay"] == [one.headers["task"] for one in nudges]
    assert [True] == contexts
    assert ["from a request"] == [one["body"] for one in emulator.ledger()["messages"]]
    assert {1: "sent"} == states(engine)


@on_sqlite
@on_redis
def test_celery_application_of_each_app(shop, make_celery, migrated_url, broker_url):
    """Several apps in a process have an application each, with their own settings."""
    with flask_app(migrated_url, OUTBOX_SWEEP_S=7, CELERY={"broker_url": broker_url}, name="other") as other:
        made = make_celery(other)

        assert {shop.extensions["celery"], made} <= set(installation._installed)
        assert 7 == made.conf.beat_schedule["outbox.relay"]["schedule"]
        assert 5 == shop.extensions["celery"].conf.beat_schedule["outbox.relay"]["schedule"]


@on_sqlite
def test_factory_of_the_page(migrated_url, monkeypatch):
    """The page's application factory makes apps, which have the outbox and its pages."""
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", migrated_url)
    monkeypatch.setenv("FLASK_OUTBOX_ENDPOINT", "https://1.mqrest.eu.aliyuncs.com")
    names = {"__name__": "shop"}
    exec(program("def create_app"), names)
    app = names["create_app"]()
    with app.app_context():
        names["db"].engine.dispose()

    assert "https://1.mqrest.eu.aliyuncs.com" == app.extensions["outbox"].settings.endpoint
    assert 403 == app.test_client().get("/outbox/").status_code


def test_worker_module_of_the_page(monkeypatch):
    """The page's module for the worker holds the Celery application."""
    app = Flask("shop")
    app.extensions["celery"] = Celery("shop", set_as_current=False)
    monkeypatch.setitem(sys.modules, "shop", SimpleNamespace(create_app=lambda: app))
    names = {}
    exec(program("from shop import"), names)

    assert app.extensions["celery"] is names["app"]


@on_sqlite
def test_migrate_of_the_page(migrated_url):
    """The page's line gives Flask-Migrate the same as the extension does."""
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = migrated_url
    db = SQLAlchemy(app)
    Outbox(app, db)
    exec(program("include_object=include_object"), {"app": app, "db": db, "Migrate": Migrate})
    with app.app_context():
        include = app.extensions["migrate"].configure_args["include_object"]
        db.engine.dispose()

    assert not include(None, "outbox_messages", "table", True, None)
    assert include(None, "orders", "table", True, None)
