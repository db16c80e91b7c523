"""How commands speak: data on stdout, talk on stderr.

Stored texts come from anywhere, the broker's error texts included, so that none is ever shown as it is: a text may be
made to move a terminal's cursor, to fake a line, or to read as markup.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outbox.admin.words import inert

__all__ = ["inert", "json_option", "print_fields", "print_json", "print_table", "print_text", "talk"]

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.\d{6}Z")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")


def talk(text: str) -> None:
    """Say something to a person: on stderr, so that stdout holds data alone."""
    click.echo(inert(text), err=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document; in ASCII, which every locale can print and no terminal acts on."""
    click.echo(json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name:{width}}  {_shown(value)}")


def print_text(name: str, text: str) -> None:
    """Print a long text below its name, its own lines indented so that none can pass for one of ours."""
    click.echo(name)
    for line in text.split("\n"):
        click.echo(f"    {inert(line)}")


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a header: a table on a terminal, aligned text where a program may read."""
    cells = [[_shown(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(*header)
        for row in cells:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
    for row in [list(header), *cells]:
        padded = [set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())


def _shown(value: object) -> str:
    if value is None or value == "":
        return "-"
    instant = _INSTANT.fullmatch(str(value))
    return f"{instant[1]} {instant[2]}Z" if instant else inert(str(value))
