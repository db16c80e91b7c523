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
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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

LONGEST_S = 1.0
STATEMENTS = 20
HOUR_S = 3600
CHUNK = 5000
TOPICS = [f"topic-{number}" for number in range(20)]
#: A page's name, and how to ask for it.
Pages = dict[str, Callable[[], Any]]


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


@contextmanager
def flask_pages(url: str) -> Iterator[tuple[Engine, Pages]]:
    """The pages of the Flask adapter, and the engine that they ask."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="of the benchmark", SQLALCHEMY_DATABASE_URI=url)
    db = SQLAlchemy(app)
    Outbox(app, db, admin_auth=lambda _request: "ann")
    client = app.test_client()
    paths = {
        "overview": "",
        "messages": "messages",
        "messages, failed": "messages?state=failed",
        "messages, a topic": f"messages?topic={TOPICS[0]}",
        "messages, a key": "messages?key=order-77",
        "messages, an unknown MessageId": f"messages?message_id={'0' * 32}",
        "messages, ten minutes": f"messages?created_from={ago(1800)}&created_until={ago(1200)}",
        "messages, page 2": "messages?state=failed&before=500000",
        "message": "messages/77",
        "failed": "failed",
        "pauses": "pauses",
        "audit": "audit",
    }

    def ask(path: str) -> Callable[[], Any]:
        return lambda: client.get(f"/outbox/{path}").status_code

    with app.app_context():
        yield db.engine, {name: ask(path) for name, path in paths.items()}
        db.engine.dispose()


ADAPTERS = {"flask": flask_pages}


def ago(seconds: int) -> str:
    """An instant for a filter."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def measure(engine: Engine, page: Callable[[], Any], times: int) -> tuple[list[float], int]:
    """The seconds of each try, the first with whatever the database has in its caches, and the most statements."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    event.listen(engine, "before_cursor_execute", count)
    seconds, most = [], 0
    for _ in range(times):
        statements, began = 0, time.perf_counter()
        if page() != 200:  # noqa: PLR2004
            sys.exit("a page failed")
        seconds.append(time.perf_counter() - began)
        most = max(most, statements)
    event.remove(engine, "before_cursor_execute", count)
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
            with pages_of(url) as (asked, pages):
                for name, page in pages.items():
                    seconds, statements = measure(asked, page, options.times)
                    too_much |= max(seconds) > LONGEST_S or statements >= STATEMENTS
                    first, middle, slowest = (
                        f"{1000 * one:6.0f}" for one in (seconds[0], median(seconds), max(seconds))
                    )
                    print(f"{adapter}  {name:32}{first}{middle}{slowest}   {statements:2} statements")
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
