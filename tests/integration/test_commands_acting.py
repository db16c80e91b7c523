"""`outbox replay`, `discard`, `pause`, `resume` and `purge`: what they change, what they say, what they refuse."""

import getpass
import os

import pytest
from sqlalchemy import update

from outbox import table
from outbox.store import operate
from tests.commands import Commands

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])


@pytest.fixture
def run(migrated_url):
    """Commands on a migrated database."""
    return Commands({"OUTBOX_DATABASE_URL": migrated_url})


# --- replay and discard -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "state"), [("replay", "pending"), ("discard", "discarded")])
def test_act_on_named_rows(run, verb, state):
    """Rows are named by either id; the others stay as they are; how many is said before and printed after."""
    first, second, third = (run.enqueue(state="failed") for _ in range(3))
    result = run(verb, first, run.json("show", second)["outbox_id"], "--reason", "tested")

    assert (0, f"2 {verb}ed\n", f"2 messages to {verb}\n") == (result.exit_code, result.stdout, result.stderr)
    assert {first: state, second: state, third: "failed"} == run.states()


@pytest.mark.parametrize(("verb", "state"), [("replay", "pending"), ("discard", "discarded")])
def test_act_on_chosen_rows(run, verb, state):
    """Without IDs, all rows of a state, a topic and a destination are meant."""
    chosen = run.enqueue(topic="orders", state="failed")
    other_topic = run.enqueue(topic="bills", state="failed")
    elsewhere = run.enqueue("--destination", "billing", state="failed")
    run(verb, "--state", "failed", "--topic", "orders", "--destination", "default")
    after_the_filter = run.states()
    run(verb, "--state", "failed")

    assert {chosen: state, other_topic: "failed", elsewhere: "failed"} == after_the_filter
    assert {state} == set(run.states().values())


@SQLITE
def test_act_counts_a_row_once(run):
    """A row that is named by both its ids is one row."""
    row_id = run.enqueue(state="failed")
    result = run("discard", row_id, run.json("show", row_id)["outbox_id"])

    assert (0, "1 discarded\n", "1 message to discard\n") == (result.exit_code, result.stdout, result.stderr)


@SQLITE
@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_act_dry_changes_nothing(run, verb):
    """A dry run says how many, and that is all."""
    row_id = run.enqueue(state="failed")
    result = run(verb, row_id, "--dry-run")

    assert (0, "", f"1 message to {verb}\n") == (result.exit_code, result.stdout, result.stderr)
    assert {row_id: "failed"} == run.states()
    assert [] == run.json("audit")["audit"]


@SQLITE
def test_act_on_no_rows_is_done(run):
    """To choose rows of which there are none is no failure: a script may run every hour."""
    result = run("replay", "--state", "failed")

    assert (0, "", "0 messages to replay\n") == (result.exit_code, result.stdout, result.stderr)


@SQLITE
def test_act_is_audited_with_defaults(run):
    """Who does not say who and why is the system user, and gave no reason."""
    run("discard", run.enqueue(state="failed"))
    (entry,) = run.json("audit")["audit"]

    assert (getpass.getuser(), "no reason given") == (entry["by"], entry["reason"])


@SQLITE
@pytest.mark.parametrize(
    ("verb", "state", "then"),
    [("replay", "sent", "pending"), ("replay", "in_doubt", "pending"), ("discard", "in_doubt", "discarded")],
)
def test_act_with_force(run, verb, state, then):
    """What may deliver twice, or forget, must be asked for by --force, by ID and by state alike."""
    row_id = run.enqueue(state=state)
    refused = [run(verb, row_id), run(verb, "--state", state)]

    assert [1, 1] == [result.exit_code for result in refused]
    assert all("--force" in result.stderr for result in refused)
    assert {row_id: state} == run.states()
    assert 0 == run(verb, "--state", state, "--force").exit_code
    assert {row_id: then} == run.states()


@SQLITE
def test_act_is_audited_under_a_number(run, monkeypatch):
    """A container may run as a user whom no file gives a name."""

    def nameless():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nameless)
    run("discard", run.enqueue(state="failed"))

    assert f"uid {os.getuid()}" == run.json("audit")["audit"][0]["by"]


@SQLITE
def test_act_leaves_alone_what_changed_meanwhile(run, monkeypatch):
    """Of two operators who mean the same row one wins, and the other is told."""
    find = operate.find

    def find_late(database, *arguments, **filters):
        found = find(database, *arguments, **filters)
        operate.discard(database, found[:1], by="ann", reason="quicker")
        return found

    monkeypatch.setattr(operate, "find", find_late)
    first, second = (run.enqueue(state="failed") for _ in range(2))
    result = run("replay", first, second)

    assert (1, "1 replayed\n") == (result.exit_code, result.stdout)
    assert "error: 1 of them changed meanwhile and were left alone; look again" == result.stderr.splitlines()[-1]
    assert {first: "discarded", second: "pending"} == run.states()


REFUSED = {
    "pending row": (["1"], "still to be published"),
    "unknown id": (["99"], "there is no message 99"),
    "unknown among known": (["2", "99"], "there is no message 99"),
}


@SQLITE
@pytest.mark.parametrize("verb", ["replay", "discard"])
@pytest.mark.parametrize("name", REFUSED)
def test_act_refuses_as_a_whole(run, verb, name):
    """One row that cannot be changed, or is not there, and none is."""
    arguments, expected = REFUSED[name]
    before = {run.enqueue(): "pending", run.enqueue(state="failed"): "failed"}
    result = run(verb, *arguments, "--force")

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert expected in result.stderr
    assert before == run.states()


WRONG_USAGE = {
    "nothing": ([], "give either IDs or --state"),
    "both": (["1", "--state", "failed"], "give either IDs or --state"),
    "topic beside ids": (["1", "--topic", "orders"], "--topic and --destination go with --state"),
    "impossible state": (["--state", "pending"], "Invalid value for '--state'"),
    "nobody": (["1", "--by", " "], "Invalid value for '--by'"),
    "too long a name": (["1", "--by", "x" * 151], "151 characters; give 1 to 150"),
}


@SQLITE
@pytest.mark.parametrize("verb", ["replay", "discard"])
@pytest.mark.parametrize("name", WRONG_USAGE)
def test_act_tells_wrong_usage(run, verb, name):
    """A command line that does not say which rows is refused before the database is asked."""
    arguments, expected = WRONG_USAGE[name]
    result = run(verb, *arguments)

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert expected in result.stderr


def test_act_takes_only_utf_8(run):
    """A text that no database can hold is told in one line."""
    result = run("replay", run.enqueue(state="failed"), "--reason", "caf\udce9")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "error: a text on the command line is not UTF-8; give it as UTF-8" == result.stderr.splitlines()[-1]


# --- pause and resume ---------------------------------------------------------------------------------------------


def test_pause_and_resume(run):
    """A pause shows in the status until it is resumed, with who and why; both are audited."""
    paused = run("pause", "orders", "--destination", "billing", "--by", "ann", "--reason", "maintenance")
    (pause,) = run.json("status")["paused"]
    resumed = run("resume", "orders", "--destination", "billing", "--by", "bob", "--reason", "done")

    assert [(0, "billing/orders is paused until it is resumed\n"), (0, "billing/orders is resumed\n")] == [
        (result.exit_code, result.stderr) for result in (paused, resumed)
    ]
    assert ("billing", "orders", None, "ann", "maintenance") == tuple(
        pause[name] for name in ("destination", "topic", "until", "by", "reason")
    )
    assert [] == run.json("status")["paused"]
    assert [("resume", "bob", "done"), ("pause", "ann", "maintenance")] == [
        (entry["action"], entry["by"], entry["reason"]) for entry in run.json("audit")["audit"]
    ]


@SQLITE
def test_resume_without_a_pause(run):
    """To resume what is not paused changes nothing and says so."""
    result = run("resume", "orders")

    assert (0, "default/orders was not paused by an operator\n") == (result.exit_code, result.stderr)


@SQLITE
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_takes_only_names(run, verb):
    """A topic that no message can have is a slip of the hand."""
    result = run(verb, "or ders")

    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "give 1 to 64 of A-Z a-z 0-9 _ -" in result.stderr


# --- purge --------------------------------------------------------------------------------------------------------


@pytest.fixture
def aged(run):
    """Row ids of one row in each state, all two hours old."""
    ids = {state: run.enqueue(state=state) for state in ("pending", "sent", "failed", "discarded")}
    with run.runtime() as runtime:
        then = table.db_after(-7200)
        earlier = update(table.messages).values(created_at=then, sent_at=then)
        runtime.database.run(lambda connection: connection.execute(earlier))
    return ids


def test_purge_deletes_finished_rows(run, aged):
    """Rows that are sent or discarded and old enough go; the number is printed; no other row is touched."""
    results = [run("purge", "--older-than", "3h"), run("purge", "--older-than", "90m"), run("purge")]

    assert ["0 deleted\n", "2 deleted\n", "0 deleted\n"] == [result.stdout for result in results]
    assert {aged["pending"]: "pending", aged["failed"]: "failed"} == run.states()


@SQLITE
def test_purge_dry_changes_nothing(run, aged):
    """A dry run prints how many would go."""
    result = run("purge", "--older-than", "90m", "--dry-run")

    assert (0, "2 to delete\n") == (result.exit_code, result.stdout)
    assert 4 == run.count()


@SQLITE
def test_purge_takes_the_retention(run, aged):
    """Without --older-than the setting says how old is old enough."""
    assert "2 deleted\n" == run("purge", OUTBOX_RETENTION_S="3600").stdout


@SQLITE
@pytest.mark.parametrize("duration", ["7", "d", "-1d", "1.5h", "7 d", "7w", "99999999999s", "99999d", "", "٣d"])
def test_purge_takes_only_durations(run, duration):
    """What is no duration deletes nothing."""
    result = run("purge", f"--older-than={duration}")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "give one such as 90s, 30m, 12h or 7d" in result.stderr
