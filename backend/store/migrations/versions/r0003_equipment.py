"""Workers say what they compute with, and what does not work of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; workers that are running fill it with their next beat."""
    op.add_column("workers", sa.Column("equipment", sa.JSON()))
