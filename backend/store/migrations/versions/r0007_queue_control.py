"""Tasks can be paused while they run and moved in the queue; the queue and a device can be held; workers yield."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table; every waiting task keeps its place."""
    op.add_column("tasks", sa.Column("pause_requested", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("tasks", sa.Column("place", sa.Double, nullable=False, server_default="0"))
    op.execute(sa.text("UPDATE tasks SET place = number"))
    op.drop_index("tasks_queue", "tasks")
    op.create_index("tasks_queue", "tasks", ["status", "priority", "place", "number"])
    op.create_table(
        "holds",
        sa.Column("scope", sa.String(512), primary_key=True),
        sa.Column("interrupts", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    with op.batch_alter_table("workers") as workers:
        if op.get_bind().dialect.name != "sqlite":  # there the table is copied, without its old check
            workers.drop_constraint("workers_state", type_="check")
        states = "('loading', 'idle', 'busy', 'yielding', 'waiting')"
        workers.create_check_constraint("workers_state", f"state IN {states}")
