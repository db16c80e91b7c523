"""Alembic's way in: it gets a connection, or for `outbox migrate --sql` a dialect; see `outbox.migrate`."""

from alembic import context

from outbox.migrate import VERSION_TABLE
from outbox.table import metadata

given = context.config.attributes
options = {
    "target_metadata": metadata,
    "version_table": VERSION_TABLE,
    "version_table_schema": given["schema"],
}
if "transactional_ddl" in given:
    options["transactional_ddl"] = given["transactional_ddl"]
if context.is_offline_mode():
    context.configure(dialect_name=given["dialect"], dialect_opts=given["dialect_opts"], literal_binds=True, **options)
else:
    context.configure(connection=given["connection"], **options)
with context.begin_transaction():
    context.run_migrations()
