"""Records a finished video in the caller's transaction: its output row, and its row in the gallery."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert

from backend.core.domain import Output
from backend.store.rows import storable
from backend.store.tables import gallery, outputs


def figures_of(output: Output) -> dict[str, Any]:
    """Return the columns of an output that its file decides, as plain JSON values."""
    return {
        "filename": output.filename,
        "size_bytes": output.size_bytes,
        "sha256": output.sha256,
        "width": output.width,
        "height": output.height,
        "num_frames": output.num_frames,
        "fps": output.fps,
        "generation_seconds": output.generation_seconds,
        "warnings": list(output.warnings),
    }


def record_output(
    connection: Connection,
    task: Row[Any],
    output: Output,
    created_at: ColumnElement[float] | float,
) -> None:
    """Insert the rows of a finished video; `task` is the row of its task."""
    model = output.model or task.model
    recorded = insert(outputs).values(
        task_id=output.task_id,
        metadata=output.metadata,
        created_at=created_at,
        # What was made elsewhere says nothing about how this machine works.
        model=None if output.mock is not None or output.imported else model,
        imported=output.imported,
        **figures_of(output),
    )
    # The clock is read once, so that both rows have one time.
    moment = connection.execute(recorded.returning(outputs.c.created_at)).scalar_one()
    prompt = task.request.get("prompt") if isinstance(task.request, dict) else None
    connection.execute(
        insert(gallery).values(
            number=task.number,
            task_id=output.task_id,
            key=key_of(output.task_id),
            created_at=moment,
            model=model,
            mock=output.mock is not None,
            imported=output.imported,
            seconds=output.num_frames / output.fps if output.fps > 0 else 0.0,
            size_bytes=output.size_bytes,
            placeholder=output.placeholder,
            owner=task.owner,
            prompt=storable(prompt) if isinstance(prompt, str) else "",
        )
    )


def key_of(task_id: str) -> bytes:
    """Return the 16 bytes of an id, as lists of a million have them; of what is no UUID, a digest."""
    try:
        return uuid.UUID(task_id).bytes
    except ValueError:
        return hashlib.md5(task_id.encode(), usedforsecurity=False).digest()
