"""Alembic's way in, for ``flask db …``."""

from typing import Any

from alembic import context
from flask import current_app

migrate = current_app.extensions["migrate"]


def without_empty_ones(_context: Any, _revision: Any, directives: list[Any]) -> None:
    """Write no migration where nothing has changed."""
    if directives[0].upgrade_ops.is_empty():
        directives[:] = []
        print("No changes in schema detected.")


with migrate.db.engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=migrate.db.metadata,
        process_revision_directives=without_empty_ones,
        **migrate.configure_args,
    )
    with context.begin_transaction():
        context.run_migrations()
