"""What goes wrong in a command: one line on stderr, and the exit code.

Whatever can be foreseen is turned into a `Failure` here, at the edge: the parts below raise errors of their own and
know nothing of terminals. A traceback is for a defect.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, Any

import click

from outbox.commands.output import inert
from outbox.errors import OutboxError

__all__ = ["ExitCode", "Failure", "WrongUsageError", "one_line_errors"]


class ExitCode(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    UNHEALTHY = 3
    INTERRUPTED = 130


class Failure(click.ClickException):
    """A command cannot do what it was asked for; shown as one line, ``error: …``."""

    exit_code = ExitCode.FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the line to stderr; whatever its text quotes is made inert."""
        click.echo(f"error: {inert(' '.join(self.format_message().split()))}", file=file, err=True)


class WrongUsageError(Failure):
    """The command line does not say what to do."""

    exit_code = ExitCode.WRONG_USAGE


# Without a command click shows the help: from 8.2 on by this error, before by itself.
_SHOWS_HELP: type[Exception] = getattr(click.exceptions, "NoArgsIsHelpError", Failure)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn every error that can be foreseen into a `Failure`, and Ctrl-C into its exit code.

    Raises:
        Failure: instead of errors of ours, of click's, of files and of sockets.
    """
    try:
        yield
    except (Failure, _SHOWS_HELP):
        raise
    except click.UsageError as error:
        raise WrongUsageError(_usage(error)) from error
    except click.ClickException as error:
        raise Failure(error.format_message()) from error
    except OutboxError as error:
        raise Failure(str(error)) from error
    except UnicodeEncodeError as error:
        raise Failure("a text on the command line is not UTF-8; give it as UTF-8") from error
    except OSError as error:
        # Who reads our output may end first, as head does: no failure of ours, and click ends without a word.
        if error.errno == errno.EPIPE:
            raise
        raise Failure(_of_the_system(error)) from error
    except (KeyboardInterrupt, click.Abort) as error:
        raise click.exceptions.Exit(ExitCode.INTERRUPTED) from error


def _usage(error: click.UsageError) -> str:
    message = error.format_message().rstrip(".")
    return f"{message}; see: {error.ctx.command_path} --help" if error.ctx else message


def _of_the_system(error: OSError) -> str:
    problem = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {problem}" if error.filename else problem
