"""Enqueue through Django's own cursor: its transactions, its savepoints, its databases."""

import logging
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from outbox import EnqueueError, Message
from outbox.table import messages
from tests.django_projects import django_databases, set_up

set_up()

from django.db import DatabaseError, connection, connections, transaction  # noqa: E402 - Django must be set up first
from django.test import override_settings  # noqa: E402 - likewise

from outbox.after_commit import after_commit  # noqa: E402 - likewise
from outbox.django import enqueue  # noqa: E402 - likewise
from outbox.django.models import OutboxMessage, ReadOnlyError  # noqa: E402 - likewise

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def django(migrated_url):
    with django_databases(default=migrated_url):
        yield


@contextmanager
def rolled_back():
    """A block that something ends."""
    with suppress(LookupError), transaction.atomic():
        yield
        raise LookupError


def rows(engine):
    with engine.connect() as sql:
        return sql.execute(select(messages).order_by(messages.c.id)).mappings().all()


def bodies(engine):
    return [row["body"] for row in rows(engine)]


def test_enqueue_belongs_to_the_transaction(django, engine):
    """A message is committed or rolled back with what stands around it, savepoints included."""
    with transaction.atomic():
        enqueue(Message("orders", "committed"))
        with transaction.atomic():
            enqueue(Message("orders", "in a savepoint"))
        with rolled_back():
            enqueue(Message("orders", "back to the savepoint"))
    with rolled_back():
        enqueue(Message("orders", "rolled back"))

    assert ["committed", "in a savepoint"] == bodies(engine)


def test_enqueue_writes_what_sqlalchemy_writes(django, engine):
    """Every column has the value that `outbox.enqueue` gives it, whatever characters are in it."""
    from outbox.enqueue import enqueue as enqueue_with_sqlalchemy

    at = datetime.now(UTC) + timedelta(days=50)
    given = [
        Message("orders", "100 % ' \N{PILE OF POO} %s %(x)s", tag="created", keys=["a", "b"], properties={"p%": "q"}),
        Message("orders", {"id": 7}, ordering_key="o%7", destination="billing"),
        Message("orders", "later", deliver_at=at),
        Message("orders", "half", transaction_check_s=30),
    ]
    with transaction.atomic():
        ids = enqueue(*given)
    with engine.begin() as sql:
        enqueue_with_sqlalchemy(sql, *given)
    found = rows(engine)
    ours, theirs = found[:4], found[4:]
    varying = {"id", "outbox_id", "properties", "created_at"}
    now = abs(datetime.now(UTC) - ours[0]["created_at"])

    assert [row["id"] for row in ours] == ids
    for one, other in zip(ours, theirs, strict=True):
        same = varying if one["deliver_at"] else varying | {"available_at"}
        assert {k: v for k, v in other.items() if k not in same} == {k: v for k, v in one.items() if k not in same}
        assert other["properties"].replace(other["outbox_id"], one["outbox_id"]) == one["properties"]
    assert now < timedelta(minutes=1)
    assert at == ours[2]["deliver_at"]


def test_enqueue_many_keeps_their_order(django, engine):
    """Thousands of messages get ascending ids in the order given, in few statements."""
    with transaction.atomic():
        ids = enqueue(*(Message("orders", str(number)) for number in range(1500)))

    assert sorted(ids) == ids
    assert [str(number) for number in range(1500)] == bodies(engine)


def test_enqueue_deduplicates(django, engine, caplog):
    """A second message with the same key gets the first row's id, in the same call, transaction, or a later one."""
    first = Message("orders", "first", deduplication_key="k")
    with transaction.atomic(), caplog.at_level(logging.INFO, "outbox"):
        once = enqueue(first, Message("orders", "another", deduplication_key="k"), Message("orders", "free"))
        twice = enqueue(first)
    with transaction.atomic():
        thrice = enqueue(first)

    assert once[0] == once[1] == twice[0] == thrice[0]
    assert ["first", "free"] == bodies(engine)
    assert [True, False] == [record.differs for record in caplog.records if record.message == "outbox.deduplicated"]


@on_sqlite
@pytest.mark.parametrize(("using", "advice"), [(None, r"transaction\.atomic\(\)"), ("other", "using='other'")])
def test_enqueue_outside_a_transaction_is_refused(migrated_url, engine, using, advice):
    """Without a transaction there is nothing to belong to; the error says why and what to write."""
    with (
        django_databases(default=migrated_url, other=migrated_url),
        pytest.raises(EnqueueError, match=rf"could not be committed together.*{advice}"),
    ):
        enqueue(Message("orders", "lost"), using=using)

    assert [] == bodies(engine)


@on_sqlite
def test_enqueue_in_a_broken_transaction_is_refused(django, engine):
    """Django does not let anything through once a block is to be rolled back, nor do we."""
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            enqueue(Message("orders", "lost"))

    assert [] == bodies(engine)


@on_sqlite
def test_enqueue_of_anything_else_is_refused(django, engine):
    """A connection in front, as `outbox.enqueue` takes it, is a mistake that is named."""
    with transaction.atomic(), pytest.raises(EnqueueError, match="got DatabaseWrapper for a message"):
        enqueue(connections["default"], Message("orders", "b"))

    assert [] == bodies(engine)


@on_sqlite
def test_enqueue_using_another_database(migrated_url, make_database):
    """`using=` writes where the caller's own change is; a router decides where nothing is said."""
    other = make_database("sqlite", migrated=True)
    with django_databases(default=migrated_url, other=other):
        with transaction.atomic(using="other"):
            enqueue(Message("orders", "named"), using="other")
        with override_settings(DATABASE_ROUTERS=[_ToOther()]), transaction.atomic(using="other"):
            enqueue(Message("orders", "routed"))
        counts = [OutboxMessage.objects.using(alias).count() for alias in ("default", "other")]

    assert [0, 2] == counts


class _ToOther:
    def db_for_write(self, model, **_hints):
        return "other" if model._meta.app_label == "outbox" else None


@on_sqlite
def test_enqueue_calls_the_hooks_after_the_commit(django, monkeypatch):
    """The nudge comes once a commit has new rows, not before it, nor after a rollback; what it raises goes nowhere."""
    from outbox import after_commit as module

    monkeypatch.setattr(module, "_hooks", [])
    called = []

    def hook():
        called.append(connection.in_atomic_block)
        raise RuntimeError("the nudge's own trouble")

    after_commit(hook)
    with transaction.atomic():
        enqueue(Message("orders", "one"))
        with transaction.atomic():
            enqueue(Message("orders", "two"))
        before = list(called)
    with rolled_back():
        enqueue(Message("orders", "rolled back"))
    with transaction.atomic(), rolled_back():
        enqueue(Message("orders", "savepoint rolled back"))

    assert [] == before
    assert [False] == called


@on_sqlite
def test_enqueue_of_a_known_key_nudges_nobody(django, monkeypatch):
    """Where nothing new was inserted nobody is woken."""
    from outbox import after_commit as module

    called = []
    monkeypatch.setattr(module, "_hooks", [lambda: called.append(1)])
    for _ in range(2):
        with transaction.atomic():
            enqueue(Message("orders", "one", deduplication_key="k"))

    assert [1] == called


@on_sqlite
def test_enqueue_follows_the_horizon_of_the_settings(django, engine):
    """OUTBOX["DELIVER_HORIZON_S"] decides from when on a scheduled message is due."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    with override_settings(OUTBOX={"DELIVER_HORIZON_S": 3600}), transaction.atomic():
        enqueue(Message("orders", "later", deliver_at=at))

    assert [at - timedelta(hours=1)] == [row["available_at"] for row in rows(engine)]


@on_sqlite
def test_enqueue_costs_one_statement(django):
    """A message is one round trip through Django's cursor, where its loggers and wrappers see it."""
    seen = []

    def watch(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with transaction.atomic(), connection.execute_wrapper(watch):
        enqueue(Message("orders", "one"))

    assert 1 == len(seen)
    assert seen[0].startswith("INSERT INTO outbox_messages")


def test_models_read_every_column(django, engine):
    """A model gives what the table holds, instants with their zone."""
    with transaction.atomic():
        enqueue(Message("orders", {"id": 7}, tag="created", keys="order-7"))
    (expected,) = rows(engine)
    one = OutboxMessage.objects.get(keys="order-7")

    assert dict(expected) == {column.name: getattr(one, column.name) for column in messages.columns}


@on_sqlite
def test_models_are_for_reading(django):
    """Whoever tries to write through a model is told what to do instead."""
    with transaction.atomic():
        enqueue(Message("orders", "one"))
    one = OutboxMessage.objects.get()
    for write in (one.save, one.delete, OutboxMessage.objects.create, OutboxMessage.objects.all().delete):
        with pytest.raises(ReadOnlyError, match=r"enqueue with outbox\.django\.enqueue"):
            write()

    assert 1 == OutboxMessage.objects.count()


@on_sqlite
def test_enqueue_into_a_database_without_tables(database_url):
    """The database's own error comes through, as Django raises it."""
    with django_databases(default=database_url), transaction.atomic():
        with pytest.raises(DatabaseError, match="outbox_messages"):
            enqueue(Message("orders", "one"))
        transaction.set_rollback(True)
