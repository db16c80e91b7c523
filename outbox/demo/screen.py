"""How the story is told: lines with the time they happened at, live bars on a terminal, tables in the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from outbox.demo.verdict import Duplicate, Finding
from outbox.demo.witnesses import Glance

__all__ = ["Screen"]

_ID_END = 8


class Screen:
    """Standard output, as far as it can show things. What it is told may hold rich's markup.

    Args:
        go_on: called before each moment of the story is shown; what it raises ends it.
    """

    def __init__(self, go_on: Callable[[], None]) -> None:
        self._go_on = go_on
        self._console = Console(highlight=False)
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        """Begin a part."""
        self._go_on()
        self._console.print(f"\n[bold]{text}[/]")

    def line(self, text: str) -> None:
        """Say what happened just now."""
        self._go_on()
        row = Table.grid(padding=(0, 2))
        row.add_column(width=7, justify="right", style="dim")
        row.add_row(f"{time.monotonic() - self._began:.1f} s", text)
        self._console.print(row)

    def say(self, text: str) -> None:
        """Say something that did not happen at a certain moment."""
        self._console.print(Padding(text, (0, 0, 0, 2), expand=False))

    @contextmanager
    def bars(self, *, orders: int, messages: int) -> Iterator[Callable[[Glance], None]]:
        """Show how far things are, below the lines; nothing where there is no terminal.

        Yields:
            What to call with news.
        """
        told = TextColumn("{task.fields[told]}", style="dim")
        columns = (TextColumn("{task.description:>11}"), BarColumn(24), MofNCompleteColumn(), told)
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:
            taken = bars.add_task("orders", total=orders, told="")
            delivered = bars.add_task("delivered", total=messages, told="")

            def show(seen: Glance) -> None:
                self._go_on()
                bars.update(taken, completed=seen.taken, told=f"{seen.rolled_back} rolled back")
                again = f", {seen.again} delivered again" if seen.again else ""
                bars.update(delivered, completed=seen.delivered, told=f"{seen.pending} pending{again}")

            yield show

    def findings(self, findings: Sequence[Finding]) -> None:
        """Show what became of each promise."""
        table = Table.grid(padding=(0, 2))
        for one in findings:
            held = "[bold red]broken[/]" if one.broken else "[green]kept[/]"
            table.add_row(held, one.promise, f"[dim]{one.found}[/]")
        self._console.print(Padding(table, (0, 0, 0, 2), expand=False))

    def duplicates(self, duplicates: Sequence[Duplicate]) -> None:
        """Show each message that was delivered again, under the codes of its unknown outcomes."""
        by_cause: dict[str, list[str]] = {}
        for one in duplicates:
            by_cause.setdefault(one.cause, []).append(f"…{one.outbox_id[-_ID_END:]}")
        for cause, ids in sorted(by_cause.items()):
            self.say(f"{cause}, {len(ids)}:")
            self._console.print(Padding(Text(" ".join(ids), style="dim"), (0, 0, 0, 4), expand=False))

    def commands(self, commands: Sequence[tuple[str, str]]) -> None:
        """Show what to type next, each with what it does."""
        for command, does in commands:
            self._console.print(Text.assemble("  ", (command, "cyan"), (f"  # {does}", "dim")), soft_wrap=True)
