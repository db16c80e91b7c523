"""For tests of a project: see what its code promises to send, without a broker, inside a ``TestCase`` or outside.

::

    from django.test import TestCase
    from outbox.django.testing import relaying

    class CheckoutTest(TestCase):
        def test_order_is_announced(self):
            with relaying() as outbox:
                self.client.post("/orders", {"item": "a book"})
                (message,) = outbox.drain()
            self.assertEqual("orders", message["topic"])

It needs the extra ``emulator``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings as project
from django.db import connections
from pydantic import SecretStr

from outbox.django.settings import default_alias, load
from outbox.django.sharing import shared_engine
from outbox.emulator import Emulator
from outbox.settings import Settings
from outbox.store.database import Database
from outbox.wiring import Runtime

__all__ = ["Relaying", "relaying"]

_KEYS = {"access_key_id": "id", "access_key_secret": "secret"}
_OURS = ("ENDPOINT", "ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN", "CREDENTIALS", "DESTINATIONS")
_TIMEOUT_S = 10.0


class Relaying:
    """A relay, and the broker that it publishes to.

    Attributes:
        broker: an emulator; `outbox.emulator.Emulator.fault` makes it misbehave.
    """

    def __init__(self, runtime: Runtime, broker: Emulator) -> None:
        self._runtime = runtime
        self.broker = broker

    def drain(self, timeout_s: float = _TIMEOUT_S) -> list[dict[str, Any]]:
        """Publish all that is due, and return what the broker has got since the last time, in its order.

        Args:
            timeout_s: give up after so many seconds in which no row reached an end.

        Returns:
            The messages, each with ``topic``, ``tag``, ``keys``, ``body``, ``properties`` and what else the broker
            knows of it.
        """
        self._runtime.relay().run(self._runtime.drained(timeout_s))
        messages: list[dict[str, Any]] = self.broker.ledger()["messages"]
        self.broker.clear_ledger()
        return messages


@contextmanager
def relaying(using: str | None = None) -> Iterator[Relaying]:
    """A relay with a broker of its own, whose endpoint and keys replace those of ``settings.OUTBOX``.

    Where a transaction is open, as in a ``TestCase``, the relay works inside it and sees what is not committed;
    whatever rolls that back takes the relay's marks along. Elsewhere, as in a ``TransactionTestCase``, it connects by
    itself.

    Args:
        using: the alias of the database; where the project's routers put the outbox, unless given.
    """
    alias = using or default_alias()
    connection = connections[alias]
    with Emulator(keys={_KEYS["access_key_id"]: _KEYS["access_key_secret"]}) as broker:
        runtime = Runtime(_pointed_at(broker, alias))
        if connection.in_atomic_block:
            runtime.database = Database(shared_engine(connection))
        try:
            yield Relaying(runtime, broker)
        finally:
            runtime.close()


def _pointed_at(broker: Emulator, alias: str) -> Settings:
    given: Mapping[str, Any] = getattr(project, "OUTBOX", {})
    kept = {key: value for key, value in given.items() if key.removesuffix("_FILE") not in _OURS}
    access = {"endpoint": broker.url, **_KEYS}
    others = [name for name in load(alias).destination_names() if name != "default"]
    own = {key.upper(): value for key, value in access.items()} | {"DESTINATIONS": dict.fromkeys(others, access)}
    url: SecretStr | None = load(alias).database_url
    return Settings.from_mapping(kept | own, prefix="").model_copy(update={"database_url": url})
