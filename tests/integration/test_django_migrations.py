"""Django's migrations and Alembic's give one schema, on every database, whichever comes first."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from outbox.migrate import VERSION_TABLE, _config, current, head, upgrade
from outbox.table import DATABASES, metadata
from tests.conftest import _engine
from tests.django_projects import django_databases, set_up
from tests.rows import write_row

set_up()

from django.core.management import call_command  # noqa: E402 - Django must be set up first
from django.db.migrations.loader import MigrationLoader  # noqa: E402 - likewise
from django.test import override_settings  # noqa: E402 - likewise
from sqlalchemy import make_url  # noqa: E402 - likewise

from outbox.django.models import OutboxMessage  # noqa: E402 - likewise
from outbox.django.operations import Revision  # noqa: E402 - likewise

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])

TABLES = {*metadata.tables, VERSION_TABLE}


@pytest.fixture
def connect():
    """A function from a URL to an engine that is disposed of."""
    engines = []

    def make(url):
        engines.append(_engine(make_url(url)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def migrate(*target):
    call_command("migrate", "outbox", *target, verbosity=0)


def _listed(told):
    return told if isinstance(told, list) else [told]


def schema(engine):
    """Everything that a database tells of the outbox's tables; SQLite's statements are all that it knows."""
    if engine.dialect.name == "sqlite":
        stored = "SELECT name, sql FROM sqlite_master WHERE name LIKE '%outbox%' ORDER BY name"
        return _all(engine, stored)
    look = inspect(engine)
    found = {}
    for table in sorted(set(look.get_table_names()) & TABLES):
        columns = [{key: str(value) for key, value in column.items()} for column in look.get_columns(table)]
        parts = (look.get_pk_constraint, look.get_indexes, look.get_unique_constraints, look.get_check_constraints)
        listed = (sorted(map(str, _listed(part(table)))) for part in parts)
        found[table] = [columns, *listed, str(look.get_table_options(table))]
    if engine.dialect.name == "postgresql":
        found["options"] = _all(engine, "SELECT reloptions FROM pg_class WHERE relname = 'outbox_messages'")
    return found


def _all(engine, query):
    with engine.connect() as connection:
        # Alembic prints blanks where it executes tabs.
        return {" ".join(" ".join(map(str, row)).split()) for row in connection.execute(text(query))}


def test_migrate_gives_the_schema_of_alembic(make_database, database_kind, connect):
    """`manage.py migrate` and `outbox migrate` leave the same tables, indexes and constraints, down to the options."""
    by_django, by_alembic = (make_database(database_kind) for _ in range(2))
    upgrade(connect(by_alembic))
    with django_databases(default=by_django):
        migrate()
    ours, theirs = schema(connect(by_django)), schema(connect(by_alembic))

    assert theirs == ours
    assert set(metadata.tables) < set(inspect(connect(by_django)).get_table_names())
    assert head() == current(connect(by_django))


def test_migrate_leaves_nothing_for_alembic_to_propose(database_url, connect):
    """Alembic finds no difference between what Django made and what `outbox.table` declares."""
    with django_databases(default=database_url):
        migrate()
    engine = connect(database_url)
    with engine.connect() as connection:
        options = {"include_object": lambda *given: _is_declared(engine.dialect.name, *given)}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert [] == differences


def _is_declared(dialect, item, name, kind, reflected, _compared):
    """Of our own tables, and of the indexes that this database has."""
    if kind == "index" and not reflected and dialect not in item.info.get(DATABASES, dialect):
        return False
    return kind != "table" or name in metadata.tables


def test_migrate_after_alembic_and_before_it(database_url, connect):
    """Either finds what the other has done, and a second time of either does nothing."""
    engine = connect(database_url)
    upgrade(engine)
    before = schema(engine)
    with django_databases(default=database_url):
        migrate()
        upgrade(engine)
        migrate()

    assert before == schema(engine)


def test_migrate_back_and_forth(database_url, connect):
    """`migrate outbox zero` drops every table, `migrate` makes them again, and Alembic goes along with both."""
    engine = connect(database_url)
    with django_databases(default=database_url):
        migrate()
        before = schema(engine)
        migrate("zero")
        without = set(inspect(engine).get_table_names()) & set(metadata.tables)
        none = current(engine)
        migrate()
        again = schema(engine)
        migrate("zero")
        upgrade(engine)
        by_alembic = schema(engine)

    assert set() == without
    assert none is None
    assert before == again == by_alembic


def test_flush_empties_our_tables(migrated_url, connect):
    """What Django empties between tests that commit has the outbox in it, and leaves the schema's version alone."""
    engine = connect(migrated_url)
    write_row(engine)
    with django_databases(default=migrated_url):
        call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=True)
        left = OutboxMessage.objects.count()

    assert (0, head()) == (left, current(engine))


@on_sqlite
def test_makemigrations_has_nothing_to_add(migrated_url):
    """The models are as the migrations say."""
    with django_databases(default=migrated_url):
        call_command("makemigrations", "outbox", check=True, dry_run=True, verbosity=0)


def test_every_revision_of_alembic_is_a_migration_of_djangos():
    """A new revision of the schema without a migration for Django would leave its users behind."""
    scripts = ScriptDirectory.from_config(_config(None))
    expected = [(one.revision, one.down_revision or "base") for one in scripts.walk_revisions()]
    migrations = MigrationLoader(None).disk_migrations
    operations = [op for (app, _), one in migrations.items() if app == "outbox" for op in one.operations]

    assert sorted(expected) == sorted((op.revision, op.before) for op in operations if isinstance(op, Revision))


@on_sqlite
def test_sqlmigrate_prints_the_statements(database_url, capsys):
    """What a database administrator asks for: the statements, both ways, with nothing executed."""
    with django_databases(default=database_url):
        forwards = call_command("sqlmigrate", "outbox", "0001")
        backwards = call_command("sqlmigrate", "outbox", "0001", backwards=True)
    capsys.readouterr()

    assert "CREATE TABLE outbox_messages" in forwards
    assert "INSERT INTO outbox_alembic_version" in forwards
    assert "DROP TABLE outbox_messages" in backwards


class NotHere:
    """A router by which the outbox is in the database `other` alone."""

    def allow_migrate(self, db, app_label, **_hints):
        return (db == "other") if app_label == "outbox" else None

    def db_for_read(self, model, **_hints):
        return "other" if model._meta.app_label == "outbox" else None


def test_migrate_asks_the_routers(make_database, connect):
    """Tables are made where the project's routers put them, and models are read there."""
    urls = {"default": make_database("sqlite"), "other": make_database("sqlite")}
    with django_databases(**urls), override_settings(DATABASE_ROUTERS=[NotHere()]):
        for alias in urls:
            call_command("migrate", "outbox", database=alias, verbosity=0)
        found = OutboxMessage.objects.count()
    tables = {alias: set(inspect(connect(url)).get_table_names()) & TABLES for alias, url in urls.items()}

    assert {"default": set(), "other": TABLES} == tables
    assert 0 == found


def test_models_are_like_their_tables(migrated_url, connect):
    """Names, nulls and lengths of the models' fields are those of the columns."""
    from django.apps import apps

    look = inspect(connect(migrated_url))
    for model in apps.get_app_config("outbox").get_models():
        columns = {one["name"]: one for one in look.get_columns(model._meta.db_table)}
        fields = {field.column: field for field in model._meta.concrete_fields}

        assert set(columns) == set(fields)
        assert {n: c["nullable"] for n, c in columns.items()} == {n: f.null for n, f in fields.items()}
        for name, field in fields.items():
            assert getattr(columns[name]["type"], "length", None) == field.max_length or not field.max_length
    assert set(metadata.tables) == {one._meta.db_table for one in apps.get_app_config("outbox").get_models()}
