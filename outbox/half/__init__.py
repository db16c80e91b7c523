"""Half messages from the checker's side: what to answer when the broker asks about one, and the rounds of asking.

`decide` is pure and holds every rule. The `Checker` around it keeps no state that matters: any number of them may run
at the same time, and each may end at any point.
"""

from outbox.half.checker import CheckConfig, CheckCounts, Checker, HalfClient
from outbox.half.decisions import Adopt, Commit, Decision, Leave, Offer, Reason, Rollback, decide, offer_of

__all__ = [
    "Adopt",
    "CheckConfig",
    "CheckCounts",
    "Checker",
    "Commit",
    "Decision",
    "HalfClient",
    "Leave",
    "Offer",
    "Reason",
    "Rollback",
    "decide",
    "offer_of",
]
