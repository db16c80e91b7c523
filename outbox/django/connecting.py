"""The connections of the pages: their own, like the relay's, so that what they do is a transaction of its own."""

import os
from typing import Any

from django.core.signals import request_finished
from django.db import connections

from outbox.django.databases import opened_by_tests
from outbox.django.settings import default_alias, load
from outbox.django.sharing import shared_engine
from outbox.store.database import Database
from outbox.store.engine import create_engine

__all__ = ["pages_database"]

# A process serves few operators at a time.
_CONNECTIONS = 2
_made: dict[tuple[int, str], Database] = {}


def pages_database() -> Database:
    """The outbox's database; one for each process, and for each URL that the settings come to have.

    Inside a ``TestCase``, whose transaction nobody else can see into, it is Django's own connection.

    Raises:
        ConfigError: the settings are wrong.
    """
    connection = connections[default_alias()]
    # Anywhere else what is open is the project's, and an act must not be rolled back with it.
    if any(opened_by_tests(connection)):
        return Database(shared_engine(connection))
    url = load().require("database_url")
    key = os.getpid(), url
    if key not in _made:
        _made[key] = Database(create_engine(url, pool_size=_CONNECTIONS))
    return _made[key]


def _let_go(**_: Any) -> None:
    """Keep no connection longer than Django keeps its own: a test's database is dropped when its requests are over."""
    # A copy, for another thread may be adding to it; and every request of the project's comes here.
    made = [database for (pid, _url), database in list(_made.items()) if pid == os.getpid()]
    if made and connections[default_alias()].settings_dict["CONN_MAX_AGE"] == 0:
        for database in made:
            database.engine.dispose()


request_finished.connect(_let_go)
