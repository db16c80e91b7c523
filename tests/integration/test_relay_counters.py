"""What the relay costs, in statements, commits, requests and row writes: counted, not timed, on the virtual clock."""

import pytest
from sqlalchemy import event, text

from outbox import Message
from outbox.relay import Forever
from tests import relaying
from tests.relaying import Scripted, drained, make_relay, rows, wait_until, write
from tests.virtual_clock import VirtualClock

publishers_kind = relaying.publishers_kind

MANY = 1000

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"])


class Meter:
    """Counts what an engine does, and keeps the statements."""

    def __init__(self, engine):
        self.statements = 0
        self.commits = 0
        self.texts = []
        event.listen(engine, "before_cursor_execute", self._on_statement)
        event.listen(engine, "commit", self._on_commit)

    def _on_statement(self, _connection, _cursor, statement, *_):
        self.statements += 1
        self.texts.append(" ".join(statement.split()))

    def _on_commit(self, _):
        self.commits += 1


def updates(engine):
    """Row versions written to the outbox by UPDATE, as PostgreSQL counts them when a session ends."""
    query = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'outbox_messages'"
    with engine.connect() as connection:
        return connection.scalar(text(query))


@on_postgresql
@pytest.mark.parametrize("seed", range(5))
def test_thousand_messages_cost_eight_statements(engine, seed):
    """A thousand small messages of one lane: eight statements and commits at most, and a request each."""
    write(engine, *(Message("orders", str(n)) for n in range(MANY)))
    with VirtualClock(seed) as clock:
        publisher = Scripted(clock=clock)
        relay, ending, meter = make_relay(engine, publisher, clock), drained(engine, clock), Meter(engine)
        relay.run(ending)

    assert meter.statements <= 8
    assert meter.commits <= 8
    assert len(publisher.posts) == MANY
    assert {row.state for row in rows(engine)} == {"sent"}


@on_postgresql
@pytest.mark.parametrize("seed", range(3))
def test_thousand_half_messages_are_elected_and_confirmed_in_bulk(engine, seed):
    """Two requests each, and for a batch of five hundred an election and a confirmation; none for a single row."""
    write(engine, *(Message("orders", str(n), transaction_check_s=10) for n in range(MANY)))
    with VirtualClock(seed) as clock:
        publisher = Scripted(clock=clock)
        relay = make_relay(engine, publisher, clock, origin=lambda _lane: "origin")
        meter = Meter(engine)
        relay.run(drained(engine, clock))
    elections = [text for text in meter.texts if text.startswith("UPDATE") and " posted_at=" in text]
    confirmations = [text for text in meter.texts if text.startswith("UPDATE") and " confirmed_by=" in text]

    assert len(elections) <= 4
    assert len(confirmations) <= 4
    assert meter.statements <= 20
    assert (MANY, MANY) == (len(publisher.posts), len({handle for how, handle in publisher.ends if how == "commit"}))
    assert {("sent", "answer")} == {(row.state, row.confirmed_by) for row in rows(engine)}


@on_postgresql
def test_each_row_is_written_twice(engine):
    """One row version for the claim, one for the mark."""
    write(engine, *(Message("orders", str(n)) for n in range(MANY)))
    with VirtualClock() as clock:
        make_relay(engine, Scripted(), clock).run(drained(engine, clock))
    engine.dispose()

    assert wait_until(lambda: updates(engine) == 2 * MANY), updates(engine)


@pytest.mark.parametrize("database_kind", ["postgresql", "sqlite"])
def test_idle_relay_asks_little(engine):
    """With nothing to do, a look a second, of two statements at most."""
    with VirtualClock() as clock:
        relay, meter = make_relay(engine, Scripted(), clock), Meter(engine)
        task = clock.start("idle", "claimer", lambda: relay.run(Forever()))
        clock.sleep(60.5)
        relay.stop()
        task.join()

    assert 60 <= meter.statements <= 2 * 61


@on_postgresql
@pytest.mark.parametrize("seed", range(3))
def test_no_transaction_is_open_during_a_publish(engine, seed):
    """A claim has committed before the first publish, and a mark begins after the last that it tells of."""
    write(engine, *(Message("orders", "x" * size) for size in (10, 40_000) for _ in range(50)))
    with VirtualClock(seed) as clock:
        connections = []

        def look(_topic, _body):
            connections.append(engine.pool.checkedout())
            clock.step("publish")

        make_relay(engine, Scripted(look), clock, batch_size=20).run(drained(engine, clock))

    assert [0] * 100 == connections
