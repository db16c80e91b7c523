"""Flask-Migrate beside the outbox's own migrations: neither touches the other's tables."""

import logging

import pytest
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import inspect

from outbox.flask import Outbox
from outbox.migrate import include_object
from outbox.table import metadata

# Flask-Migrate's own env.py asks both old and new versions of Flask-SQLAlchemy for the engine.
pytestmark = pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")

ORDERS = "orders"


@pytest.fixture(autouse=True)
def logging_as_before():
    """Alembic's ini file sets up logging anew, and silences every logger that it does not name."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    before = [(logger, logger.level, logger.disabled, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, disabled, handlers in before:
        logger.level, logger.disabled, logger.handlers = level, disabled, handlers


@pytest.fixture
def make_app(database_url, tmp_path):
    """A function to a fresh app with a model, its extensions set up in the order given."""
    apps = []

    def make(*order, **migrate):
        app = Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = database_url
        db = SQLAlchemy(app)

        class Order(db.Model):
            __tablename__ = ORDERS
            id = db.Column(db.Integer, primary_key=True)

        directory = str(tmp_path / "migrations")
        for one in order:
            Outbox(app, db) if one == "outbox" else Migrate(app, db, directory=directory, **migrate)
        apps.append(app)
        return app

    yield make
    for app in apps:
        with app.app_context():
            app.extensions["sqlalchemy"].engine.dispose()


def run(app, *arguments):
    result = app.test_cli_runner().invoke(args=arguments)
    assert 0 == result.exit_code, result.output
    return result.output


def proposed(tmp_path):
    """The text of the newest migration that autogenerate wrote."""
    return max((tmp_path / "migrations" / "versions").glob("*.py"), key=lambda path: path.stat().st_mtime).read_text()


@pytest.mark.parametrize("order", [("outbox", "migrate"), ("migrate", "outbox")], ids=str)
def test_autogenerate_leaves_our_tables_alone(make_app, tmp_path, order):
    """`flask db init`, `migrate`, `upgrade` beside migrated tables of ours: the model's table comes, ours stay."""
    app = make_app(*order)
    run(app, "outbox", "migrate")
    run(app, "db", "init")
    run(app, "db", "migrate")
    first = proposed(tmp_path)
    run(app, "db", "upgrade")
    again = run(app, "db", "migrate")
    with app.app_context():
        tables = set(inspect(app.extensions["sqlalchemy"].engine).get_table_names())

    assert f"create_table('{ORDERS}'" in first
    assert "outbox" not in first
    assert "No changes in schema detected" in again
    assert {ORDERS, "alembic_version", "outbox_alembic_version", *metadata.tables} == tables


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_autogenerate_without_us_would_drop_them(make_app, tmp_path):
    """What the extension spares an application: without it Alembic proposes to drop our tables."""
    run(make_app("outbox", "migrate"), "outbox", "migrate")
    bare = make_app("migrate")
    run(bare, "db", "init")
    run(bare, "db", "migrate")

    assert "drop_table('outbox_messages')" in proposed(tmp_path)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_include_object_of_the_application_is_asked_too(make_app):
    """An application that leaves tables of its own out goes on doing so."""
    app = make_app("outbox", "migrate", include_object=lambda _object, name, *_: name != ORDERS)
    run(app, "outbox", "migrate")
    run(app, "db", "init")

    assert "No changes in schema detected" in run(app, "db", "migrate")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_include_object_can_be_given_by_hand(make_app, tmp_path):
    """`Migrate(app, db, include_object=include_object)` is enough, without the extension."""
    run(make_app("outbox", "migrate"), "outbox", "migrate")
    bare = make_app("migrate", include_object=include_object)
    run(bare, "db", "init")
    run(bare, "db", "migrate")

    assert "outbox" not in proposed(tmp_path)
