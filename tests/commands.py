"""The commands run within the test's own process, as whoever mounts them runs them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import func, select, update

from outbox.commands import OutboxCommands
from outbox.settings import Settings
from outbox.table import messages
from outbox.wiring import Runtime

KEYS = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}


@dataclass(frozen=True)
class Commands:
    """Runs commands with settings as in an environment."""

    settings: dict[str, str]

    def __call__(self, *arguments: Any, given: str | bytes | None = None, **settings: str) -> Result:
        """Run one command; ``given`` is its stdin, ``settings`` are added for this once."""
        with ExitStack() as opened:
            commands = OutboxCommands(lambda: opened.enter_context(self.runtime(**settings)))
            return CliRunner().invoke(commands, [*map(str, arguments)], given, prog_name="outbox")

    def json(self, *arguments: Any) -> Any:
        """The document that a command prints with ``--json``; nothing else is on stdout."""
        return json.loads(self(*arguments, "--json").stdout)

    def enqueue(self, *arguments: Any, topic: str = "orders", body: str = "hello", **columns: Any) -> int:
        """Enqueue a message, then change columns of its row; returns the row id."""
        result = self("enqueue", "--topic", topic, *arguments, body)
        row_id = int(result.stdout)
        if columns:
            with self.runtime() as runtime:
                change = update(messages).where(messages.c.id == row_id).values(columns)
                runtime.database.run(lambda connection: connection.execute(change))
        return row_id

    def rows(self) -> list[Any]:
        """The outbox's rows, all columns, in the order of their ids."""
        query = select(messages).order_by(messages.c.id)
        with self.runtime() as runtime:
            return list(runtime.database.run(lambda connection: connection.execute(query).all()))

    def states(self) -> dict[int, str]:
        """The state of each row by its id."""
        return {row.id: row.state for row in self.rows()}

    def count(self) -> int:
        """How many rows the outbox has."""
        query = select(func.count()).select_from(messages)
        with self.runtime() as runtime:
            return runtime.database.run(lambda connection: connection.execute(query).scalar_one())

    @contextmanager
    def runtime(self, **settings: str) -> Iterator[Runtime]:
        """A runtime whose connections are closed after."""
        runtime = Runtime(Settings.from_mapping(self.settings | settings))
        try:
            yield runtime
        finally:
            if "database" in vars(runtime):
                runtime.database.engine.dispose()
