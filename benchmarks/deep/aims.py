"""What is aimed at, and whether what was measured meets it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Aim", "aims"]

_FEW = "10 k pending"
_PEAK_MB = 250
# The last fifth of a run against what came before it, without the first tenth, in which everything is built up.
_FLAT = 1.1


@dataclass(frozen=True)
class Aim:
    """One aim: what of, the words of the aim, the figure, and whether it is met."""

    what: str
    aim: str
    measured: str
    met: bool


def aims(parts: Mapping[str, Any]) -> list[Aim]:
    """The aims of those parts that were measured."""
    judges = {
        "piles on": _piles,
        "long transaction on": _long_transaction,
        "sixteen claimers on": _claimers,
        "memory, ": _memory,
        "ordering keys": _ordering,
        "pages": _pages,
    }
    return [
        aim
        for name, found in parts.items()
        for prefix, judge in judges.items()
        if name.startswith(prefix)
        for aim in judge(name, found)
    ]


def _at_most(what: str, aim: float, measured: float) -> Aim:
    return Aim(what, f"≤ {aim:g}×", f"{measured:.2f}×", met=measured <= aim)


def _at_least(what: str, aim: float, measured: float) -> Aim:
    return Aim(what, f"≥ {aim:g}×", f"{measured:.2f}×", met=measured >= aim)


def _piles(name: str, found: Any) -> Iterator[Aim]:
    server = name.removeprefix("piles on ")
    for pile in ("1 M pending", "5 M sent kept"):
        ratio = found[pile]["row_us"] / found[_FEW]["row_us"]
        yield _at_most(f"claim and mark a row with {pile}, against {_FEW}, {server}", 1.2, ratio)


def _long_transaction(name: str, found: Any) -> Iterator[Aim]:
    beside, alone = found["with"], found["without"]
    drift = alone[-1]["row_us"] / alone[0]["row_us"]
    ratio = beside[-1]["row_us"] / beside[0]["row_us"] / drift
    server = name.removeprefix("long transaction on ")
    what = f"the last tenth of the rows beside a long transaction, against the first, {server}"
    yield _at_most(f"{what} (the same without it: {drift:.2f}×, divided out)", 1.5, ratio)


def _claimers(name: str, found: Any) -> Iterator[Aim]:
    share = found["share"]
    yield Aim(f"{name}: claims in vain", "≤ 5 %", f"{share:.1%}", met=share <= 0.05)  # noqa: PLR2004 - the aim


def _memory(name: str, found: Any) -> Iterator[Aim]:
    peak, tenths = found["peak_mb"], found["tenths_mb"]
    yield Aim(f"{name}: peak", f"≤ {_PEAK_MB} MB", f"{peak} MB", met=peak <= _PEAK_MB)
    yield _at_most(f"{name}: the last fifth of the run, against the rest", _FLAT, max(tenths[8:]) / max(tenths[1:8]))


def _ordering(_name: str, found: Any) -> Iterator[Aim]:
    yield _by_round("10,000 ordering keys, rate against none", found, "keys", "unordered")
    what = "the same keys beside one that has half of the rows, rate against alone"
    yield _by_round(what, found, "beside_a_hot_key", "keys")


def _by_round(what: str, found: Any, ours: str, theirs: str) -> Aim:
    """The median of each round's ratio: within a round the machine has changed least."""
    pairs = zip(found[f"{ours}_by_round"], found[f"{theirs}_by_round"], strict=True)
    ratios = sorted(rate / other for rate, other in pairs)
    return _at_least(f"{what} (by round {ratios[0]:.2f}–{ratios[-1]:.2f}×)", 0.8, median(ratios))


def _pages(_name: str, found: Any) -> Iterator[Aim]:
    share = found["as migrated"]["claims_in_place"]
    yield Aim("claims that are HOT updates", "≥ 95 %", f"{share:.1%}", met=share >= 0.95)  # noqa: PLR2004 - the aim
