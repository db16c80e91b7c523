"""The project's ``settings.OUTBOX``: the names of the environment's variables without ``OUTBOX_``, in one dict.

What Django knows already is not said twice: the database comes from ``DATABASES``, the broker from
``CELERY_BROKER_URL``.
"""

from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.conf import settings as project
from django.db import connections, router
from pydantic import SecretStr

from outbox.django.databases import url_of
from outbox.errors import ConfigError
from outbox.settings import Settings

__all__ = ["celery_broker", "default_alias", "load", "load_or_env", "of_project"]

_APP = "outbox.django"


def load(alias: str | None = None) -> Settings:
    """The project's settings.

    Args:
        alias: of the database to relay from; where the project's routers put the outbox, unless given.

    Raises:
        ConfigError: a setting is wrong or unknown, or the database is of a kind that the outbox does not know.
    """
    settings = of_project()
    found: dict[str, SecretStr] = {}
    if alias is not None or (settings.database_url is None and settings.database_url_file is None):
        url = url_of(connections[alias or default_alias()])
        found["database_url"] = SecretStr(url.render_as_string(hide_password=False))
    broker_url = celery_broker()
    if broker_url and settings.broker_url is None and settings.broker_url_file is None:
        found["broker_url"] = SecretStr(broker_url)
    return settings.model_copy(update=found)


def celery_broker() -> str:
    """The URL of the project's Celery broker, the first where there are several; empty where none is set."""
    given = getattr(project, "CELERY_BROKER_URL", None) or ""
    return str(given) if isinstance(given, str) else str(next(iter(given), ""))


def load_or_env() -> Settings:
    """As `load`, in a project that has the app; else, settings of the environment. Raises `ConfigError` likewise."""
    is_installed = any(name == _APP or name.startswith(f"{_APP}.") for name in project.INSTALLED_APPS)
    return load() if is_installed else Settings.from_env()


def of_project() -> Settings:
    """What ``settings.OUTBOX`` says, and no more. Raises `ConfigError` where something of it is wrong or unknown."""
    given = getattr(project, "OUTBOX", {})
    if not isinstance(given, Mapping):
        raise ConfigError("OUTBOX", f'is {type(given).__name__}; give a dict such as {{"ENDPOINT": "https://…"}}')
    _check_schema(given)
    return _parsed(given)


def default_alias() -> str:
    """The database that the project's routers choose for the outbox."""
    if not apps.models_ready:
        return "default"
    return router.db_for_write(apps.get_model("outbox", "OutboxMessage"))


def _check_schema(given: Mapping[str, Any]) -> None:
    if given.get("TABLE_SCHEMA"):
        problem = "Django names no schemas; take it out, and set the search_path in the OPTIONS of DATABASES"
        raise ConfigError("OUTBOX_TABLE_SCHEMA", problem)


_latest: list[tuple[Mapping[str, Any], Settings]] = []


def _parsed(given: Mapping[str, Any]) -> Settings:
    """Parsed once for each dict, since every enqueue asks."""
    if not _latest or _latest[0][0] is not given:
        _latest[:] = [(given, Settings.from_mapping(given, prefix=""))]
    return _latest[0][1]
