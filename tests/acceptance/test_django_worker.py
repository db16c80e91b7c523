"""Celery in a Django project: `install(app)` in its celery.py, and nothing configured twice."""

import os
import re
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import create_engine, text

from tests.celery_workers import wait_for, worker
from tests.django_projects import database_settings
from tests.emulator_process import emulator_process
from tests.rows import states

SETTINGS = """
SECRET_KEY = "a secret of the test's"
INSTALLED_APPS = ["outbox.django"]
DATABASES = {{"default": {database!r}}}
CELERY_BROKER_URL = {broker_url!r}
OUTBOX = {{"ENDPOINT": {endpoint!r}, "ACCESS_KEY_ID": "FAKEAKID", "ACCESS_KEY_SECRET": "FAKESECRET", "SWEEP_S": 50}}
"""
TASK = """

@app.task(name="shop.order")
def order(item):
    from django.db import transaction
    from outbox.django import Message, enqueue

    with transaction.atomic():
        enqueue(Message("orders", item))
    return "sweeps every", app.conf.beat_schedule["outbox.relay"]["schedule"]
"""


def celery_program():
    """The celery.py of docs/django.md."""
    page = (Path(__file__).parents[2] / "docs" / "django.md").read_text()
    (found,) = [
        one for one in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "install(app)" in one
    ]
    return found.replace("mysite", "shop")


@pytest.fixture
def project(tmp_path, migrated_url, broker_url):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from shop.celery import app as celery_app\n")
    (package / "celery.py").write_text(celery_program() + TASK)
    with emulator_process() as broker:
        database = database_settings(migrated_url)
        given = {"database": database, "broker_url": broker_url, "endpoint": broker.url}
        (package / "settings.py").write_text(SETTINGS.format(**given))
        yield broker


def _end_sessions(url):
    """As a restart of the server does it to whoever holds connections."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
    engine.dispose()


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_django_worker_relays_after_a_commit(project, migrated_url, broker_url, tmp_path):
    """A commit in a task nudges the relay, with Django's settings; a database's restart hurts no later one."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings"}
    with (
        worker(environment, tmp_path, "-Q", "celery,outbox", "-c", "2", app="shop") as running,
        Celery("client", broker=broker_url, set_as_current=False) as client,
    ):
        client.send_task("shop.order", ["a book"])
        first = wait_for(lambda: project.ledger()["messages"])
        _end_sessions(migrated_url)
        client.send_task("shop.order", ["a pen"])
        second = wait_for(lambda: len(project.ledger()["messages"]) == 2)
        code = running.stop()
    engine = create_engine(migrated_url)
    found = states(engine)
    engine.dispose()

    assert first, running.log
    assert second, running.log
    assert (0, {1: "sent", 2: "sent"}) == (code, found), running.log
    assert "('sweeps every', 50.0)" in running.log
