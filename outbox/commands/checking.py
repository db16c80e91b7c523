"""``outbox check`` and ``outbox quarantine``: half messages after their relay has let go of them."""

import signal

import click

from outbox.commands.context import with_runtime
from outbox.commands.faults import ExitCode, Failure
from outbox.commands.output import talk
from outbox.commands.stopping import stopped_by_signals
from outbox.commands.values import by_option, reason_option
from outbox.store import look, origin
from outbox.wiring import Runtime

__all__ = ["check", "quarantine"]


@click.command(short_help="Answer the broker's checks of half messages.")
@click.option("--once", is_flag=True, help="One round over all topics.")
@with_runtime
def check(runtime: Runtime, /, once: bool) -> None:
    r"""Answer the broker's checks of half messages, and settle what it no longer asks about.

    Needs what relay needs, and OUTBOX_GROUP_ID. Any number may run at once, on any number of machines; one must run at
    least once a day, or half messages whose commit was not confirmed end in_doubt.

    SIGTERM and Ctrl-C stop it after the poll at hand. The last line on stderr counts what was done. With --once it
    exits 1 when a poll failed, or a topic could not be checked with these settings.
    """
    # A database that is not there is told now; one that goes away later is waited for.
    look.paused(runtime.database)
    checker = runtime.checker()
    with stopped_by_signals(checker.stop) as received:
        counts = checker.run(lambda: once)
    talk(
        f"offered {counts.offered}, committed {counts.committed}, rolled back {counts.rolled_back}, "
        f"settled {counts.settled}, in doubt {counts.doubted}"
    )
    for reason, number in sorted(counts.alarms.items()):
        talk(f"left alone, {reason}: {number}")
    for topic, why in sorted(counts.skipped.items()):
        talk(f"not checked, {topic.topic} of {topic.destination}: {why}")
    if signal.SIGINT in received:
        raise click.exceptions.Exit(ExitCode.INTERRUPTED)
    if once and counts.failed_polls:
        raise Failure(f"{counts.failed_polls} polls failed; see the warnings above")
    if once and counts.skipped:
        raise Failure(f"{len(counts.skipped)} topics were not checked, as said above")


@click.command(short_help="Make a restored or copied database safe.")
@reason_option
@by_option
@with_runtime
def quarantine(runtime: Runtime, /, reason: str, by: str) -> None:
    """Give this database a new origin, and put in_doubt what may have been sent since it was copied.

    For a database that was restored from a backup or is a copy of another, before any relay or checker runs on it: rows
    of half messages that are pending, committing or failed may have been published by the other. Look at each, then
    replay --force or discard --force. Rows of other messages are not touched.
    """
    held = origin.quarantine(runtime.database, runtime.settings.environment, by=by, reason=reason)
    click.echo(f"{held} in_doubt")
