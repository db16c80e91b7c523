"""What needs a person, in sentences for whoever was woken up by it."""

from collections.abc import Iterator
from dataclasses import dataclass

from outbox.admin.overview import Overview
from outbox.admin.words import age_text, count_text
from outbox.states import State
from outbox.store.tally import Count

__all__ = ["Concern", "concerns"]

#: Seconds after which a due row has waited for too long, or a checker been silent.
_LONG_S = 300.0


@dataclass(frozen=True, slots=True)
class Concern:
    """Something to look at.

    Attributes:
        level: ``bad``, ``warn``, or ``note`` where nothing is wrong.
        text: what it is, and what may be done.
        about: where to look: ``failed``, ``in_doubt``, ``pending``, ``pauses`` or ``checks``.
    """

    level: str
    text: str
    about: str


def concerns(now: Overview) -> list[Concern]:
    """The same that makes ``outbox status`` exit with 3, and operators' pauses; the worst first."""
    found = [*_held(now), *_waiting(now), *_paused(now), *_unchecked(now)]
    return sorted(found, key=lambda one: ("bad", "warn", "note").index(one.level))


def _held(now: Overview) -> Iterator[Concern]:
    failed, in_doubt = now.tally.counts[State.FAILED], now.tally.counts[State.IN_DOUBT]
    if failed.number:
        text = f"{_rows(failed)} failed: refused by the broker, or out of attempts. Replay or discard them."
        yield Concern("bad", text, "failed")
    if in_doubt.number:
        text = f"{_rows(in_doubt)} in doubt: whether they were published cannot be proven any more."
        yield Concern("bad", text, "in_doubt")


def _waiting(now: Overview) -> Iterator[Concern]:
    waited_s = now.tally.oldest_pending_s
    if waited_s is not None and waited_s > _LONG_S:
        text = f"The oldest pending row has waited {age_text(waited_s)}. Does a relay run, and can it keep up?"
        yield Concern("warn", text, "pending")


def _paused(now: Overview) -> Iterator[Concern]:
    for pause in now.paused:
        lane = f"{pause['destination']}/{pause['topic']}"
        if pause["automatic"]:
            yield Concern("warn", f"{lane} pauses by itself: {pause['reason']}", "pauses")
        else:
            yield Concern("note", f"{lane} is paused by {pause['by']}: {pause['reason']}", "pauses")


def _unchecked(now: Overview) -> Iterator[Concern]:
    for topic in now.half_messages:
        silent_s = topic["checked_s"]
        if topic["unsettled"] and (silent_s is None or silent_s > _LONG_S):
            lane = f"{topic['destination']}/{topic['topic']}"
            text = f"{lane} has {topic['unsettled']:,} unsettled half messages. Does outbox check run?"
            yield Concern("warn", text, "checks")


def _rows(count: Count) -> str:
    told = count_text(count)
    return f"{told[0].upper()}{told[1:]} {'row is' if told == '1' else 'rows are'}"
