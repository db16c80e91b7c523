"""The commands that look and change nothing: status, list, show, audit."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from outbox.commands.context import with_runtime
from outbox.commands.faults import ExitCode
from outbox.commands.output import json_option, print_fields, print_json, print_table, print_text, talk
from outbox.commands.values import DURATION, NAME, REFERENCE
from outbox.states import State
from outbox.store import look
from outbox.wiring import Runtime

__all__ = ["audit", "list_", "show", "status", "what_is_left"]

_limit_option = click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many, newest first."
)


@click.command(short_help="Counts by state, age of the oldest due row, pauses.")
@click.option(
    "--max-age", type=DURATION, default="5m", show_default=True, help="Unhealthy when a due row has waited longer."
)
@json_option
@with_runtime
def status(runtime: Runtime, /, max_age: float, as_json: bool) -> None:
    r"""Say how the outbox is.

    \b
    It exits 3, and says why on stderr, when something needs a person:
      rows are failed or in_doubt: they wait for replay or discard
      a lane is in an automatic pause: its endpoint, credentials or topic do not work
      the oldest due row has waited longer than --max-age: no relay runs, or it cannot keep up
      half messages wait for a checker, and none has polled their topic for --max-age
    A fresh outbox, rows that wait for their deliver_at, and an operator's pause are healthy.
    """
    found = look.status(runtime.database)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    unhealthy = list(_unhealthy(found, max_age))
    for why in unhealthy:
        talk(f"unhealthy: {why}")
    if unhealthy:
        raise click.exceptions.Exit(ExitCode.UNHEALTHY)


def _print_status(found: Mapping[str, Any]) -> None:
    age = found["oldest_pending_s"]
    fields = {str(state): found[state] for state in State}
    fields["oldest pending"] = None if age is None else f"{age:.1f} s"
    print_fields(fields | {"schema version": found["schema_version"]})
    if found["paused"]:
        click.echo()
        rows = [(_lane(one), one["until"], one["by"], one["reason"]) for one in found["paused"]]
        print_table(("paused", "until", "by", "reason"), rows)
    if found["half_messages"]:
        click.echo()
        halves = [(_lane(one), one["group_id"], one["unsettled"], _ago(one)) for one in found["half_messages"]]
        print_table(("half messages", "group", "unsettled", "last checked"), halves)


def _ago(topic: Mapping[str, Any]) -> str:
    return "never" if topic["checked_s"] is None else f"{topic['checked_s']:.0f} s ago"


def _unhealthy(found: Mapping[str, Any], max_age: float) -> Iterator[str]:
    held = [(found[state], state) for state in (State.FAILED, State.IN_DOUBT) if found[state]]
    for number, state in held:
        yield f"{number} {state}; see: list --state {state}"
    for pause in found["paused"]:
        # An operator's pause lasts until it is resumed, and is meant.
        if pause["until"] is not None:
            yield f"{_lane(pause)} is paused: {pause['reason']}"
    for topic in found["half_messages"]:
        if topic["unsettled"] and (topic["checked_s"] is None or topic["checked_s"] > max_age):
            yield f"{_lane(topic)} has {topic['unsettled']} unsettled half messages; is outbox check running?"
    age = found["oldest_pending_s"]
    if age is not None and age > max_age:
        yield f"the oldest due row has waited {age:.0f} s; is a relay running?"


def what_is_left(runtime: Runtime) -> str:
    """What a relay that ends early leaves behind, in one line."""
    found = look.status(runtime.database)
    paused = "".join(f"; {_lane(one)} is paused: {one['reason']}" for one in found["paused"])
    return f"still pending: {found[State.PENDING]}{paused}"


@click.command("list", short_help="Rows, newest first, without their bodies.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only rows in this state.")
@click.option("--topic", type=NAME, help="Only rows of this topic.")
@click.option("--destination", type=NAME, help="Only rows of this destination.")
@click.option("--key", help="Only rows with this key among their keys.")
@_limit_option
@json_option
@with_runtime
def list_(runtime: Runtime, /, as_json: bool, state: str | None, **given: Any) -> None:
    r"""List rows, newest first, without their bodies.

    \b
    Example:
      outbox list --state failed --topic orders
    With --json: {"messages": [...]}
    """
    messages = look.list_messages(runtime.database, state=State(state) if state else None, **given)
    if as_json:
        print_json({"messages": messages})
        return
    header = ("id", "state", "lane", "keys", "attempts", "created", "error")
    shown = ("id", "state", "lane", "keys", "attempts", "created_at", "error")
    rows = [one | {"lane": _lane(one), "error": _error(one)} for one in messages]
    print_table(header, [[row[name] for name in shown] for row in rows])


@click.command(short_help="Everything about one row.")
@click.argument("reference", metavar="ID", type=REFERENCE)
@json_option
@with_runtime
def show(runtime: Runtime, /, reference: str, as_json: bool) -> None:
    """Show one row: all columns, its body, and its attempts that did not end well.

    ID is the row id or the outbox_id.
    """
    message = look.show(runtime.database, reference)
    if as_json:
        print_json(message)
        return
    properties = " ".join(f"{name}={value}" for name, value in message["properties"].items())
    apart = {"body", "history", "properties"}
    print_fields({name: value for name, value in message.items() if name not in apart} | {"properties": properties})
    print_text("body", message["body"])
    if message["history"]:
        click.echo()
        names = ("at", "code", "http_status", "request_id", "text")
        print_table(names, [[attempt[name] for name in names] for attempt in message["history"]])


@click.command(short_help="What operators did.")
@click.option("--outbox-id", help="Only what was done to this row.")
@_limit_option
@json_option
@with_runtime
def audit(runtime: Runtime, /, as_json: bool, outbox_id: str | None, limit: int) -> None:
    """List what operators did, newest first: when, who, what, to which row, and why.

    With --json: {"audit": [...]}
    """
    entries = look.audited(runtime.database, outbox_id=outbox_id, limit=limit)
    if as_json:
        print_json({"audit": entries})
        return
    rows = [(one["at"], one["by"], one["action"], _lane(one), one["outbox_id"], one["reason"]) for one in entries]
    print_table(("at", "by", "action", "lane", "outbox id", "reason"), rows)


def _lane(one: Mapping[str, Any]) -> str:
    return f"{one['destination']}/{one['topic']}"


def _error(message: Mapping[str, Any]) -> str | None:
    if message["last_error_code"] is None:
        return None
    return f"{message['last_error_code']}: {message['last_error']}"
