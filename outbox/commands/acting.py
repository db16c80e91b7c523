"""The commands by which an operator acts: replay, discard, pause, resume, purge. The first four are audited."""

import sys
from collections.abc import Callable
from typing import Any

import click

from outbox.commands.context import with_runtime
from outbox.commands.faults import Failure, WrongUsageError
from outbox.commands.output import talk
from outbox.commands.values import DURATION, NAME, REFERENCE, by_option, destination_option, reason_option
from outbox.states import State, sources
from outbox.store import operate, pauses
from outbox.store.lanes import Lane
from outbox.store.purge import count_purgeable
from outbox.store.purge import purge as delete_finished
from outbox.wiring import Runtime

__all__ = ["discard", "pause", "purge", "replay", "resume"]

_dry_run_option = click.option("--dry-run", is_flag=True, help="Change nothing; say how many.")


def _options(verb: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What replay and discard are told: which rows, by whom, why, and how sure."""
    states = click.Choice(sorted(state.value for state in sources(verb, forced=True)))
    options = (
        click.argument("ids", metavar="[ID]...", nargs=-1, type=REFERENCE),
        click.option("--state", type=states, help="All rows in this state, instead of IDs."),
        click.option("--topic", type=NAME, help="With --state: only rows of this topic."),
        click.option("--destination", type=NAME, help="With --state: only rows of this destination."),
        reason_option,
        by_option,
        _dry_run_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command(short_help="Put failed rows back to pending.")
@_options("replay")
@click.option("--force", is_flag=True, help="Also rows that are sent or in_doubt: they may be delivered twice.")
@with_runtime
def replay(runtime: Runtime, /, **given: Any) -> None:
    r"""Put failed rows back to pending, due at once, as if they had never been tried.

    IDs are row ids or outbox_ids; instead of them, --state failed takes all. On stderr it first says how many. On a
    terminal it then asks, unless --yes is given; without a terminal it never asks.

    \b
    Examples:
      outbox replay 17 18 --reason 'endpoint repaired'
      outbox replay --state failed --topic orders --reason 'topic created' --yes
    """
    _act(runtime, "replay", operate.replay, **given)


@click.command(short_help="Close failed rows for good.")
@_options("discard")
@click.option("--force", is_flag=True, help="Also rows that are in_doubt: they may never have been delivered.")
@with_runtime
def discard(runtime: Runtime, /, **given: Any) -> None:
    r"""Close failed rows for good; what waits behind them in their ordering keys goes on.

    IDs are row ids or outbox_ids; instead of them, --state failed takes all. On stderr it first says how many. On a
    terminal it then asks, unless --yes is given; without a terminal it never asks.

    \b
    Example:
      outbox discard 17 --reason 'superseded by order-9'
    """
    _act(runtime, "discard", operate.discard, **given)


def _act(
    runtime: Runtime,
    verb: str,
    deed: Callable[..., int],
    *,
    ids: tuple[str, ...],
    state: str | None,
    by: str,
    reason: str,
    dry_run: bool,
    yes: bool,
    force: bool,
    **lane: str | None,
) -> None:
    if bool(ids) == bool(state):
        raise WrongUsageError("give either IDs or --state")
    if ids and any(lane.values()):
        raise WrongUsageError("--topic and --destination go with --state; an ID says it all")
    meant = State(state) if state else None
    found = operate.find(runtime.database, verb, ids=ids, state=meant, force=force, **lane)
    # A row may be named by both its ids.
    targets = list(dict.fromkeys(found))
    told = f"{len(targets)} {'message' if len(targets) == 1 else 'messages'}"
    talk(f"{told} to {verb}")
    if dry_run or not targets:
        return
    if not yes and _can_ask() and not click.confirm(f"{verb.capitalize()} {told}?", err=True):
        raise Failure("nothing was done, as you said")
    done = deed(runtime.database, targets, by=by, reason=reason, force=force)
    click.echo(f"{done} {verb}ed")
    if done < len(targets):
        raise Failure(f"{len(targets) - done} of them changed meanwhile and were left alone; look again")


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@click.command(short_help="Stop claims in a lane.")
@click.argument("topic", type=NAME)
@destination_option
@reason_option
@by_option
@with_runtime
def pause(runtime: Runtime, /, topic: str, destination: str, reason: str, by: str) -> None:
    """Stop claims in the lane of TOPIC until `outbox resume`; what is in flight is finished."""
    pauses.pause(runtime.database, Lane(destination, topic), by=by, reason=reason)
    talk(f"{destination}/{topic} is paused until it is resumed")


@click.command(short_help="End an operator's pause of a lane.")
@click.argument("topic", type=NAME)
@destination_option
@reason_option
@by_option
@with_runtime
def resume(runtime: Runtime, /, topic: str, destination: str, reason: str, by: str) -> None:
    """End an operator's pause of the lane of TOPIC. An automatic pause ends by itself, when its cause does."""
    if pauses.resume(runtime.database, Lane(destination, topic), by=by, reason=reason):
        talk(f"{destination}/{topic} is resumed")
    else:
        talk(f"{destination}/{topic} was not paused by an operator")


@click.command(short_help="Delete old finished rows.")
@click.option("--older-than", type=DURATION, help="90s, 30m, 12h, 7d.  [default: OUTBOX_RETENTION_S]")
@_dry_run_option
@with_runtime
def purge(runtime: Runtime, /, older_than: float | None, dry_run: bool) -> None:
    """Delete rows that have been sent or discarded for longer than --older-than, and print how many.

    No other row is ever deleted. It works in small batches, each a transaction of its own.
    """
    older_than_s = runtime.settings.retention_s if older_than is None else older_than
    if dry_run:
        click.echo(f"{count_purgeable(runtime.database, older_than_s)} to delete")
    else:
        click.echo(f"{delete_finished(runtime.database, older_than_s)} deleted")
