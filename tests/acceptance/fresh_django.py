"""A fresh Django project, the README's edits, and how long it is until its first message is delivered.

::

    PYTHONPATH=. python tests/acceptance/fresh_django.py
"""

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
from itertools import groupby
from pathlib import Path
from urllib.parse import urlencode

from outbox.emulator import Emulator

README = Path(__file__).parents[2] / "README.md"
KEY = {"OUTBOX_ACCESS_KEY_ID": "id", "OUTBOX_ACCESS_KEY_SECRET": "secret"}


@dataclass(frozen=True)
class Edit:
    """Lines that are put into a file behind a line that is there, or the whole of a new file."""

    path: str
    behind: str | None
    lines: tuple[str, ...]

    def make(self, directory: Path) -> None:
        """Change the file."""
        file = directory / self.path
        there = file.read_text().splitlines() if self.behind is not None else []
        place = 1 + _unquoted(there).index(_unquoted([self.behind])[0]) if self.behind is not None else 0
        file.write_text("\n".join([*there[:place], *self.lines, *there[place:], ""]))


@dataclass(frozen=True)
class Story:
    """What came of it.

    Attributes:
        edits: what was changed.
        delivered: bodies that the broker has.
        checked: what ``manage.py check`` said of the project.
        seconds: from the first edit to the delivery.
    """

    edits: list[Edit]
    delivered: list[str]
    checked: str
    seconds: float

    def __str__(self) -> str:
        return f"{len(self.edits)} edits, {self.seconds:.1f} s to the first message of a fresh Django project"


def _unquoted(lines: list[str]) -> list[str]:
    """Django's starter quotes in one way or the other, by whether a formatter is installed."""
    return [line.replace("'", '"') for line in lines]


def edits() -> list[Edit]:
    """Those of the README: runs of added lines, and the view."""
    text = README.read_text()
    (diff,) = [one for one in _blocks("diff", text) if "outbox.django" in one]
    (view,) = [one for one in _blocks("python", text) if "def sign_up" in one]
    found, path, behind = [], "", ""
    for added, run in groupby(diff.splitlines(), lambda line: line.startswith("+")):
        lines = [line[1:] for line in run]
        if added:
            found.append(Edit(path, behind, tuple(lines)))
        else:
            path = next((line.removeprefix("# ") for line in reversed(lines) if line.startswith("# ")), path)
            behind = lines[-1]
    return [*found, Edit("mysite/views.py", None, tuple(view.splitlines()))]


def _blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def tell(directory: Path) -> Story:
    """Start the project, edit it, and do what the README shows, in an empty directory."""
    with Emulator(keys={KEY["OUTBOX_ACCESS_KEY_ID"]: KEY["OUTBOX_ACCESS_KEY_SECRET"]}) as emulator:
        environment = {**os.environ, **KEY, "OUTBOX_ENDPOINT": emulator.url}
        project, found = directory / "mysite", edits()

        def run(*arguments: str, cwd: Path = project) -> str:
            command = [sys.executable, *arguments]
            ran = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        run("-m", "django", "startproject", "mysite", cwd=directory)
        began = time.perf_counter()
        for one in found:
            one.make(project)
        run("manage.py", "migrate")
        with running(project, environment) as url:
            sign_up(url, "ann")
        run("manage.py", "outbox", "relay", "--drain")
        seconds = time.perf_counter() - began
        delivered = [one["body"] for one in emulator.ledger()["messages"]]
        return Story(found, delivered, run("manage.py", "check", "--database", "default"), seconds)


@contextmanager
def running(directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """``manage.py runserver``, at this URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=directory, env=environment, **output) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def sign_up(url: str, name: str) -> None:
    """Sign somebody up, as soon as the project listens."""
    until = time.monotonic() + 30
    while True:
        with suppress(urllib.error.URLError if time.monotonic() < until else ()):
            with urllib.request.urlopen(f"{url}/sign-up", urlencode({"name": name}).encode(), timeout=5) as answer:
                assert answer.status == 201
            return
        time.sleep(0.05)


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory() as directory:
        sys.stdout.write(f"{tell(Path(directory))}\n")


if __name__ == "__main__":
    main()
