"""Videos say which model made them; a mock was made by none."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the videos of before were made by the models of their tasks."""
    op.add_column("outputs", sa.Column("model", sa.String(64)))
    op.execute("UPDATE outputs SET model = (SELECT tasks.model FROM tasks WHERE tasks.id = outputs.task_id)")
