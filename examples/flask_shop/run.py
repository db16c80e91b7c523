"""Runs the whole shop on this machine: broker, database, web server, Celery worker; nothing to install or configure.

It takes a few orders first. The emulator refuses some of their invoices, so that there is something to mend under
/outbox/. Ctrl-C ends everything; with --keep DIRECTORY the database is kept.
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


def environment(directory: Path, emulator: Emulator, key: str, port: int) -> dict[str, str]:
    """The config of the shop's processes, as FLASK_… for ``app.config.from_prefixed_env``."""
    for place in ("queue", "control"):
        (directory / place).mkdir(exist_ok=True)
    folder = str(directory / "queue")
    config = {
        "SECRET_KEY": secrets.token_hex(),
        "OPERATOR_PASSWORD": key[:12],
        "SQLALCHEMY_DATABASE_URI": f"sqlite:///{directory / 'shop.sqlite'}",
        "OUTBOX_ENDPOINT": emulator.url,
        "OUTBOX_ACCESS_KEY_ID": "shop",
        "OUTBOX_ACCESS_KEY_SECRET": key,
        # A broker in files needs no server; give Redis or RabbitMQ in their place.
        "CELERY__broker_url": "filesystem://",
        "CELERY__broker_transport_options__data_folder_in": folder,
        "CELERY__broker_transport_options__data_folder_out": folder,
        "CELERY__broker_transport_options__control_folder": str(directory / "control"),
        "CELERY__broker_transport_options__polling_interval": "0.1",
        "CELERY__worker_enable_remote_control": "false",
        "CELERY__beat_schedule__report__task": "shop.report",
        "CELERY__beat_schedule__report__schedule": "60",
    }
    ours = {f"FLASK_{name}": value for name, value in config.items()}
    return {**os.environ, **ours, "FLASK_APP": "shop", "FLASK_RUN_PORT": str(port), "PYTHONPATH": str(HERE)}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def main() -> None:
    """Start everything, take orders, wait for Ctrl-C, and end everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000, help="of the shop; 0 takes a free one (default 5000)")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where the database is to stay")
    options = parser.parse_args()
    port, key = options.port or free_port(), f"key-{secrets.token_hex(16)}"
    with ExitStack() as stack:
        directory = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        emulator = stack.enter_context(Emulator(keys={"shop": key}))
        emulator.fault("refuse", code="InvalidArgument", topic="invoices", count=5)
        os.environ.update(environment(directory.resolve(), emulator, key, port))
        for command in (["db", "upgrade"], ["outbox", "migrate"]):
            subprocess.run([sys.executable, "-m", "flask", *command], cwd=HERE, check=True)
        log = stack.enter_context((directory / "shop.log").open("wb"))
        worker = ["celery", "-A", "worker", "worker", "--beat", "--queues=celery,outbox", "--pool=solo"]
        worker += [f"--schedule={directory / 'beat'}"]
        for command in (["flask", "run"], worker):
            process = subprocess.Popen([sys.executable, "-m", *command], cwd=HERE, stdout=log, stderr=log)
            stack.enter_context(process)
            stack.callback(process.terminate)
        take_orders()
        wait_for(port)
        print(f"the shop:              http://127.0.0.1:{port}/")
        print(f"the operators' pages:  http://127.0.0.1:{port}/outbox/  (sign in at the shop; password {key[:12]})")
        print(f"the broker's ledger:   {emulator.url}/_emulator/ledger")
        print("Ctrl-C ends it", flush=True)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


def wait_for(port: int) -> None:
    """Wait, for half a minute at most, until somebody listens at a port."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    sys.exit("the shop did not start; shop.log, in the directory of --keep, says why")


def take_orders() -> None:
    """Orders of the first customers, placed as the shop itself does it."""
    sys.path.insert(0, str(HERE))
    from shop import create_app, place  # noqa: PLC0415 - its config stands in the environment only now

    with create_app().app_context():
        for item in ITEMS:
            place(item)


if __name__ == "__main__":
    main()
