"""How tasks, videos and models look to a client: from domain objects to the shapes of `schemas.py`.

What is not known is left out here, never invented.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from backend.api.host_stats import MIB, HostReading
from backend.api.schemas import (
    DownloadFirst,
    EventInfo,
    ModelInfo,
    PolledTask,
    QueueCounts,
    QueueItem,
    Requirements,
    TaskInfo,
    VideoMetadata,
)
from backend.api.system_schemas import SystemStats
from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import Output, Priority, Task, TaskEvent, TaskStatus, iso, utcnow
from backend.core.paths import Home
from backend.core.requests import MAX_FPS, MAX_GUIDANCE, MAX_PROMPT_CHARS, MAX_SEED, MAX_STEPS, GenerationRequest
from backend.models.folder.manager import ModelState
from backend.services.downloads.state import waits_for_resume
from backend.services.models.availability import FetchFirst

POLLED_PROMPT_CHARS = 100
_PRIORITIES = {priority.rank: priority for priority in Priority}


def video_url(task_id: str) -> str:
    """Return the address under which a finished video plays."""
    return f"/api/v1/outputs/{task_id}/video"


def task_info(
    task: Task,
    *,
    queue_position: int | None = None,
    output: Output | None = None,
    in_full: bool = False,
    held_up: Collection[str] = (),
) -> TaskInfo:
    """Show one task; `in_full` with every value that decides its frames.

    `held_up` are the models whose waiting tasks have no turn until somebody resumes the download.
    """
    request = GenerationRequest.from_json(task.request)
    processing = task.status is TaskStatus.PROCESSING
    completed = task.status is TaskStatus.COMPLETED
    eta = task.eta_seconds if processing else None
    waits = task.status is TaskStatus.PENDING and task.model in held_up
    return TaskInfo(
        id=task.id,
        model_type=task.model,
        prompt=request.prompt,
        resolution=request.resolution,
        steps=request.steps,
        num_frames=request.num_frames,
        fps=request.fps,
        seed=request.seed,
        lora_strength=request.loras[0].strength if request.loras else 1.0,
        status=task.status,
        progress=_percent(task),
        progress_percent=round(task.progress * 100, 2),
        created_at=iso(task.created_at),
        attempt=task.attempt,
        priority=_PRIORITIES[task.priority],
        cancel_requested=task.cancel_requested,
        adjustments=list(task.adjustments),
        started_at=_iso(task.started_at),
        completed_at=_iso(task.completed_at),
        stage=task.stage if processing else None,
        message=task.message if processing else waits_for_resume(task.model) if waits else None,
        current_step=task.step if processing else None,
        total_steps=task.total_steps if processing else None,
        estimated_time_remaining=None if eta is None else round(eta, 1),
        estimated_time_minutes=minutes(eta),
        estimated_completion=None if eta is None else iso(utcnow() + timedelta(seconds=eta)),
        queue_position=queue_position,
        preview_url=f"/api/v1/queue/{task.id}/preview" if processing and task.preview_step is not None else None,
        output_path=video_url(task.id) if completed else None,
        generation_time=None if output is None else round(output.generation_seconds, 3),
        model_used=task.model if completed else None,
        error_message=task.error_message,
        error_code=task.error_code,
        suggestions=list(task.error_suggestions) or None,
        parameters=known(task.request) if in_full else None,
    )


def queue_item(task: Task) -> QueueItem:
    """Show one task as the first clients read it."""
    spec = models_in_force().get(task.model)
    return QueueItem(
        id=task.id,
        status=task.status,
        prompt=task.prompt,
        model_type=spec.mode.value if spec else task.model,
        created_at=iso(task.created_at),
        progress=_percent(task),
        started_at=_iso(task.started_at),
        completed_at=_iso(task.completed_at),
        output_path=video_url(task.id) if task.status is TaskStatus.COMPLETED else None,
        error_message=task.error_message,
        estimated_time_remaining=task.eta_seconds if task.status is TaskStatus.PROCESSING else None,
        parameters=known(task.request),
    )


def polled_task(task: Task) -> PolledTask:
    """Show one task in brief."""
    prompt = task.prompt
    return PolledTask(
        id=task.id,
        status=task.status,
        progress=_percent(task),
        model_type=task.model,
        prompt=prompt if len(prompt) <= POLLED_PROMPT_CHARS else prompt[:POLLED_PROMPT_CHARS] + "...",
        created_at=iso(task.created_at),
        started_at=_iso(task.started_at),
        completed_at=_iso(task.completed_at),
        error_message=task.error_message,
    )


def queue_counts(counts: dict[TaskStatus, int]) -> QueueCounts:
    """Show how many tasks are in which state."""
    return QueueCounts(
        total_tasks=sum(counts.values()), **{f"{status}_tasks": counts.get(status, 0) for status in TaskStatus}
    )


def event_info(event: TaskEvent) -> EventInfo:
    """Show one event."""
    return EventInfo(
        id=event.id, number=event.number, type=event.type, data=event.data, created_at=iso(event.created_at)
    )


def video_metadata(output: Output, home: Home, *, in_full: bool = False) -> VideoMetadata:
    """Show one finished video; `in_full` with the whole record that is also inside the file."""
    request: dict[str, Any] = output.metadata["request"]
    result: dict[str, Any] = output.metadata.get("result", {})
    return VideoMetadata(
        id=output.task_id,
        filename=output.filename,
        file_path=video_url(output.task_id),
        video_url=video_url(output.task_id),
        output_path=video_url(output.task_id),
        download_url=f"/api/v1/outputs/{output.task_id}/download",
        thumbnail_path=f"/thumbnails/{output.task_id}_thumb.jpg",
        thumbnail_url=f"/api/v1/outputs/{output.task_id}/thumbnail",
        prompt=request["prompt"],
        model_type=request["model"],
        resolution=f"{output.width}x{output.height}",
        num_frames=output.num_frames,
        fps=output.fps,
        duration_seconds=round(output.duration_seconds, 3),
        duration=round(output.duration_seconds, 3),
        file_size_mb=round(output.size_bytes / MIB, 3),
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        created_at=_iso(output.created_at),
        generation_seconds=round(output.generation_seconds, 3),
        generation_time_minutes=round(output.generation_seconds / 60, 3),
        generation_params=known(request),
        warnings=list(output.warnings),
        quality=result.get("quality"),
        has_latents=home.latents_of(output.task_id).is_file(),
        loras=result.get("loras", []),
        metadata=output.metadata if in_full else None,
    )


def model_info(state: ModelState) -> ModelInfo:
    """Show one model: whether it is here, what it needs, what it takes."""
    spec = state.spec
    defaults = {
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "guidance_scale_2": spec.guidance_scale_2,
        "flow_shift": spec.flow_shift,
        "fps": spec.fps,
        "num_frames": spec.num_frames,
        "resolution": f"{spec.width}x{spec.height}",
        "max_sequence_length": spec.max_sequence_length,
        "negative_prompt": spec.negative_prompt,
    }
    limits = {
        "size_multiple": spec.size_multiple,
        "min_side": spec.min_side,
        "max_pixels": spec.max_pixels,
        "max_resolution": max_resolution(spec),
        "max_frames": spec.max_frames,
        "max_steps": MAX_STEPS,
        "max_guidance": MAX_GUIDANCE,
        "max_fps": MAX_FPS,
        "max_seed": MAX_SEED,
        "max_prompt_chars": MAX_PROMPT_CHARS,
        "takes_image": spec.takes_image,
        "requires_image": spec.needs_image,
        "takes_end_image": spec.takes_end_image,
    }
    return ModelInfo(
        id=spec.id,
        title=spec.title,
        mode=spec.mode,
        aliases=list(spec.aliases),
        status=state.presence,
        is_available=state.available,
        reason=state.reason,
        repository=spec.repo_id,
        licence=spec.licence,
        weights_gb=spec.weights_gb,
        size_mb=round(state.size_bytes / MIB, 1) if state.size_bytes else None,
        embedded=spec.embedded,
        base=spec.base,
        experts=spec.experts,
        defaults=known(defaults),
        limits=limits,
    )


def system_stats(reading: HostReading) -> SystemStats:
    """Show how busy the machine is."""
    return SystemStats(
        cpu_percent=reading.cpu_percent,
        ram_used_gb=reading.ram_used_gb,
        ram_total_gb=reading.ram_total_gb,
        ram_percent=reading.ram_percent,
        gpu_percent=reading.gpu_percent,
        vram_used_mb=reading.vram_used_mb,
        vram_total_mb=reading.vram_total_mb,
        vram_percent=reading.vram_percent,
        gpu_available=bool(reading.gpus),
        memory_percent=reading.ram_percent,
        disk_usage=reading.disk_percent,
        timestamp=iso(utcnow()),
    )


def requirements(spec: ModelSpec) -> Requirements:
    """Show what a request to this model needs."""
    return Requirements(
        requires_image=spec.needs_image,
        supports_end_image=spec.takes_end_image,
        estimated_vram_gb=spec.weights_gb,
        max_resolution=max_resolution(spec),
        recommended_steps=spec.steps,
    )


def max_resolution(spec: ModelSpec) -> str:
    """Return the largest size of the model in its native aspect."""
    step = spec.size_multiple
    width = math.isqrt(spec.max_pixels * spec.width // spec.height) // step * step
    return f"{width}x{spec.max_pixels // width // step * step}"


def download_first(fetch: FetchFirst | None) -> DownloadFirst | None:
    """Show what has to be fetched before a task can run."""
    if fetch is None:
        return None
    return DownloadFirst(
        model_type=fetch.spec.id,
        repository=str(fetch.spec.repo_id),
        status=fetch.presence,
        bytes=fetch.missing_bytes,
        weights_gb=fetch.spec.weights_gb,
    )


def minutes(seconds: float | None) -> int | None:
    """Round an estimate up to whole minutes."""
    return None if seconds is None else math.ceil(seconds / 60)


def known(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what has no value."""
    return {key: value for key, value in values.items() if value is not None}


def _percent(task: Task) -> int:
    return 100 if task.status is TaskStatus.COMPLETED else min(99, int(task.progress * 100))


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
