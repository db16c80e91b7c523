"""``outbox worker`` and ``outbox emulator``: servers that run until they are told to end."""

import json
import os
from typing import BinaryIO

import click

from outbox.commands.context import with_runtime
from outbox.commands.faults import ExitCode, Failure
from outbox.commands.output import talk
from outbox.commands.values import HOST
from outbox.wiring import Runtime

__all__ = ["emulator", "worker"]

_LONGEST_S = 10**9


@click.command(short_help="A Celery worker with beat, for small deployments.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Worker processes or threads.  [default: Celery's]")
@click.option(
    "--pool",
    type=click.Choice(["prefork", "solo", "threads"]),
    default="prefork",
    show_default=True,
    help="Processes, none but this one, or threads.",
)
@click.option(
    "--loglevel",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    default="info",
    show_default=True,
    help="The least of Celery's log events to show.",
)
@with_runtime
def worker(runtime: Runtime, /, concurrency: int | None, pool: str, loglevel: str) -> None:
    """Run a Celery worker for the queue outbox, with Celery beat inside.

    To start it needs OUTBOX_BROKER_URL alone; its tasks need what the relay needs. Run one such worker: each brings a
    beat of its own, which costs needless looks at the database, though never a message twice. To run more, and in an
    application that has Celery already, call outbox.celery.install and start Celery's own worker and beat.
    """
    runtime.settings.require("broker_url")
    from outbox.celery.standalone import app, check_broker, use  # noqa: PLC0415 - Celery costs the other commands too long a start

    use(runtime.settings)
    check_broker()
    options = ["--beat", "--queues=outbox", f"--pool={pool}", f"--loglevel={loglevel}"]
    if concurrency is not None:
        options.append(f"--concurrency={concurrency}")
    if app.worker_main(["worker", *options]):
        raise click.exceptions.Exit(ExitCode.FAILED)


_EMULATOR = """Run an emulator of the HTTP API of Message Queue for Apache RocketMQ, until SIGTERM or Ctrl-C.

The first line on stdout is "listening on http://HOST:PORT"; from then on it takes requests. It lets in the
AccessKey of OUTBOX_ACCESS_KEY_ID and OUTBOX_ACCESS_KEY_SECRET, which may be invented, and only the token of
OUTBOX_SECURITY_TOKEN if that is set. Everything is kept in memory. Official SDKs of every language work with it:
give them the URL as endpoint and any instance id. Beside the HTTP API there is, in JSON:

\b
GET    /_emulator               every endpoint, every fault and what it takes
DELETE /_emulator               begin anew, as between two tests
GET    /_emulator/ledger        what was published: {"requests": n, "messages": [...]}
DELETE /_emulator/ledger        forget it
GET    /_emulator/dead_letters  what groups did not acknowledge in time, too often
POST   /_emulator/faults        set a fault, or a list of them; GET lists, DELETE clears
POST   /_emulator/clock         let time pass {"advance_s": 300}, or make it wrong {"set": 1772690828}
POST   /_emulator/keys          let another key in {"id": "secret"}; null takes one away

A fault is {"fault": NAME} and, as far as wanted, "rate" (0 to 1), "count" (how often at most), "topic", "op"
(publish, consume, ack, check, commit, rollback or any), "seed" (makes the rate repeatable), and what it takes
itself, such as "seconds". Without "op" it strikes publishes, but for those with another word behind them:

\b
Instead of the broker, so that nothing is done:
  refuse throttle unavailable drop_before reset html_502 redirect commit_dropped_before (commit)
After the broker has done it:
  slow accept_then_drop accept_then_500 truncated garbled wrong_md5 wrong_clock drip huge_body many_headers
  close_after lost_commit (commit)
By a broker that goes wrong itself:
  early_check (check) repeated_check (check) empty (check) commit_delivers_twice (commit) hostile (commit)
  same_message_id amnesia

\b
Example:
  OUTBOX_ACCESS_KEY_ID=id OUTBOX_ACCESS_KEY_SECRET=secret outbox emulator --port 8080 &
  curl http://127.0.0.1:8080/_emulator/faults -d '{"fault": "throttle", "rate": 0.1, "topic": "orders"}'
  curl http://127.0.0.1:8080/_emulator/ledger
"""


@click.command(help=_EMULATOR, short_help="The HTTP API on this machine, for development and tests.")
@click.option("--host", type=HOST, default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--strict-topics",
    type=click.File("rb", lazy=False),
    metavar="FILE",
    help="A JSON object, topic to normal, ordered, scheduled or transactional; other topics are refused.",
)
@click.option(
    "--redelivery-s",
    type=click.IntRange(1, _LONGEST_S),
    default=300,
    show_default=True,
    help="Seconds until what was not acknowledged comes again.",
)
@click.option(
    "--ordered-redelivery-s",
    type=click.IntRange(1, _LONGEST_S),
    default=60,
    show_default=True,
    help="The same, consumed in order.",
)
@click.option(
    "--max-redeliveries",
    type=click.IntRange(0, _LONGEST_S),
    default=288,
    show_default=True,
    help="How often it comes again before it is a dead letter.",
)
@with_runtime
def emulator(runtime: Runtime, /, host: str, port: int, strict_topics: BinaryIO | None, **rules: int) -> None:
    """Serve until told to stop."""
    try:
        from outbox.emulator import BANNER, Rules, serve  # noqa: PLC0415 - it needs an extra that no other command does
    except ImportError as error:
        raise Failure(str(error)) from error
    settings = runtime.settings
    keys = {settings.require("access_key_id"): settings.require("access_key_secret")}

    def on_listening(url: str) -> None:
        click.echo(f"listening on {url}")
        talk(BANNER)

    try:
        serve(
            host,
            port,
            keys,
            security_token=settings.optional("security_token"),
            strict_topics=None if strict_topics is None else _topic_kinds(strict_topics),
            rules=Rules(**rules),
            on_listening=on_listening,
        )
    except ValueError as error:
        raise Failure(f"--strict-topics: {error}") from error
    except OSError as error:
        # uvloop puts more words into its own text; a name that does not resolve has no number of the system's.
        number = error.errno or 0
        problem = os.strerror(number) if number > 0 else error.strerror
        raise Failure(f"cannot listen at {host}:{port}: {problem}; give another --port, or 0 for a free one") from error


def _topic_kinds(file: BinaryIO) -> dict[str, str]:
    try:
        kinds = json.loads(file.read())
    except ValueError as error:
        raise Failure(f"{file.name}: is not JSON: {error}") from error
    if not isinstance(kinds, dict) or not all(isinstance(kind, str) for kind in kinds.values()):
        raise Failure(f'{file.name}: give one JSON object such as {{"orders": "normal"}}')
    return kinds
