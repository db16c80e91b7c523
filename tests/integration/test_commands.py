"""The commands as a whole: help and documentation, errors in one line, and how other programs mount them."""

import logging
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from outbox.cli import _OnStderr, program
from outbox.commands import Failure, OutboxCommands
from tests.commands import KEYS, Commands

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"])
DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^## `outbox (\S+)`\n(.*?)(?=^## |\Z)", DOCUMENTATION, re.MULTILINE | re.DOTALL))
CONTEXT = click.Context(program, info_name="outbox")
NAMES = program.list_commands(CONTEXT)
READING = ["status", "list", "show", "audit"]
# What each command needs besides settings, to get as far as the database.
ARGUMENTS = {
    "migrate": [],
    "enqueue": ["--topic", "orders", "hello"],
    "relay": ["--drain"],
    "status": [],
    "list": [],
    "show": ["1"],
    "replay": ["1"],
    "discard": ["1"],
    "pause": ["orders"],
    "resume": ["orders"],
    "purge": [],
    "audit": [],
}


def options_of(name):
    """The long options of a command, but --help."""
    command = program.get_command(CONTEXT, name)
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {spelled for option in options for spelled in option.opts if spelled.startswith("--")} - {"--help"}


# --- help and documentation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_command_explains_itself(name):
    """Every command and every option of it has a help text."""
    command = program.get_command(CONTEXT, name)
    shown = CliRunner().invoke(program, [name, "--help"])

    assert (0, "") == (shown.exit_code, shown.stderr)
    assert command.help
    assert command.get_short_help_str()
    assert [] == [one.name for one in command.params if isinstance(one, click.Option) and not one.help]
    assert "\\b" not in shown.stdout


def test_documentation_has_every_command():
    """The page has a section for each command, and for nothing else."""
    assert set(NAMES) == set(SECTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_documentation_has_every_option(name):
    """A command's section names each of its options, and no other."""
    assert options_of(name) == set(re.findall(r"--[a-z]+(?:-[a-z]+)*", SECTIONS[name]))


def test_documentation_links_every_command():
    """The list at the top leads to each section."""
    assert set(NAMES) == set(re.findall(r"\[`(\w+)`\]\(#outbox-\1\)", DOCUMENTATION.split("## ")[0]))


@pytest.mark.parametrize("name", READING)
def test_reading_commands_take_json(name):
    """Whatever reads can answer a program."""
    assert "--json" in options_of(name)


def test_help_needs_no_settings():
    """Help and wrong usage work where nothing is set up yet, or wrongly."""

    def load():
        raise AssertionError("the settings were loaded")

    runner, commands = CliRunner(), OutboxCommands(load)

    assert 0 == runner.invoke(commands, ["--help"]).exit_code
    assert 0 == runner.invoke(commands, ["enqueue", "--help"]).exit_code
    assert 2 == runner.invoke(commands, ["enqueue", "--nonsense"]).exit_code
    assert 2 == runner.invoke(commands, []).exit_code


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["nonsense", "--nonsense", "list --nonsense", "show", "list extra"])
def test_wrong_usage_is_one_line(arguments):
    """What click says in three lines is one, and leads to the help."""
    result = CliRunner().invoke(program, arguments.split(), prog_name="outbox")

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert re.fullmatch(r"error: .+; see: outbox( list| show)? --help\n", result.stderr)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_missing_database_setting_is_told(name):
    """Every command that needs the database names the setting that it misses."""
    result = Commands({"OUTBOX_ENDPOINT": "http://127.0.0.1:1", **KEYS})(name, *ARGUMENTS[name])

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: OUTBOX_DATABASE_URL: missing; give ")


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name != "migrate"])
def test_unmigrated_database_is_told(name, database_url):
    """A database without the tables is told with the command that makes them."""
    run = Commands({"OUTBOX_DATABASE_URL": database_url, "OUTBOX_ENDPOINT": "http://127.0.0.1:1", **KEYS})
    result = run(name, *ARGUMENTS[name])

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: ")
    assert "outbox migrate" in result.stderr


UNREACHABLE = {
    "closed port": ("postgresql+psycopg://user:hidden@127.0.0.1:1/shop", "cannot reach the database 127.0.0.1:1/shop"),
    "unknown host": ("postgresql+psycopg://user:hidden@db.invalid/shop", "cannot reach the database db.invalid"),
    "MySQL's closed port": ("mysql+pymysql://user:hidden@127.0.0.1:1/x", "cannot reach the database 127.0.0.1:1/x"),
    "no directory": ("sqlite:////nonexistent/outbox.db", "the database /nonexistent/outbox.db"),
    "unknown option": ("mysql+pymysql://user:hidden@127.0.0.1:1/x?foo=bar", "OUTBOX_DATABASE_URL: the driver"),
    "option of a wrong kind": (
        "mysql+pymysql://user:hidden@h/x?connect_timeout=a",
        "OUTBOX_DATABASE_URL: has an option",
    ),
    "SQLite's option of a wrong kind": ("sqlite:///x.db?timeout=a", "OUTBOX_DATABASE_URL: "),
    "file of the URL's": (
        "mysql+pymysql://user:hidden@h/x?ssl_ca=/nonexistent",
        "No such file or directory; check OUTBOX_DATABASE_URL",
    ),
    "no URL": ("hidden", "OUTBOX_DATABASE_URL: "),
    "no database of ours": ("oracle://user:hidden@host/shop", "OUTBOX_DATABASE_URL: "),
    "asynchronous": ("sqlite+aiosqlite:///hidden.db", "OUTBOX_DATABASE_URL: "),
    "unknown driver": ("postgresql+nonsense://user:hidden@host/shop", "OUTBOX_DATABASE_URL: "),
    "missing driver": ("mysql+mysqldb://user:hidden@host/shop", "give postgresql+psycopg://…, mysql+pymysql://… or"),
}


@pytest.mark.parametrize("name", UNREACHABLE)
@pytest.mark.parametrize("command", ["status", "enqueue", "migrate"])
def test_unreachable_database_is_told(command, name):
    """A wrong URL or a server that does not answer is one line, without the password."""
    url, expected = UNREACHABLE[name]
    result = Commands({"OUTBOX_DATABASE_URL": url})(command, *ARGUMENTS[command])

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert "hidden" not in result.stderr


@SQLITE
@pytest.mark.parametrize("name", ["status", "enqueue"])
def test_wrong_setting_is_told(name, migrated_url):
    """Any wrong setting stops any command, so that nothing half configured runs."""
    result = Commands({"OUTBOX_DATABASE_URL": migrated_url})(name, *ARGUMENTS[name], OUTBOX_BATCH_SIZE="many")

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: OUTBOX_BATCH_SIZE: ")


# --- migrate ------------------------------------------------------------------------------------------------------


def test_migrate_is_safe_to_run_twice(database_url):
    """The second time nothing happens, and the outbox works after either."""
    run = Commands({"OUTBOX_DATABASE_URL": database_url})
    first, second = run("migrate"), run("migrate")

    assert [(0, "", "the schema is at version 0001\n")] * 2 == [
        (result.exit_code, result.stdout, result.stderr) for result in (first, second)
    ]
    assert 0 == run("status").exit_code


def test_migrate_prints_sql(database_url):
    """The statements are for stdout, and the database stays as it is."""
    run = Commands({"OUTBOX_DATABASE_URL": database_url})
    result = run("migrate", "--sql")

    assert (0, "") == (result.exit_code, result.stderr)
    assert re.search(r"CREATE TABLE (IF NOT EXISTS )?outbox_messages ", result.stdout)
    assert 1 == run("status").exit_code


# --- servers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", KEYS)
def test_emulator_names_what_is_missing(missing):
    """The emulator needs keys, and nothing else."""
    result = Commands({name: value for name, value in KEYS.items() if name != missing})("emulator", "--port", 0)

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith(f"error: {missing}: missing; give ")


def test_emulator_tells_of_a_taken_port(emulator):
    """A port that is taken is told in one line with the way out."""
    port = emulator.url.rpartition(":")[2]
    result = Commands(KEYS)("emulator", "--port", port)

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith(f"error: cannot listen at 127.0.0.1:{port}: Address already in use")


def test_emulator_tells_of_an_unknown_host():
    """A name that leads nowhere is told in one line."""
    result = Commands(KEYS)("emulator", "--host", "nowhere.invalid", "--port", 0)

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith("error: cannot listen at nowhere.invalid:0: ")


STRICT_TOPICS = {
    "not JSON": ("{orders: normal}", "is not JSON"),
    "no object": ('["orders"]', "give one JSON object"),
    "no text": ('{"orders": 1}', "give one JSON object"),
    "unknown kind": ('{"orders": "nonsense"}', "--strict-topics: "),
}


@pytest.mark.parametrize("name", STRICT_TOPICS)
def test_emulator_tells_of_wrong_topics(name, tmp_path):
    """A file that does not say which topics there are is told in one line."""
    content, expected = STRICT_TOPICS[name]
    file = tmp_path / "topics.json"
    file.write_text(content)
    result = Commands(KEYS)("emulator", "--port", 0, "--strict-topics", file)

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert expected in result.stderr


BROKERS = {"": "missing; give ", "nonsense": "is not a URL"}


@pytest.mark.parametrize("url", BROKERS)
def test_worker_tells_of_wrong_brokers(url, monkeypatch):
    """A worker without a broker does not start."""
    monkeypatch.setenv("OUTBOX_BROKER_URL", url)
    result = CliRunner().invoke(program, ["worker"])

    assert (1, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert result.stderr.startswith(f"error: OUTBOX_BROKER_URL: {BROKERS[url]}")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_drain_refuses_a_timeout_that_never_comes(seconds):
    """Seconds are a number, above 0 and within a lifetime."""
    result = Commands({})("relay", "--drain", "--timeout", seconds)

    assert (2, "") == (result.exit_code, result.stdout)
    assert "--timeout" in result.stderr


def test_emulator_refuses_an_empty_address():
    """To the system an empty address is every one that the machine has."""
    result = Commands(KEYS)("emulator", "--host", "")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "give one such as 127.0.0.1" in result.stderr


# --- log events ---------------------------------------------------------------------------------------------------


def test_log_event_is_a_line(capsys):
    """An event's level, name and fields stand in one line, in which no field can break out."""
    record = logging.makeLogRecord(
        {"levelname": "WARNING", "msg": "outbox.paused", "topic": "a\nb\x1b", "for_s": 0.12345}
    )
    _OnStderr().emit(record)

    assert "warning: outbox.paused topic=a\\nb\\x1b for_s=0.123\n" == capsys.readouterr().err


def test_log_event_of_a_defect_has_its_traceback(capsys):
    """What nobody foresaw is told with the place where it happened."""
    try:
        {}["\x1b[2J"]
    except KeyError:
        record = logging.makeLogRecord({"levelname": "ERROR", "msg": "outbox.broke", "exc_info": sys.exc_info()})
    _OnStderr().emit(record)
    told = capsys.readouterr().err

    assert told.startswith("error: outbox.broke\nTraceback (most recent call last):\n")
    assert told.endswith("KeyError: '\\x1b[2J'\n")


def test_log_event_that_cannot_be_told_stops_nothing(monkeypatch):
    """A full disk under the log must not fail a send."""
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr("outbox.cli.click.echo", lambda *_, **__: 1 / 0)

    assert _OnStderr().emit(logging.makeLogRecord({"msg": "outbox.paused"})) is None


# --- mounted elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture
def host(migrated_url):
    """Another program's command line that has ours under a name of its own, with its own settings."""
    with Commands({"OUTBOX_DATABASE_URL": migrated_url}).runtime() as runtime:
        host = click.Group("host")
        host.add_command(OutboxCommands(lambda: runtime), "outbox")
        yield host


@SQLITE
def test_mounted_commands_take_the_hosts_settings(host):
    """The environment has no say where a host gives the runtime."""
    runner = CliRunner()
    enqueued = runner.invoke(host, ["outbox", "enqueue", "--topic", "orders", "hello"])
    refused = runner.invoke(host, ["outbox", "list", "--nonsense"])

    assert (0, "1\n") == (enqueued.exit_code, enqueued.stdout)
    assert (2, "error: No such option '--nonsense'; see: host outbox list --help\n") == (
        refused.exit_code,
        refused.stderr,
    )


@SQLITE
def test_mounted_commands_raise_where_they_do_not_exit(host):
    """A host that handles errors itself, as Django does, gets them as one exception with text and exit code."""
    with pytest.raises(Failure, match="there is no message 99") as raised:
        host.main(["outbox", "show", "99"], standalone_mode=False)

    assert 1 == raised.value.exit_code


@SQLITE
def test_defects_are_not_hidden(host, monkeypatch):
    """What nobody foresaw keeps its traceback."""
    monkeypatch.setattr("outbox.commands.looking.look.status", lambda _database: 1 / 0)

    assert isinstance(CliRunner().invoke(host, ["outbox", "status"]).exception, ZeroDivisionError)
