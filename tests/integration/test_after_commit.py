"""One call for each outermost commit with new rows in it, and none for anything else."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, select
from sqlalchemy.orm import Session

from outbox import Message, enqueue, enqueue_async, prepare_sqlite
from outbox import after_commit as module
from outbox.after_commit import after_commit
from outbox.table import messages, metadata

MESSAGE = Message("orders", "hello")
KNOWN = Message("orders", "hello", deduplication_key="known")
TARGETS = pytest.mark.parametrize("target", ["session", "connection"])
SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch):
    """Each test begins and ends without hooks."""
    monkeypatch.setattr(module, "_hooks", [])


@pytest.fixture
def calls():
    """Grows with each call of a hook."""
    calls = []
    after_commit(lambda: calls.append("call"))
    return calls


def opened(engine, target):
    """What an application has in hand: a Session or a Connection."""
    return Session(engine) if target == "session" else engine.connect()


@TARGETS
def test_hook_is_called_once_for_each_commit(engine, calls, target):
    """However much is enqueued in a transaction, its commit is one call, and the next one's is another."""
    with opened(engine, target) as session:
        enqueue(session, MESSAGE)
        enqueue(session, MESSAGE, MESSAGE)
        before = len(calls)
        session.commit()
        first = len(calls)
        enqueue(session, MESSAGE)
        session.commit()

    assert [0, 1, 2] == [before, first, len(calls)]


@SQLITE
def test_hook_of_a_session_is_called_when_the_row_is_there(engine):
    """A relay that is woken by a Session's commit finds the row."""
    seen = []

    def look():
        with engine.connect() as connection:
            seen.extend(connection.scalars(select(messages.c.body)))

    after_commit(look)
    with Session(engine) as session, session.begin():
        enqueue(session, MESSAGE)

    assert ["hello"] == seen


@SQLITE
@TARGETS
def test_hook_is_not_called_without_new_rows(engine, calls, target):
    """Neither an empty enqueue, nor a duplicate, nor a commit of something else is worth a call."""
    with engine.begin() as connection:
        enqueue(connection, KNOWN)
    calls.clear()
    with opened(engine, target) as session:
        enqueue(session)
        enqueue(session, KNOWN)
        session.commit()
        session.execute(delete(messages))
        session.commit()

    assert [] == calls


@SQLITE
@TARGETS
@pytest.mark.parametrize("end", ["rollback", "close"])
def test_hook_is_not_called_for_a_rollback(engine, calls, target, end):
    """What is rolled back leaves nothing behind for the next commit."""
    with opened(engine, target) as session:
        enqueue(session, MESSAGE)
        with session.begin_nested():
            enqueue(session, MESSAGE)
        getattr(session, end)()
    with opened(engine, target) as session:
        session.execute(delete(messages))
        session.commit()

    assert [] == calls


@SQLITE
@TARGETS
def test_hook_is_not_called_for_a_context_that_raises(engine, calls, target):
    """An exception on the way out of the transaction's block is a rollback."""
    with opened(engine, target) as session:
        with pytest.raises(ZeroDivisionError), session.begin():
            enqueue(session, Message("orders", 1 / 0 if enqueue(session, MESSAGE) else ""))
        session.execute(delete(messages))
        session.commit()

    assert [] == calls


@SQLITE
@TARGETS
def test_hooks_do_not_disturb_the_caller(engine, calls, target, caplog):
    """A hook that raises is logged; the caller's commit is done, and the other hooks are called."""

    def fail():
        raise RuntimeError("the broker is down")

    after_commit(fail)
    after_commit(lambda: calls.append("later"))
    with opened(engine, target) as session, caplog.at_level(logging.WARNING, "outbox"):
        enqueue(session, MESSAGE)
        session.commit()
        rows = session.scalars(select(messages.c.body)).all()

    assert ["hello"] == rows
    assert ["call", "later"] == calls
    assert ["outbox.nudge_failed"] == [record.message for record in caplog.records]


@SQLITE
@TARGETS
def test_hook_is_registered_once(engine, calls, target):
    """Who installs twice is called once."""

    def hook():
        calls.append("hook")

    after_commit(hook)
    after_commit(hook)
    with opened(engine, target) as session:
        enqueue(session, MESSAGE)
        session.commit()

    assert ["call", "hook"] == calls


@SQLITE
@pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint", "rollback_only", "control_fully"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_hook_waits_for_the_transaction_that_a_session_joined(engine, calls, mode, end):
    """A Session inside a Connection's transaction, as in a test suite, commits nothing: the Connection does."""
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            enqueue(session, MESSAGE)
            with session.begin_nested():
                enqueue(session, MESSAGE)
            session.flush()
            joined = mode != "control_fully"
            if joined:
                session.commit()
            early = list(calls)
            if joined:
                getattr(transaction, end)()
            else:
                getattr(session, end)()

    assert [] == early
    assert ["call"] * (end == "commit") == calls


@SQLITE
def test_hook_is_called_for_asyncio(engine, calls):
    """AsyncSession and AsyncConnection are no exception."""
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def body():
        made = create_async_engine(engine.url.set(drivername="sqlite+aiosqlite"))
        prepare_sqlite(made)
        for opened_async in (AsyncSession(made), made.connect()):
            async with opened_async as session:
                await enqueue_async(session, MESSAGE)
                await session.rollback()
                await enqueue_async(session, MESSAGE)
                await session.commit()
        await made.dispose()

    asyncio.run(body())

    assert ["call", "call"] == calls


# Savepoints, in every way that they can be nested


class Nest:
    """A transaction with its savepoints, and what must come of it."""

    def __init__(self, session):
        self.session = session
        self.savepoints = []
        self.new = [0]

    def enqueue(self):
        enqueue(self.session, MESSAGE)
        self.new[-1] += 1

    def enqueue_known(self):
        enqueue(self.session, KNOWN)

    def open(self):
        self.savepoints.append(self.session.begin_nested())
        self.new.append(0)

    def release(self):
        if self.savepoints:
            self.savepoints.pop().commit()
            inner = self.new.pop()
            self.new[-1] += inner

    def roll_back(self):
        if self.savepoints:
            self.savepoints.pop().rollback()
            self.new.pop()

    def end(self, how):
        """Returns how many rows must be there now, and how many calls were made."""
        getattr(self.session, how)()
        rows = sum(self.new) if how == "commit" else 0
        return rows, int(rows > 0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A SQLite engine for many small transactions."""
    made = create_engine(f"sqlite:///{tmp_path_factory.mktemp('nests')}/outbox.db")
    prepare_sqlite(made)
    metadata.create_all(made)
    with made.begin() as connection:
        enqueue(connection, KNOWN)
    yield made
    made.dispose()


def run(session, steps, how):
    """Do as the steps say; returns rows and calls as they must be."""
    nest = Nest(session)
    for step in steps:
        getattr(nest, step)()
    return nest.end(how)


STEPS = st.lists(st.sampled_from(["enqueue", "enqueue_known", "open", "open", "release", "roll_back"]), max_size=12)
TRANSACTIONS = st.lists(st.tuples(STEPS, st.sampled_from(["commit", "commit", "rollback"])), min_size=1, max_size=3)


@TARGETS
@given(transactions=TRANSACTIONS)
def test_rows_and_calls_follow_the_savepoints(prepared, target, transactions):
    """A row counts if every savepoint around it was released and the transaction committed; such rows make one call."""
    calls = []
    module._hooks[:] = [lambda: calls.append("call")]
    after_commit(module._hooks[0])
    new = messages.c.deduplication_key.is_(None)
    with opened(prepared, target) as session:
        for steps, how in transactions:
            expected = run(session, steps, how)
            rows = len(session.execute(select(messages.c.id).where(new)).all())
            session.execute(delete(messages).where(new))
            session.commit()

            assert expected == (rows, len(calls))

            calls.clear()
