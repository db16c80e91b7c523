"""The extension: what it adds to an app, in the order in which the app may need it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from pydantic import SecretStr
from sqlalchemy import Engine

from outbox.commands import OutboxCommands
from outbox.enqueue import configure
from outbox.errors import ConfigError
from outbox.flask.access import AdminAuth
from outbox.flask.migrations import leave_our_tables_alone
from outbox.flask.pages import register_pages
from outbox.settings import NotConfiguredError, Settings
from outbox.sqlite import prepare_sqlite
from outbox.store.database import Database
from outbox.wiring import Runtime

__all__ = ["Outbox", "State"]

_NAME = "outbox"
_WHERE = "Settings are keys of the app's config, such as OUTBOX_ENDPOINT"


@dataclass
class State:
    """What the extension keeps of an app, as ``app.extensions["outbox"]``.

    Attributes:
        settings: the app's, for ``outbox.celery.install(celery_app, app.extensions["outbox"].settings)``.
        runtime: whatever they lead to, built when it is first used.
        engine: the app's own, where the outbox's tables are in its database.
    """

    settings: Settings
    runtime: Runtime
    engine: Engine | None

    @cached_property
    def database(self) -> Database:
        """The outbox's database, for the pages. Raises `ConfigError` where neither a key nor a ``db`` names one."""
        if self.engine is None:
            return self.runtime.database
        schema = self.settings.table_schema
        engine = self.engine.execution_options(schema_translate_map={None: schema}) if schema else self.engine
        return Database(engine)


class Outbox:
    """The Flask extension. One object may serve several apps.

    Args:
        app: the app; or call `init_app` for each.
        db: its Flask-SQLAlchemy, set up before; the one that the app has, unless given.
        admin_auth: who may use the operators' pages under ``/outbox/``: see `outbox.flask.access.AdminAuth`. Without it
            there are no such pages.
    """

    def __init__(
        self, app: Flask | None = None, db: SQLAlchemy | None = None, admin_auth: AdminAuth | None = None
    ) -> None:
        self._db = db
        self._admin_auth = admin_auth
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, db: SQLAlchemy | None = None, admin_auth: AdminAuth | None = None) -> None:
        """Set up one app, whose config has the settings by then, as ``OUTBOX_…``.

        Where there is no ``OUTBOX_DATABASE_URL``, the outbox's tables are in the database of ``db``. Its SQLite engines
        are prepared (see `outbox.prepare_sqlite`), so that `outbox.enqueue` works with ``db.session``; ``flask outbox``
        gets every command; and Flask-Migrate, if the app has it, leaves the outbox's tables alone.

        Args:
            app: the app.
            db: as for the class; what was given there, unless given.
            admin_auth: likewise.

        Raises:
            NotConfiguredError: a `ConfigError`; a setting is wrong.
            RuntimeError: the app has an outbox already, or ``db`` has not been set up for it.
        """
        if _NAME in app.extensions:
            raise RuntimeError("this app has an Outbox already; create one, or call init_app once for each app")
        engines = _engines(app, db or self._db or app.extensions.get("sqlalchemy"))
        settings = _settings(app.config)
        names_none = settings.database_url is None and settings.database_url_file is None
        engine = engines.get(None) if names_none else None
        if engine is not None:
            settings = settings.model_copy(update={"database_url": _url(engine)})
        for one in engines.values():
            configure(one, settings)
            if one.dialect.name == "sqlite":
                prepare_sqlite(one)
        app.extensions[_NAME] = State(settings, Runtime(settings), engine)
        app.cli.add_command(OutboxCommands(lambda: Runtime(settings), _WHERE))
        leave_our_tables_alone(app)
        if auth := admin_auth or self._admin_auth:
            register_pages(app, auth)


def _engines(app: Flask, db: SQLAlchemy | None) -> Mapping[str | None, Engine]:
    if db is None:
        return {}
    try:
        with app.app_context():
            return db.engines
    except (RuntimeError, KeyError):
        raise RuntimeError("call db.init_app(app) first: Outbox needs the engines of this app") from None


def _settings(config: Mapping[str, Any]) -> Settings:
    try:
        return Settings.from_mapping(config)
    except ConfigError as error:
        raise NotConfiguredError(error) from None


def _url(engine: Engine) -> SecretStr:
    """With its password: the relay connects for itself."""
    return SecretStr(engine.url.render_as_string(hide_password=False))
