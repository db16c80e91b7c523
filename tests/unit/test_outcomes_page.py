"""docs/outcomes.md says what the code does, row by row."""

from pathlib import Path

import pytest

from outbox.rocketmq import codes, faults

PAGE = Path(__file__).parents[2] / "docs" / "outcomes.md"
TAKEN = {False: "certainly not", None: "perhaps", True: "yes"}


def by_code() -> list[str]:
    return [_code_row(f"`{code}`", rule) for code, rule in codes.CODES.items()] + [
        _code_row("any other", codes.ANY_OTHER_CODE)
    ]


def by_status() -> list[str]:
    rules = [(_span(statuses), rule) for statuses, rule in codes.STATUSES.items()]
    return [_row(statuses, rule) for statuses, rule in [*rules, ("any other", codes.ANY_OTHER_STATUS)]]


def by_exception() -> list[str]:
    before = [f"| `{code}` | `Paused` | certainly not |" for _, code in faults._CODES_BEFORE]
    after = [f"| `{code}` | `Unknown` | perhaps |" for _, code in faults._CODES_AFTER]
    return [*before, *after]


def by_ending(table) -> list[str]:
    own = [
        f"| {' '.join([str(status), *([f'`{what}`'] if what else [])])} | `{kind.__name__}` |"
        for (status, what), kind in table.items()
    ]
    turned = [
        f"| any other that is `{publish.__name__}` to a publish | `{ending.__name__}` |"
        for publish, ending in codes.AS_ENDING.items()
    ]
    return [*own, *turned]


def _span(statuses: range) -> str:
    return str(statuses.start) if len(statuses) == 1 else f"{statuses.start}–{statuses.stop - 1}"


def _row(what: str, rule: codes.Rule) -> str:
    return f"| {what} | `{rule.outcome.__name__}` | {TAKEN[rule.accepted]} | {rule.because} |"


def _code_row(code: str, rule: codes.Rule) -> str:
    what, rest = _row(code, rule)[2:].split(" | ", 1)
    return f"| {what} | {_under(rule.under)} | {rest}"


def _under(statuses) -> str:
    """Whole hundreds, and what is missing from them."""
    hundreds = sorted({status // 100 for status in statuses})
    missing = sorted(set(range(hundreds[0] * 100, (hundreds[-1] + 1) * 100)) - set(statuses))
    whole = ", ".join(f"{hundred}xx" for hundred in hundreds)
    return f"{whole} but {', '.join(map(str, missing))}" if missing else whole


def written(name: str) -> list[str]:
    """The rows between a block's marks, without its head."""
    block = PAGE.read_text().split(f"<!-- {name}: begin -->\n")[1].split(f"<!-- {name}: end -->")[0]
    return block.splitlines()[2:]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("codes", by_code()),
        ("statuses", by_status()),
        ("exceptions", by_exception()),
        ("endings", by_ending(codes.ENDINGS)),
        ("checks", by_ending(codes.CHECKS)),
    ],
)
def test_page_equals_the_code(name: str, rows: list[str]):
    """Each table of the page has the rows of the table in the code, in its order."""
    assert written(name) == rows
