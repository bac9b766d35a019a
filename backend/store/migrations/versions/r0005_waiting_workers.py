"""Workers say when they cannot take tasks: the register accepts the state `waiting`."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the constraint; every row stays."""
    with op.batch_alter_table("workers") as workers:
        if op.get_bind().dialect.name != "sqlite":  # there the table is copied, without its old check
            workers.drop_constraint("workers_state", type_="check")
        workers.create_check_constraint("workers_state", "state IN ('loading', 'idle', 'busy', 'waiting')")
