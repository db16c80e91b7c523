"""${message}"""

${imports if imports else "import sqlalchemy as sa"}
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """While the release before this one still runs: add, and leave nothing out that it reads or writes."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Back to what the release before this one declares."""
    ${downgrades if downgrades else "pass"}
