"""What was found, as Markdown."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["report"]


def report(document: Mapping[str, Any]) -> str:
    """The aims, and a table for each part."""
    rows = [[one["what"], one["aim"], one["measured"], "yes" if one["met"] else "**no**"] for one in document["aims"]]
    lines = [
        json.dumps(document["machine"]),
        "",
        f"Rows: {document['scale']:g} times those that are named. {document['note']}".rstrip(),
        "",
    ]
    lines += _table(["what", "aim", "measured", "met"], rows)
    for name, found in document["parts"].items():
        lines += ["", f"## {name[:1].upper()}{name[1:]}", "", *_of_part(found)]
        lines += ["", f"{document['seconds'][name]} s."]
    return "\n".join(lines) + "\n"


def _of_part(found: Any) -> list[str]:
    first = next(iter(found.values()))
    if isinstance(first, Mapping):
        return _table(["", *first], [[name, *one.values()] for name, one in found.items()])
    if isinstance(first, list) and isinstance(first[0], Mapping):
        rows = [
            [part + 1, *(one["row_us"] for one in both)] for part, both in enumerate(zip(*found.values(), strict=True))
        ]
        return _table(["part of the rows", *(f"row_us, {name}" for name in found)], rows)
    return _table([*found], [[*found.values()]])


def _table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> list[str]:
    lines = [_line(head), ""]
    lines[1] = "|" + "---|" * (lines[0].count("|") - 1)
    return lines + [_line(row) for row in rows]


def _line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |"
