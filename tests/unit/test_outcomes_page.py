"""docs/outcomes.md says what the code does, row by row."""

from pathlib import Path

import pytest

from outbox.rocketmq import codes, faults

PAGE = Path(__file__).parents[2] / "docs" / "outcomes.md"
TAKEN = {False: "certainly not", None: "perhaps", True: "yes"}


def by_code() -> list[str]:
    return [_row(f"`{code}`", rule) for code, rule in codes.CODES.items()]


def by_status() -> list[str]:
    return [_row(_span(statuses), rule) for statuses, rule in codes.STATUSES.items()]


def by_exception() -> list[str]:
    before = [f"| `{code}` | `Paused` | certainly not |" for _, code in faults._CODES_BEFORE]
    after = [f"| `{code}` | `Unknown` | perhaps |" for _, code in faults._CODES_AFTER]
    return [*before, *after]


def _span(statuses: range) -> str:
    return str(statuses.start) if len(statuses) == 1 else f"{statuses.start}–{statuses.stop - 1}"


def _row(what: str, rule: codes.Rule) -> str:
    return f"| {what} | `{rule.outcome.__name__}` | {TAKEN[rule.accepted]} | {rule.because} |"


def written(name: str) -> list[str]:
    """The rows between a block's marks, without its head."""
    block = PAGE.read_text().split(f"<!-- {name}: begin -->\n")[1].split(f"<!-- {name}: end -->")[0]
    return block.splitlines()[2:]


@pytest.mark.parametrize(
    ("name", "rows"), [("codes", by_code()), ("statuses", by_status()), ("exceptions", by_exception())]
)
def test_page_equals_the_code(name: str, rows: list[str]):
    """Each table of the page has the rows of the table in the code, in its order."""
    assert written(name) == rows
