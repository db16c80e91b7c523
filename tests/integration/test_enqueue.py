"""Rows exist exactly if the caller's transaction commits, with the bytes that were given, on each database."""

import asyncio
import json
import logging
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from sqlalchemy import Column, Integer, create_engine, delete, event, select, text
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.orm import Session, declarative_base, scoped_session, sessionmaker

from outbox import EnqueueError, Message, enqueue, enqueue_async, prepare_sqlite
from outbox.enqueue import configure
from outbox.message import MAX_BODY_BYTES
from outbox.settings import Settings
from outbox.table import db_now, messages
from tests import services

SERVERS = pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
TARGETS = pytest.mark.parametrize("target", ["session", "connection"])


@pytest.fixture(autouse=True)
def settings_from_this_test():
    """Settings that one test gives do not reach another."""
    settings = sys.modules["outbox.enqueue"]._from_env
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def databases(template, tmp_path_factory):
    """A function from a kind of database to the URL of one for all tests of this module."""
    with ExitStack() as stack:

        @cache
        def made(kind):
            return stack.enter_context(services.fresh_database(kind, tmp_path_factory.mktemp(kind), template(kind)))

        yield made


@pytest.fixture
def engine(databases, database_kind, need):
    """An engine such as the relay's on a database without a row; to empty it after is quicker than a new one."""
    need(database_kind)
    url = databases(database_kind)
    engine = create_engine(url) if database_kind == "sqlite" else create_engine(url, isolation_level="READ COMMITTED")
    if database_kind == "sqlite":
        prepare_sqlite(engine)
    yield engine
    purge(engine)
    engine.dispose()


@pytest.fixture
def application(engine):
    """An engine as an application makes it, with the database's own isolation level."""
    application = create_engine(engine.url)
    if engine.dialect.name == "sqlite":
        prepare_sqlite(application)
    yield application
    application.dispose()


def purge(engine):
    """Delete all rows, as by a purge at a bad moment."""
    with engine.begin() as connection:
        connection.execute(delete(messages))


def opened(engine, target):
    """What an application has in hand: a Session or a Connection."""
    return Session(engine) if target == "session" else engine.connect()


def stored(engine, *names):
    """The rows as they are committed now, in the order of their ids: whole, or some columns."""
    columns = [messages.c[name] for name in names] or [messages]
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).order_by(messages.c.id)).mappings().all()
    return [row[names[0]] for row in rows] if len(names) == 1 else [dict(row) for row in rows]


@pytest.fixture
def statements(application):
    """The statements that the application's engine sends, without its BEGINs."""
    sent = []

    @event.listens_for(application, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    return sent


def some(count, **given):
    """Messages that differ in their bodies."""
    return [Message("orders", {"id": number}, **given) for number in range(count)]


# The transaction


@TARGETS
def test_enqueue_commits_with_the_caller(application, engine, target):
    """The row is there once the caller's transaction has committed, and not before: enqueue never commits."""
    with opened(application, target) as session:
        ids = enqueue(session, *some(2))
        before = stored(engine)
        session.commit()

    assert [] == before
    assert ids == stored(engine, "id")


@TARGETS
def test_enqueue_rolls_back_with_the_caller(application, engine, target):
    """A transaction that is rolled back publishes nothing."""
    with opened(application, target) as session:
        enqueue(session, *some(2))
        session.rollback()
        kept = enqueue(session, *some(1))
        session.commit()
        enqueue(session, *some(1))

    assert kept == stored(engine, "id")


@pytest.fixture
def order(application):
    """A class of the application's own, mapped to a table beside ours."""
    base = declarative_base()
    order = type("Order", (base,), {"__tablename__": "orders", "id": Column(Integer, primary_key=True)})
    base.metadata.create_all(application)
    yield order
    base.metadata.drop_all(application)


def test_enqueue_shares_the_transaction_of_the_business(application, engine, order):
    """The application's own rows and ours are there together or not at all."""
    for number, end in ((1, "commit"), (2, "rollback")):
        with Session(application) as session:
            session.add(order(id=number))
            enqueue(session, *some(1))
            session.flush()
            getattr(session, end)()

    with engine.connect() as connection:
        assert [1] == connection.scalars(select(order.id)).all()
    assert 1 == len(stored(engine))


def test_enqueue_does_not_flush(application, order):
    """What the application has pending in its Session is the application's to flush."""
    with Session(application) as session:
        pending = order(id=1)
        session.add(pending)
        enqueue(session, *some(1))

        assert pending in session.new


def test_enqueue_takes_a_scoped_session(application, engine):
    """Flask-SQLAlchemy's `db.session` is a scoped session."""
    session = scoped_session(sessionmaker(application))
    ids = enqueue(session, *some(2))
    session.commit()
    session.remove()

    assert ids == stored(engine, "id")


@TARGETS
def test_enqueue_in_a_savepoint_that_is_rolled_back(application, engine, target):
    """A savepoint rolled back takes its rows along, and no others."""
    with opened(application, target) as session:
        before = enqueue(session, *some(1))
        savepoint = session.begin_nested()
        enqueue(session, *some(1))
        savepoint.rollback()
        after = enqueue(session, *some(1))
        session.commit()

    assert before + after == stored(engine, "id")


@TARGETS
def test_enqueue_in_a_savepoint_that_is_released(application, engine, target):
    """A released savepoint's rows live and die with the transaction around it."""
    with opened(application, target) as session:
        with session.begin_nested():
            enqueue(session, *some(1))
        session.rollback()
        with session.begin_nested():
            kept = enqueue(session, *some(1))
        session.commit()

    assert kept == stored(engine, "id")


@TARGETS
def test_enqueue_in_a_savepoint_before_anything_else(application, engine, target):
    """A row written first of all inside a savepoint does not survive the rollback of what is around it."""
    with opened(application, target) as session:
        outer = session.begin_nested()
        with session.begin_nested():
            enqueue(session, *some(1))
        outer.rollback()
        session.commit()

    assert [] == stored(engine)


# Refused targets


@SERVERS
@pytest.mark.parametrize("how", ["connection", "engine", "options", "driver"])
def test_enqueue_refuses_autocommit(engine, how):
    """Where each statement commits by itself, a row could not be part of the caller's transaction."""
    url = engine.url
    made = create_engine(url, isolation_level="AUTOCOMMIT") if how == "engine" else create_engine(url)
    made = create_engine(url, connect_args={"autocommit": True}) if how == "driver" else made
    bound = made.execution_options(isolation_level="AUTOCOMMIT") if how == "options" else made
    with bound.connect() as connection, Session(bound) as session:
        if how == "connection":
            connection.execution_options(isolation_level="AUTOCOMMIT")
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        for target in (connection, session):
            with pytest.raises(EnqueueError, match="AUTOCOMMIT"):
                enqueue(target, *some(1))
    made.dispose()

    assert [] == stored(engine)


@pytest.mark.parametrize("database_kind", ["sqlite"])
@TARGETS
def test_enqueue_refuses_an_unprepared_sqlite_engine(engine, target):
    """Without real transactions a rolled-back row could survive; the error says how to have them."""
    unprepared = create_engine(engine.url)
    with opened(unprepared, target) as session, pytest.raises(EnqueueError, match=r"prepare_sqlite\(engine\)"):
        enqueue(session, *some(1))
    unprepared.dispose()

    assert [] == stored(engine)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_enqueue_refuses_what_is_no_session(application):
    """The error says what was given and what to give."""
    for wrong in (application, application.url, None):
        with pytest.raises(EnqueueError, match=f"got {type(wrong).__name__}; give a Session or a Connection"):
            enqueue(wrong, *some(1))


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize("wrong", [[Message("orders", "a")], "orders", {"topic": "orders"}])
def test_enqueue_refuses_what_is_no_message(application, wrong):
    """Messages stand one by one; a list is not taken for one."""
    with (
        application.connect() as connection,
        pytest.raises(EnqueueError, match=r"write enqueue\(session, \*messages\)"),
    ):
        enqueue(connection, wrong)


# Statements and ids


def test_enqueue_of_nothing_sends_nothing(application, statements):
    """Without a message there is nothing to ask the database."""
    with application.connect() as connection:
        assert [] == enqueue(connection)
    assert not [statement for statement in statements if "outbox" in statement]


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_enqueue_sends_one_statement(application, engine, statements, count):
    """A thousand small messages are one INSERT, which also answers with their ids."""
    with application.begin() as connection:
        connection.execute(text("SELECT 1"))
        statements.clear()
        ids = enqueue(connection, *some(count))

    assert 1 == len(statements)
    assert ids == sorted(set(ids))
    assert [json.dumps({"id": n}, separators=(",", ":")) for n in range(count)] == stored(engine, "body")
    assert ids == stored(engine, "id")


def test_enqueue_bounds_a_statement(application, engine, statements):
    """No statement has more than 1,000 rows or some megabytes; the ids still come in the order given."""
    large = [Message("orders", "x" * MAX_BODY_BYTES) for _ in range(2)]
    many = [*some(1001), *large, *some(1, deduplication_key="k"), *some(1)]
    with application.begin() as connection:
        connection.execute(text("SELECT 1"))
        statements.clear()
        ids = enqueue(connection, *many)

    assert 5 == len(statements)
    assert ids == sorted(set(ids))
    assert [message.body_bytes for message in many] == stored(engine, "body_bytes")


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_enqueue_bounds_a_statement_by_properties_too(application, engine):
    """A thousand small bodies with large properties, escaped, are more than MariaDB takes in one packet."""
    many = [Message("orders", "x", properties={"a": "\\" * 16_000}) for _ in range(1000)]
    with application.begin() as connection:
        ids = enqueue(connection, *many)

    assert ids == stored(engine, "id")


def test_enqueue_numbers_rows_in_the_order_given(application, engine):
    """Rows of one ordering key are published in the order of their ids, so that order is the caller's."""
    kinds = [{"ordering_key": "k"}, {"deliver_at": datetime.now(UTC)}, {"ordering_key": "k", "deduplication_key": "d"}]
    many = [Message(f"orders-{number % 20}", str(number), **kinds[number % 3]) for number in range(60)]
    with application.begin() as connection:
        ids = enqueue(connection, *many)

    assert ids == sorted(ids)
    assert [message.body for message in many] == stored(engine, "body")


@pytest.mark.parametrize("database_kind", ["mariadb"])
def test_enqueue_does_without_returning(application, engine):
    """MySQL has no RETURNING: there a few statements do the same, however many the messages are."""
    application.dialect.insert_executemany_returning = False
    deliver_at = datetime(2035, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    many = [*some(1000), *some(2, deduplication_key="d"), Message("orders", "later", deliver_at=deliver_at)]
    inserts = text("SHOW SESSION STATUS LIKE 'Com_insert'")
    with application.begin() as connection:
        now = connection.scalar(select(db_now()))
        before = int(connection.execute(inserts).one()[1])
        ids = enqueue(connection, *many)
        after = int(connection.execute(inserts).one()[1])
    due = stored(engine, "available_at")

    assert 2 == after - before
    assert ids == sorted(ids)
    assert sorted(set(ids)) == stored(engine, "id")
    assert ids[1000] == ids[1001]
    assert all(now <= instant <= now + timedelta(minutes=1) for instant in due[:-1])
    assert deliver_at - timedelta(seconds=3452400) == due[-1]


# What is stored


def test_enqueue_stores_a_message_whole(application, engine):
    """Each part of a message has its column, and the properties stand as they are sent."""
    message = Message(
        "orders",
        {"id": 7},
        tag="created",
        keys=["order-7", "customer-1"],
        properties={"colour": "blue"},
        ordering_key="customer 1",
        deduplication_key="d",
        destination="billing",
    )
    with application.begin() as connection:
        (row_id,) = enqueue(connection, message)
    (row,) = stored(engine)

    assert {
        "id": row_id,
        "destination": "billing",
        "topic": "orders",
        "tag": "created",
        "keys": "order-7 customer-1",
        "properties": message.properties_as_sent(row["outbox_id"]),
        "ordering_key": "customer 1",
        "deduplication_key": "d",
        "body": '{"id":7}',
        "body_bytes": 8,
        "state": "pending",
    }.items() <= row.items()
    assert {0} == {row[name] for name in ("attempts", "crashes", "unknown_outcomes", "replays")}
    assert 36 == len(row["outbox_id"])


def test_enqueue_stores_only_what_is_given(application, engine):
    """What a message leaves out is NULL, not an empty text."""
    with application.begin() as connection:
        enqueue(connection, Message("orders", "hello"))
    (row,) = stored(engine)
    filled = {
        "id",
        "outbox_id",
        "destination",
        "topic",
        "properties",
        "body",
        "body_bytes",
        "state",
        "available_at",
        "created_at",
    }
    counters = {"attempts", "crashes", "unknown_outcomes", "replays"}

    assert filled | counters == {name for name, value in row.items() if value is not None}


def test_enqueue_is_due_at_once(application, engine):
    """A message without a delivery time is due by the database's clock."""
    with application.begin() as connection:
        before = connection.scalar(select(db_now()))
        enqueue(connection, *some(1))
        enqueue(connection, *some(2))
        after = connection.scalar(select(db_now()))

    for row in stored(engine, "available_at", "created_at"):
        assert before <= row["available_at"] == row["created_at"] <= after


@pytest.mark.parametrize("horizon_s", [3452400, 0.5])
def test_enqueue_holds_back_what_is_beyond_the_horizon(application, engine, monkeypatch, horizon_s):
    """A scheduled message is due when the broker takes it: the horizon before its time."""
    if horizon_s == 0.5:
        monkeypatch.setenv("OUTBOX_DELIVER_HORIZON_S", "0.5")
    deliver_at = datetime(2035, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    with application.begin() as connection:
        enqueue(connection, *some(1, deliver_at=deliver_at))
        enqueue(connection, *some(2, deliver_at=deliver_at))
    due_at = deliver_at - timedelta(seconds=horizon_s)

    assert [{"deliver_at": deliver_at, "available_at": due_at}] * 3 == stored(engine, "deliver_at", "available_at")


TEXTS = [
    "a\r\nb\rc\nd",
    "  leading and trailing \t ",
    "😀👩‍👩‍👧‍👦🇨🇳",
    "<a href='x'>&amp;]]></a>",
    "]]>",
    r"\n\\\0\' \" %s %(a)s :a ? {} $1 {NULL} NULL",
    "NULL",
    "it''s \"so\" `so`",
    '{"a",NULL,\\"b\\"}',
    "\t\x7f\x85\u2028\ud7ff\ue000\ufffd\U00010000\U0010ffff",
    "e\u0301",
    "é",
    " ",
]


def test_enqueue_stores_texts_byte_for_byte(application, engine):
    """Nothing is trimmed, folded, escaped or normalised: no body, no tag, no key, alone or among others."""
    tags = [given.translate({10: None, 13: None}) for given in TEXTS]
    given = [(body, body, tag) for body, tag in zip(TEXTS, tags, strict=True)]
    many = [Message("orders", body, deduplication_key=key, tag=tag) for body, key, tag in given]
    alone = [Message("alone", body, deduplication_key=key, tag=tag) for body, key, tag in given]
    with application.begin() as connection:
        enqueue(connection, *many)
        for message in alone:
            enqueue(connection, message)

    assert given * 2 == [tuple(row.values()) for row in stored(engine, "body", "deduplication_key", "tag")]


def test_enqueue_stores_the_largest_body(application, engine):
    """4 MiB go in and come out, also where escaping doubles them on the way."""
    bodies = [character * (MAX_BODY_BYTES // len(character.encode())) for character in ("x", "é", "\\", "'")]
    with application.begin() as connection:
        enqueue(connection, *(Message("orders", body) for body in bodies))

    assert [True] * 4 == [body == found for body, found in zip(bodies, stored(engine, "body"), strict=True)]


@SERVERS
@pytest.mark.parametrize("count", [1, 2])
def test_enqueue_never_cuts_a_text_off(application, engine, count):
    """What would be too long for its column, if a message could hold it, is an error and not a shorter text."""
    message = Message("orders", "x")
    object.__setattr__(message, "topic", "o" * 65)

    with application.connect() as connection, pytest.raises(DataError):
        enqueue(connection, *[message] * count)
    assert [] == stored(engine)


# Deduplication


def test_enqueue_deduplicates(application, engine):
    """A second message with the same key inserts nothing and gets the first one's id, in any transaction."""
    with application.begin() as connection:
        (first,) = enqueue(connection, *some(1, deduplication_key="d"))
        again = enqueue(connection, *some(3, deduplication_key="d"))
    with Session(application) as session, session.begin():
        later = enqueue(session, Message("orders", "new"), *some(1, deduplication_key="d"), Message("orders", "new"))

    assert [first] * 3 == again
    assert first == later[1]
    assert [first, later[0], later[2]] == stored(engine, "id")


def test_enqueue_deduplicates_within_one_call(application, engine):
    """The first of a call is the first row."""
    with application.begin() as connection:
        one, other, again = enqueue(
            connection,
            Message("orders", "one", deduplication_key="d"),
            Message("orders", "other", deduplication_key="e"),
            Message("orders", "again", deduplication_key="d"),
        )

    assert one == again
    assert [{"id": one, "body": "one"}, {"id": other, "body": "other"}] == stored(engine, "id", "body")


def test_enqueue_keeps_lanes_apart(application, engine):
    """A key is unique on its destination and topic, and nowhere else; without a key all messages are new."""
    message = {"topic": "orders", "body": "x", "deduplication_key": "d"}
    others = [{"topic": "Orders"}, {"destination": "billing"}, {"deduplication_key": None}, {"deduplication_key": None}]
    with application.begin() as connection:
        ids = enqueue(connection, Message(**message), *(Message(**message | other) for other in others))

    assert ids == stored(engine, "id")
    assert 5 == len(set(ids))


KEYS = [
    "Order-7",
    "order-7",
    "order-7 ",
    " order-7",
    "order-7\n",
    "órder-7",
    "order–7",
    "ß",
    "ss",
    "é",
    "e\u0301",
    "😀",
    "😁",
    "\t",
    " ",
]


def test_enqueue_compares_keys_byte_by_byte(application, engine):
    """Neither case nor trailing spaces nor accents are lost on any database."""
    many = [Message("orders", "x", deduplication_key=key) for key in KEYS]
    with application.begin() as connection:
        ids = enqueue(connection, *many)
        again = [enqueue(connection, message)[0] for message in many]

    assert unicodedata.normalize("NFC", KEYS[10]) == KEYS[9]
    assert len(KEYS) == len(set(ids))
    assert ids == again
    assert KEYS == stored(engine, "deduplication_key")


def deduplicated(caplog):
    """What was logged of messages that inserted nothing."""
    return [record for record in caplog.records if record.message == "outbox.deduplicated"]


CHANGES = [
    {"body": "other"},
    {"body": "BODY"},
    {"tag": "t"},
    {"keys": "k"},
    {"properties": {"a": "b"}},
    {"ordering_key": "o"},
    {"deliver_at": datetime(2035, 1, 1, tzinfo=UTC)},
]


def test_enqueue_logs_a_duplicate(application, caplog):
    """Who sends something else under a key that is taken is warned; the log has no body."""
    message = {"topic": "orders", "body": "body", "deduplication_key": "d"}
    with application.begin() as connection, caplog.at_level(logging.INFO, "outbox"):
        enqueue(connection, Message(**message))
        quiet = deduplicated(caplog)
        enqueue(connection, Message(**message), *(Message(**message | change) for change in CHANGES))
        (outbox_id,) = connection.scalars(select(messages.c.outbox_id))
    records = deduplicated(caplog)

    assert [] == quiet
    assert [(False, "INFO")] + [(True, "WARNING")] * len(CHANGES) == [(r.differs, r.levelname) for r in records]
    assert {("default", "orders", "d", outbox_id)} == {
        (record.destination, record.topic, record.deduplication_key, record.outbox_id) for record in records
    }
    assert [] == [record for record in records if "body" in str(vars(record)) or "other" in str(vars(record))]


def test_enqueue_finds_many_duplicates_at_once(application, statements, caplog):
    """A thousand messages are one statement; two more find those that were there, and a third compares their bodies."""
    many, other = ([Message("orders", body, deduplication_key=str(n)) for n in range(1000)] for body in ("x", "other"))
    sent, ids = [], []
    with application.begin() as connection, caplog.at_level(logging.INFO, "outbox"):
        connection.execute(text("SELECT 1"))
        for batch in (many, many[::-1], other):
            statements.clear()
            ids.append(enqueue(connection, *batch))
            sent.append(len(statements))

    assert [1, 3, 2] == sent
    assert ids[0] == ids[1][::-1] == ids[2]
    assert [False] * 1000 + [True] * 1000 == [record.differs for record in deduplicated(caplog)]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_enqueue_waits_for_the_other_with_the_same_key(application, engine, end):
    """Of two at a time the second waits: it gets the first one's id if that commits, and a row of its own if not."""

    def second():
        with application.begin() as connection:
            return enqueue(connection, Message("orders", "second", deduplication_key="d"))

    with ThreadPoolExecutor(1) as pool, application.connect() as connection:
        enqueue(connection, Message("orders", "first", deduplication_key="d"))
        running = pool.submit(second)
        waited = not wait([running], timeout=0.3).done
        getattr(connection, end)()
        (found,) = running.result(timeout=10)

    assert waited
    assert [{"id": found, "body": "first" if end == "commit" else "second"}] == stored(engine, "id", "body")


@pytest.mark.parametrize("database_kind", ["mariadb"])
@TARGETS
def test_enqueue_sees_a_row_newer_than_its_snapshot(application, engine, target, caplog):
    """At REPEATABLE READ, MariaDB's default, another's new row is found although a plain SELECT cannot see it."""
    with opened(application, target) as session, caplog.at_level(logging.INFO, "outbox"):
        session.execute(select(messages.c.id)).all()
        with engine.begin() as other:
            (first,) = enqueue(other, Message("orders", "x", deduplication_key="d"))
        invisible = session.execute(select(messages.c.id)).all()
        found = enqueue(session, Message("orders", "x", deduplication_key="d"))
        session.commit()

    assert [] == invisible
    assert [first] == found
    assert [False] == [record.differs for record in deduplicated(caplog)]


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_enqueue_raises_what_the_database_raises(application, engine):
    """At REPEATABLE READ PostgreSQL refuses to decide on a row newer than the snapshot; the caller tries again."""
    with application.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(select(messages.c.id)).all()
        with engine.begin() as other:
            enqueue(other, Message("orders", "x", deduplication_key="d"))

        with pytest.raises(DBAPIError, match="could not serialize"):
            enqueue(connection, Message("orders", "x", deduplication_key="d"))


def around_inserts(application, *, before=lambda: None, after=lambda: None):
    """Have something done just before and just after each INSERT that the application sends."""
    for name, act in (("before_cursor_execute", before), ("after_cursor_execute", after)):

        def run(_connection, _cursor, statement, *_, act=act):
            if statement.startswith("INSERT"):
                act()

        event.listen(application, name, run)


# On the other databases the INSERT that met the row holds it until the commit, so that no purge can come between.
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_enqueue_survives_a_purge_between_its_statements(application, engine):
    """If the first row is deleted before it was read, the message is the first one now."""
    with engine.begin() as other:
        (purged,) = enqueue(other, Message("orders", "x", deduplication_key="d"))
    around_inserts(application, after=lambda: purge(engine))
    with application.begin() as connection:
        ids = enqueue(connection, Message("orders", "y", deduplication_key="d"), Message("orders", "z"))
        rows = connection.execute(select(messages.c.id, messages.c.body).order_by(messages.c.body)).all()

    assert purged not in ids
    assert [(ids[0], "y"), (ids[1], "z")] == rows


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_enqueue_gives_up_on_endless_purges(application, engine):
    """Rows that come and go faster than they can be read are told, not looped on."""

    def there_first():
        with engine.begin() as other:
            enqueue(other, Message("orders", "x", deduplication_key="d"))

    around_inserts(application, before=there_first, after=lambda: purge(engine))

    with application.connect() as connection, pytest.raises(EnqueueError, match="again and again"):
        enqueue(connection, Message("orders", "y", deduplication_key="d"))


# Schemas


@pytest.fixture
def shop(engine):
    """An engine that looks for the tables in a schema of their own, which is there as well."""
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA shop"))
        connection.execute(text("CREATE TABLE shop.outbox_messages (LIKE outbox_messages INCLUDING ALL)"))
    yield engine.execution_options(schema_translate_map={None: "shop"})
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA shop CASCADE"))


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_enqueue_writes_into_the_schema_of_the_settings(application, engine, shop, monkeypatch):
    """The tables may stand in a schema of their own, which the application's engine need not know."""
    monkeypatch.setenv("OUTBOX_TABLE_SCHEMA", "shop")
    with application.begin() as connection:
        (alone,) = enqueue(connection, *some(1, deduplication_key="d"))
        ids = enqueue(connection, *some(2, deduplication_key="d"), *some(1))

    assert [alone, alone] == ids[:2]
    assert [alone, ids[2]] == stored(shop, "id")
    assert [] == stored(engine)


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_enqueue_follows_what_its_engine_was_configured_with(application, engine, shop, monkeypatch):
    """Two applications of one process have settings of their own; the environment is not asked."""
    monkeypatch.setenv("OUTBOX_TABLE_SCHEMA", "nowhere")
    configure(application, Settings(table_schema="shop"))
    derived = application.execution_options(isolation_level="SERIALIZABLE")
    with application.begin() as connection, Session(derived) as session:
        ids = enqueue(connection, *some(1)) + enqueue(session, *some(1))
        session.commit()

    assert ids == stored(shop, "id")
    assert [] == stored(engine)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_enqueue_looks_at_no_setting_of_the_relay(application, engine, monkeypatch):
    """The enqueuing process needs no keys, and a wrong one does not stop it."""
    monkeypatch.setenv("OUTBOX_BATCH_SIZE", "wrong")
    monkeypatch.setenv("OUTBOX_ENDPOINT", "wrong")
    with application.begin() as connection:
        ids = enqueue(connection, *some(1))

    assert ids == stored(engine, "id")


# asyncio

ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg_async"}


@pytest.fixture
def run(engine):
    """A function that runs a coroutine function with an AsyncEngine on the same database."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async def with_engine(body):
        made = create_async_engine(engine.url.set(drivername=ASYNC_DRIVERS[engine.dialect.name]))
        if engine.dialect.name == "sqlite":
            prepare_sqlite(made)
        try:
            return await body(made)
        finally:
            await made.dispose()

    return lambda body: asyncio.run(with_engine(body))


def opened_async(made, target):
    """What an asyncio application has in hand."""
    from sqlalchemy.ext.asyncio import AsyncSession

    return AsyncSession(made) if target == "session" else made.connect()


@pytest.mark.parametrize("database_kind", ASYNC_DRIVERS)
@TARGETS
def test_enqueue_async(engine, run, target):
    """An AsyncSession or an AsyncConnection promises the same as their siblings."""

    async def body(made):
        async with opened_async(made, target) as session:
            await enqueue_async(session, *some(2))
            await session.rollback()
            async with session.begin_nested():
                ids = await enqueue_async(session, *some(2), *some(1, deduplication_key="d"))
            again = await enqueue_async(session, *some(1, deduplication_key="d"))
            await session.commit()
        return ids, again

    ids, again = run(body)

    assert ids[-1:] == again
    assert ids == stored(engine, "id")


@pytest.mark.parametrize("database_kind", ASYNC_DRIVERS)
@TARGETS
def test_enqueue_sends_asyncio_to_its_sibling(engine, run, target):
    """Given what asyncio uses, `enqueue` names the function for it."""

    async def body(made):
        async with opened_async(made, target) as session:
            enqueue(session, *some(1))

    with pytest.raises(EnqueueError, match="use enqueue_async"):
        run(body)
    assert [] == stored(engine)


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_enqueue_async_refuses_autocommit(engine, run):
    """AUTOCOMMIT is seen through asyncio's drivers, too."""

    async def body(made):
        async with made.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await enqueue_async(connection, *some(1))

    with pytest.raises(EnqueueError, match="AUTOCOMMIT"):
        run(body)
    assert [] == stored(engine)


# What an application's process needs


def test_enqueuing_side_imports_little():
    """An application that only enqueues loads no HTTP client, no Celery, no command line and no asyncio extension."""
    unwanted = [
        "requests",
        "urllib3",
        "celery",
        "kombu",
        "click",
        "flask",
        "django",
        "alembic",
        "sqlalchemy.ext.asyncio",
    ]
    program = f"import sys, outbox; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "[]" == done.stdout.strip()
