"""The connections of the pages: their own, like the relay's, so that what they do is a transaction of its own."""

import os

from outbox.django.settings import load
from outbox.store.database import Database
from outbox.store.engine import create_engine

__all__ = ["pages_database"]

# A process serves few operators at a time.
_CONNECTIONS = 2
_made: dict[tuple[int, str], Database] = {}


def pages_database() -> Database:
    """The outbox's database; one for each process, and for each URL that the settings come to have.

    Raises:
        ConfigError: the settings are wrong.
    """
    url = load().require("database_url")
    key = os.getpid(), url
    if key not in _made:
        _made[key] = Database(create_engine(url, pool_size=_CONNECTIONS))
    return _made[key]
