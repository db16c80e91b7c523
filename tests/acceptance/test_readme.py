"""README.md: its programs run, its tables equal the code, its links lead somewhere."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# What only this one of the README's programs holds.
FIRST_LINE = "both or neither"
ORDER = "class Base"
CONSUMER = "seen_messages"
CELERY = "install(celery_app)"
SIGN_UP = "def sign_up"  # followed by test_django_fresh.py
MESSAGES = "ordering_key="
KEYS = {"OUTBOX_ACCESS_KEY_ID": "FAKEAKID", "OUTBOX_ACCESS_KEY_SECRET": "FAKESECRET"}


def blocks(language):
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(language, part):
    """The one block of a language that holds this text."""
    (found,) = [one for one in blocks(language) if part in one]
    return found


def table(first_cell):
    """The cells of a table whose rows begin with a code span like this."""
    return [line.strip("| ").split(" | ") for line in README.splitlines() if re.match(rf"\| `{first_cell}", line)]


@pytest.fixture
def environment(tmp_path, emulator):
    """The settings of a shop on SQLite that publishes to the emulator; `outbox` is a command."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {"OUTBOX_DATABASE_URL": f"sqlite:///{tmp_path / 'shop.sqlite'}", "OUTBOX_ENDPOINT": emulator.url}
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **ours, **KEYS}


@pytest.fixture
def run(environment):
    """A function that runs a command line with these settings, and gives what it said."""

    def run(*command):
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    return run


@pytest.fixture
def engine(environment):
    """The shop's engine, as the examples make it, on a migrated database."""
    from outbox import prepare_sqlite
    from outbox.migrate import upgrade

    engine = create_engine(environment["OUTBOX_DATABASE_URL"])
    prepare_sqlite(engine)
    upgrade(engine)
    yield engine
    engine.dispose()


# --- programs ---------------------------------------------------------------------------------------------------------


def test_every_program_is_tested():
    """A Python block that is added to the README is added to the tests below."""
    tested = (FIRST_LINE, ORDER, SIGN_UP, CONSUMER, CELERY, MESSAGES)

    assert sorted(blocks("python")) == sorted(block("python", part) for part in tested)


def test_sqlalchemy_example_publishes_its_order(run, engine, emulator):
    """The SQLAlchemy program is the example's file, and its order arrives at the broker."""
    example = ROOT / "examples/plain_sqlalchemy/shop.py"
    run(sys.executable, str(example))
    run("outbox", "relay", "--drain")
    (message,) = emulator.ledger()["messages"]

    assert example.read_text() == block("python", ORDER)
    assert ("orders", "created", '{"id":1,"item":"a book"}') == (message["topic"], message["tag"], message["body"])
    assert "order-1" == message["properties"]["KEYS"]


def test_flask_example_publishes_what_it_commits(run, emulator, environment, tmp_path):
    """What the Flask example commits arrives, and what fails after the enqueue does not."""
    app = shutil.copy(ROOT / "examples/flask_minimal/app.py", tmp_path)
    environment |= {"FLASK_APP": app, "FLASK_OUTBOX_ENDPOINT": emulator.url}
    environment |= {f"FLASK_{name}": value for name, value in KEYS.items()}
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from app import app
client = app.test_client()
assert client.post("/orders", json={{"item": "a book"}}).json == {{"id": 1}}
app.extensions["sqlalchemy"].session.commit = lambda: 1 / 0
assert client.post("/orders", json={{"item": "a ghost"}}).status_code == 500
"""
    run("flask", "outbox", "migrate")
    run(sys.executable, "-c", program)
    run("flask", "outbox", "relay", "--drain")

    assert ['{"id":1,"item":"a book"}'] == [one["body"] for one in emulator.ledger()["messages"]]


def test_consumer_recipe_works_once_for_duplicates(engine, emulator, environment):
    """A message that was delivered twice, since its first answer was lost, is worked on once."""
    from mq_http_sdk.mq_client import MQClient

    from outbox import Message, enqueue
    from outbox.settings import Settings
    from outbox.wiring import Runtime

    recipe = {}
    exec(block("python", CONSUMER), recipe)
    recipe["seen"].create(engine)
    with engine.begin() as connection:
        enqueue(connection, Message("orders", "first"), Message("orders", "second"))
    emulator.fault("accept_then_drop", count=1)
    runtime = Runtime(Settings.from_mapping({**environment, "OUTBOX_BACKOFF_BASE_S": "0"}))
    runtime.relay().run(runtime.drained(30))
    client = MQClient(emulator.url, *KEYS.values())
    arrived = client.get_consumer("", "orders", "GID_shop").consume_message(16, 3)
    client.close_connection()
    worked_on = []
    for message in arrived:
        recipe["handle"](engine, message, lambda _connection, body: worked_on.append(body))
    runtime.database.engine.dispose()

    assert 3 == len(arrived)
    assert ["first", "second"] == sorted(worked_on)


def test_celery_lines_install_the_outbox(monkeypatch, environment):
    """The lines for Celery add the tasks, and what beat sends them, to an application."""
    from celery import Celery

    for name in KEYS:
        monkeypatch.setenv(name, environment[name])
    app = Celery("shop", set_as_current=False)
    exec(block("python", CELERY), {"celery_app": app})

    assert {"outbox.relay", "outbox.purge"} <= set(app.tasks)
    assert {"outbox.relay", "outbox.purge"} <= set(app.conf.beat_schedule)


def test_messages_of_every_kind_can_be_enqueued(engine):
    """The messages that the README shows become rows; enqueued again, the one with a deduplication key does not."""
    from sqlalchemy.orm import Session

    from outbox import Message, enqueue
    from outbox.table import messages

    with Session(engine) as session, session.begin():
        exec(block("python", FIRST_LINE), {"session": session, "Message": Message, "enqueue": enqueue})
        exec(block("python", MESSAGES), {"session": session})
        exec(block("python", MESSAGES), {"session": session})
    with engine.connect() as connection:
        topics = connection.scalars(select(messages.c.topic).order_by(messages.c.id)).all()

    kinds = ["orders", "orders-by-customer", "reminders"]
    assert ["orders", *kinds, "invoices", *kinds] == topics


def test_walk_through_says_what_it_shows(environment, tmp_path):
    """Typed as it stands, only at a free port, the walk-through says what the README shows."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = str(free.getsockname()[1])
    shown = block("console", "plain_sqlalchemy/shop.py").replace("8080", port)
    typed = "".join(line.removeprefix("$ ") + "\n" for line in shown.splitlines() if line.startswith("$ "))
    typed = typed.replace("emulator &", f"emulator --port {port} &").replace("examples/", f"{ROOT}/examples/")
    script = f"set -e\ntrap 'kill %1; wait' EXIT\n{typed}"
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    said = {_without_time(line) for line in (ran.stdout + ran.stderr).splitlines()}
    promised = {_without_time(line) for line in shown.splitlines() if not line.startswith("$ ")}

    assert 0 == ran.returncode, ran.stderr
    assert promised
    assert set() == promised - said


def _without_time(line):
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", line)


@pytest.mark.parametrize(
    "line", dict.fromkeys(re.findall(r"^\$ (?:.*? )?(outbox \w+.*?)(?: &)?$", README, re.MULTILINE))
)
def test_shown_command_line_is_understood(line):
    """Every command line that the README shows has a command and options that there are."""
    from outbox.cli import program

    _, name, *arguments = shlex.split(line)
    command = program.get_command(program.make_context("outbox", ["--help"], resilient_parsing=True), name)

    assert command is not None
    assert command.make_context(name, arguments).command is command


# --- tables -----------------------------------------------------------------------------------------------------------


def test_settings_table_equals_the_schema():
    """The table has every setting that there is, in the schema's words for names and defaults."""
    from outbox.settings import Settings

    def told(value):
        if isinstance(value, bool):
            return f"`{str(value).lower()}`"
        return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value else "–"

    fields = {name: field.default for name, field in Settings.model_fields.items() if not name.endswith("_file")}
    expected = {f"`OUTBOX_{name.upper()}`": told(default) for name, default in fields.items()}

    assert expected == {key: default for key, default, _ in table("OUTBOX_")}


def test_settings_that_may_be_files_are_named():
    """The sentence on files names those settings that have one, and no other."""
    from outbox.settings import Settings

    sentence = re.search(r"\n\n([^\n]*\n[^\n]*) may be given as files", README)[1]
    expected = {f"OUTBOX_{name.upper()}" for name in Settings.model_fields if f"{name}_file" in Settings.model_fields}

    assert expected == set(re.findall(r"OUTBOX_\w+", sentence))


def test_state_diagram_equals_the_transitions():
    """The diagram has the transitions of every row that was ever pending, and none besides."""
    from outbox.states import FINISHED, TRANSITIONS, State

    reached = {State.PENDING}
    for _ in State:
        reached |= {one.target for one in TRANSITIONS if one.source in reached}
    expected = {
        (one.source, one.target, f"{one.verb}{', forced' if one.forced else ''}")
        for one in TRANSITIONS
        if one.source in reached
    }
    expected |= {("[*]", "pending", "enqueue"), *((state, "[*]", "purge") for state in FINISHED)}
    drawn = re.findall(r"^ +(\S+) --> (\S+) : (.+)$", block("mermaid", "stateDiagram"), re.MULTILINE)

    assert expected == set(drawn)
    assert len(expected) == len(drawn)


def test_command_table_equals_the_commands():
    """The table has every command, in the order of the help."""
    from outbox.cli import program

    context = program.make_context("outbox", ["--help"], resilient_parsing=True)

    assert [f"`outbox {name}`" for name in program.list_commands(context)] == [row[0] for row in table("outbox ")]


def test_extras_table_equals_the_project():
    """The table has every extra that can be installed."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shown = re.search(r"^\| extra \| for \|\n(.*?)\n\n", README, re.MULTILINE | re.DOTALL)[1]
    first_cells = "".join(line.split("|")[1] for line in shown.splitlines())

    assert set(extras) == set(re.findall(r"`(\w+)`", first_cells))


def test_demo_output_names_every_promise():
    """What the README shows of the demo is told of the very promises that the demo judges."""
    from outbox.demo.verdict import Evidence, judge

    promises = [finding.promise for finding in judge(Evidence({}, frozenset(), [], []))]

    assert promises == re.findall(r"^  kept  (.+?)  ", block("console", "make demo"), re.MULTILINE)


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_lead_somewhere():
    """Every link to a file leads to one, and every page of docs is linked."""
    links = {link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)]+)\)", README)}

    assert [] == [link for link in links if not (ROOT / link).is_file()]
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= links


def test_architecture_names_every_module():
    """The page on the architecture says what each module is for; none is left out, and none is invented."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    modules = {str(path.relative_to(ROOT)).removesuffix("/__init__.py") for path in (ROOT / "outbox").rglob("*.py")}
    named = set(re.findall(r"`(outbox(?:/\w+)*(?:\.py)?)`", page))

    assert modules == named
