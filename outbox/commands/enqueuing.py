"""``outbox enqueue``: messages from the command line, from stdin, or from a file with one JSON object a line."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, BinaryIO

import click

from outbox.commands.context import with_runtime
from outbox.commands.faults import Failure, WrongUsageError
from outbox.commands.values import INSTANT, PROPERTY
from outbox.enqueue import enqueue as insert
from outbox.errors import MessageError
from outbox.message import MAX_BODY_BYTES, Message
from outbox.wiring import Runtime

__all__ = ["enqueue"]

_PARAMETERS = tuple(field.name for field in fields(Message) if field.init)


@click.command(short_help="Enqueue one message, or one a line of JSON.")
@click.option("--topic", help="The topic; needed unless --jsonl is given.")
@click.option("--destination", help="A named destination.  [default: default]")
@click.option("--tag", help="What consumers filter by.")
@click.option("--key", "keys", multiple=True, help="A key to look the message up by; may be repeated.")
@click.option("--property", "properties", type=PROPERTY, multiple=True, help="May be repeated.")
@click.option("--deliver-at", type=INSTANT, help="Not to be delivered before; with a time zone.")
@click.option(
    "--transaction-check-s",
    type=click.IntRange(10, 300),
    metavar="SECONDS",
    help="10 to 300: as a half message, of which at most one is committed.",
)
@click.option("--ordering-key", help="Messages of one key are published one at a time, in order.")
@click.option("--deduplication-key", help="A second message with the same key inserts nothing.")
@click.option("--jsonl", type=click.File("rb", lazy=False), help="One JSON object a line; - is stdin.")
@click.argument("body", required=False)
@with_runtime
def enqueue(runtime: Runtime, /, jsonl: BinaryIO | None, body: str | None, **given: Any) -> None:
    r"""Enqueue messages and print one row id a line.

    BODY goes out as it is, byte for byte; - reads it from stdin, to the last line break. It is UTF-8 text of at most
    4,194,304 bytes, 65,536 with --deliver-at or --transaction-check-s. A half message needs OUTBOX_GROUP_ID where it is
    relayed, and an outbox check that runs.

    --jsonl FILE enqueues one message a line, all in one transaction: all or none. The keys of a line are topic, body
    (a string goes out as it is, any other value as JSON), and if wanted tag, keys (a string or a list), properties
    (an object), deliver_at (ISO 8601 with a time zone), transaction_check_s, ordering_key, deduplication_key,
    destination. The first bad line is named, and nothing is enqueued then.

    \b
    Examples:
      outbox enqueue --topic orders --key order-7 '{"id": 7}'
      outbox enqueue --topic orders --deliver-at 2030-01-31T08:00:00Z hello
      outbox enqueue --topic reports - < report.xml
      outbox enqueue --jsonl messages.jsonl
    """
    options = {name: value for name, value in given.items() if value not in (None, ())}
    if jsonl is not None:
        if body is not None or options:
            raise WrongUsageError("with --jsonl each line is a whole message; leave the other options and BODY out")
        many = list(_messages(jsonl))
    else:
        many = [_message(body, options)]
    for row_id in runtime.database.run(lambda connection: insert(connection, *many)):
        click.echo(row_id)


def _message(body: str | None, options: dict[str, Any]) -> Message:
    if body is None:
        raise WrongUsageError("no body; give it as BODY, as - for stdin, or give --jsonl FILE")
    if "topic" not in options:
        raise WrongUsageError("no topic; give --topic NAME")
    properties = options.get("properties", ())
    if len(dict(properties)) < len(properties):
        raise WrongUsageError("a --property is given twice; give each name once")
    return Message(body=_stdin() if body == "-" else body, **options | {"properties": dict(properties)})


def _stdin() -> str:
    # One byte more than the limit tells that there is too much, however much there is.
    content = sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
    if len(content) > MAX_BODY_BYTES:
        raise MessageError("body", f"more than {MAX_BODY_BYTES} bytes on stdin, which is the limit")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise MessageError("body", f"not UTF-8 at byte {error.start} of stdin; send base64") from error


# --- one message a line -------------------------------------------------------------------------------------------


def _messages(lines: BinaryIO) -> Iterator[Message]:
    """All are made before the transaction begins, so that a slow writer on stdin holds no lock."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _message_of(line)
            except ValueError as error:
                raise Failure(f"line {number}: {_problem(error)}; nothing was enqueued") from error


def _problem(error: ValueError) -> str:
    match error:
        case json.JSONDecodeError():
            return f"is not JSON: {error.msg} at character {error.pos + 1}"
        case UnicodeDecodeError():
            return f"is not UTF-8 at byte {error.start + 1}"
    return str(error)


def _message_of(line: bytes) -> Message:
    try:
        given = json.loads(line.decode(), object_pairs_hook=_without_repetition)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(given, dict):
        raise ValueError(f"is no JSON object but a {type(given).__name__}")  # noqa: TRY004 - the file's fault
    for name in given:
        if name not in _PARAMETERS:
            raise MessageError(name[:64], f"no such key; known: {', '.join(_PARAMETERS)}")
    for name in ("topic", "body"):
        if name not in given:
            raise MessageError(name, "missing")
    return Message(**given | _instants(given))


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    once = dict(pairs)
    if len(once) < len(pairs):
        repeated = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise MessageError(repeated[:64], "stands twice in one object")
    return once


def _instants(given: Mapping[str, Any]) -> dict[str, datetime]:
    text = given.get("deliver_at")
    if not isinstance(text, str):
        return {}
    try:
        return {"deliver_at": datetime.fromisoformat(text)}
    except ValueError:
        raise MessageError("deliver_at", "no instant; give one such as 2030-01-31T08:00:00Z") from None
