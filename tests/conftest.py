"""Fixtures for every test: databases, brokers, the emulator; and the fence around the loopback interface.

A service that does not answer skips its tests, with one line at the end that names it; under CI=true it fails them.
"""

import ipaddress
import os
import signal
import socket
from contextlib import ExitStack, contextmanager
from functools import cache

import hypothesis
import pytest
from sqlalchemy import Engine, create_engine, make_url

from tests import services

hypothesis.settings.register_profile("shared-machine", deadline=None, print_blob=True)
hypothesis.settings.load_profile("shared-machine")


class OutsideLoopbackError(AssertionError):
    """The test's process tried to reach another machine; no OSError, so that no retry swallows it."""


def _is_loopback(host) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fenced_connect(method):
    def connect(self, address):
        if self.family != socket.AF_UNIX and not _is_loopback(address[0]):
            raise OutsideLoopbackError(address)
        return method(self, address)

    return connect


def _fenced_look_up(look_up):
    def getaddrinfo(host, *args, **kwargs):
        if isinstance(host, str) and host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host is not None and not _is_loopback(host.decode() if isinstance(host, bytes) else host):
            raise OutsideLoopbackError(host)
        return look_up(host, *args, **kwargs)

    return getaddrinfo


@pytest.fixture(scope="session", autouse=True)
def loopback_fence():
    """No test's process reaches another machine; names under .invalid do not resolve, without asking anyone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _fenced_connect(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _fenced_connect(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", _fenced_look_up(socket.getaddrinfo))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Ctrl-C reaches the processes that tests start: a shell's background job ignores it, and whatever that starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """Each test, and every process it starts, begins without settings of the developer's."""
    for name in [name for name in os.environ if name.startswith("OUTBOX_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def need(request):
    """A function that skips the test, or fails it under CI=true, when the service it names does not answer."""

    def check(name):
        if name not in services.SERVICES or services.answers(name):
            return
        request.node.user_properties.append(("unanswered", name))
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} does not answer", pytrace=False)
        pytest.skip(f"{name} does not answer")

    return check


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest first, so that no worker is left alone with them in the end."""
    items.sort(key=lambda item: item.path.parent.name != "reliability")


def pytest_terminal_summary(terminalreporter):
    """One line names the services that did not answer, and the command that starts them."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    properties = [pair for report in reports for pair in getattr(report, "user_properties", ())]
    names = sorted({name for key, name in properties if key == "unanswered"})
    if names:
        start = " ".join(services.SERVICES[name].compose for name in names)
        terminalreporter.write_line(
            f"Not tested, for want of an answer: {', '.join(names)}. To start: docker compose up -d {start}",
            yellow=True,
        )


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A function from a kind of database to the URL of one that is migrated once and then only copied."""
    from outbox.migrate import upgrade

    with ExitStack() as stack:

        @cache
        def migrated(kind):
            url = stack.enter_context(services.fresh_database(kind, tmp_path_factory.mktemp(kind)))
            engine = _engine(url)
            upgrade(engine)
            engine.dispose()
            return url

        yield migrated


@pytest.fixture(scope="session")
def migrated_databases(template, tmp_path_factory):
    """A function from a kind of server to a context with a migrated database, which is wiped after and used again.

    To make and drop one for each test would take longer than all of the tests.
    """
    spare = {kind: [] for kind in services.SERVICES}
    with ExitStack() as stack:

        @contextmanager
        def lend(kind):
            if not spare[kind]:
                directory = tmp_path_factory.mktemp(kind)
                spare[kind].append(stack.enter_context(services.fresh_database(kind, directory, template(kind))))
            url = spare[kind].pop()
            yield url
            if services.wipe(kind, url):
                spare[kind].append(url)

        yield lend


@pytest.fixture
def make_database(need, request, tmp_path):
    """A function `(kind, migrated=False)` to the URL, a str, of a database that nobody else uses during the test."""
    with ExitStack() as stack:

        def make(kind, *, migrated=False):
            need(kind)
            if migrated and kind != "sqlite":
                url = stack.enter_context(request.getfixturevalue("migrated_databases")(kind))
            else:
                source = request.getfixturevalue("template")(kind) if migrated else None
                url = stack.enter_context(services.fresh_database(kind, tmp_path, source))
            return url.render_as_string(hide_password=False)

        yield make


@pytest.fixture(params=services.DATABASES)
def database_kind(request):
    """Every test that asks for a database runs once on each kind: parametrise this name to run on fewer."""
    return request.param


@pytest.fixture
def database_url(make_database, database_kind):
    """The URL of a fresh, empty database."""
    return make_database(database_kind)


@pytest.fixture
def migrated_url(make_database, database_kind):
    """The URL of a fresh database with the current schema."""
    return make_database(database_kind, migrated=True)


@pytest.fixture
def engine(migrated_url):
    """An engine such as the relay's, on `migrated_url`'s database."""
    engine = _engine(make_url(migrated_url))
    yield engine
    engine.dispose()


def _engine(url) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, isolation_level="READ COMMITTED")
    from outbox import prepare_sqlite

    engine = create_engine(url)
    prepare_sqlite(engine)
    return engine


@pytest.fixture(params=services.BROKERS)
def broker_url(request, need):
    """A Celery broker's URL with nothing else on it."""
    need(request.param)
    with services.fresh_broker(request.param) as url:
        yield url


@pytest.fixture(params=["requests", "curl"])
def http_engine(request):
    """Every test that asks for an HTTP engine runs once with each: parametrise this name to run with fewer."""
    return request.param


@pytest.fixture
def emulator():
    """The HTTP API on a free port of this process."""
    from outbox.emulator import Emulator

    with Emulator() as running:
        yield running
