"""Databases with an outbox in each, and rows that are due."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import URL, Engine, create_engine, insert, text

from benchmarks.sinks import BODY
from outbox import Message, prepare_sqlite
from outbox.migrate import upgrade
from outbox.table import MYSQL, messages, row_of
from tests import services

__all__ = ["HALVES", "Outboxes"]

#: The topic of half messages.
HALVES = "halves"
_NAMES = {"postgresql": "PostgreSQL", "mariadb": "MariaDB", "sqlite": "SQLite"}
_CHECK_S = 300
_CHUNK = 5000


class Outboxes:
    """Makes outboxes of their own on the servers of this machine, where the tests look for them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._templates: dict[str, URL] = {}
        #: The version of each.
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Self:
        for kind in _NAMES:
            if kind == "sqlite" or services.answers(kind):
                self._templates[kind] = self._template(kind)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def kinds(self) -> dict[str, str]:
        """Those that there are, and what they are called."""
        return {kind: name for kind, name in _NAMES.items() if kind in self._templates}

    @contextmanager
    def filled(self, kind: str, topic: str, count: int) -> Iterator[str]:
        """The URL of an outbox with so many due rows of one topic, and nothing else."""
        with services.fresh_database(kind, self._directory, self._templates[kind]) as url:
            engine = _engine(url)
            _fill(engine, topic, count)
            engine.dispose()
            yield url.render_as_string(hide_password=False)

    def _template(self, kind: str) -> URL:
        url = self._stack.enter_context(services.fresh_database(kind, self._directory))
        engine = _engine(url)
        upgrade(engine)
        self.versions[_NAMES[kind]] = ".".join(map(str, engine.dialect.server_version_info or ()))
        engine.dispose()
        return url


def _engine(url: URL) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        prepare_sqlite(engine)
    return engine


def _fill(engine: Engine, topic: str, count: int) -> None:
    message = Message(topic, BODY, keys="k", transaction_check_s=_CHECK_S if topic == HALVES else None)
    with engine.begin() as connection:
        for first in range(0, count, _CHUNK):
            many = [row_of(message, 0.0) for _ in range(min(_CHUNK, count - first))]
            connection.execute(insert(messages), many)
    # As the servers do by themselves when they find the time, which must not come in the middle of a measurement.
    analyse = "ANALYZE TABLE outbox_messages" if engine.dialect.name in MYSQL else "ANALYZE"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(analyse))
