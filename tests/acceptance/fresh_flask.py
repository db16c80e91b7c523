"""A fresh Flask application, the README's edits, and how long it is until its first message is delivered.

::

    PYTHONPATH=. python tests/acceptance/fresh_flask.py
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from outbox.emulator import Emulator

README = Path(__file__).parents[2] / "README.md"
KEY = {"OUTBOX_ACCESS_KEY_ID": "id", "OUTBOX_ACCESS_KEY_SECRET": "secret"}


@dataclass(frozen=True)
class Story:
    """What came of it.

    Attributes:
        edits: the lines that were added.
        delivered: bodies that the broker has.
        seconds: from the first edit to the delivery.
    """

    edits: list[str]
    delivered: list[str]
    seconds: float

    def __str__(self) -> str:
        return f"{len(self.edits)} edits, {self.seconds:.1f} s to the first message of a fresh Flask application"


def diff() -> list[str]:
    """The README's lines on Flask: those of the application, and those to be added."""
    blocks = re.findall(r"^```diff\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [one for one in blocks if "outbox.flask" in one]
    return found.splitlines()


def before(lines: list[str]) -> str:
    """The application without the outbox."""
    return "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))


def after(lines: list[str]) -> str:
    """The application with it."""
    return "".join(f"{line[1:]}\n" for line in lines)


def tell(directory: Path) -> Story:
    """Make the application, edit it, and do what the README shows, in an empty directory."""
    with Emulator(keys={KEY["OUTBOX_ACCESS_KEY_ID"]: KEY["OUTBOX_ACCESS_KEY_SECRET"]}) as emulator:
        lines, app = diff(), directory / "app.py"
        app.write_text(before(lines))
        settings = KEY | {"OUTBOX_ENDPOINT": emulator.url}
        environment = {**os.environ, **{f"FLASK_{name}": value for name, value in settings.items()}}

        def flask(*arguments: str) -> None:
            command = [sys.executable, "-m", "flask", *arguments]
            subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)

        began = time.perf_counter()
        app.write_text(after(lines))
        flask("outbox", "migrate")
        with running(directory, environment) as url:
            order(url, "a book")
        flask("outbox", "relay", "--drain")
        seconds = time.perf_counter() - began
        return Story(
            [line[1:] for line in lines if line.startswith("+")],
            [one["body"] for one in emulator.ledger()["messages"]],
            seconds,
        )


@contextmanager
def running(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """``flask run``, at this URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flask", "run", "--port", str(port)]
    with subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def order(url: str, item: str) -> None:
    """Order something, as soon as the application listens."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/orders", json.dumps({"item": item}).encode(), headers)
    until = time.monotonic() + 30
    while True:
        with suppress(urllib.error.URLError if time.monotonic() < until else ()):
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert answer.status == 201
            return
        time.sleep(0.05)


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory() as directory:
        sys.stdout.write(f"{tell(Path(directory))}\n")


if __name__ == "__main__":
    main()
