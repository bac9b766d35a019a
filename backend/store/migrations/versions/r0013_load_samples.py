"""The load of machines is sampled, so that it can be shown over time."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "load_samples",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("cpu_percent", sa.Double, nullable=False),
        sa.Column("ram_used_gb", sa.Double, nullable=False),
        sa.Column("ram_total_gb", sa.Double, nullable=False),
        sa.Column("ram_percent", sa.Double, nullable=False),
        sa.Column("gpu_percent", sa.Double),
        sa.Column("vram_used_mb", sa.Double),
        sa.Column("vram_total_mb", sa.Double),
        sa.Column("vram_percent", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("load_samples_newest", "load_samples", ["host", "taken_at"])
