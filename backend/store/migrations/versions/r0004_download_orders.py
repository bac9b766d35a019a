"""Downloads of models that somebody asked for, or paused: they outlive the process that carries them out."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the table; nothing that ran before is in it."""
    op.create_table(
        "download_orders",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("urgency", sa.String(16), nullable=False),
        sa.Column("wished", sa.Boolean, nullable=False),
        sa.CheckConstraint("state IN ('wanted', 'paused')", name="download_orders_state"),
        sa.CheckConstraint("urgency IN ('critical', 'high', 'medium', 'low')", name="download_orders_urgency"),
        sa.CheckConstraint("wished OR state = 'paused'", name="download_orders_wished"),
        sqlite_autoincrement=True,
    )
