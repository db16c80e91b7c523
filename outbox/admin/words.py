"""Numbers, ages and instants as the pages write them."""

import math
from datetime import UTC, datetime

from outbox.store.tally import Count

__all__ = ["age_text", "count_text", "inert", "instant_text", "short_number"]

_DIGITS_OF_AN_ESTIMATE = 3
# The largest unit that fits, and the next one beside it: from so many seconds on, and each so many long.
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count_text(count: Count) -> str:
    """``1,234``; ``10,000+`` where counting ended there; ``about 934,000`` where it is an estimate."""
    if count.at_least:
        return f"{count.number:,}+"
    if count.about and count.number:
        magnitude = 10 ** max(0, len(str(count.number)) - _DIGITS_OF_AN_ESTIMATE)
        return f"about {round(count.number / magnitude) * magnitude:,}"
    return f"{count.number:,}"


def age_text(seconds: float | None) -> str:
    """``45 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``; a dash for None."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    place = next((n for n, (length, _) in enumerate(_UNITS) if whole >= length), len(_UNITS) - 1)
    length, unit = _UNITS[place]
    told = f"{whole // length} {unit}"
    if place in {0, 1} and (rest := whole % length // _UNITS[place + 1][0]):
        told += f" {rest} {_UNITS[place + 1][1]}"
    return told


def instant_text(instant: datetime | str | None) -> str:
    """``2030-01-31 08:00:00``, always UTC, from a datetime or from ISO 8601; a dash for None."""
    if not instant:
        return "–"
    at = instant if isinstance(instant, datetime) else datetime.fromisoformat(instant)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def short_number(number: float) -> str:
    """``950``, ``1.2k``, ``20k``, ``3.4M``: for the axis of a chart."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{math.floor(number)}"


def inert(text: str) -> str:
    r"""The text with everything that is not plainly visible spelled out, such as ``\x1b`` or ``\n``."""
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])
