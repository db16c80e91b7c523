"""Whatever relays, crashes, operators and purges do, in any order: each row stays where the transitions allow."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine, make_url

from outbox.errors import OperationError
from outbox.outcomes import Fault
from outbox.states import FINISHED, TRANSITIONS, State, sources
from outbox.store.database import Database
from outbox.store.mark import MarkFailed, MarkRetry, MarkSent, Release, mark
from outbox.store.operate import discard, find, purge, replay
from tests.rows import change, expire_leases, read_row, states, take, take_ordered, write_row

MAX_ATTEMPTS = 3
BY = {"by": "ann", "reason": "test"}
FAULT = Fault("Timeout", "no answer", accepted=None)
WAYS = {(one.source, one.target) for one in TRANSITIONS}
KEYS = st.sampled_from([None, None, "a", "b"])
OUTCOMES = st.sampled_from(["sent", "retried", "failed", "released"])


class Outbox(RuleBasedStateMachine):
    """The real store on SQLite, beside a model: where each row stood last, and who holds which row by which token."""

    template = None

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        path = self.directory / "outbox.db"
        shutil.copyfile(self.template, path)
        self.engine = create_engine(f"sqlite:///{path}")
        self.database = Database(self.engine)
        self.known = {}
        self.replays = {}
        self.holders = {}
        self.purgeable = set()

    def teardown(self):
        self.engine.dispose()
        shutil.rmtree(self.directory)

    held = Bundle("held")

    @rule(key=KEYS)
    def enqueue(self, key):
        row_id = write_row(self.engine, ordering_key=key)
        assert row_id not in self.known, "an id was used twice"
        self.known[row_id], self.replays[row_id] = State.PENDING, 0

    @rule(target=held, limit=st.integers(1, 4), ordered=st.booleans(), skip=st.booleans())
    def claim(self, limit, ordered, skip):
        if ordered:
            rows = take_ordered(self.database, limit=limit, skip_failed_heads=skip, max_attempts=MAX_ATTEMPTS)
        else:
            rows = take(self.database, limit=limit, max_attempts=MAX_ATTEMPTS)
        assert len(rows) <= limit
        assert len(rows) == 1 or not any(row.alone for row in rows)
        for row in rows:
            assert row.id not in self.holders, "two relays hold a row"
            self.holders[row.id] = row.lease_token
        return multiple(*rows)

    @rule(row=consumes(held), outcome=OUTCOMES)
    def end(self, row, outcome):
        done = {
            "sent": MarkSent(row.id, row.lease_token, "M"),
            "retried": MarkRetry(row.id, row.lease_token, 0.0, FAULT, charge=True, unknown=True),
            "failed": MarkFailed(row.id, row.lease_token, FAULT, unknown=False),
            "released": Release(row.id, row.lease_token),
        }[outcome]
        before = dict(read_row(self.engine, row.id)) if row.id in self.known else None

        lost = mark(self.database, [done])

        ours = before is not None and before["lease_token"] == row.lease_token
        assert lost == (frozenset() if ours else frozenset({row.id}))
        if ours:
            self.holders.pop(row.id, None)
        elif before is not None:
            assert before == read_row(self.engine, row.id), "a lost lease wrote"

    @rule()
    def let_leases_end(self):
        expire_leases(self.engine)
        self.holders.clear()

    @rule(row=consumes(held))
    def crash(self, row):
        """The process is gone, and never marks; its lease ends some day."""

    @rule(verb=st.sampled_from(["replay", "discard"]), force=st.booleans(), data=st.data())
    def operate(self, verb, force, data):
        if not self.known:
            return
        row_id = data.draw(st.sampled_from(sorted(self.known)))
        before = State(states(self.engine)[row_id])
        try:
            targets = find(self.database, verb, ids=[row_id], force=force)
        except OperationError:
            assert before not in sources(verb, forced=force)
            return
        deed = {"replay": replay, "discard": discard}[verb]
        assert 1 == deed(self.database, targets, force=force, **BY)
        assert 0 == deed(self.database, targets, force=force, **BY), "the second click won, too"
        self.replays[row_id] += verb == "replay"

    @rule(data=st.data())
    def doubt(self, data):
        """What half messages do to a row, as far as operators meet it."""
        failed = [row_id for row_id, state in self.known.items() if state is State.FAILED]
        if failed:
            row_id = data.draw(st.sampled_from(sorted(failed)))
            change(self.engine, row_id, state="in_doubt")
            self.known[row_id] = State.IN_DOUBT

    @rule()
    def purge_all(self):
        finished = {row_id for row_id, state in states(self.engine).items() if state in FINISHED}

        assert len(finished) == purge(self.database, -5.0)

        self.purgeable |= finished

    @invariant()
    def follows_the_transitions(self):
        now = states(self.engine)
        for row_id, before in list(self.known.items()):
            if row_id not in now:
                assert row_id in self.purgeable
                del self.known[row_id]
                continue
            after = State(now[row_id])
            assert before == after or (before, after) in WAYS, f"{before} became {after}"
            self.known[row_id] = after

    @invariant()
    def keeps_each_row_whole(self):
        for row_id, state in self.known.items():
            row = read_row(self.engine, row_id)
            assert self.replays[row_id] == row["replays"]
            assert row["lease_token"] is None or state is State.PENDING
            assert (row["message_id"] is not None) == (state is State.SENT)
            assert row["attempts"] <= MAX_ATTEMPTS + 1 or state is not State.PENDING


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_store_follows_the_transitions(migrated_url):
    """Any run of claims, marks, crashes, expiries, replays, discards and purges keeps to the table of transitions."""
    Outbox.template = make_url(migrated_url).database
    limits = settings(max_examples=40, stateful_step_count=30)

    run_state_machine_as_test(Outbox, settings=limits)

    assert Outbox.template
