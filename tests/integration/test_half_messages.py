"""Half messages end to end: the real relay and the real checker, against an emulator whose time is moved along."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from outbox import Message
from outbox.half import CheckConfig
from outbox.settings import Settings
from outbox.store import halves, operate, origin
from outbox.store.silence import Pace
from outbox.table import checks, messages
from outbox.wiring import Runtime
from tests.relaying import Once
from tests.rows import ago

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])

SHORT = CheckConfig(request_deadline_s=1.0, pace=Pace(check_s=10, quiet_s=0.0, lost_s=20.0, rest_s=0.0))
HOSTILE = {"fault": "hostile"}


class Stage:
    """One database, one broker, and what stands between them."""

    def __init__(self, url, emulator):
        self.emulator = emulator
        self.settings = {
            "database_url": url,
            "endpoint": emulator.url,
            "access_key_id": "FAKEAKID",
            "access_key_secret": "FAKESECRET",
            "group_id": "GID_orders",
            "request_timeout_s": 1.0,
            "backoff_base_s": 86_400.0,
            "backoff_max_s": 86_400.0,
        }
        self.runtime = self.another()

    def another(self, **over):
        """A process of its own: what a runtime has cached, another has not."""
        return Runtime(Settings(**(self.settings | over)))

    def enqueue(self, *many):
        from outbox import enqueue

        return self.runtime.database.run(lambda connection: enqueue(connection, *many))

    def order(self, check_s=10):
        return self.enqueue(Message("orders", {"id": 7}, tag="created", keys="k", transaction_check_s=check_s))[0]

    def relay(self, runtime=None):
        return (runtime or self.runtime).relay().run(Once())

    def relay_again(self):
        """The row's backoff is over."""
        due = update(messages).values(available_at=ago(1))
        self.runtime.database.run(lambda connection: connection.execute(due))
        return self.relay()

    def check(self, *, after_s=0.0, runtime=None):
        """One round of a checker, so many of the broker's seconds later."""
        self.emulator.advance(after_s)
        return (runtime or self.runtime).checker(SHORT).run(lambda: True)

    def faults(self, *many):
        self.emulator.clear_faults()
        for one in (HOSTILE, *many):
            self.emulator.fault(**({"name": one["fault"]} | {key: one[key] for key in one if key != "fault"}))

    def row(self, row_id):
        query = select(messages).where(messages.c.id == row_id)
        return self.runtime.database.read(lambda connection: connection.execute(query).one())

    def change(self, row_id, **values):
        statement = update(messages).where(messages.c.id == row_id).values(**values)
        self.runtime.database.run(lambda connection: connection.execute(statement))

    def state(self, row_id):
        row = self.row(row_id)
        return row.state, row.confirmed_by

    def visible(self):
        """How often each half message became visible, in the order they were taken; canaries apart."""
        taken = self.emulator.ledger()["messages"]
        return [one["visible"] for one in taken if "outbox_canary" not in one["properties"]]


@pytest.fixture
def stage(migrated_url, emulator):
    stage = Stage(migrated_url, emulator)
    stage.faults()
    return stage


def commit_four_large_in_vain(stage):
    """The ids of four rows whose half messages, escaped, are as large as they can be; none of them is committed yet."""
    ids = stage.enqueue(*(Message("orders", "&" * 65_536, transaction_check_s=10) for _ in range(4)))
    stage.faults({"fault": "commit_dropped_before"})
    stage.relay()
    stage.faults()
    return ids


@pytest.mark.parametrize("check_s", [10, 60, 300])
def test_relay_commits_one_half_message(stage, check_s):
    """Taken, elected, committed once, confirmed: and it carries what a checker must know."""
    row_id = stage.order(check_s)
    counts = stage.relay()
    row, (taken,) = stage.row(row_id), stage.emulator.ledger()["messages"]

    assert (1, 0) == (counts.sent, counts.unsettled)
    assert ("sent", "answer", taken["message_id"], None) == (
        row.state,
        row.confirmed_by,
        row.message_id,
        row.lease_token,
    )
    assert 1 == taken["visible"]
    assert {"__TransCheckT": str(check_s), "outbox_id": row.outbox_id, "outbox_replay": "0"}.items() <= taken[
        "properties"
    ].items()
    assert stage.runtime.origin("default") == taken["properties"]["outbox_origin"]


def test_relay_and_normal_messages_share_a_run(stage):
    """Half messages of one lane and normal ones of another go through the same relay."""
    ids = [*(stage.order() for _ in range(20)), *stage.enqueue(*(Message("steps", "x") for _ in range(20)))]
    counts = stage.relay()

    assert 40 == counts.sent
    assert {("sent", "answer")} == {stage.state(row_id) for row_id in ids}
    assert [1] * 40 == stage.visible()


def test_relay_without_a_group_pauses_the_lane(stage):
    """A destination without a group id can end no half message: the lane rests, and says why; nothing is charged."""
    row_id = stage.order()
    runtime = stage.another(group_id="")
    stage.relay(runtime)
    row = stage.row(row_id)

    assert ("pending", 0, "HalfMessagesRefused") == (row.state, row.attempts, row.last_error_code)
    assert "OUTBOX_GROUP_ID" in row.last_error
    assert [] == stage.visible()


def test_relay_of_a_copied_database_refuses_half_messages(stage):
    """A database bound to another environment posts none, until it is quarantined."""
    stage.order()
    stage.relay()
    row_id = stage.order()
    stage.relay(stage.another(environment="copy"))

    assert "OUTBOX_ENVIRONMENT" in stage.row(row_id).last_error
    assert [1] == stage.visible()


def test_lost_post_is_adopted_by_the_checker(stage):
    """A half message whose answer was lost, with its relay gone: the checker elects it and commits it."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.faults()
    young = stage.check(after_s=10.5)
    old = stage.check(after_s=10.5)

    assert (1, 0, 1) == (young.offered, young.adopted, young.left)
    assert (1, 1) == (old.adopted, old.committed)
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


def test_relay_that_was_stopped_after_its_post_elects_nothing(stage, monkeypatch):
    """By the database's clock its lease is over, whatever its own says: a checker decides, by the broker's clock."""
    row_id = stage.order()
    elect = halves.elect

    def stopped(*given):
        time.sleep(3.1)
        return elect(*given)

    with monkeypatch.context() as patch:
        patch.setattr(halves, "elect", stopped)
        counts = stage.relay(stage.another(lease_s=3.0))
    left = stage.row(row_id)
    checked = stage.check(after_s=12)

    assert (0, 1) == (counts.sent, counts.unsettled)
    assert ("pending", None) == (left.state, left.message_id)
    assert (1, 1) == (checked.adopted, checked.committed)
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


def test_relay_says_when_a_half_message_was_posted_at_the_latest(stage):
    """Posted_at is when its row was claimed, by the database's clock: the end of its day cannot come too late."""
    row_id = stage.order()
    before = ago(0)
    stage.relay()
    row = stage.row(row_id)

    assert before - timedelta(seconds=1) < row.posted_at <= row.heard_at
    assert row.posted_at <= row.sent_at


def test_two_half_messages_of_a_row_have_one_winner(stage):
    """The relay tried again after a lost answer: the first is rolled back when the broker asks about it."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish", "count": 1})
    stage.relay()
    stage.relay_again()
    state = stage.state(row_id)
    checked = stage.check(after_s=12)

    assert ("sent", "answer") == state
    assert (1, 0, 1) == (checked.offered, checked.committed, checked.rolled_back)
    assert [0, 1] == stage.visible()


def test_two_undecided_half_messages_in_one_answer_have_one_winner(stage):
    """Both answers were lost: of the two that are offered together one is adopted, the other rolled back."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.relay_again()
    stage.faults()
    checked = stage.check(after_s=12)

    assert (2, 1, 1, 1) == (checked.offered, checked.adopted, checked.committed, checked.rolled_back)
    assert ("sent", "answer") == stage.state(row_id)
    assert 1 == sum(stage.visible())


def test_altered_half_message_is_rolled_back_and_posted_again(stage):
    """The broker took another body than ours: never elected, rolled back at once, and a new one is posted."""
    row_id = stage.order()
    stage.faults({"fault": "wrong_md5", "count": 1})
    stage.relay()
    between = stage.state(row_id)
    stage.relay_again()
    checked = stage.check(after_s=12)

    assert ("pending", None) == between
    assert ("sent", "answer") == stage.state(row_id)
    assert [0, 1] == stage.visible()
    assert 0 == checked.offered, "the altered one was ended"


def test_commit_that_did_not_arrive_is_sent_by_the_checker(stage):
    """The broker offers the half message again, and the checker commits it with the new handle."""
    row_id = stage.order()
    stage.faults({"fault": "commit_dropped_before", "count": 1})
    counts = stage.relay()
    waiting = stage.state(row_id)
    checked = stage.check(after_s=12)

    assert (0, 1) == (counts.sent, counts.unsettled)
    assert ("committing", None) == waiting
    assert 1 == checked.committed
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


def test_commit_whose_answer_was_lost_is_settled_by_silence(stage):
    """It is never sent twice: a canary is offered, the half message is not, so it was committed."""
    row_id = stage.order()
    stage.faults({"fault": "lost_commit", "count": 1})
    stage.relay()
    stage.change(row_id, posted_at=ago(60), heard_at=ago(60))
    posting = stage.check(after_s=12)
    waiting = stage.state(row_id)
    offering = stage.check(after_s=12)

    assert (1, 0) == (posting.canaries, posting.settled)
    assert ("committing", None) == waiting
    assert (1, 1, 1) == (offering.offered, offering.rolled_back, offering.settled)
    assert ("sent", "silence") == stage.state(row_id)
    assert [1] == stage.visible()


def test_silence_while_polls_come_back_empty_proves_nothing(stage):
    """A broker that hides its half messages hides the canary, too: nothing is settled, and later all is committed."""
    row_id = stage.order()
    stage.faults({"fault": "commit_dropped_before", "count": 1}, {"fault": "empty"})
    stage.relay()
    stage.change(row_id, posted_at=ago(60), heard_at=ago(60))
    rounds = [stage.check(after_s=12) for _ in range(3)]
    waiting = stage.state(row_id)
    stage.faults()
    stage.check(after_s=12)

    assert 0 == sum(one.settled for one in rounds)
    assert ("committing", None) == waiting
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


@pytest.mark.parametrize("fault", ["accept_then_drop", "accept_then_500", "garbled", "drop_before"])
def test_failed_poll_proves_nothing(stage, fault):
    """The canary may have been in the answer that was lost, and so may the half message: a new window begins."""
    row_id = stage.order()
    stage.faults({"fault": "lost_commit", "count": 1})
    stage.relay()
    stage.change(row_id, posted_at=ago(60), heard_at=ago(60))
    stage.check(after_s=12)
    stage.faults({"fault": fault, "op": "check"})
    failed = stage.check(after_s=12)
    with stage.runtime.database.engine.connect() as connection:
        canaries = connection.execute(select(checks.c.canary_posted_at, checks.c.canary_offered_at)).all()

    assert 1 == failed.failed_polls
    assert 0 == failed.settled
    assert ("committing", None) == stage.state(row_id)
    assert all(offered is None for _, offered in canaries)


def test_settled_row_is_committed_when_it_is_offered_after_all(stage):
    """Silence may have been wrong: then the half message is still there, and a later offer ends it well."""
    row_id = stage.order()
    stage.faults({"fault": "commit_dropped_before", "count": 1})
    stage.relay()
    stage.change(row_id, state="sent", confirmed_by="silence")
    checked = stage.check(after_s=12)

    assert 1 == checked.committed
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


def test_confirmed_row_that_is_offered_again_is_left_for_an_hour(stage):
    """The broker's own anomaly: left, counted, and after an hour of offers committed, for losing is worse."""
    row_id = stage.order()
    stage.relay()
    stage.faults({"fault": "repeated_check"})
    first = stage.check(after_s=12)
    stage.change(row_id, reoffered_at=ago(3700))
    later = stage.check(after_s=12)
    again = stage.check(after_s=12)

    assert {"ended": 1} == first.alarms
    assert (1, 0) == (later.committed, again.committed)
    assert [2] == stage.visible()


def test_checker_down_for_an_hour_loses_nothing(stage):
    """The broker keeps a half message for a day: a checker that comes back in time finds it."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.faults()
    checked = stage.check(after_s=3600)

    assert 1 == checked.committed
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


def test_checker_down_for_more_than_a_day_leaves_doubt(stage):
    """Elected, never confirmed, offered no more: nothing is proven, nothing sent again; a person decides."""
    row_id = stage.order()
    stage.faults({"fault": "commit_dropped_before", "count": 1})
    stage.relay()
    stage.change(row_id, posted_at=ago(90_000), heard_at=ago(90_000))
    checked = stage.check(after_s=90_000)
    stage.relay()

    assert (0, 0, 1) == (checked.offered, checked.settled, checked.doubted)
    assert ("in_doubt", None) == stage.state(row_id)
    assert [0] == stage.visible()


def test_failed_row_is_never_published_late(stage):
    """Attempts used up on lost answers: every half message of the row is rolled back, so failed means not published."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay(stage.another(max_attempts=1))
    state = stage.state(row_id)
    stage.faults()
    checked = stage.check(after_s=12)

    assert ("failed", None) == state
    assert 1 == checked.rolled_back
    assert [0] == stage.visible()


def test_replayed_row_is_published_once_more_and_only_by_its_new_half(stage):
    """A half message of an older replay is rolled back, though its row is undecided again."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay(stage.another(max_attempts=1))
    stage.faults()
    database = stage.runtime.database
    operate.replay(database, operate.find(database, "replay", ids=[row_id]), by="me", reason="why")
    checked = stage.check(after_s=12)
    stage.relay()

    assert (1, 0) == (checked.rolled_back, checked.adopted)
    assert ("sent", "answer") == stage.state(row_id)
    assert [0, 1] == stage.visible()


def test_checker_asks_for_fewer_where_an_answer_is_too_large(stage):
    """Half messages of the largest size do not fit into one answer together: it goes on with as many as do."""
    ids = commit_four_large_in_vain(stage)
    checker = stage.runtime.checker(SHORT)
    failed = []
    for _ in range(4):
        stage.emulator.advance(12)
        failed.append(checker.run(lambda: True).failed_polls)

    assert [1, 2, 3, 3] == failed, "16, 8 and 4 are too many, 2 are not"
    assert [1] * 4 == stage.visible()
    assert {("sent", "answer")} == {stage.state(row_id) for row_id in ids}


def test_celery_checker_remembers_how_many_fit(stage):
    """Each tick goes on where the last one was: beginning anew with sixteen, none would ever be answered."""
    from outbox.celery.sweep import Sweeper

    commit_four_large_in_vain(stage)
    sweeper = Sweeper(stage.runtime, 30.0)
    for _ in range(4):
        stage.emulator.advance(12)
        sweeper.check()

    assert [1] * 4 == stage.visible()


def test_half_message_of_another_origin_is_left(stage):
    """After a quarantine the original's half messages are the original's to answer for."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.faults()
    origin.quarantine(stage.runtime.database, "default", by="me", reason="restored")
    restored = stage.another()
    nothing = stage.check(after_s=12, runtime=restored)
    stage.order()
    stage.relay(restored)
    checked = stage.check(after_s=12, runtime=restored)

    assert (0, 0) == (nothing.polls, nothing.canaries)
    assert {"foreign": 1} == checked.alarms
    assert ("in_doubt", None) == stage.state(row_id)
    assert [0, 1] == stage.visible()


def test_half_message_that_is_not_the_rows_is_left(stage):
    """Somebody else's half message with our ids is not adopted; neither is the row's own once the row differs."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.faults()
    stage.change(row_id, body="another")
    checked = stage.check(after_s=12)

    assert {"altered": 1} == checked.alarms
    assert ("pending", None) == stage.state(row_id)
    assert [0] == stage.visible()


def test_half_message_of_a_purged_row_is_rolled_back(stage):
    """Ours, but its row is gone: finished long ago by another half message."""
    row_id = stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.faults()
    database = stage.runtime.database
    database.run(lambda connection: connection.execute(messages.delete().where(messages.c.id == row_id)))
    checked = stage.check(after_s=12)

    assert 1 == checked.rolled_back
    assert [0] == stage.visible()


@pytest.mark.parametrize(
    "fault", [{"fault": "early_check"}, {"fault": "wrong_clock", "op": "check", "seconds": 3600.0}]
)
def test_early_offer_or_wrong_date_is_left_to_the_sender(stage, fault):
    """An offer before its time, or one whose Date makes it look old, must not be ended under its sender's hands."""
    stage.order()
    stage.faults({"fault": "accept_then_drop", "op": "publish"})
    stage.relay()
    stage.faults(fault)
    checked = stage.check(after_s=2.0 if fault["fault"] == "early_check" else 10.5)

    assert (1, 1, 0, 0) == (checked.offered, checked.left, checked.committed, checked.rolled_back)
    assert [0] == stage.visible()


def test_throttled_commit_pauses_the_lane_and_is_left_to_the_checker(stage):
    """A commit that was refused is not sent again on its handle; the lane rests as after a refused publish."""
    row_id = stage.order()
    stage.faults({"fault": "throttle", "op": "commit", "count": 1})
    counts = stage.relay()
    checked = stage.check(after_s=12)

    assert 1 == counts.unsettled
    assert 1 == checked.committed
    assert ("sent", "answer") == stage.state(row_id)
    assert [1] == stage.visible()


def test_commit_that_finds_nothing_claims_nothing(stage):
    """A broker that has forgotten what it took answers 404: the row waits, and is not called sent for it."""
    row_id = stage.order()
    stage.faults({"fault": "amnesia", "count": 1})
    counts = stage.relay()

    assert 1 == counts.unsettled
    assert ("committing", None) == stage.state(row_id)
    assert [0] == stage.visible()


def test_celery_task_checks_half_messages(stage):
    """The task `outbox.check` makes one round, and where there is nothing to check it asks no broker."""
    from outbox.celery.sweep import Sweeper

    idle = stage.another()
    Sweeper(idle, 30.0).check()
    asked = stage.emulator.ledger()["requests"]
    row_id = stage.order()
    stage.faults({"fault": "commit_dropped_before", "count": 1})
    stage.relay()
    stage.emulator.advance(12)
    Sweeper(stage.another(), 30.0).check()

    assert 0 == asked
    assert ("sent", "answer") == stage.state(row_id)


def test_stop_ends_half_messages_that_are_in_hand(stage):
    """A warm stop elects and commits what was posted; what was not posted is given back."""
    from outbox.relay import Forever

    ids = stage.enqueue(*(Message("orders", {"n": n}, transaction_check_s=10) for n in range(200)))
    stage.faults(
        {"fault": "slow", "op": "publish", "seconds": 0.05}, {"fault": "slow", "op": "commit", "seconds": 0.05}
    )
    relay = stage.runtime.relay(lambda counts: relay.stop() if counts.sent else None)
    counts = relay.run(Forever())
    rows = [stage.row(row_id) for row_id in ids]

    assert 0 < counts.sent < 200
    assert 0 == counts.unsettled
    assert {"pending", "sent"} == {row.state for row in rows}
    assert {None} == {row.lease_token for row in rows}
    assert counts.sent == sum(stage.visible()) == len(stage.visible())
