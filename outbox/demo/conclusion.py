"""The story's frame: its title, the verdict, and what to type next."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from outbox.demo.screen import Screen
from outbox.demo.story import ORDERS, play
from outbox.demo.verdict import Evidence, Finding, Pace, judge, pace

__all__ = ["tell"]


def tell(directory: Path, seed: int, *, keep: bool) -> bool:
    """Tell the whole story in an empty directory, which the caller will ``keep`` or not.

    Returns:
        Whether every promise held.
    """
    screen = Screen()
    screen.title(f"{ORDERS:,} orders through the outbox while things go wrong, seed {seed}")
    evidence = play(directory, seed, screen)
    findings = judge(evidence)
    screen.title("What was promised, and what the shop, the outbox and the broker's ledger say")
    screen.findings(findings)
    if evidence.duplicates:
        screen.title("Delivered again, each after an unknown outcome; the outbox_id ends in")
        screen.duplicates(evidence.duplicates)
    screen.title("From commit to delivery")
    screen.say(f"{_waits(pace(evidence, *evidence.calm))} in the calm before the outage")
    overall = pace(evidence)
    screen.say(f"{_waits(overall)} overall: {overall.messages} messages, {overall.rate:.0f} a second")
    screen.title(_verdict(findings))
    screen.title("Next")
    screen.commands(_look_at(directory, evidence) if keep else _go_on())
    return not any(finding.broken for finding in findings)


def _waits(pace: Pace) -> str:
    return f"p50 {_duration(pace.p50_s)}, p95 {_duration(pace.p95_s)}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _verdict(findings: Sequence[Finding]) -> str:
    broken = [f"{one.promise} ({', '.join(one.broken[:3])})" for one in findings if one.broken]
    return f"[red]Broken: {'; '.join(broken)}[/]" if broken else "[green]Every promise held.[/]"


def _go_on() -> list[tuple[str, str]]:
    outbox = _program()
    return [
        (f"{outbox} demo --keep", "again, and keep the database to look at"),
        (f"OUTBOX_ACCESS_KEY_ID=id OUTBOX_ACCESS_KEY_SECRET=secret {outbox} emulator", "a broker for your code"),
        (f"{outbox} --help", "every command"),
    ]


def _look_at(directory: Path, evidence: Evidence) -> list[tuple[str, str]]:
    outbox = _program()
    shown = evidence.duplicates[0] if evidence.duplicates else evidence.rows[0]
    return [
        (f"export OUTBOX_DATABASE_URL={shlex.quote(f'sqlite:///{directory}/outbox.sqlite')}", "what was kept"),
        (f"{outbox} list --limit 10", "the newest messages"),
        (f"{outbox} show {shown.outbox_id}", "one of them, and its attempts that did not end well"),
    ]


def _program() -> str:
    """How this program is called from here."""
    called = Path(sys.argv[0])
    if called.suffix == ".py":
        return f"{shlex.quote(sys.executable)} -m outbox.cli"
    found = which("outbox")
    if found and Path(found).samefile(called):
        return "outbox"
    return shlex.quote(str(called))
