"""What `manage.py check` says."""

import pytest

from tests.django_projects import django_databases, set_up

set_up()

from django.core import checks  # noqa: E402 - Django must be set up first
from django.test import override_settings  # noqa: E402 - likewise

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])

HTTPS = "https://1.mqrest.cn.aliyuncs.com"
URLS = "Give postgresql+psycopg://…, mysql+pymysql://… or sqlite:///…"


def told(*, deploy=False, databases=None):
    """The checks' ids that are ours, and the messages by id."""
    found = checks.run_checks(include_deployment_checks=deploy, databases=databases)
    return {one.id: one for one in found if (one.id or "").startswith("outbox.")}


@pytest.fixture
def django(migrated_url):
    with django_databases(default=migrated_url):
        yield


@on_sqlite
def test_check_of_a_good_project(django):
    """Nothing is said where all is well."""
    with override_settings(OUTBOX={"ENDPOINT": HTTPS, "ACCESS_KEY_ID": "id", "ACCESS_KEY_SECRET_FILE": "/run/key"}):
        assert {} == told(databases=["default"])


@on_sqlite
@pytest.mark.parametrize(
    ("given", "problem", "hint"),
    [
        ({"ENDPIONT": HTTPS}, "settings.OUTBOX: OUTBOX_ENDPIONT: no such setting", "Did you mean ENDPOINT?"),
        ({"LEASE_S": 1}, "settings.OUTBOX: OUTBOX_LEASE_S: got 1", "Give seconds from 3 to 86400"),
        ({"DATABASE_URL": "nonsense"}, "settings.OUTBOX: OUTBOX_DATABASE_URL: is not a SQLAlchemy URL", URLS),
        (7, "settings.OUTBOX: OUTBOX: is int", 'Give a dict such as {"ENDPOINT": "https://…"}'),
    ],
    ids=["unknown", "wrong", "no URL", "no dict"],
)
def test_check_of_wrong_settings(django, given, problem, hint):
    """A setting that is unknown or wrong is an error with its cure; the other checks do not fall over it."""
    with override_settings(OUTBOX=given):
        found = told(deploy=True)

    assert ["outbox.E001"] == list(found)
    assert (problem, hint) == (found["outbox.E001"].msg, found["outbox.E001"].hint)


def test_check_of_the_tables(database_url, monkeypatch):
    """With --database, tables that are missing or of another version are told; nothing is asked without it.

    Nor does `manage.py migrate`, which asks every check first, tell people to run manage.py migrate.
    """
    from django.core.management import call_command
    from django.db import connection

    with django_databases(default=database_url):
        before, unasked = told(databases=["default"]), told()
        call_command("migrate", "outbox", verbosity=0)
        after = told(databases=["default"])
        with connection.cursor() as cursor:
            cursor.execute("UPDATE outbox_alembic_version SET version_num = '0000'")
        older = told(databases=["default"])
        monkeypatch.setattr("sys.argv", ["manage.py", "migrate"])
        migrating = told(databases=["default"])

    assert {} == unasked == after == migrating
    assert (["outbox.W001"], "Run manage.py migrate.") == (list(before), before["outbox.W001"].hint)
    assert "at version 0000, this release needs 0001" in older["outbox.W002"].msg


@on_sqlite
def test_check_of_the_tables_asks_the_routers(django, make_database):
    """A database to which the routers do not let the outbox needs no tables; the other is named in the hint."""

    class Router:
        def allow_migrate(self, db, app_label, **_hints):
            return db == "other"

    with (
        django_databases(default=make_database("sqlite"), other=make_database("sqlite")),
        override_settings(DATABASE_ROUTERS=[Router()]),
    ):
        found = told(databases=["default", "other"])

    assert "Run manage.py migrate --database other." == found["outbox.W001"].hint


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_check_of_the_isolation(migrated_url):
    """On MariaDB a level that locks more than it writes is warned of."""
    from django.db import connections

    with django_databases(default=migrated_url):
        connections["default"].settings_dict["OPTIONS"] = {"isolation_level": "repeatable read"}
        found = told(databases=["default"])

    assert ["outbox.W003"] == list(found)


@on_sqlite
def test_check_of_a_database_of_its_own(django, migrated_url):
    """What the project enqueues in one database, a relay of another never sees. The host may be a pooler's."""
    found = []
    for url in (str(migrated_url), "sqlite:///elsewhere.db", "postgresql+psycopg://db/shop"):
        with override_settings(OUTBOX={"ENDPOINT": HTTPS, "DATABASE_URL": url}):
            found.append(list(told()))
    with (
        django_databases(default="postgresql+psycopg://db/shop"),
        override_settings(OUTBOX={"ENDPOINT": HTTPS, "DATABASE_URL": "postgresql://pooler:6432/shop"}),
    ):
        found.append(list(told(deploy=True)))

    assert [[], ["outbox.W004"], ["outbox.W004"], []] == found


GOOD = {"ENDPOINT": HTTPS, "ACCESS_KEY_ID": "id"}
ON_SQLITE = {**GOOD, "DATABASE_URL": "sqlite:///shop.db"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"OUTBOX": GOOD}, []),
        ({"OUTBOX": {**GOOD, "ENDPOINT": "http://127.0.0.1:8080"}}, ["outbox.W010"]),
        ({"OUTBOX": {**GOOD, "DESTINATIONS": {"b": {"endpoint": "http://127.0.0.1:1"}}}}, ["outbox.W010"]),
        ({"OUTBOX": {**GOOD, "ACCESS_KEY_SECRET": "written down"}}, ["outbox.W011"]),
        ({"OUTBOX": {**GOOD, "ACCESS_KEY_SECRET": "from the environment"}}, []),
        ({"OUTBOX": {**GOOD, "DESTINATIONS": {"b": {"security_token": "written"}}}}, ["outbox.W011"]),
        ({"OUTBOX": ON_SQLITE}, ["outbox.W004", "outbox.W012"]),
        ({"OUTBOX": GOOD, "CELERY_TASK_ALWAYS_EAGER": True}, ["outbox.W013"]),
        ({"OUTBOX": GOOD, "CELERY_BROKER_URL": "memory://"}, ["outbox.W014"]),
        ({"OUTBOX": GOOD, "CELERY_BROKER_URL": ["memory://"]}, ["outbox.W014"]),
        ({"OUTBOX": GOOD, "CELERY_BROKER_URL": "redis://db"}, []),
        (
            {
                "OUTBOX": GOOD,
                "CELERY_BROKER_URL": "redis://db",
                "CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": None},
            },
            [],
        ),
        (
            {
                "OUTBOX": GOOD,
                "CELERY_BROKER_URL": "redis://db",
                "CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": 20},
            },
            ["outbox.W014"],
        ),
    ],
    ids=str,
)
def test_check_of_a_deployment(monkeypatch, settings, expected):
    """With --deploy, what is wrong for production is warned of, with a hint that shows no secret."""
    monkeypatch.setenv("OUTBOX_TEST_SECRET", "fromtheenvironment")
    settings = {**settings, "OUTBOX": {k: _as_key(v) for k, v in settings["OUTBOX"].items()}}
    with django_databases(default="postgresql+psycopg://db/shop"), override_settings(**settings):
        found, undeployed = told(deploy=True), told()

    assert [one for one in expected if one < "outbox.W010"] == list(undeployed)
    assert expected == list(found)
    assert all(one.hint and "written" not in one.msg + one.hint for one in found.values())


def _as_key(value):
    return value.replace(" ", "") if isinstance(value, str) else value


@on_sqlite
def test_checks_have_ids_of_their_own(django):
    """Every id in the source is in the documentation."""
    import re
    from pathlib import Path

    root = Path(__file__).parents[2]
    ids = set(re.findall(r"outbox\.[EW]\d{3}", (root / "outbox/django/checks.py").read_text()))

    assert ids == set(re.findall(r"outbox\.[EW]\d{3}", (root / "docs/django.md").read_text()))
