"""The current tables, for queries. `migrations/` creates them in a database; a test compares the two.

Timestamps are seconds since 1970 by the database's own clock (`database_now`), so that they are comparable whichever
machine wrote them. Clocks can be set, so no decision about a lost worker rests on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from backend.core.domain import TaskStatus

metadata = MetaData()

#: SQLite numbers rows automatically only in a column of type INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")


class database_now(FunctionElement[float]):
    """The database's clock, in seconds since 1970."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    # unixepoch('subsec') would read better, but needs SQLite 3.42.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(_element: database_now, _compiler: SQLCompiler, **_options: Any) -> str:
    # Not now(): that is the start of the transaction, which may have waited for another writer.
    return "extract(epoch from clock_timestamp())::float8"


def _one_of(column: str, words: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(word)) for word in words)})"


_VISIBLE = text("deleted_at IS NULL")

tasks = Table(
    "tasks",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),  # order of arrival
    Column("id", String(36), nullable=False, unique=True),
    Column("status", String(16), nullable=False),
    Column("model", String(64), nullable=False),
    Column("request", JSON, nullable=False),
    Column("adjustments", JSON, nullable=False),
    Column("priority", Integer, nullable=False),
    Column(
        "place", Double, nullable=False, server_default="0"
    ),  # order within one priority: the number at arrival, until it is moved
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("idempotency_key", String(255), unique=True),
    Column("fingerprint", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),  # of the newest attempt
    Column("completed_at", Double),
    Column("worker_id", String(128)),
    Column("lease_token", String(64)),
    Column("lease_expires_at", Double),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("pause_requested", Boolean, nullable=False, server_default=false()),
    Column("stage", String(32)),
    Column("stage_started_at", Double),
    Column("progress", Double, nullable=False, server_default="0"),  # 0..1
    Column("message", Text),
    Column("step", Integer),
    Column("total_steps", Integer),
    Column("eta_seconds", Double),
    Column("preview_step", Integer),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("error_suggestions", JSON),
    Column("last_event", Integer, nullable=False, server_default="0"),  # number of the newest event
    Column("deleted_at", Double),  # hidden from the queue; kept because its events and output refer to it
    # What outlives the worker: steps in the newest saved state; 0 = the model has been downloaded.
    Column("saved_step", Integer),
    Column("advanced", Boolean, nullable=False, server_default=false()),  # whether this attempt saved something new
    Column("strikes", Integer, nullable=False, server_default="0"),  # lost attempts in a row that saved nothing new
    Column("repeats", Integer, nullable=False, server_default="0"),  # of a failed attempt that saved nothing new
    Column("next_retry_at", Double),  # null = at once
    Column("owner", String(16)),  # the API key that queued it; null = the operator, or from before there were keys
    CheckConstraint(_one_of("status", TaskStatus), name="tasks_status"),
    CheckConstraint("(status = 'processing') = (lease_token IS NOT NULL)", name="tasks_lease"),
    CheckConstraint("progress BETWEEN 0 AND 1", name="tasks_progress"),
    CheckConstraint("attempt >= 0 AND strikes BETWEEN 0 AND max_attempts", name="tasks_attempt"),
    # With all that decides which task is next, so that places in a long queue are counted in the index alone.
    Index("tasks_queue", "status", "priority", "place", "number", "model", "next_retry_at"),
    Index("tasks_owner", "owner", "number"),
    Index("tasks_state", "status", "number", sqlite_where=_VISIBLE, postgresql_where=_VISIBLE),
    sqlite_autoincrement=True,
)

#: Tasks that stand for imported clips: nothing was ever done for them, so they are in no queue and no statistics.
IMPORTED = (tasks.c.status == TaskStatus.COMPLETED) & (tasks.c.attempt == 0)

#: The number of tasks in the queue view; triggers keep it, as they do `gallery_totals`.
task_totals = Table(
    "task_totals",
    metadata,
    Column("owner", String(16), primary_key=True),  # empty = the operator
    Column("status", String(16), primary_key=True),
    Column("tasks", BigInteger, nullable=False),
)

#: While a row is here, no worker in its scope claims a task.
holds = Table(
    "holds",
    metadata,
    Column("scope", String(512), primary_key=True),  # the queue, or a device of a host
    Column("interrupts", Boolean, nullable=False),  # whether running tasks are handed back
    Column("created_at", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("task_id", String(36), ForeignKey("tasks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("type", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("task_id", "number", name="events_task_number"),
    sqlite_autoincrement=True,
)

removed_events = Table(  # one row
    "removed_events",
    metadata,
    Column("upto", BigInteger, primary_key=True, autoincrement=False),  # the highest id of a deleted event; 0 = none
)

outputs = Table(
    "outputs",
    metadata,
    Column("task_id", String(36), ForeignKey("tasks.id"), primary_key=True),
    Column("filename", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("num_frames", Integer, nullable=False),
    Column("fps", Double, nullable=False),
    Column("generation_seconds", Double, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("model", String(64)),  # that made it; null for a mock and an imported clip
    Column("imported", Boolean, nullable=False, server_default=false()),
    Index("outputs_newest", "created_at"),
)

boards = Table(
    "boards",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("owner", String(16), nullable=False),  # an API key; empty = the operator
    UniqueConstraint("owner", "name", name="boards_name"),
)

#: What lists, filters and searches need of each output, and what users do with it. Its rows are narrow: a million of
#: them are read in a fraction of a second, where `outputs` has a record of some kilobytes in each.
gallery = Table(
    "gallery",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),  # of the task
    Column("task_id", String(36), ForeignKey("outputs.task_id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("key", LargeBinary(16), nullable=False),  # the bytes of the task's id
    Column("created_at", Double, nullable=False),
    Column("model", String(64), nullable=False),  # that made it, or that a mock stands for
    Column("mock", Boolean, nullable=False),
    Column("imported", Boolean, nullable=False, server_default=false()),
    Column("seconds", Double, nullable=False),  # length of the clip
    Column("size_bytes", BigInteger, nullable=False),
    Column("favourite", Boolean, nullable=False, server_default=false()),
    Column("board_id", String(36), ForeignKey("boards.id", ondelete="SET NULL")),
    Column("trashed_at", Double),  # null = in the gallery
    Column("placeholder", LargeBinary(28)),  # a picture of a few colours; null = not drawn yet, empty = cannot be
    Column("owner", String(16)),  # of the task
    Column("prompt", Text, nullable=False),  # `gallery_search` indexes its words: an FTS5 table, or a GIN index
    *(
        Index(name, *columns, sqlite_where=text(where.replace("= true", "= 1")), postgresql_where=text(where))
        for name, columns, where in (
            ("gallery_newest", ("created_at", "key", "size_bytes"), "trashed_at IS NULL"),
            ("gallery_owner", ("owner", "created_at", "key", "size_bytes"), "trashed_at IS NULL AND owner IS NOT NULL"),
            ("gallery_model", ("model", "created_at", "key"), "trashed_at IS NULL"),
            ("gallery_favourites", ("created_at", "key"), "favourite = true AND trashed_at IS NULL"),
            ("gallery_board", ("board_id", "created_at", "key"), "board_id IS NOT NULL"),
            ("gallery_trash", ("trashed_at", "key"), "trashed_at IS NOT NULL"),
            ("gallery_undrawn", ("number",), "placeholder IS NULL"),
        )
    ),
)

#: The number and the bytes of the videos in the gallery, without its trash.
gallery_totals = Table(
    "gallery_totals",
    metadata,
    Column("owner", String(16), primary_key=True),  # empty = the operator
    Column("videos", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

gallery_tags = Table(
    "gallery_tags",
    metadata,
    Column("tag", String(64), primary_key=True),
    Column("number", _Number, ForeignKey("gallery.number", ondelete="CASCADE"), primary_key=True),
    Index("gallery_tags_number", "number"),
)

presets = Table(
    "presets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("request", JSON, nullable=False),  # fields of a submit
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("owner", String(16), nullable=False),  # an API key; empty = the operator
    UniqueConstraint("owner", "name", name="presets_name"),
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", String(32), primary_key=True),  # digest of its owner and both texts
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=False),
    Column("model", String(64), nullable=False),
    Column("uses", Integer, nullable=False),
    Column("favourite", Boolean, nullable=False, server_default=false()),
    Column("used_at", Double, nullable=False),
    Column("owner", String(16), nullable=False),  # an API key; empty = the operator
    Index("prompts_newest", "owner", "favourite", "used_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started_at", Double, nullable=False),  # seconds since the host's start: detects a reused pid
    Column("device", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("detail", Text),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("model", String(64)),  # in the worker's memory
    Column("equipment", JSON),  # device, precision and attention, with reasons
    Column("wish", String(16)),  # what somebody asks of it; its next heartbeat takes it
    CheckConstraint(_one_of("state", ("loading", "idle", "busy", "yielding", "waiting")), name="workers_state"),
)

download_orders = Table(
    "download_orders",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),  # order of arrival
    Column("model", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("urgency", String(16), nullable=False),
    # False: nobody asked for the model itself; the row says that no task's download of it may go on.
    Column("wished", Boolean, nullable=False),
    CheckConstraint(_one_of("state", ("wanted", "paused")), name="download_orders_state"),
    CheckConstraint(_one_of("urgency", ("critical", "high", "medium", "low")), name="download_orders_urgency"),
    CheckConstraint("wished OR state = 'paused'", name="download_orders_wished"),
    sqlite_autoincrement=True,
)

recovery_actions = Table(
    "recovery_actions",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("failure_type", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("automatic", Boolean, nullable=False),
    Column("succeeded", Boolean, nullable=False),
    Column("message", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("undo", JSON),
    Column("created_at", Double, nullable=False),
    Column("undone_at", Double),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the key
    Column("scopes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    Column("requests_per_minute", Integer),  # null = no limit, also below
    Column("gpu_seconds_per_day", Double),
    Column("waiting_tasks", Integer),
)

#: Who uploaded a file; without a row it belongs to everybody.
owned_files = Table(
    "owned_files",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("owner", String(16), primary_key=True),
)

key_usage = Table(
    "key_usage",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("day", Integer, primary_key=True),  # UTC days since 1970
    Column("gpu_seconds", Double, nullable=False),
)

#: The addresses that are told what becomes of a task.
webhooks = Table(
    "webhooks",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("task_id", String(36), ForeignKey("tasks.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("secret", Text),  # of this webhook alone; null = the server's
    Column("owner", String(16)),  # the key that queued the task; null = none
    Index("webhooks_task", "task_id"),
    sqlite_autoincrement=True,
)

#: Messages to webhooks. They outlive their tasks.
deliveries = Table(
    "deliveries",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),  # by which a receiver knows a repeated one
    Column("task_id", String(36), nullable=False),
    Column("event", Integer, nullable=False),  # number within the task
    Column("type", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("host", String(255), nullable=False),
    Column("secret", Text),
    Column("owner", String(16)),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Double, nullable=False),
    Column("claim", String(64)),  # token of the process that is delivering it
    Column("claimed_until", Double),
    Column("status", Integer),  # of the newest answer
    Column("reason", Text),  # why the newest attempt failed
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    CheckConstraint(_one_of("state", ("pending", "delivered", "failed")), name="deliveries_state"),
    Index("deliveries_due", "state", "due_at"),
    Index("deliveries_task", "task_id"),
    sqlite_autoincrement=True,
)

#: Calls that carried an idempotency key, and what they were answered; without a status the call has not ended.
answers = Table(
    "answers",
    metadata,
    Column("call", String(300), primary_key=True),  # method and path
    Column("key", String(255), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),  # of the call that holds the key
    Column("holder", String(64), nullable=False),  # home of the server that carries it out
    Column("fingerprint", String(64)),
    Column("status", Integer),
    Column("body", Text),
    Column("created_at", Double, nullable=False),
    Index("answers_age", "created_at"),
)

#: The load of each machine that serves, over time.
load_samples = Table(
    "load_samples",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("host", String(255), nullable=False),
    Column("taken_at", Double, nullable=False),
    Column("cpu_percent", Double, nullable=False),
    Column("ram_used_gb", Double, nullable=False),
    Column("ram_total_gb", Double, nullable=False),
    Column("ram_percent", Double, nullable=False),
    Column("gpu_percent", Double),  # null = no card, also below
    Column("vram_used_mb", Double),
    Column("vram_total_mb", Double),
    Column("vram_percent", Double),
    Index("load_samples_newest", "host", "taken_at"),
    sqlite_autoincrement=True,
)
