"""What ``manage.py check`` says of the outbox: settings, tables (``--database``), a deployment (``--deploy``)."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings as project
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, Warning  # noqa: A004 - Django's own name
from django.db import connections, router
from sqlalchemy import URL

from outbox.django.databases import url_of
from outbox.django.models import OutboxMessage
from outbox.django.settings import celery_broker, default_alias, load, of_project
from outbox.errors import ConfigError
from outbox.settings import Settings
from outbox.store.engine import parsed_url

__all__ = ["register"]

_SECRETS = ("ACCESS_KEY_SECRET", "SECURITY_TOKEN")
# A broker that gives a task to another worker after less would do so while the first is still at it.
_SHORTEST_VISIBILITY_S = 60
_FORGETFUL = ("memory://", "filesystem://")
_WITH_VISIBILITY = ("redis://", "rediss://", "sqs://", "sentinel://")


def register() -> None:
    """Have Django run the checks of this module."""
    checks.register(check_settings, "outbox")
    checks.register(check_tables, Tags.database)
    checks.register(check_deployment, "outbox", deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: a setting is wrong, or the database's kind unknown; W004: DATABASE_URL leads elsewhere than DATABASES."""
    try:
        load()
        # A file may be for the workers' eyes alone.
        own, projects = _own_url(of_project()), url_of(connections[default_alias()])
    except ConfigError as error:
        return [_from(error)]
    if own is None or _place(own) == _place(projects):
        return []
    return [
        Warning(
            "settings.OUTBOX: DATABASE_URL leads to another database than DATABASES: nobody relays what is enqueued.",
            hint="Take it out: the relay uses the database of DATABASES by itself.",
            id="outbox.W004",
        )
    ]


def _own_url(settings: Settings) -> URL | None:
    given = settings.database_url
    return parsed_url(given.get_secret_value()) if given else None


def _place(url: URL) -> tuple[str, str]:
    """What two URLs of one database agree in; the host may be a pooler's in one of them."""
    kind = url.get_backend_name().replace("mariadb", "mysql")
    return kind, os.path.abspath(url.database or "") if kind == "sqlite" else url.database or ""  # noqa: PTH100 - of a name


def _from(error: ConfigError) -> CheckMessage:
    problem, _, hint = str(error).partition("; ")
    return Error(f"settings.OUTBOX: {problem}", hint=_sentence(hint) or None, id="outbox.E001")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- the database -------------------------------------------------------------------------------------------------


def check_tables(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W001: no tables; W002: of another version; W003: on MariaDB or MySQL, transactions above READ COMMITTED.

    No errors, for those would keep ``manage.py migrate`` from mending it; nor does it need to be told.
    """
    if sys.argv[1:2] == ["migrate"]:
        return []
    ours = [alias for alias in databases or () if router.allow_migrate_model(alias, OutboxMessage)]
    return [message for alias in ours for message in _of_database(alias)]


def _of_database(alias: str) -> Iterator[CheckMessage]:
    from outbox.migrate import VERSION_TABLE, head  # noqa: PLC0415 - Alembic costs every process too long a start

    connection = connections[alias]
    with connection.cursor() as cursor:
        if VERSION_TABLE not in connection.introspection.table_names(cursor):
            yield Warning(
                f"The database {alias!r} has no tables of the outbox.",
                hint=f"Run manage.py migrate{_option(alias)}.",
                id="outbox.W001",
            )
            return
        cursor.execute(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a name of ours
        (version,) = cursor.fetchone() or (None,)
    if version != head():
        yield Warning(
            f"The outbox's tables in {alias!r} are at version {version}, this release needs {head()}.",
            hint=f"Run manage.py migrate{_option(alias)}.",
            id="outbox.W002",
        )
    level = connection.settings_dict["OPTIONS"].get("isolation_level", "read committed")
    if connection.vendor == "mysql" and str(level).lower() not in {"read committed", "read uncommitted"}:
        yield Warning(
            f"Transactions of {alias!r} are {level}: they lock more of the outbox than they write.",
            hint="Leave isolation_level out of OPTIONS: Django's default is read committed.",
            id="outbox.W003",
        )


def _option(alias: str) -> str:
    return "" if alias == "default" else f" --database {alias}"


# --- a deployment -------------------------------------------------------------------------------------------------


def check_deployment(**_: Any) -> list[CheckMessage]:
    """W010 to W014: what is right for development and wrong for production."""
    try:
        settings = of_project()
        own = _own_url(settings)
    except ConfigError:
        return []  # E001 has said it
    return [*_endpoints(settings), *_secrets(), *_database(settings, own), *_celery()]


def _endpoints(settings: Settings) -> Iterator[CheckMessage]:
    given = {"ENDPOINT": settings.endpoint}
    given |= {f"DESTINATIONS {name} endpoint": one.endpoint for name, one in settings.destinations.items()}
    for key, endpoint in given.items():
        if str(endpoint).startswith("http://"):
            yield Warning(
                f"settings.OUTBOX: {key} is an http:// URL: message bodies travel in the clear.",
                hint="Give the https:// endpoint, and take ALLOW_HTTP out.",
                id="outbox.W010",
            )


def _secrets() -> Iterator[CheckMessage]:
    given = project.OUTBOX if hasattr(project, "OUTBOX") else {}
    places = [("", given), *((f"DESTINATIONS {n} ", one) for n, one in _described(given))]
    for where, keys in places:
        for key in _SECRETS:
            value = next((str(v) for name, v in keys.items() if str(name).upper() == key and v), None)
            if value and value not in os.environ.values():
                yield Warning(
                    f"settings.OUTBOX: {where}{key} stands in the settings themselves.",
                    hint=f"Take it from the environment, or give {key}_FILE, a file that only the workers can read.",
                    id="outbox.W011",
                )


def _described(given: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    destinations = given.get("DESTINATIONS")
    return list(destinations.items()) if isinstance(destinations, Mapping) else []


def _database(settings: Settings, own: URL | None) -> Iterator[CheckMessage]:
    kind = own.get_backend_name() if own else connections[default_alias()].vendor
    if kind == "sqlite" and not settings.database_url_file:
        yield Warning(
            "The outbox is in a SQLite database: one writer at a time, on one machine.",
            hint="Use PostgreSQL, MariaDB or MySQL in production.",
            id="outbox.W012",
        )


def _celery() -> Iterator[CheckMessage]:
    if getattr(project, "CELERY_TASK_ALWAYS_EAGER", False):
        yield Warning(
            "CELERY_TASK_ALWAYS_EAGER is set: no worker relays, and nothing nudges one.",
            hint="Set it in the settings of tests alone.",
            id="outbox.W013",
        )
    broker = celery_broker()
    options = getattr(project, "CELERY_BROKER_TRANSPORT_OPTIONS", None) or {}
    visibility_s = options.get("visibility_timeout") or _SHORTEST_VISIBILITY_S
    if broker.startswith(_WITH_VISIBILITY) and visibility_s < _SHORTEST_VISIBILITY_S:
        yield Warning(
            f"The broker gives a task to another worker after {visibility_s} s, while the first may be still at it.",
            hint=f"Set visibility_timeout in CELERY_BROKER_TRANSPORT_OPTIONS to {_SHORTEST_VISIBILITY_S} or more.",
            id="outbox.W014",
        )
    if broker.startswith(_FORGETFUL):
        yield Warning(
            f"CELERY_BROKER_URL is {broker.partition(':')[0]}://, which reaches no other process or machine.",
            hint="Use RabbitMQ or Redis in production.",
            id="outbox.W014",
        )
