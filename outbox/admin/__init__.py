"""What the operators' pages share, whichever framework serves them: what they show, and what operators do there.

It knows no framework and no request. Whoever serves the pages gives strings and a database, and gets plain values::

    meant = parse_filter({"state": "failed", "topic": "orders"})
    page = search(database, meant)
    outcome = act_on_selected(database, "replay", [target_text(row) for row in page.rows], by="ann", reason="repaired")

Every page costs a bounded number of statements and a bounded time, however many messages there are.
"""

from outbox.admin.acting import (
    act_on_matching,
    act_on_selected,
    checked_reason,
    parse_targets,
    pause,
    resume,
    target_text,
    view_body,
)
from outbox.admin.charts import charts
from outbox.admin.concerns import Concern, concerns
from outbox.admin.drawing import draw
from outbox.admin.filters import parse_filter, written
from outbox.admin.overview import Detail, Overview, detail, overview, paused, summary
from outbox.admin.rights import RIGHTS, needed
from outbox.admin.timeline import Event, timeline
from outbox.admin.words import age_text, count_text, inert, instant_text
from outbox.store.audit import Act, acts
from outbox.store.filter import Filter
from outbox.store.matching import Progress
from outbox.store.operate import Outcome, Refusal, Target
from outbox.store.search import Found, Group, Groups, failures, search
from outbox.store.tally import Count, Tally, tally

__all__ = [
    "RIGHTS",
    "Act",
    "Concern",
    "Count",
    "Detail",
    "Event",
    "Filter",
    "Found",
    "Group",
    "Groups",
    "Outcome",
    "Overview",
    "Progress",
    "Refusal",
    "Tally",
    "Target",
    "act_on_matching",
    "act_on_selected",
    "acts",
    "age_text",
    "charts",
    "checked_reason",
    "concerns",
    "count_text",
    "detail",
    "draw",
    "failures",
    "inert",
    "instant_text",
    "needed",
    "overview",
    "parse_filter",
    "parse_targets",
    "pause",
    "paused",
    "resume",
    "search",
    "summary",
    "tally",
    "target_text",
    "timeline",
    "view_body",
    "written",
]
