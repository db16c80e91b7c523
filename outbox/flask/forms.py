"""Forms: that a form comes from a page of ours."""

from flask import abort, current_app, request
from flask_wtf.csrf import generate_csrf, validate_csrf  # type: ignore[import-untyped]  # it has no stubs
from wtforms import ValidationError  # type: ignore[import-untyped]  # nor has this

__all__ = ["can_act", "check_token", "field_name", "token"]


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
