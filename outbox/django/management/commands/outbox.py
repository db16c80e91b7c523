"""``manage.py outbox …``: the outbox's command line, with the project's settings and database."""

import argparse
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import click
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from outbox.commands import OutboxCommands
from outbox.django.settings import load
from outbox.wiring import Runtime

__all__ = ["Command"]


class Command(BaseCommand):
    """Hands everything over to the outbox's own commands; ``manage.py outbox --help`` lists them."""

    help = "The outbox: relay, look, act; see: manage.py outbox --help"
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run one command of ``manage.py``'s and exit with its code."""
        _, ours = _DJANGOS.parse_known_args(argv[2:])
        try:
            _program().main(args=ours, prog_name=f"{os.path.basename(argv[0])} {argv[1]}")  # noqa: PTH119 - as Django names it
        finally:
            connections.close_all()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Everything is for the outbox's own parser, but what stands before the command's name."""
        parser.add_argument("--database")
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run ``call_command("outbox", …)``. Raises `CommandError` with its exit code, if that is not 0."""
        stdout, stderr = options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr
        database = ["--database", options["database"]] if options["database"] else []
        with redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                _program().main(args=[*database, *options["arguments"]], prog_name="manage.py outbox")
            except SystemExit as ended:
                if ended.code:
                    code = int(ended.code)
                    raise CommandError(f"outbox ended with exit code {code}", returncode=code) from None


def _djangos_options() -> argparse.ArgumentParser:
    """What every command of ``manage.py``'s takes, wherever it stands. Django has read some, and none concerns us."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (("--settings",), ("--pythonpath",), ("-v", "--verbosity")):
        parser.add_argument(*names)
    for name in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(name, action="store_true")
    return parser


_DJANGOS = _djangos_options()


def _program() -> OutboxCommands:
    chosen: list[str | None] = [None]

    def choose(_ctx: click.Context, _param: click.Parameter, alias: str | None) -> None:
        chosen[0] = alias

    program = OutboxCommands(
        lambda: Runtime(load(chosen[0])),
        "Settings are keys of settings.OUTBOX, which others name OUTBOX_…, and the database is that of DATABASES",
    )
    click.option(
        "--database",
        type=click.Choice(sorted(connections)),
        callback=choose,
        expose_value=False,
        help="The alias of the database whose outbox is meant; the routers decide where it is not given.",
    )(program)
    return program
