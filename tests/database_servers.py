"""Database servers of a test's own, with data of their own, which it may kill and start again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

__all__ = ["DatabaseServer", "database_server", "is_installed"]

_UP_WITHIN_S = 20.0
# Where Debian keeps PostgreSQL's programs, out of the way.
_DEBIAN = "usr/lib/postgresql/*/bin"


@dataclass(frozen=True)
class _Kind:
    """How a server is made in a directory, how it is served from there on a port, and as whom if that may be chosen."""

    make: Callable[[Path], Sequence[str]]
    serve: Callable[[Path, int], Sequence[str]]
    user: str
    driver: str
    database: str


def _make_postgresql(directory: Path) -> Sequence[str]:
    return "initdb", "--pgdata", f"{directory}/data", "--username=root", "--auth=trust", "--no-sync"


def _serve_postgresql(directory: Path, port: int) -> Sequence[str]:
    return "postgres", "-D", f"{directory}/data", "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1"


def _make_mariadb(directory: Path) -> Sequence[str]:
    return "mariadb-install-db", "--no-defaults", f"--datadir={directory}/data"


def _serve_mariadb(directory: Path, port: int) -> Sequence[str]:
    where = (f"--datadir={directory}/data", f"--socket={directory}/socket", f"--pid-file={directory}/pid")
    return "mariadbd", "--no-defaults", *where, f"--port={port}", "--bind-address=127.0.0.1", "--skip-grant-tables"


_KINDS = {
    "postgresql": _Kind(_make_postgresql, _serve_postgresql, "postgres", "postgresql+psycopg", "postgres"),
    "mariadb": _Kind(_make_mariadb, _serve_mariadb, "mysql", "mysql+pymysql", "test"),
}


def is_installed(kind: str) -> bool:
    """Whether this machine has the programs of such a server."""
    given = _KINDS[kind]
    return all(_found(command[0]) for command in (given.make(Path()), given.serve(Path(), 0)))


class DatabaseServer:
    """A server on a port of the loopback interface, with an empty database.

    Attributes:
        url: of the database; the same after each start.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self._kind = _KINDS[kind]
        self._directory = directory
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        name = {"drivername": self._kind.driver, "username": "root", "database": self._kind.database}
        self.url = URL.create(host="127.0.0.1", port=self._port, **name)
        assert self._run(self._kind.make(directory)).wait() == 0, self._log()

    def start(self) -> None:
        """Start it, on the data that it was killed with, and wait until it answers."""
        until = time.monotonic() + _UP_WITHIN_S
        while not self._answers():
            assert time.monotonic() < until, f"no answer within {_UP_WITHIN_S} s: {self._log()}"
            if self._process is None or self._process.poll() is not None:
                # What was left of a killed server may hold its memory for a moment, and then it ends at once.
                self._process = self._run(self._kind.serve(self._directory, self._port))
            time.sleep(0.05)

    def kill(self) -> None:
        """End it where it stands, as if the power had failed."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _run(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a program in a process group of its own; neither server wants to be root."""
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = self._kind.user
            shutil.chown(self._directory, user, user)
            identity = {"user": user, "group": user, "extra_groups": []}
        program, *arguments = command
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [_found(program) or program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                **identity,
            )

    def _answers(self) -> bool:
        engine = create_engine(self.url, poolclass=NullPool, connect_args={"connect_timeout": 2})
        try:
            with engine.connect() as connection:
                return self._process is not None and connection.scalar(text("SELECT 1")) == 1
        except OperationalError:
            return False

    def _log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-2000:]


@contextmanager
def database_server(kind: str) -> Iterator[DatabaseServer]:
    """A server of this kind, ``postgresql`` or ``mariadb``, that runs; killed and forgotten in the end."""
    # Not below pytest's own directory: a server that is not root's could not enter it.
    with tempfile.TemporaryDirectory(prefix=f"outbox-{kind}-", ignore_cleanup_errors=True) as directory:
        server = DatabaseServer(kind, Path(directory))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _found(program: str) -> str | None:
    """Where a program is."""
    places = (shutil.which(program, path=one) for one in sorted(Path("/").glob(_DEBIAN), reverse=True))
    return shutil.which(program) or next(filter(None, places), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
