"""``outbox migrate``: the outbox's tables."""

import click

from outbox.commands.context import with_runtime
from outbox.commands.output import talk
from outbox.wiring import Runtime

__all__ = ["migrate"]


@click.command(short_help="Bring the database to the current schema.")
@click.option("--sql", is_flag=True, help="Change nothing; print the statements for an empty database.")
@with_runtime
def migrate(runtime: Runtime, /, sql: bool) -> None:
    """Create the outbox's tables, or bring them to the schema of this version.

    Safe to run twice, by two machines at once, and while workers of the version before still run. The tables of the
    application beside them, and its own migrations, are left alone. Needs OUTBOX_DATABASE_URL.
    """
    from outbox import migrate as schema  # noqa: PLC0415 - Alembic costs the other commands too long a start

    engine = runtime.database.engine
    if sql:
        click.echo(schema.sql(engine), nl=False)
        return
    schema.upgrade(engine)
    talk(f"the schema is at version {schema.head()}")
