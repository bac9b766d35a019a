"""API keys, what belongs to which of them, and what each has used."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the tables."""
    op.add_column("tasks", sa.Column("owner", sa.String(16)))
    op.create_index("tasks_owner", "tasks", ["owner", "number"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("gpu_seconds_per_day", sa.Double),
        sa.Column("waiting_tasks", sa.Integer),
    )
    op.create_table(
        "owned_files",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("owner", sa.String(16), primary_key=True),
    )
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True),
        sa.Column("gpu_seconds", sa.Double, nullable=False),
    )
