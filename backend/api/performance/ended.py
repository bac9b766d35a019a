"""Routes with a row for each task: ended ones with what their records say, and running ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from fastapi import Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp, iso_or_none, shown_model
from backend.api.performance.load import Envelope, Hours, envelope
from backend.core.catalogue.table import find_model
from backend.core.domain import TaskStatus, utcnow
from backend.services.performance.summary import TaskFigures, figures
from backend.services.system.container import Services
from backend.store.performance.ended_tasks import EndedPeriod

router = Routes(prefix="/performance", tags=["performance"])

#: Tasks that one answer is computed from; older ones of the period are left out, and the answer says how many.
MOST_TASKS: Final = 2000
Model = Annotated[str | None, Query(max_length=128, description="Only tasks of this model, by any of its names")]
Size = Annotated[str | None, Query(max_length=16, description="Only videos of this size, as `WIDTHxHEIGHT`")]
OnlyGood = Annotated[bool, Query(description="Only tasks that completed")]


class ExportFormat(StrEnum):
    """What an export is written as."""

    JSON = "json"
    CSV = "csv"


class Measure(StrEnum):
    """What one figure of each task can be asked for."""

    GENERATION_TIME = "generation_time"
    MODEL_LOAD_TIME = "model_load_time"
    WAITING_TIME = "waiting_time"
    PEAK_VRAM = "peak_vram"
    PEAK_RAM = "peak_ram"


class TaskRow(BaseModel):
    """One ended task; absent = its record does not say."""

    model_config = ConfigDict(protected_namespaces=())

    task_id: str
    model_type: str
    model: str
    resolution: str
    steps: int
    num_frames: int
    status: TaskStatus
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    waiting_seconds: float | None = Field(None, description="From the submit to the start of its last attempt")
    generation_time_seconds: float | None = None
    model_load_time_seconds: float | None = None
    phase_seconds: dict[str, float] = {}
    peak_vram_usage_mb: float | None = None
    peak_ram_usage_mb: float | None = None
    optimizations_applied: list[str]
    quantization_used: str | None = None
    offload_used: bool | None = None
    success: bool
    error_category: str | None = None


class Filters(BaseModel):
    """What the rows were restricted to."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str | None = None
    resolution: str | None = None
    success_only: bool


class TaskRows(BaseModel):
    """The ended tasks of a period."""

    time_window_hours: float
    total_metrics: int
    left_out: int = Field(description="Older tasks of the period beyond the newest 2000")
    filters_applied: Filters
    metrics: list[TaskRow] = Field(description="Newest first")


class Point(BaseModel):
    """The figure of one task."""

    task_id: str
    time: Timestamp | None = None
    value: float


class Series(BaseModel):
    """One figure of the ended tasks of a period."""

    metric_type: Measure
    unit: str
    time_window_hours: float
    count: int
    mean: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    values: list[Point] = Field(description="Oldest first")


class RunningTask(BaseModel):
    """A running task."""

    model_config = ConfigDict(protected_namespaces=())

    task_id: str
    operation: str = "generation"
    model_type: str
    stage: str | None = None
    progress_percent: float
    started_at: Timestamp | None = None
    elapsed_seconds: float | None = None
    estimated_time_remaining: float | None = None


class RunningTasks(BaseModel):
    """The running tasks that the caller sees."""

    count: int
    operations: list[RunningTask]


@dataclass(frozen=True, slots=True)
class _Figure:
    unit: str
    of: Callable[[TaskFigures], float | None]


_FIGURES: Final = {
    Measure.GENERATION_TIME: _Figure("seconds", lambda row: row.seconds if row.succeeded else None),
    Measure.MODEL_LOAD_TIME: _Figure("seconds", lambda row: row.load_seconds),
    Measure.WAITING_TIME: _Figure("seconds", lambda row: row.wait_seconds),
    Measure.PEAK_VRAM: _Figure("MiB", lambda row: row.peak_vram_mb),
    Measure.PEAK_RAM: _Figure("MiB", lambda row: row.peak_ram_mb),
}


@router.get("/metrics", summary="The ended tasks of a period")
def task_metrics(
    services: ServicesDep,
    time_window_hours: Hours = 24.0,
    model_type: Model = None,
    resolution: Size = None,
    success_only: OnlyGood = False,
) -> Envelope[TaskRows]:
    """Return what the record of each task says; a key sees its own tasks alone."""
    return envelope(_rows(services, time_window_hours, model_type, resolution, success_only=success_only))


@router.get("/metrics/{metric_type}", summary="One figure of the ended tasks")
def one_metric(
    services: ServicesDep,
    metric_type: Annotated[Measure, Path(description="The figure")],
    time_window_hours: Hours = 24.0,
) -> Envelope[Series]:
    """Return one figure over time; tasks whose records do not have it are left out."""
    figure = _FIGURES[metric_type]
    _, rows = ended_rows(services, time_window_hours)
    points = [
        Point(task_id=row.task_id, time=iso_or_none(row.end), value=round(value, 3))
        for row in reversed(rows)
        if (value := figure.of(row)) is not None
    ]
    values = [point.value for point in points]
    return envelope(
        Series(
            metric_type=metric_type,
            unit=figure.unit,
            time_window_hours=time_window_hours,
            count=len(points),
            mean=round(sum(values) / len(values), 3) if values else None,
            minimum=min(values, default=None),
            maximum=max(values, default=None),
            values=points,
        )
    )


@router.post(
    "/export",
    summary="The ended tasks of a period as a file",
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "As JSON or CSV"}},
)
def export(
    services: ServicesDep,
    format: Annotated[ExportFormat, Query(description="JSON, or CSV with a line for each task")] = ExportFormat.JSON,
    time_window_hours: Hours = 24.0,
) -> Response:
    """Return the rows of `metrics`; nothing is stored on the server."""
    found = _rows(services, time_window_hours, None, None, success_only=False)
    if format is ExportFormat.JSON:
        return Response(envelope(found).model_dump_json(exclude_none=True), media_type="application/json")
    named = {"Content-Disposition": 'attachment; filename="wan22_performance.csv"'}
    return Response(_as_csv(found.metrics), media_type="text/csv; charset=utf-8", headers=named)


@router.get("/operations/active", summary="The running tasks")
def active_operations(services: ServicesDep) -> Envelope[RunningTasks]:
    """Return the running tasks, and how far each is."""
    now = utcnow()
    running = services.tasks.list(TaskStatus.PROCESSING)
    shown = [
        RunningTask(
            task_id=task.id,
            model_type=shown_model(task.model),
            stage=task.stage,
            progress_percent=round(task.progress * 100, 2),
            started_at=iso_or_none(task.started_at),
            elapsed_seconds=None if task.started_at is None else round((now - task.started_at).total_seconds(), 3),
            estimated_time_remaining=task.eta_seconds,
        )
        for task in running
    ]
    return envelope(RunningTasks(count=len(shown), operations=shown))


def ended_rows(services: Services, hours: float) -> tuple[EndedPeriod, list[TaskFigures]]:
    """Return the tasks of the caller that ended in the last hours, newest first."""
    period = services.ended.of_last(hours, MOST_TASKS)
    return period, figures(period.tasks)


def task_row(row: TaskFigures) -> TaskRow:
    """Show the figures of one task."""
    return TaskRow(
        task_id=row.task_id,
        model_type=shown_model(row.model),
        model=row.model,
        resolution=row.resolution,
        steps=row.steps,
        num_frames=row.frames,
        status=row.status,
        start_time=iso_or_none(row.start),
        end_time=iso_or_none(row.end),
        waiting_seconds=_milliseconds(row.wait_seconds),
        generation_time_seconds=_milliseconds(row.seconds),
        model_load_time_seconds=_milliseconds(row.load_seconds),
        phase_seconds={str(phase): round(seconds, 3) for phase, seconds in row.phases.items()},
        peak_vram_usage_mb=row.peak_vram_mb,
        peak_ram_usage_mb=row.peak_ram_mb,
        optimizations_applied=row.optimizations,
        quantization_used=row.quantization,
        offload_used=None if row.placement is None else row.placement.offloads,
        success=row.succeeded,
        error_category=row.error_category,
    )


def _rows(
    services: Services, hours: float, model: str | None, resolution: str | None, *, success_only: bool
) -> TaskRows:
    period, rows = ended_rows(services, hours)
    wanted = None if model is None else find_model(model)
    kept = [
        row
        for row in rows
        if (wanted is None or wanted.id == row.model)
        and (resolution is None or resolution == row.resolution)
        and (row.succeeded or not success_only)
    ]
    return TaskRows(
        time_window_hours=hours,
        total_metrics=len(kept),
        left_out=period.left_out,
        filters_applied=Filters(model_type=model, resolution=resolution, success_only=success_only),
        metrics=[task_row(row) for row in kept],
    )


def _as_csv(rows: Sequence[TaskRow]) -> str:
    """Write a line for each task; no value can be taken for a formula, as all are numbers or words of this program."""
    names = [name for name in TaskRow.model_fields if name != "phase_seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        values = row.model_dump(mode="json")
        writer.writerow(values | {"optimizations_applied": "; ".join(values["optimizations_applied"])})
    return text.getvalue()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
