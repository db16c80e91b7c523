"""What the app's migrations do: a revision of the outbox's own schema, through Django's connection.

The schema has one description for every host, Alembic's revisions. Django runs their statements, and writes down in
Alembic's version table that it did: so ``manage.py migrate`` and ``outbox migrate`` give the same tables, and either
finds what the other has done.
"""

from typing import Any

from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation

from outbox.django.databases import dialect_of
from outbox.migrate import VERSION_TABLE, statements

__all__ = ["Revision"]


class Revision(Operation):
    """Brings the outbox's tables from one of Alembic's revisions to the next, or back.

    Args:
        revision: the one to reach.
        before: the one before it; ``"base"`` for the first.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, revision: str, before: str) -> None:
        self.revision = revision
        self.before = before

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Nothing: the models stand beside this operation."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,  # noqa: ARG002 - the base class's signature
        to_state: Any,  # noqa: ARG002 - likewise
    ) -> None:
        """Execute the revision's statements, unless `outbox migrate` has done it already."""
        current = _current_of(schema_editor)
        # Revisions are numbers that count up.
        if _is_allowed(schema_editor, app_label) and (current or "") < self.revision:
            _execute(schema_editor, f"{self.before}:{self.revision}", current)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,  # noqa: ARG002 - the base class's signature
        to_state: Any,  # noqa: ARG002 - likewise
    ) -> None:
        """Execute what takes it back, unless that has been done already."""
        current = _current_of(schema_editor)
        if _is_allowed(schema_editor, app_label) and (schema_editor.collect_sql or (current or "") >= self.revision):
            _execute(schema_editor, f"{self.revision}:{self.before}", current)

    def describe(self) -> str:
        """For ``manage.py migrate --plan`` and the like."""
        return f"The outbox's tables at revision {self.revision}"


def _is_allowed(schema_editor: BaseDatabaseSchemaEditor, app_label: str) -> bool:
    return router.allow_migrate(schema_editor.connection.alias, app_label, model_name="outboxmessage")


def _current_of(schema_editor: BaseDatabaseSchemaEditor) -> str | None:
    # What is only printed is for a database that has nothing yet.
    return None if schema_editor.collect_sql else _current(schema_editor.connection)


def _current(connection: BaseDatabaseWrapper) -> str | None:
    """The database's revision; None where nobody has migrated it, blank where somebody has taken everything back."""
    with connection.cursor() as cursor:
        if VERSION_TABLE not in connection.introspection.table_names(cursor):
            return None
        cursor.execute(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a name of ours
        row = cursor.fetchone()
    return str(row[0]) if row else ""


def _execute(schema_editor: BaseDatabaseSchemaEditor, revisions: str, current: str | None) -> None:
    for statement in statements(dialect_of(schema_editor.connection), revisions):
        if current is None or not statement.startswith(f"CREATE TABLE {VERSION_TABLE} "):
            # None, or percent signs would be taken for parameters.
            schema_editor.execute(statement, None)
