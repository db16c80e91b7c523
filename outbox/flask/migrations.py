"""Flask-Migrate: the application's migrations leave the outbox's tables alone."""

from typing import Any

from flask import Flask, appcontext_pushed

from outbox.migrate import include_object

__all__ = ["leave_our_tables_alone"]


def leave_our_tables_alone(app: Flask) -> None:
    """Have ``flask db migrate`` propose nothing about the outbox's tables.

    Flask-Migrate may be set up before or after; so its arguments are looked at when a command first runs in the app's
    context. What the application has given as ``include_object`` itself is asked as well.
    """

    def look(_sender: Flask, **_: Any) -> None:
        migrate = app.extensions.get("migrate")
        if migrate is not None:
            _add_to(migrate.configure_args)
            appcontext_pushed.disconnect(look, app)

    # Not weakly: nobody else holds it.
    appcontext_pushed.connect(look, app, weak=False)


def _add_to(arguments: dict[str, Any]) -> None:
    theirs = arguments.get("include_object")

    def include(*given: Any) -> bool:
        return include_object(*given) and (theirs is None or theirs(*given))

    arguments["include_object"] = include
