"""The relay: claim → publish → mark, as a pipeline. The only place that knows both the store and the HTTP client.

::

    claimer ──rows──▶ board ──one row──▶ publishers (concurrency)
      ▲                 ▲                    │
      │ room            └─────outcome────────┘
      │                 │
      └────────────── marker ──marks──▶ database

`Board` holds all state between the stages, in memory, under one lock; the stages hold none. No transaction is open
while a request is in flight: a claim commits its lease before the first publish, and a mark has its own transaction.
"""

from outbox.relay.endings import Drained, Ending, Forever, Swept
from outbox.relay.marker import Counts
from outbox.relay.pipeline import Relay

__all__ = ["Counts", "Drained", "Ending", "Forever", "Relay", "Swept"]
