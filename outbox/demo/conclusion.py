"""The story's frame: its title, the verdict, and what to type next."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import which

from outbox.demo.screen import Screen
from outbox.demo.story import ORDERS, play
from outbox.demo.verdict import KILLED, Evidence, Finding, Pace, judge, pace

__all__ = ["tell"]


def tell(directory: Path, seed: int, go_on: Callable[[], None], *, keep: bool) -> bool:
    """Tell the whole story in an empty directory, which the caller will ``keep`` or not.

    Args:
        directory: for everything that the story writes.
        seed: which orders roll back, and which requests fail.
        go_on: called before anything is shown; what it raises ends the story.
        keep: whether the directory stays.

    Returns:
        Whether every promise held.
    """
    screen = Screen(go_on)
    screen.title(f"{ORDERS:,} orders through the outbox while things go wrong, seed {seed}")
    evidence = play(directory, seed, screen)
    findings = judge(evidence)
    screen.title("What was promised, and what the shop, the outbox and the broker's ledger say")
    screen.findings(findings)
    if evidence.duplicates:
        screen.title("Delivered again, and the unknown outcome behind it; the outbox_id ends in")
        screen.duplicates(evidence.duplicates)
    screen.title("From commit to delivery, outage and killed relay included")
    screen.say(_timing(pace(evidence)))
    broken = [one for one in findings if one.broken]
    screen.title(f"[red]Broken promises: {len(broken)}[/]" if broken else "[green]Every promise held.[/]")
    for one in broken:
        screen.say(_contradiction(one))
    screen.title("Next")
    screen.commands(_look_at(directory, evidence) if keep else _go_on())
    return not broken


def _timing(pace: Pace) -> str:
    waits = ", ".join(f"p{share} {_duration(pace.wait(share / 100))}" for share in (50, 95))
    return f"{waits}; {len(pace.waits)} messages in {pace.seconds:.1f} s, up to {pace.busiest} in one second"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _contradiction(finding: Finding) -> str:
    shown, more = finding.broken[:3], len(finding.broken[3:])
    return f"{finding.promise}: {', '.join(shown)}{f' and {more} more' if more else ''}"


def _go_on() -> list[tuple[str, str]]:
    outbox = _program()
    return [
        (f"{outbox} demo --keep", "again, and keep the database to look at"),
        (f"OUTBOX_ACCESS_KEY_ID=id OUTBOX_ACCESS_KEY_SECRET=secret {outbox} emulator", "a broker for your code"),
        (f"{outbox} --help", "every command"),
    ]


def _look_at(directory: Path, evidence: Evidence) -> list[tuple[str, str]]:
    outbox = _program()
    explained = (one for one in evidence.duplicates if set(one.unknowns) - {KILLED})
    shown = next(explained, evidence.rows[0])
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
    if found and called.exists() and Path(found).samefile(called):
        return "outbox"
    return shlex.quote(str(called))
