"""The project's settings: one dict, the same schema, and nothing said twice."""

import pytest
from sqlalchemy import make_url

from outbox import ConfigError
from tests.django_projects import django_databases, set_up

set_up()

from django.db import connections  # noqa: E402 - Django must be set up first
from django.test import override_settings  # noqa: E402 - likewise

from outbox.django.databases import dialect_of, url_of  # noqa: E402 - likewise
from outbox.django.settings import load  # noqa: E402 - likewise

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


def test_settings_have_the_database_of_django(migrated_url):
    """The relay connects to where DATABASES leads; its keys are those of the dict, without OUTBOX_."""
    with (
        django_databases(default=migrated_url),
        override_settings(OUTBOX={"ACCESS_KEY_SECRET": "s3cr3t", "BATCH_SIZE": 3}),
    ):
        settings = load()
        dialect = dialect_of(connections["default"])
    url = make_url(settings.require("database_url"))

    assert make_url(migrated_url) == url
    assert ("s3cr3t", 3) == (settings.require("access_key_secret"), settings.batch_size)
    assert url.get_backend_name() == dialect.name


@on_sqlite
def test_settings_follow_an_alias_a_router_or_their_own_url(migrated_url, tmp_path):
    """An alias that is asked for comes first, then OUTBOX["DATABASE_URL"], then what the routers say."""
    secret = tmp_path / "url"
    secret.write_text("sqlite:////own.db")
    with django_databases(default=migrated_url, other="sqlite:////other.db"):
        with override_settings(DATABASE_ROUTERS=[_ToOther()]):
            routed = load().require("database_url")
        with override_settings(OUTBOX={"DATABASE_URL": "sqlite:////own.db"}):
            own, named = load().require("database_url"), load("other").require("database_url")
        with override_settings(OUTBOX={"DATABASE_URL_FILE": str(secret)}):
            in_a_file = load().require("database_url")

    assert "sqlite:////other.db" == routed == named
    assert "sqlite:////own.db" == own == in_a_file


class _ToOther:
    def db_for_write(self, model, **_hints):
        return "other" if model._meta.app_label == "outbox" else None


@on_sqlite
def test_settings_take_celerys_broker(migrated_url):
    """CELERY_BROKER_URL serves unless OUTBOX has a broker of its own."""
    with django_databases(default=migrated_url), override_settings(CELERY_BROKER_URL="redis://celerys"):
        celerys = load().require("broker_url")
        with override_settings(OUTBOX={"BROKER_URL": "redis://ours"}):
            ours = load().require("broker_url")

    assert ("redis://celerys", "redis://ours") == (celerys, ours)


@on_sqlite
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"BATCHSIZE": 3}, "OUTBOX_BATCHSIZE: no such setting; did you mean BATCH_SIZE?"),
        ({"BATCH_SIZE": "many"}, "OUTBOX_BATCH_SIZE: got 4 characters; give a whole number from 1 to 10000"),
        (
            {"TABLE_SCHEMA": "ours"},
            "OUTBOX_TABLE_SCHEMA: Django names no schemas; take it out, and set the search_path",
        ),
        ([("BATCH_SIZE", 3)], 'OUTBOX: is list; give a dict such as {"ENDPOINT": "https://…"}'),
    ],
    ids=["unknown", "wrong", "schema", "no dict"],
)
def test_settings_that_are_wrong(migrated_url, given, problem):
    """One line names the key and says what to do."""
    with (
        django_databases(default=migrated_url),
        override_settings(OUTBOX=given),
        pytest.raises(ConfigError) as refused,
    ):
        load()

    assert str(refused.value).startswith(problem)
    assert "\n" not in str(refused.value)


@on_sqlite
def test_settings_of_celery_are_the_projects(migrated_url, monkeypatch):
    """Where a process belongs to a Django project with the app, Celery follows it; without the app, the environment."""
    from outbox.celery.hosts import settings_of_host

    monkeypatch.setenv("OUTBOX_BATCH_SIZE", "7")
    outside = settings_of_host()()
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
    load = settings_of_host()
    with django_databases(default=migrated_url), override_settings(OUTBOX={"BATCH_SIZE": 3}):
        inside = load()
        with override_settings(INSTALLED_APPS=["django.contrib.contenttypes"]):
            without = load()

    assert [7, 3, 7] == [one.batch_size for one in (outside, inside, without)]
    assert inside.database_url


class _Like:
    """What `url_of` looks at, of databases that are not here."""

    def __init__(self, vendor, module, **given):
        self.vendor, self.alias = vendor, "default"
        self.Database = type("module", (), {})
        self.Database.__name__ = module
        empty = {"NAME": "", "USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}}
        self.settings_dict = empty | given


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (
            _Like("postgresql", "psycopg", NAME="shop", USER="u", PASSWORD="p%@/:", HOST="db", PORT="5433"),
            "postgresql+psycopg://u:p%25%40%2F%3A@db:5433/shop",
        ),
        (
            _Like("postgresql", "psycopg2", NAME="shop", HOST="/run/pg", OPTIONS={"sslmode": "require", "pool": True}),
            "postgresql+psycopg2:///shop?host=%2Frun%2Fpg&sslmode=require",
        ),
        (_Like("postgresql", "psycopg", OPTIONS={"service": "shop"}), "postgresql+psycopg://?service=shop"),
        (
            _Like("postgresql", "psycopg", OPTIONS={"assume_role": "the owner", "options": "-c jit=off"}),
            "postgresql+psycopg://?options=-c+jit%3Doff+-c+role%3Dthe%5C+owner",
        ),
        (
            _Like(
                "mysql", "MySQLdb", NAME="shop", HOST="/run/my.sock", OPTIONS={"charset": "utf8", "ssl": {"ca": "/c"}}
            ),
            "mysql+mysqldb:///shop?ssl_ca=%2Fc&unix_socket=%2Frun%2Fmy.sock",
        ),
        (_Like("mysql", "pymysql", NAME="shop", HOST="db", OPTIONS={"sql_mode": "x"}), "mysql+pymysql://db/shop"),
        (
            _Like("sqlite", "sqlite3", NAME="/srv/db", OPTIONS={"timeout": 20, "init_command": "x"}),
            "sqlite:////srv/db?timeout=20",
        ),
    ],
    ids=["password", "socket", "service", "role", "mysql socket", "pymysql", "sqlite"],
)
def test_url_is_what_databases_says(connection, url):
    """Users, passwords, sockets and the driver's own options are carried over; Django's own options are not."""
    assert url == url_of(connection).render_as_string(hide_password=False)


def test_url_of_another_kind_of_database():
    """Oracle is named, and so is what would do."""
    with pytest.raises(ConfigError, match="default is a database of the kind oracle; the outbox needs PostgreSQL"):
        url_of(_Like("oracle", "oracledb"))


def test_url_in_memory_can_be_opened_twice():
    """SQLite's shared memory, where Django's test runner puts its database, is reached by the URL as well."""
    from outbox.store.engine import create_engine

    name = "file:memorydb_default?mode=memory&cache=shared"
    url = url_of(_Like("sqlite", "sqlite3", NAME=name)).render_as_string(hide_password=False)
    one, other = create_engine(url), create_engine(url)
    with one.begin() as writing:
        writing.exec_driver_sql("CREATE TABLE t (x)")
    with other.connect() as reading:
        found = reading.exec_driver_sql("SELECT count(*) FROM t").scalar()
        reading.close()
    one.dispose()
    other.dispose()

    assert 0 == found
