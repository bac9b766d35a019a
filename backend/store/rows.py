"""Converts database rows to domain types, and texts to what a database can store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from backend.core.domain import EventType, Output, Task, TaskEvent, TaskStatus


def moment(seconds: float) -> datetime:
    """Convert a database timestamp (seconds since 1970) to an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def storable(text: str) -> str:
    """Replace what no database can store: NUL and lone surrogates, which library error messages may contain."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def to_task(row: Row[Any]) -> Task:
    """Read a row of `tasks`."""
    return Task(
        id=row.id,
        status=TaskStatus(row.status),
        model=row.model,
        request=row.request,
        adjustments=tuple(row.adjustments),
        priority=row.priority,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        created_at=moment(row.created_at),
        started_at=None if row.started_at is None else moment(row.started_at),
        completed_at=None if row.completed_at is None else moment(row.completed_at),
        worker_id=row.worker_id,
        lease_token=row.lease_token,
        cancel_requested=row.cancel_requested,
        pause_requested=row.pause_requested,
        stage=row.stage,
        progress=row.progress,
        message=row.message,
        step=row.step,
        total_steps=row.total_steps,
        eta_seconds=row.eta_seconds,
        preview_step=row.preview_step,
        error_code=row.error_code,
        error_message=row.error_message,
        error_suggestions=tuple(row.error_suggestions or ()),
        download_paused=bool(row._mapping.get("download_paused", False)),
    )


def to_event(row: Row[Any]) -> TaskEvent:
    """Read a row of `events`."""
    return TaskEvent(
        id=row.id,
        task_id=row.task_id,
        number=row.number,
        type=EventType(row.type),
        data=row.data,
        created_at=moment(row.created_at),
    )


def to_output(row: Row[Any]) -> Output:
    """Read a row of `outputs`."""
    return Output(
        task_id=row.task_id,
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        width=row.width,
        height=row.height,
        num_frames=row.num_frames,
        fps=row.fps,
        generation_seconds=row.generation_seconds,
        warnings=tuple(row.warnings),
        metadata=row.metadata,
        created_at=moment(row.created_at),
    )
