"""Designs that must not be used, as switches for the simulation: if none of them is caught, the simulation is blind."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, literal_column, update

from outbox.half import Adopt, Commit, Decision, Offer, Rollback, checker, decisions
from outbox.outcomes import Ended, Outcome, Retry, Sent, Unknown
from outbox.relay import board
from outbox.relay.halves import HalfEnd, InHand
from outbox.relay.marker import Marker
from outbox.rocketmq.client import Client
from outbox.store import claim, halves, leases, operate, purge, silence
from outbox.store.database import Database
from outbox.store.halves import Election, HalfRow, Standing
from outbox.table import db_after, db_now, messages
from tests.reliability.sim import Schedule
from tests.reliability.sim_broker import SimBroker

__all__ = ["HALVES", "NORMAL", "Switch", "switched"]

Switch = Callable[[pytest.MonkeyPatch], None]


def _with_outcome(patch: pytest.MonkeyPatch, change: Callable[[Outcome], Outcome]) -> None:
    outcome_of = Client.outcome_of
    patch.setattr(Client, "outcome_of", lambda self, *given: change(outcome_of(self, *given)))


def sent_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    """A lost answer is taken for a success."""
    _with_outcome(patch, lambda outcome: Sent("GUESSED") if isinstance(outcome, Unknown) else outcome)


def lost_answer_is_no_publish(patch: pytest.MonkeyPatch) -> None:
    """A lost answer is taken for a failure, so that the duplicate it may lead to is not counted."""
    _with_outcome(patch, lambda outcome: Retry(outcome.fault) if isinstance(outcome, Unknown) else outcome)


def takeover_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Whoever takes over a lease believes that nothing was published under it."""

    def nothing(_rows: Any) -> Any:
        return literal_column("0")

    patch.setattr(leases, "_crashed", nothing)


def followers_before_their_head(patch: pytest.MonkeyPatch) -> None:
    """Rows of one ordering key go out side by side."""
    patch.setattr(board, "in_chains", lambda rows: [deque((row,)) for row in rows])


NORMAL: dict[str, Switch] = {
    switch.__name__: switch
    for switch in (
        sent_without_an_answer,
        lost_answer_is_no_publish,
        takeover_is_not_counted,
        followers_before_their_head,
    )
}

# --- half messages ------------------------------------------------------------------------------------------------


def plain_post(patch: pytest.MonkeyPatch) -> None:
    """POST and try again: no half message at all."""
    claimed = leases._claimed

    def without_check(row: Any, token: str) -> Any:
        found = claimed(row, token)
        given = [pair for pair in found.properties.split("|") if pair and not pair.startswith("__TransCheckT:")]
        found.properties = "|".join([*given, f"outbox_replay:{found.replays}", ""])
        found.transaction_check_s = None
        return found

    patch.setattr(leases, "_claimed", without_check)


def no_election(patch: pytest.MonkeyPatch) -> None:
    """Record the MessageId, then commit; whoever comes last overwrites."""

    def elect(database: Database, elections: Sequence[Election]) -> dict[str, Standing]:
        def work(connection: Connection) -> None:
            for one in elections:
                here = (messages.c.id == one.id, messages.c.replays == one.replays, messages.c.state != "failed")
                values = {"state": "committing", "message_id": one.message_id, "posted_at": one.posted_at}
                free = {"lease_until": None, "lease_token": None, "heard_at": db_now()}
                connection.execute(update(messages).where(*here).values(values | free))

        database.run(work)
        return dict.fromkeys((one.message_id for one in elections), Standing.WON)

    patch.setattr(halves, "elect", elect)


def election_of_the_attempt(patch: pytest.MonkeyPatch) -> None:
    """The row remembers the attempt, not the MessageId: of a doubled POST both half messages are the elected one."""
    decide = decisions.decide

    def by_attempt(row: HalfRow | None, offer: Offer, origin: str) -> Decision:
        twins = SimBroker.latest.twins if SimBroker.latest else {}
        if row is not None and row.message_id is not None and twins.get(offer.message_id) == row.message_id:
            row = replace(row, message_id=offer.message_id)
        return decide(row, offer, origin)

    patch.setattr(checker, "decide", by_attempt)


def roll_back_on_database_error(patch: pytest.MonkeyPatch) -> None:
    """An election that the database did not answer is taken for lost."""
    endings = board.endings

    def eager(given: Iterable[InHand], standings: Mapping[str, Standing], now: float) -> list[HalfEnd]:
        given = list(given)
        unknown = {one.message_id: Standing.LOST for one in given}
        return endings(given, unknown | dict(standings), now)

    patch.setattr(board, "endings", eager)
    insist = Marker._insist
    # Asking again would tell what was done.
    patch.setattr(Marker, "_insist", lambda self, tell, give_up: insist(self, tell, min(give_up, 0.0)))


def commit_again(patch: pytest.MonkeyPatch) -> None:
    """A COMMIT without an answer is sent again on the same handle."""
    end = Client.end

    def twice(self: Client, topic: str, handle: str, how: Any, *, deadline_s: float) -> Any:
        outcome = end(self, topic, handle, how, deadline_s=deadline_s)
        again = how == "commit" and isinstance(outcome, Unknown)
        return end(self, topic, handle, how, deadline_s=deadline_s) if again else outcome

    patch.setattr(Client, "end", twice)


def _with_decision(patch: pytest.MonkeyPatch, change: Callable[[HalfRow | None, Decision], Decision]) -> None:
    decide = decisions.decide
    patch.setattr(checker, "decide", lambda row, offer, origin: change(row, decide(row, offer, origin)))


def late_half_of_a_failed_row(patch: pytest.MonkeyPatch) -> None:
    """A failed row is no decision: a half message that turns up later is committed."""

    def change(row: HalfRow | None, decision: Decision) -> Decision:
        is_failed = row is not None and row.state == "failed" and isinstance(decision, Rollback)
        return Commit() if is_failed else decision

    _with_decision(patch, change)


def replay_in_flight(patch: pytest.MonkeyPatch) -> None:
    """An operator replays a row that is in flight, as the same message."""
    fresh, sources = operate._fresh, operate.sources

    def same_replay(rows: Any) -> dict[str, Any]:
        return fresh(rows) | {"replays": rows.c.replays, "lease_until": None, "lease_token": None}

    patch.setattr(operate, "_fresh", same_replay)
    patch.setattr(operate, "sources", lambda verb, *, forced=False: sources(verb, forced=forced) | {"committing"})
    patch.setattr(Schedule, "meddles_in_flight", True)


def roll_back_undecided(patch: pytest.MonkeyPatch) -> None:
    """The checker rolls back what nobody elected yet."""
    _with_decision(patch, lambda _row, decision: Rollback() if isinstance(decision, Adopt) else decision)


def decision_without_the_row(patch: pytest.MonkeyPatch) -> None:
    """A half message whose row is gone may win: nothing speaks against it."""
    standing = halves._standing
    patch.setattr(halves, "_standing", lambda row, one: Standing.WON if row is None else standing(row, one))
    decide = decisions.decide

    def careless(row: HalfRow | None, offer: Offer, origin: str) -> Decision:
        decision = decide(row, offer, origin)
        return Commit() if row is None and not offer.canary and isinstance(decision, Rollback) else decision

    patch.setattr(checker, "decide", careless)
    patch.setattr(purge, "HALF_MESSAGES_STAY_S", 0)


def sent_without_proof(patch: pytest.MonkeyPatch) -> None:
    """A COMMIT is as good as its answer; and what is sent may be purged."""
    end = Client.end

    def believed(self: Client, topic: str, handle: str, how: Any, *, deadline_s: float) -> Any:
        outcome = end(self, topic, handle, how, deadline_s=deadline_s)
        return Ended() if how == "commit" and isinstance(outcome, Unknown) else outcome

    patch.setattr(Client, "end", believed)
    patch.setattr(purge, "HALF_MESSAGES_STAY_S", 0)


def no_settling(patch: pytest.MonkeyPatch) -> None:
    """A row whose commit was done and never answered waits until its day is over."""
    patch.setattr(silence, "settle", lambda _database, _topic: 0)


def silence_without_a_canary(patch: pytest.MonkeyPatch) -> None:
    """Some time without an offer proves the commit, whether or not checking works."""

    def settle(database: Database, _topic: Any) -> int:
        silent = (messages.c.state == "committing", messages.c.heard_at < db_after(-25.0))
        values = {"state": "sent", "confirmed_by": "silence", "sent_at": db_now()}
        done = update(messages).where(*silent).values(values)
        return database.run(lambda connection: connection.execute(done).rowcount)

    patch.setattr(silence, "settle", settle)
    patch.setattr(purge, "HALF_MESSAGES_STAY_S", 0)


def early_canary(patch: pytest.MonkeyPatch) -> None:
    """A canary proves something whenever it is offered, though half messages that were due before it may be hidden."""
    patch.setattr(Offer, "is_early", False)


HALVES: dict[str, Switch] = {
    switch.__name__: switch
    for switch in (
        plain_post,
        no_election,
        election_of_the_attempt,
        roll_back_on_database_error,
        commit_again,
        late_half_of_a_failed_row,
        replay_in_flight,
        roll_back_undecided,
        decision_without_the_row,
        sent_without_proof,
        no_settling,
        silence_without_a_canary,
        early_canary,
    )
}

_CACHED: tuple[Any, ...] = (claim._due_rows, leases._due_among, leases._lease_among)


@contextmanager
def switched(switch: Switch) -> Iterator[None]:
    """With one naive design in the product's place."""
    with pytest.MonkeyPatch.context() as patch:
        switch(patch)
        _forget_statements()
        yield
    _forget_statements()


def _forget_statements() -> None:
    for statement in _CACHED:
        statement.cache_clear()
