"""A failed attempt is repeated after a pause."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add how often a task was repeated, and when it is tried again."""
    op.add_column("tasks", sa.Column("repeats", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("next_retry_at", sa.Double()))
