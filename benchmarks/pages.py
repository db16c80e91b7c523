"""What the operators' pages cost with a million rows: the time and the statements of each, held against 1 s and 20.

::

    PYTHONPATH=. python benchmarks/pages.py                         # PostgreSQL, a million rows
    PYTHONPATH=. python benchmarks/pages.py --database sqlite --rows 100000

It fills a database of its own on a server of this machine, where the tests look for one, and drops it. All rows were
enqueued within the last hour, and nearly all sent: the worst case for the charts. It exits 1 where a page goes beyond.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, create_engine, event, insert, text

from outbox import prepare_sqlite
from outbox.flask import Outbox
from outbox.migrate import upgrade
from outbox.table import MYSQL, attempts, messages, outbox_ids_from
from tests import services
from tests.django_projects import ADMIN, Operator, django_databases

LONGEST_S = 1.0
STATEMENTS = 20
HOUR_S = 3600
CHUNK = 5000
TOPICS = [f"topic-{number}" for number in range(20)]
#: A page's name, and how to ask for it.
Pages = dict[str, Callable[[], Any]]
#: Has a function called for each statement, meanwhile.
Watch = Callable[[Callable[..., None]], AbstractContextManager[None]]


def fill(engine: Engine, count: int) -> None:
    """Write rows: the newest three in a hundred are pending, two in a hundred of the others failed, the rest sent."""
    chance, now = random.Random(1), datetime.now(UTC)
    with engine.begin() as connection:
        for first in range(0, count, CHUNK):
            rows = [row(number, count, now, chance) for number in range(first, min(first + CHUNK, count))]
            connection.execute(insert(messages), rows)
            failed = [(first + place, one) for place, one in enumerate(rows, start=1) if one["state"] == "failed"]
            if failed:
                connection.execute(insert(attempts), [attempt(row_id, one) for row_id, one in failed])
    analyse = "ANALYZE TABLE outbox_messages, outbox_attempts" if engine.dialect.name in MYSQL else "ANALYZE"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(analyse))


def row(number: int, count: int, now: datetime, chance: random.Random) -> dict[str, Any]:
    """One row of an hour in which so many were enqueued evenly."""
    at = now - timedelta(seconds=HOUR_S * (1 - number / count))
    state = "pending" if number > 0.97 * count else "failed" if chance.random() < 0.02 else "sent"  # noqa: PLR2004
    outbox_id = f"{outbox_ids_from(at)}-7{chance.randrange(4096):03x}-8000-{chance.getrandbits(48):012x}"
    failed = state == "failed"
    return {
        "outbox_id": outbox_id,
        "destination": "default",
        "topic": chance.choice(TOPICS),
        "keys": f"order-{number}",
        "properties": f"KEYS:order-{number}|outbox_id:{outbox_id}|",
        "body": "x" * 500,
        "body_bytes": 500,
        "state": state,
        "available_at": at,
        "created_at": at,
        "sent_at": at + timedelta(seconds=1) if state == "sent" else None,
        "message_id": f"{chance.getrandbits(128):032X}" if state == "sent" else None,
        "last_error_code": chance.choice(["InvalidArgument", "Timeout"]) if failed else None,
        "last_error": "refused" if failed else None,
    }


def attempt(row_id: int, failed: dict[str, Any]) -> dict[str, Any]:
    """How a failed row failed."""
    told = {"code": failed["last_error_code"], "text": failed["last_error"], "outcome_known": True}
    return {"message_row_id": row_id, "at": failed["created_at"] + timedelta(seconds=2)} | told


def queries() -> dict[str, dict[str, str]]:
    """Ways of asking for messages, by what they are called."""
    return {
        "messages": {},
        "messages, failed": {"state": "failed"},
        "messages, a topic": {"topic": TOPICS[0]},
        "messages, a key": {"key": "order-77"},
        "messages, an unknown MessageId": {"message_id": "0" * 32},
        "messages, ten minutes": {"created_from": ago(1800), "created_until": ago(1200)},
        "messages, page 2": {"state": "failed", "before": "500000"},
    }


@contextmanager
def flask_pages(url: str) -> Iterator[tuple[Watch, Pages]]:
    """The pages of the Flask adapter, and a watch of what they ask."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="of the benchmark", SQLALCHEMY_DATABASE_URI=url)
    db = SQLAlchemy(app)
    Outbox(app, db, admin_auth=lambda _request: "ann")
    client = app.test_client()

    def ask(path: str, query: dict[str, str] | None = None) -> Callable[[], Any]:
        return lambda: client.get(f"/outbox/{path}", query_string=query).status_code

    pages = {name: ask("messages", query) for name, query in queries().items()}
    pages |= {"overview": ask(""), "message": ask("messages/77")}
    with app.app_context():
        yield partial(watched, db.engine), pages | {name: ask(name) for name in ("failed", "pauses", "audit")}
        db.engine.dispose()


@contextmanager
def django_pages(url: str) -> Iterator[tuple[Watch, Pages]]:
    """The pages in Django's admin, and a watch of what they and the admin itself ask."""
    with django_databases(default=url):
        from django.core.management import call_command  # noqa: PLC0415 - Django must be set up first
        from django.db import connection  # noqa: PLC0415 - likewise

        from outbox.django.connecting import pages_database  # noqa: PLC0415 - likewise

        call_command("migrate", verbosity=0)
        rights = ["view", "view_body", "replay", "discard", "force", "pause"]
        client = Operator("ann", rights).client
        database = pages_database()

        def ask(path: str, query: dict[str, str] | None = None) -> Callable[[], Any]:
            return lambda: client.get(f"{ADMIN}{path}", query).status_code

        @contextmanager
        def watch(count: Callable[..., None]) -> Iterator[None]:
            def pass_on(execute: Callable[..., Any], *statement: Any) -> Any:
                count()
                return execute(*statement)

            with watched(database.engine, count), connection.execute_wrapper(pass_on):
                yield

        pages = {name: ask("", query) for name, query in queries().items()} | {"message": ask("77/change/")}
        yield watch, pages | {name: ask(f"{name}/") for name in ("overview", "failed", "pauses", "audit")}
        database.engine.dispose()


ADAPTERS = {"flask": flask_pages, "django": django_pages}


def ago(seconds: int) -> str:
    """An instant for a filter."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


@contextmanager
def watched(engine: Engine, count: Callable[..., None]) -> Iterator[None]:
    """Call ``count`` for each statement of an engine meanwhile."""
    event.listen(engine, "before_cursor_execute", count)
    yield
    event.remove(engine, "before_cursor_execute", count)


def measure(watch: Watch, page: Callable[[], Any], times: int) -> tuple[list[float], int]:
    """The seconds of each try, the first with whatever the database has in its caches, and the most statements."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    seconds, most = [], 0
    with watch(count):
        for _ in range(times):
            statements, began = 0, time.perf_counter()
            if page() != 200:  # noqa: PLR2004
                sys.exit("a page failed")
            seconds.append(time.perf_counter() - began)
            most = max(most, statements)
    return seconds, most


def main() -> int:
    """Fill, ask, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=services.DATABASES, default="postgresql")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5, help="tries of each page")
    options = parser.parse_args()
    too_much = False
    with (
        tempfile.TemporaryDirectory() as directory,
        services.fresh_database(options.database, Path(directory)) as made,
    ):
        url = made.render_as_string(hide_password=False)
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            prepare_sqlite(engine)
        upgrade(engine)
        fill(engine, options.rows)
        engine.dispose()
        print(f"{options.rows:,} rows on {options.database}; milliseconds of the first try, the median and the slowest")
        for adapter, pages_of in ADAPTERS.items():
            with pages_of(url) as (watch, pages):
                for name, page in pages.items():
                    seconds, statements = measure(watch, page, options.times)
                    too_much |= max(seconds) > LONGEST_S or statements > STATEMENTS
                    first, middle, slowest = (
                        f"{1000 * one:6.0f}" for one in (seconds[0], median(seconds), max(seconds))
                    )
                    print(f"{adapter:6}  {name:32}{first}{middle}{slowest}   {statements:2} statements")
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
