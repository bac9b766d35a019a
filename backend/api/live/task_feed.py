"""Folds the event log into the current state of the tasks, and turns each event into client messages.

Live messages, snapshots and replays share one fold, so a snapshot always agrees with the messages after it.
Pure: no I/O, no sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from backend.api.http.shapes import known
from backend.api.live.download_feed import download_notices, fetch_of_task
from backend.api.live.messages import ALERTS_TOPIC, FALLBACK_TOPIC, GALLERY_TOPIC, PROGRESS_TOPIC, Notice
from backend.api.tasks.shapes import time_left
from backend.core.domain import TERMINAL, EventType, Stage, Task, TaskEvent, TaskStatus, iso
from backend.core.errors.base import WanError
from backend.services.downloads.state import Download, DownloadState

#: A stage in messages that is not a worker stage.
STARTED_STAGE = "generation_started"
_SNAPSHOT_WAITING = 100  # waiting tasks in a snapshot; the queue route lists them all


@dataclass(slots=True)
class LiveTask:
    """State of one unfinished task, as derived from the events."""

    status: TaskStatus
    progress: float = 0.0  # percent
    stage: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # the newest detailed message
    model: str | None = None
    attempt: int = 0
    fetch: Download | None = None  # the model download this task is running


class TaskFeed:
    """The waiting and running tasks by id, in order of arrival."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        """Start from the tasks in the database, oldest first."""
        unfinished = [task for task in tasks if task.status not in TERMINAL]
        self._live = {task.id: _live(task) for task in unfinished}
        self._owners = {task.id: task.owner for task in unfinished}

    def apply(self, event: TaskEvent) -> list[Notice]:
        """Fold one event and return its messages."""
        fold = {
            EventType.SUBMITTED: self._submitted,
            EventType.STARTED: self._started,
            EventType.PROGRESS: self._progressed,
            EventType.ALERT: self._alerted,
            EventType.ATTEMPT_LOST: self._attempt_lost,
            EventType.RELEASED: self._released,
            EventType.HELD_UP: self._waits_for_download,
            EventType.RETRY_SCHEDULED: self._tried_later,
            EventType.PAUSED: self._paused,
            EventType.RESUMED: self._requeued,
            EventType.RETRIED: self._requeued,
            EventType.EDITED: self._edited,
            EventType.COMPLETED: self._completed,
            EventType.FAILED: self._failed,
            EventType.CANCELLED: self._cancelled,
            EventType.OUTPUT_CHANGED: self._output_changed,
        }.get(event.type)
        notices = fold(event) if fold else []
        self._owners.pop(event.task_id, None)
        if event.task_id in self._live:
            self._owners[event.task_id] = event.owner
        return notices

    def snapshot(self, confined_to: str | None = None) -> list[Notice]:
        """Return the state of every running task and of the first waiting ones as progress messages.

        `confined_to` is the owner whose tasks alone are meant; None = all tasks.
        """
        notices: list[Notice] = []
        waiting = 0
        for task_id, live in self._live.items():
            if confined_to is not None and self._owners.get(task_id) != confined_to:
                continue
            if live.status is TaskStatus.PROCESSING:
                notices += _progress_notices(task_id, live, stage_changed=live.stage is not None)
            elif waiting < _SNAPSHOT_WAITING:
                waiting += 1
                notices.append(_overall(task_id, live))
        return notices

    def running(self) -> dict[str, str | None]:
        """Return the owners of the tasks that run, by task id."""
        running = (task_id for task_id, live in self._live.items() if live.status is TaskStatus.PROCESSING)
        return {task_id: self._owners.get(task_id) for task_id in running}

    def _submitted(self, event: TaskEvent) -> list[Notice]:
        live = self._live[event.task_id] = LiveTask(TaskStatus.PENDING, model=event.data.get("model"))
        _stamp(live, event, message="Waiting in the queue")
        return [_update(event, live), _overall(event.task_id, live)]

    def _started(self, event: TaskEvent) -> list[Notice]:
        before = self._of(event)
        live = LiveTask(TaskStatus.PROCESSING, model=before.model, attempt=event.data.get("attempt", 0))
        self._live[event.task_id] = live
        start = event.created_at.timestamp()
        _stamp(live, event, message="Generation started", generation_start_time=start)
        stage = {
            "task_id": event.task_id,
            "stage": STARTED_STAGE,
            "stage_progress": 0.0,
            "stage_message": "Generation started",
            "stage_start_time": start,
            "start_time": start,
            "model_type": live.model,
            "attempt": live.attempt,
            "timestamp": iso(event.created_at),
        }
        return [
            _update(event, live),
            _overall(event.task_id, live),
            Notice("generation_stage", PROGRESS_TOPIC, known(stage)),
        ]

    def _progressed(self, event: TaskEvent) -> list[Notice]:
        live = self._of(event)
        live.status = TaskStatus.PROCESSING
        before, live.stage = live.stage, event.data["stage"]
        live.progress = max(live.progress, round(float(event.data["progress"]), 2))
        _stamp(live, event, **{key: value for key, value in event.data.items() if key not in ("stage", "progress")})
        fetch = fetch_of_task(live.model, event.data.get("download"), event.created_at)
        # A task still in the download stage has yielded its turn to another download.
        waits = live.stage == Stage.DOWNLOADING_MODEL
        notices = _fetch_notices(event, live, fetch, DownloadState.QUEUED if waits else DownloadState.COMPLETED)
        loading = _loading_notices(event, live, before, live.stage)
        return [*_progress_notices(event.task_id, live, stage_changed=live.stage != before), *loading, *notices]

    def _alerted(self, event: TaskEvent) -> list[Notice]:
        data = {"severity": "info"} | event.data | {"task_id": event.task_id, "timestamp": iso(event.created_at)}
        return [Notice("alert", ALERTS_TOPIC, data), *_fallback_notices(event, self._of(event))]

    def _attempt_lost(self, event: TaskEvent) -> list[Notice]:
        if not event.data.get("will_retry"):
            return []  # the event that ends the task follows in the same commit
        reason = str(event.data.get("reason") or "the attempt was lost")
        return self._back_to_queue(event, f"Waiting for another try: {reason}")

    def _released(self, event: TaskEvent) -> list[Notice]:
        return self._back_to_queue(event, "Waiting in the queue: the worker was stopped")

    def _waits_for_download(self, event: TaskEvent) -> list[Notice]:
        return self._back_to_queue(event, str(event.data.get("message")), DownloadState.PAUSED)

    def _tried_later(self, event: TaskEvent) -> list[Notice]:
        seconds = max(1.0, float(event.data["next_retry_at"]) - event.created_at.timestamp())
        reason = str(event.data.get("message") or "The attempt failed").rstrip(".")
        return self._back_to_queue(event, f"{reason}: it is tried again in {seconds:.0f} s")

    def _paused(self, event: TaskEvent) -> list[Notice]:
        before = self._of(event)
        live = LiveTask(TaskStatus.PAUSED, round(float(event.data["progress"]), 2), model=before.model)
        self._live[event.task_id] = live
        figures = {name: event.data.get(name) for name in ("current_step", "total_steps")}
        _stamp(live, event, message="Paused", **figures)
        notices = _fetch_notices(event, before, None, DownloadState.PAUSED)
        loading = _loading_notices(event, before, before.stage, None)
        return [_update(event, live), _overall(event.task_id, live), *loading, *notices]

    def _requeued(self, event: TaskEvent) -> list[Notice]:
        if "model" not in event.data:
            return []  # its worker had not seen the pause yet
        live = self._live[event.task_id] = LiveTask(TaskStatus.PENDING, model=event.data["model"])
        _stamp(live, event, message="Waiting in the queue")
        return [_update(event, live), _overall(event.task_id, live)]

    def _edited(self, event: TaskEvent) -> list[Notice]:
        live = self._of(event)
        live.model = event.data["model"]
        _stamp(live, event, message="Edited")
        return [_update(event, live)]

    def _back_to_queue(
        self, event: TaskEvent, message: str, fetch: DownloadState = DownloadState.QUEUED
    ) -> list[Notice]:
        before = self._of(event)
        live = self._live[event.task_id] = LiveTask(TaskStatus.PENDING, model=before.model, attempt=before.attempt)
        _stamp(live, event, message=message)
        notices = _fetch_notices(event, before, None, fetch)
        loading = _loading_notices(event, before, before.stage, None)
        return [_update(event, live), _overall(event.task_id, live), *loading, *notices]

    def _completed(self, event: TaskEvent) -> list[Notice]:
        live = self._of(event)
        live.progress = 100.0
        result = {
            "output_path": f"/api/v1/outputs/{event.task_id}/video",
            "total_generation_time": event.data.get("generation_seconds"),
            "warnings": event.data.get("warnings") or None,
            "mock": "mock" in event.data or None,
            "mock_reason": event.data.get("mock"),
        }
        return self._ended(event, live, TaskStatus.COMPLETED, Stage.COMPLETED, "Video completed", result)

    def _failed(self, event: TaskEvent) -> list[Notice]:
        message = str(event.data.get("message") or "The task failed")
        error = known(
            {key: event.data.get(key) for key in ("category", "retryable", "suggestions", "actions", "error")}
        )
        result = {"error_message": message, "error_details": error}
        return self._ended(event, self._of(event), TaskStatus.FAILED, Stage.FAILED, message, result)

    def _cancelled(self, event: TaskEvent) -> list[Notice]:
        message = "Task cancelled"
        result = {"error_message": message}
        # The stages known to clients lack "cancelled"; the status has it.
        return self._ended(event, self._of(event), TaskStatus.CANCELLED, Stage.FAILED, message, result)

    def _output_changed(self, event: TaskEvent) -> list[Notice]:
        data = event.data | {"output_id": event.task_id, "timestamp": iso(event.created_at)}
        return [Notice("output_update", GALLERY_TOPIC, data)]

    def _ended(
        self, event: TaskEvent, live: LiveTask, status: TaskStatus, stage: Stage, message: str, result: dict[str, Any]
    ) -> list[Notice]:
        before = live.stage
        live.status, live.stage = status, stage
        start = live.facts.get("generation_start_time")
        _stamp(live, event, message=message, generation_start_time=start, **known(result))
        self._live.pop(event.task_id, None)
        end = DownloadState.CANCELLED if status is TaskStatus.CANCELLED else DownloadState.FAILED
        error = WanError(message, suggestions=tuple(event.data.get("suggestions") or ()))
        notices = _loading_notices(event, live, before, None)
        notices += _fetch_notices(event, live, None, end, error if status is TaskStatus.FAILED else None)
        if status is TaskStatus.FAILED:
            notices += _suggestion_notices(event, live)
        return [_update(event, live), *_progress_notices(event.task_id, live, stage_changed=before != stage), *notices]

    def _of(self, event: TaskEvent) -> LiveTask:
        """Return the task's state; empty if a replay starts in the middle of the task."""
        return self._live.setdefault(event.task_id, LiveTask(TaskStatus.PENDING))


def _live(task: Task) -> LiveTask:
    live = LiveTask(task.status, round(task.progress * 100, 2), task.stage, model=task.model, attempt=task.attempt)
    live.facts = known(
        {
            "message": task.message or ("Waiting in the queue" if task.status is TaskStatus.PENDING else None),
            "current_step": task.step,
            "total_steps": task.total_steps,
            "eta_seconds": task.eta_seconds,
            "preview_step": task.preview_step,
            "generation_start_time": task.started_at.timestamp() if task.started_at else None,
            "timestamp": iso(task.started_at or task.created_at),
        }
    )
    return live


def _stamp(live: LiveTask, event: TaskEvent, **facts: Any) -> None:
    live.facts = known(facts) | {"timestamp": iso(event.created_at)}


def _update(event: TaskEvent, live: LiveTask) -> Notice:
    """Announce a task's change of state to all clients."""
    data = {
        "task_id": event.task_id,
        "status": live.status,
        "progress": live.progress,
        "message": live.facts.get("message"),
        "output_path": live.facts.get("output_path"),
        "model_type": live.model,
        "timestamp": live.facts["timestamp"],
    }
    return Notice("task_update", None, known(data))


def _fetch_notices(
    event: TaskEvent, live: LiveTask, now: Download | None, end: DownloadState, error: WanError | None = None
) -> list[Notice]:
    """Report the progress of a task's model download, or that it reached the state `end`."""
    before, live.fetch = live.fetch, now
    if now is None and before is not None:
        now = replace(before, state=end, error=error, updated_at=event.created_at)
    if now is None:
        return []
    return download_notices(before, now)


def _loading_notices(event: TaskEvent, live: LiveTask, before: str | None, now: str | None) -> list[Notice]:
    """Report that the model begins to be loaded, that it is, or that it will not be; `now` None = the attempt ended."""
    if (before == Stage.LOADING_MODEL) is (now == Stage.LOADING_MODEL):
        return []
    word = "loading" if now == Stage.LOADING_MODEL else "loaded"
    if now is None:
        word = "failed" if live.status is TaskStatus.FAILED else "stopped"
    data = {
        "task_id": event.task_id,
        "model_type": live.model,
        "progress": 100.0 if word == "loaded" else 0.0,
        "status": word,
        "timestamp": iso(event.created_at),
    }
    return [Notice("model_loading_progress", PROGRESS_TOPIC, known(data))]


def _fallback_notices(event: TaskEvent, live: LiveTask) -> list[Notice]:
    """Report that a task is made in another way than it was asked for; other alerts say nothing about that."""
    strategy = {"other_model": "alternative_model", "mock": "mock_generation"}.get(str(event.data.get("alert_type")))
    if strategy is None:
        return []
    data = {
        "task_id": event.task_id,
        "original_model": event.data.get("original_model") or live.model,
        "strategy_type": strategy,
        "recommended_action": "None is needed: the task goes on",
        "alternative_model": event.data.get("alternative_model"),
        "user_message": event.data.get("message"),
        "can_queue_request": True,
        "user_interaction_required": False,
        "timestamp": iso(event.created_at),
    }
    return [Notice("fallback_strategy", FALLBACK_TOPIC, known(data))]


def _suggestion_notices(event: TaskEvent, live: LiveTask) -> list[Notice]:
    """Report another model that can do a task that failed, where its error names one."""
    for action in event.data.get("actions") or ():
        changes = action.get("changes") if isinstance(action, dict) else None
        if isinstance(changes, dict) and live.model and "model_type" in changes:
            data = {
                "task_id": event.task_id,
                "original_model": live.model,
                "suggested_model": changes["model_type"],
                "reason": event.data.get("message"),
                "timestamp": iso(event.created_at),
            }
            return [Notice("alternative_model_suggestion", FALLBACK_TOPIC, data)]
    return []


def _overall(task_id: str, live: LiveTask) -> Notice:
    names = ("message", "download", "error_details", "output_path", "timestamp")
    data: dict[str, Any] = {"task_id": task_id, "progress": live.progress, "status": live.status}
    data |= known({name: live.facts.get(name) for name in names} | {"attempt": live.attempt or None})
    return Notice("generation_progress", PROGRESS_TOPIC, data)


def _progress_notices(task_id: str, live: LiveTask, *, stage_changed: bool) -> list[Notice]:
    notices = [_overall(task_id, live)]
    if live.stage is None:
        return notices
    facts = live.facts
    detailed = {
        "task_id": task_id,
        "stage": live.stage,
        "status": live.status,
        "progress": live.progress,
        **{key: value for key, value in facts.items() if key not in ("eta_seconds", "error_details", "warnings")},
    }
    # The only field that clients expect as null while it is unknown.
    detailed["estimated_time_remaining"] = time_left(facts.get("eta_seconds"))
    notices.append(Notice("detailed_generation_progress", PROGRESS_TOPIC, detailed))
    if stage_changed:
        stage = {
            "task_id": task_id,
            "stage": live.stage,
            "stage_progress": _stage_progress(live),
            "stage_message": facts.get("message"),
            "stage_start_time": facts.get("stage_start_time"),
            "timestamp": facts["timestamp"],
        }
        notices.append(Notice("generation_stage", PROGRESS_TOPIC, known(stage)))
    return notices


def _stage_progress(live: LiveTask) -> float:
    """Return the progress within the stage, in percent."""
    if live.stage in (Stage.COMPLETED, Stage.FAILED):
        return 100.0 if live.stage == Stage.COMPLETED else 0.0
    if live.fetch is not None and live.fetch.progress is not None and live.fetch.progress.total_bytes:
        return round(100.0 * live.fetch.progress.done_bytes / live.fetch.progress.total_bytes, 2)
    step, steps = live.facts.get("current_step"), live.facts.get("total_steps")
    return round(100.0 * step / steps, 2) if step and steps else 0.0
