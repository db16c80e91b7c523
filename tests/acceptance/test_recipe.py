"""docs/testing-against-the-emulator.md: its files are written out and its suites run, as a reader would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing-against-the-emulator.md").read_text()
NODE_MODULES = Path(os.environ.get("NODE_SDK_MODULES", ROOT / "tests" / "interop" / "node_modules"))
FILES = {
    name: text
    for mark, text in re.findall(r"^```(?:python|js|sh)\n(.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for name in [mark.lstrip("#/ ")]
}


@pytest.fixture
def run(tmp_path):
    """A function that runs a command beside the page's files; `outbox` is a command there."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "examples" / "flask_minimal" / "app.py", tmp_path)
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": commands, "NODE_PATH": str(NODE_MODULES)}

    def run(*command):
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        return ran.returncode, ran.stdout + ran.stderr

    return run


def test_page_holds_these_files():
    """A block that is added to the page is added to what runs here."""
    assert ["conftest.py", "test_orders.py", "orders.test.js", "test.sh"] == list(FILES)


def test_python_suite_passes(run):
    """The suite of the Flask application passes as the page has it."""
    code, said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider")

    assert (0, True) == (code, "4 passed" in said), said


def test_node_suite_passes(run):
    """So does the suite that drives the official Node SDK, on an emulator that the page's script starts and ends."""
    if shutil.which("node") is None or not (NODE_MODULES / "@aliyunmq" / "mq-http-sdk").is_dir():
        reason = "the Node SDK is not installed: npm ci --prefix tests/interop"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    code, said = run("sh", "test.sh")

    assert (0, True) == (code, "# pass 2" in said), said
