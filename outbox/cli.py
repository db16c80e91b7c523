"""The program ``outbox``: the commands with settings from the environment, log events on stderr, and the demo."""

import logging
import os
import sys
from io import TextIOWrapper

import click

from outbox import __version__
from outbox.commands import OutboxCommands
from outbox.commands.output import inert
from outbox.demo import demo
from outbox.events import fields_of
from outbox.settings import Settings
from outbox.wiring import Runtime

__all__ = ["main", "program"]

_AS_TRACEBACK = logging.Formatter()


class _OnStderr(logging.Handler):
    """Shows a log event as one line: its level, its name, its fields. A defect has its traceback below."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = [f"{record.levelname.lower()}: {record.getMessage()} {fields_of(record)}".rstrip()]
            lines += _AS_TRACEBACK.formatException(record.exc_info).splitlines() if record.exc_info else []
            # stderr is looked up each time: a progress bar puts its own in place for as long as it stands.
            click.echo("\n".join(map(inert, lines)), err=True)
        except Exception:  # noqa: BLE001 - what cannot be told must not stop the relay
            self.handleError(record)


def _log(_ctx: click.Context, _param: click.Parameter, level: str) -> None:
    logging.basicConfig(handlers=[_OnStderr()], level=logging.WARNING)
    logging.getLogger("outbox").setLevel(level.upper())


program = OutboxCommands(lambda: Runtime(Settings.from_env()))
program.add_command(demo)
click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    expose_value=False,
    callback=_log,
    help="The least of the log events to show on stderr.",
)(program)
click.version_option(__version__)(program)


def main() -> None:
    """Run one command of ``sys.argv`` and exit; see ``outbox --help`` for the exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A locale without the character is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        program.main(prog_name="outbox")
    finally:
        _flush_or_forget()


def _flush_or_forget() -> None:
    """What cannot be written has been told; Python would try again at its end, tell once more, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
