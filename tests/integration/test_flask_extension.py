"""The Flask extension: settings, engines, the command line, several apps."""

import logging

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import URL, make_url, select

from outbox import ConfigError, EnqueueError, Message, enqueue
from outbox.flask import Outbox, State
from outbox.table import messages
from tests.flask_apps import flask_app

KEYS = {"OUTBOX_ENDPOINT": "http://127.0.0.1:1", "OUTBOX_ACCESS_KEY_ID": "id", "OUTBOX_ACCESS_KEY_SECRET": "s3cr3t"}

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def app(migrated_url):
    with flask_app(migrated_url, **KEYS) as app:
        yield app


def bodies(engine):
    with engine.connect() as connection:
        return connection.scalars(select(messages.c.body).order_by(messages.c.id)).all()


def test_enqueue_in_a_session(app, engine):
    """A message and the caller's change are committed together, or rolled back together, savepoints included."""
    db = app.extensions["sqlalchemy"]
    with app.app_context():
        enqueue(db.session, Message("orders", "committed"))
        with db.session.begin_nested() as savepoint:
            enqueue(db.session, Message("orders", "back to the savepoint"))
            savepoint.rollback()
        db.session.commit()
        enqueue(db.session, Message("orders", "rolled back"))
        db.session.rollback()

    assert ["committed"] == bodies(engine)


def test_settings_come_from_the_config(app, migrated_url):
    """Keys of the config are the settings, and the database is that of Flask-SQLAlchemy, its password included."""
    state = app.extensions["outbox"]

    assert isinstance(state, State)
    assert "s3cr3t" == state.settings.require("access_key_secret")
    assert make_url(migrated_url) == make_url(state.settings.require("database_url")).set(query={})


@on_sqlite
def test_database_url_of_its_own(migrated_url, tmp_path):
    """A key OUTBOX_DATABASE_URL is followed instead of Flask-SQLAlchemy's, and its file as well."""
    secret = tmp_path / "url"
    secret.write_text(migrated_url)
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    with flask_app(elsewhere, OUTBOX_DATABASE_URL=migrated_url) as app:
        named = app.extensions["outbox"]
        named.database.engine.dispose()
    with flask_app(elsewhere, OUTBOX_DATABASE_URL_FILE=str(secret)) as app:
        in_a_file = app.extensions["outbox"].settings

    assert migrated_url == named.settings.require("database_url") == in_a_file.require("database_url")
    assert make_url(migrated_url) == named.database.engine.url


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_table_schema_is_followed(migrated_url):
    """The schema of OUTBOX_TABLE_SCHEMA is used by the commands, by enqueue and by the pages."""
    with flask_app(migrated_url, OUTBOX_TABLE_SCHEMA="ours", admin_auth=lambda _request: "ann") as app:
        migrated = app.test_cli_runner().invoke(args=["outbox", "migrate"])
        db = app.extensions["sqlalchemy"]
        with app.app_context():
            enqueue(db.session, Message("orders", "in a schema"))
            db.session.commit()
            rows = db.session.execute(db.text("SELECT body FROM ours.outbox_messages")).scalars().all()
            db.session.rollback()
        page = app.test_client().get("/outbox/messages")
        with app.app_context():
            db.session.execute(db.text("DROP SCHEMA ours CASCADE"))
            db.session.commit()

    assert 0 == migrated.exit_code, migrated.output
    assert ["in a schema"] == rows
    assert "#1</a>" in page.text


@on_sqlite
def test_commands_run_with_the_apps_settings(app, engine):
    """`flask outbox …` is the command line, with the settings of the app's config."""
    runner = app.test_cli_runner()
    put = runner.invoke(args=["outbox", "enqueue", "--topic", "orders", "hello"])
    looked = runner.invoke(args=["outbox", "list"])
    unhealthy = runner.invoke(args=["outbox", "relay", "--timeout", "0"])

    assert ("1\n", 0) == (put.output, put.exit_code)
    assert "default/orders" in looked.output
    assert 2 == unhealthy.exit_code
    assert ["hello"] == bodies(engine)


@on_sqlite
def test_commands_are_those_of_outbox(app):
    """Every command of `outbox` but the demo is there."""
    from outbox.cli import program

    mounted = app.cli.get_command(None, "outbox")

    assert set(program.commands) - {"demo"} == set(mounted.commands)


def test_extension_without_app_serves_several(make_database):
    """One extension may serve several apps in a process, each with its own database."""
    outbox, db = Outbox(), SQLAlchemy()
    apps = []
    for name in ("one", "two"):
        app = Flask(name)
        app.config["SQLALCHEMY_DATABASE_URI"] = make_database("sqlite", migrated=True)
        db.init_app(app)
        outbox.init_app(app, db)
        apps.append(app)
    for app in apps:
        with app.app_context():
            enqueue(db.session, Message("orders", app.name))
            db.session.commit()
    found = []
    for app in apps:
        with app.app_context():
            found.append(bodies(db.engine))
            db.engine.dispose()

    assert [["one"], ["two"]] == found
    assert apps[0].extensions["outbox"] is not apps[1].extensions["outbox"]


@on_sqlite
def test_extension_finds_the_apps_db(migrated_url):
    """Without db= it takes the Flask-SQLAlchemy that the app has."""
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = migrated_url
    db = SQLAlchemy(app)
    Outbox(app)
    with app.app_context():
        enqueue(db.session, Message("orders", "found"))
        db.session.commit()
        db.engine.dispose()

    assert migrated_url == app.extensions["outbox"].settings.require("database_url")


def test_extension_without_any_database():
    """An app without a database has the commands; one that needs the database says which key is missing."""
    app = Flask("shop")
    Outbox(app)
    looked = app.test_cli_runner().invoke(args=["outbox", "status"])

    assert 1 == looked.exit_code
    assert looked.output.startswith("error: OUTBOX_DATABASE_URL: missing")


@on_sqlite
def test_extension_prepares_every_sqlite_engine(migrated_url, tmp_path):
    """Engines of other binds are prepared, too; without the extension, enqueue refuses them."""
    app = Flask("shop")
    app.config["SQLALCHEMY_BINDS"] = {None: migrated_url, "other": f"sqlite:///{tmp_path / 'other.sqlite'}"}
    db = SQLAlchemy(app)
    with app.app_context():
        with pytest.raises(EnqueueError, match="prepare_sqlite"):
            enqueue(db.session, Message("orders", "too early"))
        db.session.remove()
        Outbox(app, db)
        enqueue(db.session, Message("orders", "prepared"))
        db.session.rollback()
        modes = [engine.connect().exec_driver_sql("PRAGMA journal_mode").scalar() for engine in db.engines.values()]
        for engine in db.engines.values():
            engine.dispose()

    assert ["wal", "wal"] == modes


@on_sqlite
def test_extension_twice_is_an_error(app):
    """An app has one outbox."""
    with pytest.raises(RuntimeError, match="has an Outbox already"):
        Outbox(app)


def test_extension_before_its_db_is_an_error():
    """Without the engines nothing could be prepared; it says what to do first."""
    with pytest.raises(RuntimeError, match=r"call db\.init_app"):
        Outbox(Flask("shop"), SQLAlchemy())


@on_sqlite
@pytest.mark.parametrize(("key", "value"), [("OUTBOX_BATCH_SIZE", "many"), ("OUTBOX_ACCESS_KEY_SECRET", "s3 cr3t")])
def test_wrong_setting_stops_the_start(migrated_url, key, value):
    """A wrong value is one line that names the key, ends a program that does not catch it, and shows no secret."""
    with pytest.raises(ConfigError) as refused, flask_app(migrated_url, **{key: value}):
        pass

    assert key == refused.value.key
    assert isinstance(refused.value, SystemExit)
    assert str(refused.value) == refused.value.code
    assert "s3 cr3t" not in str(refused.value)
    assert "\n" not in str(refused.value)


@on_sqlite
def test_unknown_setting_is_told(migrated_url, caplog):
    """A key that is no setting is logged, with the one that may have been meant."""
    with caplog.at_level(logging.WARNING, "outbox"), flask_app(migrated_url, OUTBOX_BATCHSIZE=3):
        pass

    assert [("OUTBOX_BATCHSIZE", "no such setting; did you mean OUTBOX_BATCH_SIZE?")] == [
        (record.key, record.problem) for record in caplog.records
    ]


def test_url_keeps_its_password():
    """What the relay connects with has the password of Flask-SQLAlchemy's URL, percent signs and all."""
    url = URL.create("postgresql+psycopg", "shop", "p%40ss/word", "127.0.0.1", 1, "shop")
    with flask_app(url.render_as_string(hide_password=False)) as app:
        found = make_url(app.extensions["outbox"].settings.require("database_url"))

    assert url == found
