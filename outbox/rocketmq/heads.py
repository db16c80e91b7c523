"""The head of an answer, from the lines that libcurl hands over. No I/O.

libcurl has each line end with a line feed, and bounds how many there are and how long they may be; that they are
headers it does not check.
"""

import re
from functools import lru_cache
from typing import Any

__all__ = ["Headers", "head_of", "headers_of"]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENDS = frozenset({b"\r\n", b"\n"})
_BLANKS = (b" ", b"\t")
# A server writes most lines of its heads again and again, and none of those is longer.
_LINES_KNOWN, _LONGEST_KNOWN = 256, 128


class Headers(dict[str, str]):
    """Headers by name in lower case, whose look-up ignores case; of several with one name the first."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default``."""
        return super().get(name.lower(), default)


def head_of(lines: list[bytes]) -> list[bytes] | None:
    """The header lines of the answer proper, behind others that only announced it; None where its head has no end.

    Args:
        lines: as they came, status lines, empty lines and trailers among them.
    """
    first = 0
    for number, line in enumerate(lines):
        if line.startswith(b"HTTP/"):
            first = number + 1
    for number in range(first, len(lines)):
        if lines[number] in _ENDS:
            return lines[first:number]
    return None


def headers_of(lines: list[bytes]) -> Headers | None:
    """The headers; None where a line is none. One that begins with white space goes on with the line before.

    Args:
        lines: as `head_of` returns them.
    """
    pairs = [_known_pair(line) if len(line) <= _LONGEST_KNOWN else _pair(line) for line in lines]
    if None in pairs:
        pairs = [_pair(line) for line in _unfolded(lines)]
    whole = [pair for pair in reversed(pairs) if pair is not None]
    return Headers(whole) if len(whole) == len(pairs) else None


def _unfolded(lines: list[bytes]) -> list[bytes]:
    whole: list[bytes] = []
    for line in lines:
        if line.startswith(_BLANKS) and whole:
            whole[-1] = whole[-1].rstrip() + b" " + line.lstrip()
        else:
            whole.append(line)
    return whole


def _pair(line: bytes) -> tuple[str, str] | None:
    """Name in lower case, and value; None for what is no header."""
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        return None
    return name.decode("ascii").lower(), value.strip(b" \t\r\n").decode("latin-1")


_known_pair = lru_cache(_LINES_KNOWN)(_pair)
