"""``outbox demo``: the whole system on this machine, as a story with a verdict that is computed.

::

    shop ──enqueue──▶ outbox ──relay──▶ emulator         `story`: lets things go wrong in between
      │                 │                  │
      committed      what came          accepted         `witnesses`: know nothing of each other
      │               of it                │
      └─────────────────┴──────────────────┘             `verdict`: holds them against each other

`shop` and `stage` are what it is played with, `screen` is where it is told.
"""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from outbox.commands import ExitCode, Failure

__all__ = ["demo"]


@click.command(short_help="See the whole system at work on this machine.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which orders roll back, which requests fail.")
@click.option("--keep", is_flag=True, help="Keep the directory with the database, and say where it is.")
def demo(seed: int, keep: bool) -> None:
    """Show the outbox at work while everything goes wrong: lost answers, an outage, a killed relay.

    It takes some ten seconds, needs no settings and no server, talks to 127.0.0.1 alone, and leaves nothing behind. It
    exits 0 only if every promise held.
    """
    with _directory(keep=keep) as directory, _ended_by_signals() as go_on:
        try:
            # All of the outbox, and Celery: too much for --help.
            from outbox.demo.conclusion import tell  # noqa: PLC0415
        except ImportError as error:
            raise Failure(str(error)) from error
        kept = tell(directory, seed, go_on, keep=keep)
    if not kept:
        raise click.exceptions.Exit(ExitCode.FAILED)


@contextmanager
def _directory(*, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="outbox-demo-"))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _ended_by_signals() -> Iterator[Callable[[], None]]:
    """Have SIGINT and SIGTERM unwind the story, so that nothing is left behind; the second of a kind ends as ever.

    A handler that raises would do so within a driver or a collection of garbage as well, where it goes no further.

    Yields:
        What raises once one has come.
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    def go_on() -> None:
        for number in received:
            raise click.exceptions.Exit(128 + number)

    before = {int(number): signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield go_on
        go_on()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
