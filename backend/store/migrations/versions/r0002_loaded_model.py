"""Workers say which model they hold in memory."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; workers that are running fill it with their next beat."""
    op.add_column("workers", sa.Column("model", sa.String(64)))
