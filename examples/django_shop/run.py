"""Runs the whole shop on this machine: broker, database, web server, Celery worker; nothing to install or configure.

It takes a few orders first. The emulator refuses some of their invoices, so that there is something to mend in the
admin. Ctrl-C ends everything; with --keep DIRECTORY the database is kept.
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from outbox.emulator import Emulator

HERE = Path(__file__).parent
ITEMS = ("a book", "a lamp", "a chair", "a teapot", "a map", "a kite", "a clock", "a globe")


def environment(directory: Path, emulator: Emulator, key: str) -> dict[str, str]:
    """What the shop's settings read."""
    for place in ("queue", "control"):
        (directory / place).mkdir(exist_ok=True)
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "DJANGO_SUPERUSER_PASSWORD": key[:12],
        "SHOP_SECRET_KEY": secrets.token_hex(),
        "SHOP_DIRECTORY": str(directory),
        "OUTBOX_ENDPOINT": emulator.url,
        "OUTBOX_ACCESS_KEY_ID": "shop",
        "OUTBOX_ACCESS_KEY_SECRET": key,
        "PYTHONPATH": str(HERE),
    }


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def main() -> None:
    """Start everything, take orders, wait for Ctrl-C, and end everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the shop; 0 takes a free one (default 8000)")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where the database is to stay")
    options = parser.parse_args()
    port, key = options.port or free_port(), f"key-{secrets.token_hex(16)}"
    with ExitStack() as stack:
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        emulator = stack.enter_context(Emulator(keys={"shop": key}))
        emulator.fault("refuse", code="InvalidArgument", topic="invoices", count=5)
        os.environ.update(environment(directory.resolve(), emulator, key))
        prepare(directory)
        log = stack.enter_context((directory / "shop.log").open("wb"))
        worker = ["-m", "celery", "-A", "shop", "worker", "--beat", "--queues=celery,outbox", "--pool=solo"]
        worker += [f"--schedule={directory / 'beat'}"]
        for command in (["manage.py", "runserver", "--noreload", str(port)], worker):
            process = subprocess.Popen([sys.executable, *command], cwd=HERE, stdout=log, stderr=log)
            stack.enter_context(process)
            stack.callback(process.terminate)
        wait_for(port)
        print(f"the shop:              http://127.0.0.1:{port}/")
        print(f"the operators' pages:  http://127.0.0.1:{port}/admin/outbox/outboxmessage/  (ann, password {key[:12]})")
        print(f"the broker's ledger:   {emulator.url}/_emulator/ledger")
        print("Ctrl-C ends it", flush=True)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


def prepare(directory: Path) -> None:
    """The tables, an operator, and the orders of the first customers, placed as the shop itself does it."""
    script = "from shop.views import place; [place(item) for item in ITEMS]".replace("ITEMS", repr(ITEMS))
    create = ["createsuperuser", "--noinput", "--username", "ann", "--email", "ann@shop.example"]
    is_new = not (directory / "shop.sqlite").exists()
    for command in (["migrate"], *([create] if is_new else []), ["shell", "--command", script]):
        subprocess.run([sys.executable, "manage.py", *command, "--verbosity", "0"], cwd=HERE, check=True)


def wait_for(port: int) -> None:
    """Wait, for half a minute at most, until somebody listens at a port."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    sys.exit("the shop did not start; shop.log, in the directory of --keep, says why")


if __name__ == "__main__":
    main()
