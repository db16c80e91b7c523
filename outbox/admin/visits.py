"""A request to the pages, and what answers it, in words that no framework knows.

Whoever serves the pages makes a `Visit` of each request, has a screen or a deed answer it, and renders the `Page`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from outbox.admin.rights import needed
from outbox.admin.words import age_text, count_text, inert, instant_text
from outbox.errors import DatabaseError, OperationError
from outbox.store.database import Database

__all__ = ["NotAllowedError", "Page", "Visit", "refusal", "words"]

_NUMBER_DIGITS = 18


class NotAllowedError(Exception):
    """Whoever asks has not the right to."""


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is known.

    Attributes:
        database: the outbox's.
        operator: their name, for the audit.
        can: whether they have one of `outbox.admin.RIGHTS`.
        query: what stands behind the question mark; the last of values with one name.
        form: the fields of the form that was sent.
    """

    database: Database
    operator: str
    can: Callable[[str], bool]
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def may(self, act: str, *, force: bool = False) -> bool:
        """Whether they have every right that an act needs."""
        return all(self.can(right) for right in needed(act, force=force))

    def demand(self, act: str, *, force: bool = False) -> None:
        """Refuse the request unless they do. Raises NotAllowedError."""
        if not self.may(act, force=force):
            forced = ", by force" if force else ""
            raise NotAllowedError(f"{self.operator} may not do this: {act.replace('_', ' ')}{forced}.")

    def texts(self, name: str) -> list[str]:
        """The fields of the form with this name."""
        return list(self.form.get(name, ()))

    def text(self, name: str) -> str:
        """A field of the form; blank where it is missing."""
        return next(iter(self.texts(name)), "")

    def number(self, name: str) -> int | None:
        """A field of the form, or of the link, that holds a whole number; None where it is blank.

        Raises:
            OperationError: it holds something else.
        """
        given = self.text(name) or self.query.get(name, "")
        if not given:
            return None
        if not given.isascii() or not given.isdecimal() or len(given) > _NUMBER_DIGITS:
            problem = f"got {len(given)} characters; give a whole number of at most {_NUMBER_DIGITS}"
            raise OperationError(f"{name}: {problem}")
        return int(given)


@dataclass(frozen=True)
class Page:
    """What to show.

    Attributes:
        template: a file's name in ``templates/outbox``; blank for a redirection.
        context: what the template needs; of a deed also what was ``given`` for the audit.
        status: of the answer.
        elsewhere: the page to go to instead.
    """

    template: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    status: int = HTTPStatus.OK
    elsewhere: str = ""


def words(visit: Visit | None) -> dict[str, Any]:
    """What every template may say."""
    return {
        "age": age_text,
        "count": count_text,
        "inert": inert,
        "instant": instant_text,
        "may": visit.may if visit else lambda *_, **__: False,
        "operator": visit.operator if visit else None,
    }


def refusal(error: NotAllowedError | OperationError | DatabaseError) -> Page:
    """The page that says why not."""
    if isinstance(error, NotAllowedError):
        return _told("Forbidden", error, HTTPStatus.FORBIDDEN)
    if isinstance(error, DatabaseError):
        return _told("The database does not answer as it should", error, HTTPStatus.SERVICE_UNAVAILABLE)
    unknown = str(error).startswith("there is no message")
    return _told("Not done", error, HTTPStatus.NOT_FOUND if unknown else HTTPStatus.BAD_REQUEST)


def _told(title: str, error: Exception, status: int) -> Page:
    return Page("error.html", {"title": title, "text": str(error)}, status)
