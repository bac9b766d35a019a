"""The log remembers how far its oldest events were deleted, so that a client is told exactly what is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table with its one row; where numbers are missing already, any of them may have been deleted."""
    op.create_table("removed_events", sa.Column("upto", sa.BigInteger, primary_key=True, autoincrement=False))
    op.execute(
        "INSERT INTO removed_events (upto) "
        "SELECT CASE WHEN count(*) < coalesce(max(id), 0) THEN max(id) ELSE 0 END FROM events"
    )
