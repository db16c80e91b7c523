"""Actions as Django's own lists send them: an action's name and rows, then the same again with a reason."""

from dataclasses import replace

from outbox.admin import deeds, target_text
from outbox.admin.visits import Page, Visit
from outbox.errors import OperationError
from outbox.store.look import as_seen

__all__ = ["answer"]

_SELECTED = "_selected_action"
# Below the fields that Django lets a form have.
_MOST = 500
_DIGITS = 18


def answer(visit: Visit) -> Page:
    """Ask for a confirmation; with a ``reason``, do it."""
    if not visit.text("action"):
        raise OperationError("no act was chosen; choose replay or discard")
    ids = [_id(text) for text in visit.texts(_SELECTED)]
    if len(ids) > _MOST:
        raise OperationError(f"{len(ids)} rows are selected; select at most {_MOST}, or act on all that match a filter")
    selected = [target_text(row) for row in as_seen(visit.database, ids)]
    form = {**visit.form, "do": [f"{visit.text('action')} selected"], "selected": selected}
    translated = replace(visit, form=form)
    return deeds.act(translated) if "reason" in visit.form else deeds.confirm(translated)


def _id(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        raise OperationError("the selection holds something that is no row's id; go back and select anew")
    return int(text)
