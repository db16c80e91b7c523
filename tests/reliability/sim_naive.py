"""Designs that must not be used, as switches for the simulation: if none of them is caught, the simulation is blind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import literal_column

from outbox.outcomes import Outcome, Retry, Sent, Unknown
from outbox.rocketmq.client import Client
from outbox.store import claim, leases

__all__ = ["NORMAL", "Switch", "switched"]

Switch = Callable[[pytest.MonkeyPatch], None]


def _with_outcome(patch: pytest.MonkeyPatch, change: Callable[[Outcome], Outcome]) -> None:
    outcome_of = Client.outcome_of
    patch.setattr(Client, "outcome_of", lambda self, answer, body: change(outcome_of(self, answer, body)))


def sent_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    """A lost answer is taken for a success."""
    _with_outcome(patch, lambda outcome: Sent("GUESSED") if isinstance(outcome, Unknown) else outcome)


def lost_answer_is_no_publish(patch: pytest.MonkeyPatch) -> None:
    """A lost answer is taken for a failure, so that the duplicate it may lead to is not counted."""
    _with_outcome(patch, lambda outcome: Retry(outcome.fault) if isinstance(outcome, Unknown) else outcome)


def takeover_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Whoever takes over a lease believes that nothing was published under it."""

    def nothing(_rows: Any) -> Any:
        return literal_column("0")

    patch.setattr(leases, "_crashed", nothing)


def followers_before_their_head(patch: pytest.MonkeyPatch) -> None:
    """Rows of one ordering key go out side by side."""
    from collections import deque

    from outbox.relay import board

    patch.setattr(board, "in_chains", lambda rows: [deque((row,)) for row in rows])


NORMAL: dict[str, Switch] = {
    switch.__name__: switch
    for switch in (
        sent_without_an_answer,
        lost_answer_is_no_publish,
        takeover_is_not_counted,
        followers_before_their_head,
    )
}

_CACHED: tuple[Any, ...] = (claim._due_rows, leases._due_among, leases._lease_among)


@contextmanager
def switched(switch: Switch) -> Iterator[None]:
    """With one naive design in the product's place."""
    with pytest.MonkeyPatch.context() as patch:
        switch(patch)
        _forget_statements()
        yield
    _forget_statements()


def _forget_statements() -> None:
    for statement in _CACHED:
        statement.cache_clear()
