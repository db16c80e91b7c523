"""``outbox check``, ``outbox quarantine``, and how a message becomes a half message on the command line."""

import pytest

from tests.commands import KEYS, Commands

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def run(migrated_url, emulator):
    settings = {"OUTBOX_DATABASE_URL": migrated_url, "OUTBOX_ENDPOINT": emulator.url, "OUTBOX_GROUP_ID": "GID_orders"}
    return Commands(KEYS | settings)


def test_check_once_answers_what_is_asked(run, emulator):
    """A half message whose commit did not arrive is committed, and the last line counts it."""
    row_id = run.enqueue("--transaction-check-s", 10)
    emulator.fault("commit_dropped_before", count=1)
    run("relay", "--drain")
    waiting, (topic,) = run.states(), run.json("status")["half_messages"]
    emulator.advance(12)
    result = run("check", "--once")

    assert {row_id: "committing"} == waiting
    assert ("orders", "GID_orders", None) == (topic["topic"], topic["group_id"], topic["checked_s"])
    assert (0, "") == (result.exit_code, result.stdout)
    assert "offered 1, committed 1, rolled back 0, settled 0, in doubt 0" in result.stderr
    assert {row_id: "sent"} == run.states()


def test_check_once_fails_with_its_poll(run, emulator):
    """Whoever runs it by hand learns that nothing was asked."""
    run.enqueue("--transaction-check-s", 10)
    run("relay", "--drain")
    emulator.fault("refuse", op="check")

    assert 1 == run("check", "--once").exit_code


def test_check_refuses_another_environment(run):
    """A copied database answers for nobody until it is quarantined."""
    run.enqueue("--transaction-check-s", 10)
    run("relay", "--drain")
    refused = run("check", "--once", OUTBOX_ENVIRONMENT="copy")
    run("quarantine", "--reason", "a copy", OUTBOX_ENVIRONMENT="copy")

    assert 1 == refused.exit_code
    assert "OUTBOX_ENVIRONMENT" in refused.stderr
    assert 0 == run("check", "--once", OUTBOX_ENVIRONMENT="copy").exit_code


def test_quarantine_says_how_many_are_in_doubt(run):
    """Half messages that are not finished are, normal ones are not; each is in the audit."""
    held, normal = run.enqueue("--transaction-check-s", 300), run.enqueue()
    result = run("quarantine", "--reason", "restored", "--by", "me")

    assert (0, "1 in_doubt\n") == (result.exit_code, result.stdout)
    assert {held: "in_doubt", normal: "pending"} == run.states()
    assert [("quarantine", "me")] == [(act["action"], act["by"]) for act in run.json("audit")["audit"]]


@pytest.mark.parametrize("seconds", ["9", "301", "x"])
def test_enqueue_refuses_a_check_time_out_of_range(run, seconds):
    """Every value from 10 to 300 is the broker's, and no other."""
    assert 2 == run("enqueue", "--topic", "orders", "--transaction-check-s", seconds, "hello").exit_code
    assert 0 == run.count()
