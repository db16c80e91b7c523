"""The command line, as a click group that ``outbox``, ``flask outbox`` and ``manage.py outbox`` mount.

One file per group of verbs. A command knows no framework: whoever mounts the group gives the runtime, and with it the
settings, the database and the clock.
"""

from typing import Any

import click

from outbox.commands.acting import discard, pause, purge, replay, resume
from outbox.commands.checking import check, quarantine
from outbox.commands.context import Load
from outbox.commands.enqueuing import enqueue
from outbox.commands.faults import ExitCode, Failure, one_line_errors
from outbox.commands.looking import audit, list_, show, status
from outbox.commands.migrating import migrate
from outbox.commands.relaying import relay
from outbox.commands.serving import emulator, worker

__all__ = ["ExitCode", "Failure", "OutboxCommands"]

_HELP = """Promise messages in a database transaction, and publish them to RocketMQ over its HTTP API.

{settings}; each command needs only those that it uses. Commands that read take --json: one document on stdout,
everything else on stderr.

\b
Exit codes: 0 done · 1 failed, with one line on stderr · 2 wrong usage
            3 works but unhealthy · 130 Ctrl-C
"""
# In the order of the help: set up, put in, send, look, act, try out.
_COMMANDS = (
    migrate,
    enqueue,
    relay,
    check,
    worker,
    status,
    list_,
    show,
    replay,
    discard,
    pause,
    resume,
    purge,
    audit,
    quarantine,
    emulator,
)


class OutboxCommands(click.Group):
    """All commands, every error of which is one line on stderr.

    Args:
        load: gives the runtime with the host's settings. It is called when a command runs, and may raise `ConfigError`;
            help and wrong usage do without it.
        settings: where the host has its settings, for the help.
    """

    def __init__(
        self, load: Load, settings: str = "Settings are environment variables, OUTBOX_DATABASE_URL first"
    ) -> None:
        super().__init__("outbox", {str(one.name): one for one in _COMMANDS}, help=_HELP.format(settings=settings))
        self._load = load

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the base class's signature
        """Names in the order of the help."""
        return list(self.commands)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse what stands before the command's name."""
        with one_line_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one command."""
        ctx.obj = self._load
        with one_line_errors():
            return super().invoke(ctx)
