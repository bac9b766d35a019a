"""Imported clips are told from mocks: neither was made by a model that is known here."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("outputs", sa.Column("imported", sa.Boolean, nullable=False, server_default=sa.false()))
