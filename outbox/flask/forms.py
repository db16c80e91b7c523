"""Forms and links: that a form comes from a page of ours, and what either holds."""

from flask import abort, current_app, request
from flask_wtf.csrf import generate_csrf, validate_csrf  # type: ignore[import-untyped]  # it has no stubs
from wtforms import ValidationError  # type: ignore[import-untyped]  # nor has this

from outbox.errors import OperationError

__all__ = ["can_act", "check_token", "field_name", "number", "text", "token"]

_NUMBER_DIGITS = 18


def can_act() -> bool:
    """Whether forms can be signed. Without a secret key the pages are for looking alone."""
    return bool(current_app.config.get("WTF_CSRF_SECRET_KEY") or current_app.secret_key)


def field_name() -> str:
    """The token's field, under the name that Flask-WTF, if the application has it, looks for as well."""
    return str(current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"))


def token() -> str:
    """What shows that a form was made for this session."""
    return str(generate_csrf())


def check_token() -> None:
    """Refuse an act that did not come from a form of ours."""
    if not can_act():
        abort(403, "These pages cannot act: the application has no SECRET_KEY to sign forms with.")
    try:
        validate_csrf(request.form.get(field_name()))
    except ValidationError as error:
        said = str(error).removeprefix("The ").rstrip(".")
        abort(403, f"This form is too old, or was not made by these pages ({said}). Go back, reload and try again.")


def text(name: str) -> str:
    """A field of the form; blank where it is missing."""
    return request.form.get(name, "")


def number(name: str) -> int | None:
    """A field of the form, or of the link, that holds a whole number; None where it is blank.

    Raises:
        OperationError: it holds something else.
    """
    given = request.values.get(name, "")
    if not given:
        return None
    if not given.isascii() or not given.isdecimal() or len(given) > _NUMBER_DIGITS:
        raise OperationError(f"{name}: got {len(given)} characters; give a whole number of at most {_NUMBER_DIGITS}")
    return int(given)
