"""The states of a row and every way from one to another, as data.

Rule: whatever changes the column ``state`` stands in `TRANSITIONS`, and the statement that does it names its source
state in its WHERE clause. A claim is no state: it sets a lease on a ``pending`` row, and an expired lease is simply due
again, so nothing has to be cleaned up after a crash.

::

                 publish                                   (the broker answered 201)
    pending ───────────────────────▶ sent
       │                              │
       │ refuse                       │ replay, forced
       ▼                              ▼
    failed ─────────replay────────▶ pending
       │
       └───────────discard────────▶ discarded

Half messages, which the broker has accepted and shows to nobody until they are ended::

             elect, adopt              confirm, settle
    pending ─────────────▶ committing ─────────────────▶ sent
                               │                          ▲
                               │ doubt                    │ confirm
                               ▼                          │
                           in_doubt ──────────────────────┘
                               ├── replay, forced ──────▶ pending
                               └── discard, forced ─────▶ discarded

    pending, committing, failed ──quarantine──▶ in_doubt   (rows of half messages in a restored database)

`elect` and `adopt` decide which of a row's half messages may ever be committed, once for each replay: they leave
``pending`` only where ``message_id`` is null, and whatever else leaves ``pending`` decides for none of them.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["FINISHED", "TRANSITIONS", "State", "Transition", "sources"]


class State(StrEnum):
    """Where a row stands. The value is what the column holds."""

    #: Written by ``enqueue``; the relay owes a publish. Leaves by `publish` or `refuse`; never deleted.
    PENDING = "pending"
    #: The row's half message is elected and its commit is not confirmed yet. Never deleted.
    COMMITTING = "committing"
    #: The broker has it, under ``message_id``. Deleted by ``purge`` after the retention.
    SENT = "sent"
    #: Refused for good, or out of attempts. Waits for an operator; never deleted.
    FAILED = "failed"
    #: A half message whose fate cannot be proven any more. Waits for an operator; never deleted.
    IN_DOUBT = "in_doubt"
    #: Closed by an operator. Deleted by ``purge`` after the retention.
    DISCARDED = "discarded"


#: States that ``purge`` may delete.
FINISHED = frozenset({State.SENT, State.DISCARDED})


@dataclass(frozen=True, slots=True)
class Transition:
    """One permitted change of state.

    Attributes:
        verb: what does it, a word of the glossary.
        source: the state it leaves.
        target: the state it enters.
        forced: an operator must ask for it with ``--force``, because it may publish twice or forget.
    """

    verb: str
    source: State
    target: State
    forced: bool = False


TRANSITIONS = (
    Transition("publish", State.PENDING, State.SENT),
    Transition("refuse", State.PENDING, State.FAILED),
    Transition("elect", State.PENDING, State.COMMITTING),
    Transition("adopt", State.PENDING, State.COMMITTING),
    Transition("confirm", State.COMMITTING, State.SENT),
    Transition("confirm", State.IN_DOUBT, State.SENT),
    Transition("settle", State.COMMITTING, State.SENT),
    Transition("doubt", State.COMMITTING, State.IN_DOUBT),
    Transition("quarantine", State.PENDING, State.IN_DOUBT),
    Transition("quarantine", State.COMMITTING, State.IN_DOUBT),
    Transition("quarantine", State.FAILED, State.IN_DOUBT),
    Transition("replay", State.FAILED, State.PENDING),
    Transition("replay", State.SENT, State.PENDING, forced=True),
    Transition("replay", State.IN_DOUBT, State.PENDING, forced=True),
    Transition("discard", State.FAILED, State.DISCARDED),
    Transition("discard", State.IN_DOUBT, State.DISCARDED, forced=True),
)


def sources(verb: str, *, forced: bool = False) -> frozenset[State]:
    """States that ``verb`` may leave; with ``forced``, also those that need ``--force``."""
    return frozenset(t.source for t in TRANSITIONS if t.verb == verb and (forced or not t.forced))
