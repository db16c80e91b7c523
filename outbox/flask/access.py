"""Who may use the operators' pages, and what each of them may do there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from flask import Request, abort, g, request

__all__ = ["AdminAuth", "User", "identify", "user"]


@runtime_checkable
class User(Protocol):
    """An operator with rights of their own.

    Attributes:
        name: for the audit.
    """

    name: str

    def can(self, act: str, /) -> bool:
        """Whether they may: one of `outbox.admin.RIGHTS`."""
        ...


#: From a request to whoever made it: a name, of somebody who may do everything; a `User`, who may do what they can;
#: or None for anybody else, who is answered 403.
AdminAuth = Callable[[Request], str | User | None]


@dataclass(frozen=True)
class _Anything:
    """A user who is known by name alone."""

    name: str

    def can(self, _act: str) -> bool:
        return True


def identify(auth: AdminAuth) -> None:
    """Find out who makes this request; whoever may not even look goes no further."""
    found = auth(request)
    if not found or (isinstance(found, str) and not found.strip()):
        abort(403, "These pages are for operators. You are not signed in as one.")
    g.outbox_user = _Anything(found) if isinstance(found, str) else found
    if not isinstance(g.outbox_user, User):
        raise TypeError(f"admin_auth gave {type(found).__name__}; give a name, an object with name and can, or None")
    if not user().can("view"):
        abort(403, f"{user().name} may not do this: view.")


def user() -> User:
    """Who makes this request."""
    return cast("User", g.outbox_user)
