"""`manage.py outbox …` in the test's own process."""

import io
import json
from unittest.mock import patch

import pytest

from outbox import Message
from tests.django_projects import django_databases, set_up

set_up()

from django.core.management import ManagementUtility, call_command  # noqa: E402 - Django must be set up first
from django.core.management.base import CommandError  # noqa: E402 - likewise
from django.db import transaction  # noqa: E402 - likewise
from django.test import override_settings  # noqa: E402 - likewise

from outbox.django import enqueue  # noqa: E402 - likewise
from outbox.django.models import OutboxMessage  # noqa: E402 - likewise


@pytest.fixture
def urls(make_database):
    urls = {"default": make_database("sqlite", migrated=True), "other": make_database("sqlite", migrated=True)}
    with django_databases(**urls):
        yield urls


def manage(*arguments):
    """The exit code of `manage.py outbox …`."""
    # Django writes --settings into the environment.
    with patch.dict("os.environ"), pytest.raises(SystemExit) as ended:
        ManagementUtility(["/srv/shop/manage.py", "outbox", *arguments]).execute()
    return ended.value.code or 0


def test_command_runs_with_the_projects_settings(urls, emulator, capsys):
    """A message is enqueued, relayed and shown with what settings.OUTBOX and DATABASES say."""
    keys = {"ENDPOINT": emulator.url, "ACCESS_KEY_ID": "FAKEAKID", "ACCESS_KEY_SECRET": "FAKESECRET"}
    with override_settings(OUTBOX=keys):
        codes = [manage("enqueue", "--topic", "orders", "hello"), manage("relay", "--drain"), manage("list", "--json")]
    (message,) = json.loads(capsys.readouterr().out.partition("\n")[2])["messages"]

    assert [0, 0, 0] == codes
    assert ("orders", "sent") == (message["topic"], message["state"])
    assert ["hello"] == [one["body"] for one in emulator.ledger()["messages"]]


def test_command_of_another_database(urls, capsys):
    """--database chooses among the aliases; another is wrong usage."""
    codes = [manage("--database", "other", "enqueue", "--topic", "orders", "hello")]
    codes += [manage("--database", "nowhere", "status")]

    assert [0, 2] == codes
    assert "'nowhere' is not one of 'default', 'other'" in capsys.readouterr().err
    assert [0, 1] == [OutboxMessage.objects.using(alias).count() for alias in urls]


def test_command_has_everything_that_outbox_has(capsys):
    """Its help is the outbox's, under the name by which it was called, with Django's own options let through."""
    from outbox.cli import program

    with django_databases(default="sqlite:///nothing.db"):
        code = manage("--settings=whatever", "--help")
    told = capsys.readouterr().out

    assert 0 == code
    assert told.startswith("Usage: manage.py outbox ")
    assert "Settings are keys of settings.OUTBOX" in told
    assert all(f"\n  {name} " in told for name in set(program.commands) - {"demo"})


def test_command_that_fails(urls, capsys):
    """What goes wrong is one line on stderr, and the exit code says how."""
    codes = [manage("show", "7"), manage("no-such-command")]
    with override_settings(OUTBOX={"LEASE": 3}):
        codes.append(manage("status"))
    codes.append(manage("worker"))
    lines = capsys.readouterr().err.splitlines()

    assert [1, 2, 1, 1] == codes
    assert "error: OUTBOX_LEASE: no such setting; did you mean LEASE_S?" == lines[-2]
    assert lines[-1].startswith("error: OUTBOX_BROKER_URL: missing")


def test_command_takes_djangos_own_options(urls, capsys):
    """They may stand anywhere, as for any command of Django's; behind -- they are arguments."""
    codes = [manage("status", "--settings=whatever", "--json", "--traceback", "-v", "2", "--no-color")]
    codes.append(manage("enqueue", "--topic", "orders", "--pythonpath", ".", "--", "--traceback"))

    assert [0, 0] == codes
    assert ["--traceback"] == list(OutboxMessage.objects.values_list("body", flat=True))


def test_call_command_of_another_database(urls):
    """Said before the command, or by the name of the option; what goes wrong is told where the caller says."""
    err = io.StringIO()
    for given in (("--database", "other", "enqueue"), ("enqueue",)):
        call_command("outbox", *given, "--topic", "orders", "hello", database="other", stdout=io.StringIO())
    with pytest.raises(CommandError):
        call_command("outbox", "show", "7", stderr=err)

    assert [0, 2] == [OutboxMessage.objects.using(alias).count() for alias in urls]
    assert err.getvalue().startswith("error: ")


def test_call_command(urls):
    """From Python its output goes where the caller says, and a failure is Django's CommandError with the exit code."""
    with transaction.atomic():
        enqueue(Message("orders", "hello"))
    out = io.StringIO()
    call_command("outbox", "status", "--json", stdout=out)
    with pytest.raises(CommandError) as failed:
        call_command("outbox", "show", "7", stdout=out)

    assert 1 == json.loads(out.getvalue())["pending"]
    assert 1 == failed.value.returncode
