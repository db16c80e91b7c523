"""`outbox enqueue`: what is given on a command line, on stdin or in a file is in the table exactly, or not at all."""

import json
from datetime import UTC, datetime

import pytest

from outbox.message import MAX_BODY_BYTES
from tests.commands import Commands

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])
# Everything that a text goes through on its way: the shell, line breaks, XML, JSON, four-byte characters.
DIFFICULT = '  <b>]]></b> & "quotes" \\n\r\n\ttab\r 💡 café \u2028 trailing  \n'


@pytest.fixture
def run(migrated_url):
    """Commands on a migrated database."""
    return Commands({"OUTBOX_DATABASE_URL": migrated_url})


def test_enqueue_stores_every_option(run):
    """Each option reaches the column that bears its name."""
    options = ["--topic", "orders", "--tag", "created", "--key", "order-7", "--key", "shop-1", "--property", "a=b=c"]
    options += ["--ordering-key", "shop-1", "--deduplication-key", "order-7", "--destination", "billing"]
    result = run("enqueue", *options, "hello")

    (row,) = run.rows()
    assert (f"{row.id}\n", "", 0) == (result.stdout, result.stderr, result.exit_code)
    assert ("orders", "created", "order-7 shop-1", "shop-1", "order-7") == (
        row.topic,
        row.tag,
        row.keys,
        row.ordering_key,
        row.deduplication_key,
    )
    assert ("billing", "hello", "pending") == (row.destination, row.body, row.state)
    assert "a:b=c|" in row.properties


@SQLITE
def test_enqueue_reads_the_instant(run):
    """An instant of any time zone is stored as the instant that it is."""
    result = run("enqueue", "--topic", "orders", "--deliver-at", "2030-01-31T09:00:00+01:00", "hello")

    assert 0 == result.exit_code
    assert datetime(2030, 1, 31, 8, tzinfo=UTC) == run.rows()[0].deliver_at


def test_enqueue_keeps_stdin_byte_for_byte(run):
    """What stands on stdin is the body, line breaks and all."""
    result = run("enqueue", "--topic", "orders", "-", given=DIFFICULT.encode())

    assert 0 == result.exit_code, result.output
    assert DIFFICULT == run.rows()[0].body


@SQLITE
def test_enqueue_finds_the_first_of_a_deduplication_key(run):
    """A second message with the same key inserts nothing and prints the first one's id."""
    command = ("enqueue", "--topic", "orders", "--deduplication-key", "order-7", "hello")
    first, second = run(*command), run(*command)

    assert first.stdout == second.stdout
    assert 1 == run.count()


def test_enqueue_takes_a_file_of_messages(run, tmp_path):
    """Each line is a message with Message's own parameters, and prints its row id in the order of the lines."""
    lines = [
        {"topic": "orders", "body": {"id": 7, "名": "é"}, "keys": ["a", "b"], "properties": {"region": "eu"}},
        {"topic": "orders", "body": DIFFICULT, "keys": "c", "tag": None},
        {"topic": "orders", "body": [1, None, True], "deliver_at": "2030-01-31T08:00:00Z"},
    ]
    file = tmp_path / "messages.jsonl"
    file.write_text("\r\n".join(json.dumps(line) for line in lines) + "\n\n")
    result = run("enqueue", "--jsonl", file)

    rows = run.rows()
    assert (0, [row.id for row in rows]) == (result.exit_code, [int(line) for line in result.stdout.splitlines()])
    assert ['{"id":7,"名":"é"}', DIFFICULT, "[1,null,true]"] == [row.body for row in rows]
    assert ["a b", "c", None] == [row.keys for row in rows]


@SQLITE
def test_enqueue_takes_lines_from_stdin(run):
    """A dash is stdin, also for lines; many lines are few statements."""
    result = run("enqueue", "--jsonl", "-", given='{"topic": "orders", "body": "x"}\n' * 2500)

    assert 2500 == len(result.stdout.splitlines())
    assert 2500 == run.count()


@SQLITE
def test_enqueue_of_no_lines_does_nothing(run):
    """An empty file holds no message, and that is no failure."""
    result = run("enqueue", "--jsonl", "-", given="\n")

    assert (0, "") == (result.exit_code, result.output)


GOOD = b'{"topic": "orders", "body": "fine"}'
BAD_LINES = {
    "not JSON": (b"{'topic': 1}", "line 2: is not JSON: "),
    "cut off": (b'{"topic": "orders"', "line 2: is not JSON: "),
    "no object": (b'["orders"]', "line 2: is no JSON object but a list"),
    "nested": (b"[" * 100_000, "line 2: is nested too deep"),
    "not UTF-8": (b'{"topic": "orders", "body": "\xff"}', "line 2: is not UTF-8 at byte 30"),
    "unknown key": (b'{"topic": "orders", "body": "x", "delay": 5}', "line 2: delay: no such key; known: topic, body"),
    "computed key": (b'{"topic": "orders", "body": "x", "body_bytes": 5}', "line 2: body_bytes: no such key"),
    "repeated key": (b'{"topic": "orders", "topic": "o", "body": "x"}', "line 2: topic: stands twice"),
    "repeated inside": (b'{"topic": "orders", "body": {"a": 1, "a": 2}}', "line 2: a: stands twice"),
    "no topic": (b'{"body": "x"}', "line 2: topic: missing"),
    "no body": (b'{"topic": "orders"}', "line 2: body: missing"),
    "bad topic": (b'{"topic": "or ders", "body": "x"}', "line 2: topic: got 7 characters"),
    "wrong type": (b'{"topic": 5, "body": "x"}', "line 2: topic: got int"),
    "NaN": (b'{"topic": "orders", "body": NaN}', "line 2: body: "),
    "illegal character": (b'{"topic": "orders", "body": "a\\u0000"}', "line 2: body: U+0000 at position 1"),
    "half a surrogate": (b'{"topic": "orders", "body": "\\ud83d"}', "line 2: body: U+D83D at position 0"),
    "huge number": (b'{"topic": "orders", "body": ' + b"9" * 5000 + b"}", "line 2: "),
    "no instant": (b'{"topic": "orders", "body": "x", "deliver_at": "soon"}', "line 2: deliver_at: no instant"),
    "no time zone": (b'{"topic": "orders", "body": "x", "deliver_at": "2030-01-31T08:00:00"}', "line 2: deliver_at: "),
    "number as instant": (b'{"topic": "orders", "body": "x", "deliver_at": 1}', "line 2: deliver_at: got int"),
    "too large": (
        b'{"topic": "orders", "body": "' + b"x" * (MAX_BODY_BYTES + 1) + b'"}',
        "line 2: body: 4194305 UTF-8",
    ),
    "spoofed": (b'{"topic": "orders", "body": "x", "a\\u001b[2J": 1}', "line 2: a\\x1b[2J: no such key"),
}


@SQLITE
@pytest.mark.parametrize("name", BAD_LINES)
def test_enqueue_names_the_first_bad_line(run, name):
    """A bad line is named by number and field in one line, and nothing of the file is enqueued."""
    line, expected = BAD_LINES[name]
    result = run("enqueue", "--jsonl", "-", given=b"\n".join([GOOD, line, GOOD, b"also bad"]))

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: " + expected)
    assert result.stderr.endswith("; nothing was enqueued\n")
    assert 0 == run.count()


REFUSED = {
    "too large": (["--topic", "orders", "-"], b"x" * (MAX_BODY_BYTES + 1), "body: more than 4194304 bytes on stdin"),
    "empty": (["--topic", "orders", "-"], b"", "body: an empty string"),
    "not UTF-8": (["--topic", "orders", "-"], b"ab\xff", "body: not UTF-8 at byte 2 of stdin"),
    "illegal character": (["--topic", "orders", "a\x00b"], None, "body: U+0000 at position 1"),
    "not UTF-8 argument": (["--topic", "orders", "a\udcffb"], None, "body: U+DCFF at position 1"),
    "no time zone": (["--topic", "orders", "--deliver-at", "2030-01-31", "x"], None, "deliver_at: "),
    "two kinds": (
        ["--topic", "orders", "--deliver-at", "2030-01-31T00Z", "--ordering-key", "k", "x"],
        None,
        "ordering_key: ",
    ),
    "bad property": (["--topic", "orders", "--property", "a=b|c", "x"], None, "properties"),
    "key with a space": (["--topic", "orders", "--key", "a b", "x"], None, "keys: a key holds a space"),
}


@SQLITE
@pytest.mark.parametrize("name", REFUSED)
def test_enqueue_refuses_what_the_broker_would(run, name):
    """A message that breaks a limit is one line on stderr, exit code 1, and no row."""
    arguments, given, expected = REFUSED[name]
    result = run("enqueue", *arguments, given=given)

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: " + expected)
    assert 0 == run.count()


WRONG_USAGE = {
    "nothing": ([], "no body"),
    "no topic": (["hello"], "no topic"),
    "no body": (["--topic", "orders"], "no body"),
    "two bodies": (["--topic", "orders", "hello", "world"], "unexpected extra argument"),
    "body beside lines": (["--jsonl", "-", "hello"], "with --jsonl"),
    "option beside lines": (["--jsonl", "-", "--topic", "orders"], "with --jsonl"),
    "no file": (["--jsonl", "/nonexistent/file"], "No such file"),
    "no equals sign": (["--topic", "orders", "--property", "region", "x"], "no equals sign"),
    "property twice": (["--topic", "orders", "--property", "a=b", "--property", "a=c", "x"], "twice"),
    "no instant": (["--topic", "orders", "--deliver-at", "soon", "x"], "'soon' is no instant"),
    "unknown option": (["--topci", "orders", "x"], "No such option"),
}


@SQLITE
@pytest.mark.parametrize("name", WRONG_USAGE)
def test_enqueue_tells_wrong_usage(run, name):
    """A command line that cannot be understood is one line on stderr and exit code 2."""
    arguments, expected = WRONG_USAGE[name]
    result = run("enqueue", *arguments)

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert 0 == run.count()
