"""The outbox's six tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from outbox.table import Instant, exact

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("messages", "pauses", "attempts", "audit", "meta", "checks")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Create everything; on PostgreSQL and SQLite in one transaction."""
    create_messages()
    create_message_indexes()
    create_history()
    create_operations()
    create_half_messages()


def downgrade() -> None:
    """Drop everything, messages that were not sent included."""
    for name in reversed(TABLES):
        op.drop_table(f"outbox_{name}", schema=schema())


def schema() -> str | None:
    """Where the tables go; None for the connection's default."""
    given: str | None = op.get_context().version_table_schema
    return given


def on_mysql() -> bool:
    """MariaDB or MySQL: no partial indexes, and every CREATE commits by itself."""
    return op.get_context().dialect.name in ("mysql", "mariadb")


def create_table(name: str, *parts: sa.schema.SchemaItem, **options: Any) -> None:
    """Where a migration is no transaction, one that was cut short goes on where it stopped."""
    op.create_table(
        name,
        *parts,
        schema=schema(),
        if_not_exists=on_mysql() or None,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
        **options,
    )


def create_index(name: str, table: str, *columns: str, **options: Any) -> None:
    """As for `create_table`, on MariaDB; MySQL has no IF NOT EXISTS here."""
    is_mariadb = getattr(op.get_context().dialect, "is_mariadb", False)
    op.create_index(name, table, list(columns), schema=schema(), if_not_exists=is_mariadb or None, **options)


def create_messages() -> None:
    """The messages."""
    create_table(
        "outbox_messages",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("outbox_id", exact(36), nullable=False),
        sa.Column("destination", exact(64), nullable=False),
        sa.Column("topic", exact(64), nullable=False),
        sa.Column("tag", exact(64)),
        sa.Column("keys", sa.Text()),
        sa.Column("properties", sa.Text(), nullable=False),
        sa.Column("ordering_key", exact(255)),
        sa.Column("deduplication_key", exact(255)),
        sa.Column("deliver_at", Instant()),
        sa.Column("transaction_check_s", sa.Integer()),
        sa.Column("body", LONG_TEXT, nullable=False),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.Column("state", exact(16), nullable=False),
        sa.Column("available_at", Instant(), nullable=False),
        sa.Column("lease_until", Instant()),
        sa.Column("lease_token", exact(36)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("unknown_outcomes", sa.Integer(), nullable=False),
        sa.Column("message_id", exact(128)),
        sa.Column("posted_at", Instant()),
        sa.Column("sent_at", Instant()),
        sa.Column("confirmed_by", exact(16)),
        sa.Column("heard_at", Instant()),
        sa.Column("reoffered_at", Instant()),
        sa.Column("last_error_code", exact(64)),
        sa.Column("last_error", sa.Text()),
        sa.Column("replays", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'committing', 'sent', 'failed', 'in_doubt', 'discarded')",
            name="ck_outbox_messages_state",
        ),
        sa.CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="ck_outbox_messages_lease"),
        sa.UniqueConstraint("outbox_id", name="uq_outbox_messages_outbox_id"),
        sa.UniqueConstraint("destination", "topic", "deduplication_key", name="uq_outbox_messages_deduplication_key"),
    )
    if op.get_context().dialect.name == "postgresql":
        # Room on every page for the claim's new version of each row, so that it stays a HOT update.
        table = op.get_context().dialect.identifier_preparer.format_table(sa.table("outbox_messages", schema=schema()))
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 45)")


def create_message_indexes() -> None:
    """One for each way in which unfinished messages are found, and one by which the charts find those sent of late."""
    lane = ("destination", "topic")
    if on_mysql():
        due, keyed = ("state", *lane, "ordering_key", "available_at", "id"), ("state", *lane, "ordering_key", "id")
        create_index("ix_outbox_messages_state_due", "outbox_messages", *due)
        create_index("ix_outbox_messages_state_ordered", "outbox_messages", *keyed)
        create_index("ix_outbox_messages_state_sent", "outbox_messages", "state", "sent_at")
        return
    wheres = {
        "due": ((*lane, "available_at", "id"), "state = 'pending' AND ordering_key IS NULL"),
        "ordered": ((*lane, "ordering_key", "id"), "state IN ('pending', 'failed') AND ordering_key IS NOT NULL"),
        "held": (("state", "id"), "state NOT IN ('pending', 'sent')"),
        "sent": (("sent_at",), "state = 'sent'"),
    }
    for name, (columns, where) in wheres.items():
        condition = sa.text(where)
        create_index(
            f"ix_outbox_messages_{name}",
            "outbox_messages",
            *columns,
            postgresql_where=condition,
            sqlite_where=condition,
        )


def create_history() -> None:
    """Attempts that did not end well."""
    create_table(
        "outbox_attempts",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("message_row_id", sa.BigInteger(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("code", exact(64), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("request_id", exact(64)),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("outcome_known", sa.Boolean(), nullable=False),
    )
    create_index("ix_outbox_attempts_message_row_id", "outbox_attempts", "message_row_id", "id")


def create_operations() -> None:
    """Pauses, and the audit of what operators did."""
    create_table(
        "outbox_pauses",
        sa.Column("destination", exact(64), primary_key=True),
        sa.Column("topic", exact(64), primary_key=True),
        sa.Column("automatic", sa.Boolean(), primary_key=True),
        sa.Column("until", Instant()),
        sa.Column("by", exact(150), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
    )
    create_table(
        "outbox_audit",
        sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("by", exact(150), nullable=False),
        sa.Column("action", exact(32), nullable=False),
        sa.Column("outbox_id", exact(36)),
        sa.Column("destination", exact(64)),
        sa.Column("topic", exact(64)),
        sa.Column("keys", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    create_index("ix_outbox_audit_outbox_id", "outbox_audit", "outbox_id")


def create_half_messages() -> None:
    """The database's origin, and the marks of those who check half messages."""
    create_table(
        "outbox_meta",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("origin", exact(36), nullable=False),
        sa.Column("environment", exact(64), nullable=False),
        sa.Column("bindings", sa.Text(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
    )
    create_table(
        "outbox_checks",
        sa.Column("checker", exact(64), primary_key=True),
        sa.Column("destination", exact(64), primary_key=True),
        sa.Column("topic", exact(64), primary_key=True),
        sa.Column("group_id", exact(64), primary_key=True),
        sa.Column("mark", exact(16), nullable=False),
        sa.Column("marked_at", Instant(), nullable=False),
        sa.Column("open_until", Instant()),
        sa.Column("succeeded_at", Instant()),
        sa.Column("canary_outbox_id", exact(36)),
        sa.Column("canary_check_s", sa.Integer()),
        sa.Column("canary_posted_at", Instant()),
        sa.Column("canary_offered_at", Instant()),
        sa.Column("canary_after", Instant()),
        sa.Column("canary_failures", sa.Integer(), nullable=False),
        sa.CheckConstraint("mark IN ('open', 'failed', 'closed')", name="ck_outbox_checks_mark"),
    )
