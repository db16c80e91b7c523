"""`outbox relay`: what it publishes, when a drain ends, and what it says in the end."""

import socket

import pytest

from tests.commands import KEYS, Commands

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])
# Bodies that something on the way may take for its own: line breaks, XML, JSON, terminals, trimmers.
BODIES = [
    "plain",
    "  leading and trailing  ",
    "\r\n\r\nCR LF\r\nand\rCR\nLF\n",
    "\ttab\t",
    "]]>",
    "<![CDATA[<b>&amp;</b>]]> & < > \" '",
    "&#13;&#10;&lt;",
    "💡 é 名 \u2028 \u2029 \u0085 \ufeff \ud7ff \U0010ffff",
    '{"id": 7, "nested": "\\u0000"}',
    "[bold]%(name)s {0} $HOME `x`",
    "-",
]


@pytest.fixture
def run(migrated_url, emulator):
    """Commands on a migrated database, with the emulator as the broker."""
    return Commands({"OUTBOX_DATABASE_URL": migrated_url, "OUTBOX_ENDPOINT": emulator.url, **KEYS})


@pytest.fixture
def closed_url():
    """An endpoint at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_drain_publishes_bodies_byte_for_byte(run, emulator):
    """What stood on stdin is what the broker was sent, whatever it looks like."""
    for body in BODIES:
        assert 0 == run("enqueue", "--topic", "orders", "-", given=body.encode()).exit_code
    result = run("relay", "--drain")

    assert (0, "") == (result.exit_code, result.stdout)
    assert [f"sent {len(BODIES)}, failed 0, retried 0"] == result.stderr.splitlines()
    assert sorted(BODIES) == sorted(message["body"] for message in emulator.ledger()["messages"])
    assert {"sent"} == set(run.states().values())


def test_drain_publishes_all_parts(run, emulator):
    """Tag, keys, properties and the outbox's own id reach the broker."""
    row_id = run.enqueue("--tag", "new", "--key", "a", "--key", "b", "--property", "region=eu", topic="bills")
    run("relay", "--drain")
    (message,) = emulator.ledger()["messages"]
    shown = run.json("show", row_id)

    assert ("bills", "new", "hello") == (message["topic"], message["tag"], message["body"])
    assert {"KEYS": "a b", "region": "eu", "outbox_id": shown["outbox_id"]} == message["properties"]
    assert (message["message_id"], "answer") == (shown["message_id"], shown["confirmed_by"])


@SQLITE
def test_drain_of_an_empty_outbox_ends(run):
    """Nothing to do is done."""
    result = run("relay", "--drain")

    assert (0, "sent 0, failed 0, retried 0\n") == (result.exit_code, result.stderr)


@SQLITE
def test_drain_leaves_what_is_not_due(run):
    """Neither a schedule beyond the horizon nor an operator's pause keeps a drain from its end."""
    run.enqueue("--deliver-at", "2099-01-01T00:00:00Z")
    run.enqueue(topic="bills")
    run("pause", "bills")
    result = run("relay", "--drain")

    assert (0, "sent 0, failed 0, retried 0\n") == (result.exit_code, result.stderr)
    assert {"pending"} == set(run.states().values())


@SQLITE
def test_drain_counts_failures_and_retries(run, emulator):
    """The last line counts what failed for good and what was tried again; rows that failed do not fail the drain."""
    emulator.fault("accept_then_500", topic="broken")
    emulator.fault("accept_then_500", topic="shaky", count=1)
    broken, shaky = run.enqueue(topic="broken"), run.enqueue(topic="shaky")
    result = run("relay", "--drain", OUTBOX_MAX_ATTEMPTS="2", OUTBOX_BACKOFF_BASE_S="0", OUTBOX_BACKOFF_MAX_S="0")

    assert (0, "sent 1, failed 1, retried 2") == (result.exit_code, result.stderr.splitlines()[-1])
    assert {broken: "failed", shaky: "sent"} == run.states()


@SQLITE
def test_drain_gives_up_without_progress(run, closed_url):
    """After the timeout the drain fails, says what is left and why, and changes nothing for good."""
    row_id = run.enqueue()
    result = run("relay", "--drain", "--timeout", "0.5", OUTBOX_ENDPOINT=closed_url)
    counted, error = result.stderr.splitlines()[-2:]

    assert (1, "") == (result.exit_code, result.stdout)
    assert counted.startswith("sent 0, failed 0, ")
    assert error.startswith("error: no progress for 0.5 s; still pending: 1")
    assert {row_id: "pending"} == run.states()


@SQLITE
def test_relay_takes_a_timeout_only_to_drain(run):
    """A relay that runs for ever has no use for a timeout."""
    result = run("relay", "--timeout", "5")

    assert (2, "error: --timeout goes with --drain; give both or none\n") == (result.exit_code, result.stderr)


@SQLITE
@pytest.mark.parametrize(
    "missing", ["OUTBOX_DATABASE_URL", "OUTBOX_ENDPOINT", "OUTBOX_ACCESS_KEY_ID", "OUTBOX_ACCESS_KEY_SECRET"]
)
def test_relay_names_what_is_missing(run, missing):
    """A relay without one of its settings does not start, and names it."""
    result = run("relay", "--drain", **{missing: ""})

    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith(f"error: {missing}: missing; give ")
    assert "FAKESECRET" not in result.output


@SQLITE
@pytest.mark.parametrize("endpoint", ["mq.example", "ftp://127.0.0.1", "http://example.com", "https://user:pw@host"])
def test_relay_refuses_wrong_endpoints(run, endpoint):
    """A wrong endpoint is told in one line before anything is claimed."""
    result = run("relay", "--drain", OUTBOX_ENDPOINT=endpoint)

    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert result.stderr.startswith("error: OUTBOX_ENDPOINT: ")
