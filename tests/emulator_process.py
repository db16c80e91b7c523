"""The emulator as a process of its own, as `outbox emulator` runs it."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PROGRAM = """
import json, sys
from outbox.emulator import serve

given = json.loads(sys.argv[1])
serve(given.pop("host"), given.pop("port"), given.pop("keys"), on_listening=lambda url: print(url, flush=True), **given)
"""


class EmulatorProcess:
    """A running emulator; ``stop`` ends it by SIGTERM."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def ledger(self, after: int = 0) -> dict[str, Any]:
        return self._ask("GET", f"ledger?after={after}")

    def faults(self, *specifications: dict[str, Any]) -> dict[str, Any]:
        """Set faults, each such as ``{"fault": "throttle", "rate": 0.1}``; returns all that are set."""
        return self._ask("POST", "faults", list(specifications))

    def fault(self, name: str, **fields: Any) -> None:
        """Set one fault."""
        self.faults({"fault": name, **fields})

    def begin_anew(self) -> None:
        self._ask("DELETE", "")

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    def advance(self, seconds: float) -> None:
        self._ask("POST", "clock", {"advance_s": seconds})

    def stop(self, timeout_s: float = 5) -> int:
        """End the process, if it has not ended; returns its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()

    def _ask(self, method: str, path: str, document: Any = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{self.url}/_emulator/{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def emulator_process(host: str = "127.0.0.1", port: int = 0, **given: Any) -> Iterator[EmulatorProcess]:
    """Start the emulator, on a free port unless told; ``given`` may be keys, strict_topics, …."""
    given = {"host": host, "port": port, "keys": {"FAKEAKID": "FAKESECRET"}, **given}
    command = [sys.executable, "-c", _PROGRAM, json.dumps(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        emulator = EmulatorProcess(process, process.stdout.readline().strip())
        try:
            assert emulator.url.startswith("http://"), "the emulator did not start; its own words are on stderr"
            yield emulator
        finally:
            emulator.stop()
