"""What each process has of its own."""

import subprocess
import sys

import pytest

# Forks with an open connection; the child uses and drops its own runtime, then the parent goes on with its connection.
_FORKING = """
import gc, os, sys
from sqlalchemy import text
from outbox.celery.process import PerProcess
from outbox.settings import Settings
from outbox.wiring import Runtime

runtime = PerProcess(lambda: Runtime(Settings.from_mapping({"OUTBOX_DATABASE_URL": sys.argv[1]})))

def session(ours):
    statement = text("SELECT connection_id()" if "mysql" in sys.argv[1] else "SELECT pg_backend_pid()")
    return ours.database.read(lambda connection: connection.scalar(statement))

parents = runtime()
before = session(parents)
child = os.fork()
if child == 0:
    own = runtime()
    good = own is not parents and own is runtime() and session(own) != before
    gc.collect()
    os._exit(0 if good else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(code, parents is runtime(), session(parents) == before)
"""


@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
def test_forked_child_has_a_runtime_of_its_own(migrated_url):
    """After a fork neither process uses, or hangs up, the other's connection."""
    command = [sys.executable, "-c", _FORKING, migrated_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert (done.stdout.split(), done.stderr) == (["0", "True", "True"], "")
