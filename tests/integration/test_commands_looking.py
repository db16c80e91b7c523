"""`outbox status`, `list`, `show`, `audit`: what they tell people and programs, and when the outbox is unhealthy."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from outbox import table
from outbox.outcomes import Fault
from outbox.store.history import add_history
from outbox.store.lanes import Lane
from outbox.store.pauses import pause_automatically
from tests.commands import Commands

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])
# An error text as a hostile or broken endpoint may send it.
HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>[bold red]x[/]\n17  sent  default/orders\r\u202e"
INERT = r"\x1b[2J\x1b]0;owned\x07<script>[bold red]x[/]\n17  sent  default/orders\r\u202e"
STATES = ("pending", "committing", "sent", "failed", "in_doubt", "discarded")


@pytest.fixture
def run(migrated_url):
    """Commands on a migrated database."""
    return Commands({"OUTBOX_DATABASE_URL": migrated_url})


def make_older(run, seconds):
    """As if every row had been enqueued so much earlier."""
    with run.runtime() as runtime:
        then = table.db_after(-seconds)
        earlier = update(table.messages).values(created_at=then, available_at=then)
        runtime.database.run(lambda connection: connection.execute(earlier))


# --- status -------------------------------------------------------------------------------------------------------


def test_status_of_a_fresh_outbox_is_healthy(run):
    """An outbox without a row has nothing wrong with it."""
    result = run("status")

    assert (0, "") == (result.exit_code, result.stderr)
    rest = {"oldest_pending_s": None, "paused": [], "half_messages": [], "schema_version": "0001"}
    assert dict.fromkeys(STATES, 0) | rest == run.json("status")


def test_status_of_a_busy_outbox_is_healthy(run):
    """Rows that have just been enqueued, are scheduled, or stand in an operator's pause, are as they should be."""
    run.enqueue()
    run.enqueue("--deliver-at", "2099-01-01T00:00:00Z")
    run("pause", "orders", "--by", "me", "--reason", "maintenance")
    result, found = run("status"), run.json("status")

    paused = {"destination": "default", "topic": "orders", "until": None, "by": "me", "reason": "maintenance"}
    assert (0, "") == (result.exit_code, result.stderr)
    assert (2, [paused]) == (found["pending"], found["paused"])
    assert 0 <= found["oldest_pending_s"] < 60


@SQLITE
@pytest.mark.parametrize("state", ["failed", "in_doubt"])
def test_status_is_unhealthy_while_rows_wait_for_a_person(run, state):
    """A row that only a person can move on makes the outbox unhealthy; stdout holds the data all the same."""
    run.enqueue(state=state)
    result = run("status", "--json")

    assert (3, f"unhealthy: 1 {state}; see: list --state {state}\n") == (result.exit_code, result.stderr)
    assert 1 == run.json("status")[state]


@SQLITE
@pytest.mark.parametrize("state", ["sent", "discarded"])
def test_status_is_healthy_with_finished_rows(run, state):
    """A finished row needs nobody."""
    run.enqueue(state=state)

    assert 0 == run("status").exit_code


def test_status_is_unhealthy_in_an_automatic_pause(run):
    """While the circuit breaker holds a lane, its endpoint, credentials or topic do not work."""
    with run.runtime() as runtime:
        pause_automatically(
            runtime.database, Lane("default", "orders"), for_s=60, reason="TopicNotExist: no such topic"
        )
    result = run("status")

    assert 3 == result.exit_code
    assert "unhealthy: default/orders is paused: TopicNotExist: no such topic\n" == result.stderr


@SQLITE
def test_status_is_unhealthy_when_rows_wait_too_long(run):
    """A due row that no relay takes is a sign that none runs; how long is too long can be said."""
    run.enqueue()
    make_older(run, 400)
    late, patient = run("status"), run("status", "--max-age", "10m")

    assert (3, 0) == (late.exit_code, patient.exit_code)
    assert late.stderr.startswith("unhealthy: the oldest due row has waited 40")


# --- list and show ------------------------------------------------------------------------------------------------


def test_list_filters(run):
    """Each filter leaves the rows that it names, newest first."""
    ids = [run.enqueue("--key", key, topic=topic) for key, topic in (("a", "orders"), ("b", "orders"), ("a", "bills"))]
    ids.append(run.enqueue("--destination", "billing", state="failed"))

    def listed(*options):
        return [ids.index(row["id"]) for row in run.json("list", *options)["messages"]]

    assert [3, 2, 1, 0] == listed()
    assert [3, 2] == listed("--limit", 2)
    assert [2, 0] == listed("--key", "a")
    assert [2] == listed("--topic", "bills")
    assert [3] == listed("--state", "failed")
    assert [3] == listed("--destination", "billing")
    assert [0] == listed("--topic", "orders", "--key", "a", "--state", "pending", "--destination", "default")


@SQLITE
def test_list_leaves_bodies_out(run):
    """A list can be shown around, and stays small."""
    run.enqueue(body="confidential")

    assert "confidential" not in run("list", "--json").stdout
    assert "confidential" not in run("list").stdout


def test_show_tells_every_column(run):
    """Both ids lead to the whole row: body, properties as an object, keys as a string, instants with a Z."""
    row_id = run.enqueue("--key", "a", "--key", "b", "--property", "region=eu", "--tag", "new", body="  💡\r\n")
    shown = run.json("show", row_id)

    assert shown == run.json("show", shown["outbox_id"])
    assert {column.name for column in table.messages.c} - {"lease_until", "lease_token"} | {"history"} == set(shown)
    assert {"KEYS": "a b", "region": "eu", "outbox_id": shown["outbox_id"]} == shown["properties"]
    assert ("a b", "new", "  💡\r\n", []) == (shown["keys"], shown["tag"], shown["body"], shown["history"])
    assert shown["created_at"].endswith("Z")
    assert datetime.fromisoformat(shown["created_at"]).tzinfo == UTC


@SQLITE
def test_show_tells_the_history(run):
    """Attempts that did not end well are told with the broker's code and words."""
    row_id = run.enqueue()
    fault = Fault("InternalError", "try later", http_status=500, request_id="5EB1A3", accepted=None)
    with run.runtime() as runtime:
        runtime.database.run(lambda connection: add_history(connection, [(row_id, fault)]))
    (attempt,) = run.json("show", row_id)["history"]

    assert ("InternalError", "try later", 500, "5EB1A3", False) == (
        attempt["code"],
        attempt["text"],
        attempt["http_status"],
        attempt["request_id"],
        attempt["outcome_known"],
    )
    assert "InternalError  500          5EB1A3      try later\n" in run("show", row_id).stdout


@SQLITE
@pytest.mark.parametrize("reference", ["99", "9" * 30, "9" * 5000, "0197f3c8-5f0e-7d32-9c55-0d3f6a3b8a11", "nonsense"])
def test_show_tells_of_unknown_ids(run, reference):
    """An id that no row has is a failure in one line."""
    result = run("show", reference)

    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("error: there is no message ")
    assert 1 == result.stderr.count("\n")


@SQLITE
@pytest.mark.parametrize("command", ["list", "show", "audit", "status"])
def test_hostile_texts_are_inert(run, command):
    """Nothing that is stored can act on a terminal, fake a line or pass for markup."""
    row_id = run.enqueue(body=HOSTILE.replace("\x1b", "").replace("\x07", ""), last_error_code="X", last_error=HOSTILE)
    run("pause", "orders", "--reason", HOSTILE, "--by", HOSTILE)
    told = run(command, *([row_id] if command == "show" else [])).stdout

    assert INERT in told
    assert told.isprintable() or {"\n"} == {c for c in told if not c.isprintable()}


@SQLITE
@pytest.mark.parametrize("command", ["list", "show", "audit", "status"])
def test_json_is_one_ascii_document(run, command):
    """Programs get one document, exact to the character, that any locale can carry."""
    row_id = run.enqueue(last_error_code="X", last_error=HOSTILE)
    run("pause", "orders", "--reason", HOSTILE)
    arguments = (command, *([row_id] if command == "show" else []))

    assert run(*arguments, "--json").stdout.isascii()
    assert HOSTILE in _texts(run.json(*arguments))


def _texts(value):
    if isinstance(value, dict | list):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in _texts(one)]
    return [value]


# --- audit --------------------------------------------------------------------------------------------------------


def test_audit_tells_who_did_what(run):
    """Each deed is told with its row, newest first, and one row's deeds can be asked for alone."""
    first, second = (run.enqueue("--key", "a", state="failed") for _ in range(2))
    run("discard", first, "--by", "ann", "--reason", "superseded")
    run("replay", second, "--by", "bob", "--reason", "repaired")
    outbox_id = run.json("show", first)["outbox_id"]
    newest, oldest = run.json("audit")["audit"]

    assert [oldest] == run.json("audit", "--outbox-id", outbox_id)["audit"]
    assert ("bob", "replay", "repaired") == (newest["by"], newest["action"], newest["reason"])
    del oldest["at"]
    assert {
        "by": "ann",
        "action": "discard",
        "reason": "superseded",
        "outbox_id": outbox_id,
        "destination": "default",
        "topic": "orders",
        "keys": "a",
    } == oldest
    assert 1 == len(run.json("audit", "--limit", 1)["audit"])
