"""The gallery gets what lists, filters and searches need, in narrow rows; and trash, favourites, tags and boards."""

import hashlib
import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_NOT_TRASHED = "trashed_at IS NULL"
_COLUMNS = "number, task_id, key, created_at, model, mock, seconds, size_bytes, owner, prompt"
_LENGTH = "CASE WHEN o.fps > 0 THEN o.num_frames / o.fps ELSE 0 END"


def upgrade() -> None:
    """Make the tables, fill them from the videos that there are, and index the prompts."""
    op.create_table(
        "boards",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("owner", sa.String(16), nullable=False),
        sa.UniqueConstraint("owner", "name", name="boards_name"),
    )
    op.create_table(
        "gallery",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column(
            "task_id",
            sa.String(36),
            sa.ForeignKey("outputs.task_id", ondelete="CASCADE"),
            nullable=False,
            unique=True,
        ),
        sa.Column("key", sa.LargeBinary(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("mock", sa.Boolean, nullable=False),
        sa.Column("imported", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("favourite", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("board_id", sa.String(36), sa.ForeignKey("boards.id", ondelete="SET NULL")),
        sa.Column("trashed_at", sa.Double),
        sa.Column("placeholder", sa.LargeBinary(28)),
        sa.Column("owner", sa.String(16)),
        sa.Column("prompt", sa.Text, nullable=False),
    )
    op.create_table(
        "gallery_tags",
        sa.Column("tag", sa.String(64), primary_key=True),
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.ForeignKey("gallery.number", ondelete="CASCADE"),
            primary_key=True,
        ),
    )
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _fill_sqlite(connection)
    else:
        _fill_postgresql(connection)
    for name, columns, where in (
        ("gallery_newest", ("created_at", "key", "size_bytes"), _NOT_TRASHED),
        ("gallery_owner", ("owner", "created_at", "key", "size_bytes"), f"{_NOT_TRASHED} AND owner IS NOT NULL"),
        ("gallery_model", ("model", "created_at", "key"), _NOT_TRASHED),
        ("gallery_favourites", ("created_at", "key"), f"favourite = true AND {_NOT_TRASHED}"),
        ("gallery_board", ("board_id", "created_at", "key"), "board_id IS NOT NULL"),
        ("gallery_trash", ("trashed_at", "key"), "trashed_at IS NOT NULL"),
        ("gallery_undrawn", ("number",), "placeholder IS NULL"),
    ):
        # SQLite compares the condition with a query's by its words, and SQLAlchemy writes a true column as `= 1`.
        in_sqlite = sa.text(where.replace("= true", "= 1"))
        op.create_index(name, "gallery", list(columns), sqlite_where=in_sqlite, postgresql_where=sa.text(where))
    op.create_index("gallery_tags_number", "gallery_tags", ["number"])
    # Places in a long queue are counted in the index alone.
    op.drop_index("tasks_queue", "tasks")
    op.create_index("tasks_queue", "tasks", ["status", "priority", "place", "number", "model", "next_retry_at"])
    # The counts of the queue and its lists by state read this index alone, however long the history is.
    visible = sa.text("deleted_at IS NULL")
    op.create_index("tasks_state", "tasks", ["status", "number"], sqlite_where=visible, postgresql_where=visible)


def _fill_sqlite(connection: sa.Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.create_function("key_of_task", 1, _key_of_task, deterministic=True)
    prompt = "CASE WHEN json_valid(t.request) THEN coalesce(json_extract(t.request, '$.prompt'), '') ELSE '' END"
    connection.exec_driver_sql(
        f"INSERT INTO gallery ({_COLUMNS}) SELECT t.number, o.task_id, key_of_task(o.task_id), o.created_at, "  # noqa: S608
        f"coalesce(o.model, t.model), o.model IS NULL, {_LENGTH}, o.size_bytes, t.owner, {prompt} "
        "FROM outputs o JOIN tasks t ON t.id = o.task_id"
    )
    # The index refers to the prompts in the table by their numbers, which no VACUUM changes.
    connection.exec_driver_sql(
        "CREATE VIRTUAL TABLE gallery_search USING fts5(prompt, content='gallery', content_rowid='number', "
        "tokenize='unicode61 remove_diacritics 2', detail='none')"
    )
    connection.exec_driver_sql("INSERT INTO gallery_search (gallery_search) VALUES ('rebuild')")
    connection.exec_driver_sql(
        "CREATE TRIGGER gallery_search_insert AFTER INSERT ON gallery BEGIN "
        "INSERT INTO gallery_search (rowid, prompt) VALUES (new.number, new.prompt); END"
    )
    connection.exec_driver_sql(
        "CREATE TRIGGER gallery_search_delete AFTER DELETE ON gallery BEGIN "
        "INSERT INTO gallery_search (gallery_search, rowid, prompt) VALUES ('delete', old.number, old.prompt); END"
    )


def _fill_postgresql(connection: sa.Connection) -> None:
    key = (
        "CASE WHEN o.task_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' "
        "THEN decode(replace(o.task_id, '-', ''), 'hex') ELSE decode(md5(o.task_id), 'hex') END"
    )
    connection.exec_driver_sql(
        f"INSERT INTO gallery ({_COLUMNS}) SELECT t.number, o.task_id, {key}, o.created_at, "  # noqa: S608
        f"coalesce(o.model, t.model), o.model IS NULL, {_LENGTH}, o.size_bytes, t.owner, "
        "coalesce(t.request ->> 'prompt', '') FROM outputs o JOIN tasks t ON t.id = o.task_id"
    )
    connection.exec_driver_sql("CREATE INDEX gallery_search ON gallery USING gin (to_tsvector('simple', prompt))")


def _key_of_task(task_id: str) -> bytes:
    try:
        return uuid.UUID(task_id).bytes
    except ValueError:
        return hashlib.md5(task_id.encode(), usedforsecurity=False).digest()
