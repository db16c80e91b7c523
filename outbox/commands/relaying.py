"""``outbox relay``: the relay in a process of its own, with a progress bar and a warm stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from outbox.commands.context import with_runtime
from outbox.commands.faults import ExitCode, Failure, WrongUsageError
from outbox.commands.looking import what_is_left
from outbox.commands.output import talk
from outbox.commands.stopping import stopped_by_signals
from outbox.commands.values import SECONDS
from outbox.relay import Counts, Drained, Forever
from outbox.store import look
from outbox.wiring import Runtime

__all__ = ["relay"]

_DRAIN_TIMEOUT_S = 60.0


@click.command(short_help="Relay without Celery, for ever or until drained.")
@click.option("--drain", is_flag=True, help="End when nothing is left to do now.")
@click.option(
    "--timeout",
    type=SECONDS,
    metavar="SECONDS",
    help="With --drain: fail after so long without progress.  [default: 60]",
)
@with_runtime
def relay(runtime: Runtime, /, drain: bool, timeout: float | None) -> None:
    r"""Publish what is due: claim, publish, mark.

    Needs OUTBOX_DATABASE_URL, OUTBOX_ENDPOINT, OUTBOX_ACCESS_KEY_ID, OUTBOX_ACCESS_KEY_SECRET and, where the instance
    has one, OUTBOX_INSTANCE_ID. Any number of relays may run at once, on any number of machines.

    --drain waits for backoffs, for leases of other relays and for automatic pauses. It does not wait for messages
    whose --deliver-at is too far ahead, for operators' pauses, or for ordering keys behind a failed row. It exits 1
    after --timeout seconds in which no row reached an end, and says what is left.

    SIGTERM and Ctrl-C stop it warmly: what is in flight is finished, the rest is given back. The last line on stderr
    counts the rows sent, failed and retried.
    """
    if timeout is not None and not drain:
        raise WrongUsageError("--timeout goes with --drain; give both or none")
    # A database that is not there is told now; one that goes away later is waited for.
    look.paused(runtime.database)
    timeout_s = timeout or _DRAIN_TIMEOUT_S
    ending = runtime.drained(timeout_s) if drain else Forever()
    with _progress(runtime, drain=drain) as on_progress:
        running = runtime.relay(on_progress)
        with stopped_by_signals(running.stop) as received:
            counts = running.run(ending)
    talk(f"sent {counts.sent}, failed {counts.failed}, retried {counts.retried}")
    if signal.SIGINT in received:
        raise click.exceptions.Exit(ExitCode.INTERRUPTED)
    if drain and received:
        raise Failure(f"stopped before the end; {what_is_left(runtime)}")
    if isinstance(ending, Drained) and ending.stalled:
        raise Failure(f"no progress for {timeout_s:g} s; {what_is_left(runtime)}")


@contextmanager
def _progress(runtime: Runtime, *, drain: bool) -> Iterator[Callable[[Counts], None]]:
    """A bar on a terminal, with a total only where there is an end; nothing anywhere else."""
    if not sys.stderr.isatty():
        yield lambda _counts: None
        return
    total = look.counts(runtime.database)["pending"] if drain else None
    measure = (SpinnerColumn(),) if total is None else (BarColumn(), MofNCompleteColumn())
    columns = (TextColumn("relay"), *measure, TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def on_progress(counts: Counts) -> None:
            told = f"sent {counts.sent}  failed {counts.failed}  retried {counts.retried}"
            # More may be enqueued meanwhile than there was at the start.
            grown = None if total is None else max(total, counts.finished)
            bar.update(task, description=told, completed=counts.finished, total=grown)

        yield on_progress
