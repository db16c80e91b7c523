"""The shop's orders; the outbox's tables have migrations of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the orders."""
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("item", sa.String(80), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("orders")
