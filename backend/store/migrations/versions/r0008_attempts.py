"""A task is given up when it makes no progress: what is saved, and the lost attempts in a row that saved nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OLD = "attempt BETWEEN 0 AND max_attempts"
_NEW = "attempt >= 0 AND strikes BETWEEN 0 AND max_attempts"


def upgrade() -> None:
    """Add the columns, and lift the limit from the number of attempts to the number of strikes."""
    op.add_column("tasks", sa.Column("saved_step", sa.Integer()))
    op.add_column("tasks", sa.Column("advanced", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tasks", sa.Column("strikes", sa.Integer(), nullable=False, server_default="0"))
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint("tasks_attempt", "tasks", type_="check")
        op.create_check_constraint("tasks_attempt", "tasks", _NEW)
        return
    # Copying the table, as Alembic would, drops rows that events refer to. SQLite documents this way of changing a
    # constraint without touching the content of the file.
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'tasks'", (_OLD, _NEW)
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
