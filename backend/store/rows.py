"""Converts database rows to domain types, and texts to what a database can store.

A file system may damage single bytes without a word, and a newer version may have written what this one does not know:
such a row must not keep the others from being read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Row

from backend.core.domain import EventType, Output, Task, TaskEvent, TaskStatus
from backend.core.errors.base import WanError

T = TypeVar("T")

_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

log = structlog.get_logger(__name__)


def readable(rows: Iterable[Row[Any]], read: Callable[[Row[Any]], T]) -> list[T]:
    """Read rows, and leave out those that cannot be read; the log names them."""
    found = []
    for row in rows:
        try:
            found.append(read(row))
        except Exception as error:  # the boundary of a row
            log.error("store.row_unreadable", row=str(row._mapping.get("id", row[0])), error=type(error).__name__)
    return found


def from_json(text: str | bytes) -> Any:
    """Decode a JSON column; None where it is damaged, so that the rest of its row, and other rows, can be read."""
    try:
        return strict_json(text)
    except ValueError:
        return None


def strict_json(text: str | bytes) -> Any:
    """Decode a JSON column.

    Raises:
        ValueError: it is damaged.
    """
    # It was written with escapes: no damaged byte may pass for a letter of a prompt.
    if isinstance(text, str) and not text.isascii():
        raise ValueError("it is not ASCII")
    return json.loads(text)


def moment(seconds: float) -> datetime:
    """Convert a database timestamp (seconds since 1970) to an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def is_id(text: str) -> bool:
    """Whether a text can be an id at all; no other one is asked for: PostgreSQL takes no NUL."""
    return _ID.fullmatch(text) is not None


def storable(text: str) -> str:
    """Replace what no database can store: NUL and lone surrogates, which library error messages may contain."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def failure_data(error: WanError) -> dict[str, Any]:
    """Describe an error for the event that ends a task."""
    return {
        "error": error.code,
        "message": storable(error.message),
        "category": error.category.value,
        "retryable": error.retryable,
        "suggestions": [storable(step) for step in error.next_steps],
        "actions": list(error.actions),
    }


def to_task(row: Row[Any]) -> Task:
    """Read a row of `tasks`; a damaged request is empty."""
    return Task(
        id=row.id,
        status=TaskStatus(row.status),
        model=row.model,
        request=row.request if isinstance(row.request, dict) else {},
        adjustments=tuple(row.adjustments or ()),
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
        # Sentences for people and, behind them, actions for clients.
        error_suggestions=tuple(step for step in row.error_suggestions or () if isinstance(step, str)),
        error_actions=tuple(step for step in row.error_suggestions or () if isinstance(step, dict)),
        download_paused=bool(row._mapping.get("download_paused", False)),
        repeats=row.repeats,
        owner=row.owner,
        webhook_host=_host(row._mapping.get("webhook_url")),
        next_retry_at=moment(row.next_retry_at) if row._mapping.get("deferred") else None,
    )


def _host(url: str | None) -> str | None:
    """Return the host of a webhook; the rest of its address may be a secret."""
    return None if url is None else (urlsplit(url).hostname or "")[:255]


def to_event(row: Row[Any]) -> TaskEvent:
    """Read a row of `events`."""
    return TaskEvent(
        id=row.id,
        task_id=row.task_id,
        number=row.number,
        type=EventType(row.type),
        data=row.data if isinstance(row.data, dict) else {},
        created_at=moment(row.created_at),
        owner=row._mapping.get("owner"),
    )


def _is_mock(record: dict[str, Any]) -> bool:
    result = record.get("result")
    return isinstance(result, dict) and result.get("mock") is not None


def _mock_reason(record: dict[str, Any]) -> str:
    result = record.get("result")
    return str(result.get("mock")) if isinstance(result, dict) else "the record does not say"


def to_output(row: Row[Any]) -> Output:
    """Read a row of `outputs`; a damaged record is empty: the video has its own copy."""
    record = row.metadata if isinstance(row.metadata, dict) else {}
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
        warnings=tuple(row.warnings or ()),
        metadata=record,
        created_at=moment(row.created_at),
        model=row.model,
        mock=None if row.model is not None or (row.imported and not _is_mock(record)) else _mock_reason(record),
        imported=row.imported,
    )
