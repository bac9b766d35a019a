"""The web side of a task's life: submit, cancel, delete, and what a request would become.

Everything here is decided before a task is queued; nothing here generates. Knows the store and the
model files, never the engine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from backend.core.domain import Priority, Task, new_task_id
from backend.core.errors import ImageNotAccepted, ImageRequired, InvalidRequest, LoraNotFound
from backend.core.model_table import AUTO, Mode, ModelSpec, find_model
from backend.core.requests import RequestDraft, resolve_request
from backend.core.settings import Settings
from backend.models.manager import ModelManager
from backend.store.outputs import OutputStore
from backend.store.tasks import TaskStore


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that is safely on disk."""

    task: Task
    spec: ModelSpec
    queue_position: int | None  #: 1 = next; None = already taken by a worker or finished
    estimated_seconds: float | None  #: until it is done; None while nothing was measured


@dataclass(frozen=True, slots=True)
class Detection:
    """Which model `auto` means for a request, and why."""

    spec: ModelSpec
    reasons: tuple[str, ...]
    alternatives: tuple[ModelSpec, ...]


class GenerationService:
    """Turns requests into tasks by the rules of the model."""

    def __init__(self, settings: Settings, tasks: TaskStore, outputs: OutputStore, models: ModelManager) -> None:
        self._settings = settings
        self._tasks = tasks
        self._outputs = outputs
        self._models = models

    def submit(
        self,
        model: str,
        draft: RequestDraft,
        *,
        images: frozenset[str] = frozenset(),
        priority: Priority = Priority.NORMAL,
        idempotency_key: str | None = None,
        lora_path: str = "",
    ) -> Submission:
        """Check a request, queue it and return its task once the commit is on disk.

        `images` names the image fields that were sent. A repeated `idempotency_key` returns the first task.

        Raises:
            InvalidRequest: the request does not fit the model; nothing was queued.
            ModelUnavailable: the model's files are not here; nothing was queued.
            IdempotencyConflict: the key belongs to a different request.
        """
        spec = self._spec(model, images)
        request, notes = resolve_request(spec, draft)
        if lora_path.strip():
            raise LoraNotFound(f"There is no LoRA for {spec.id} on this server", details={"field": "lora_path"})
        self._models.folder(spec)
        task = self._tasks.insert(
            new_task_id(),
            request,
            adjustments=notes,
            priority=priority,
            max_attempts=self._settings.max_attempts,
            idempotency_key=idempotency_key,
            fingerprint=_fingerprint(spec, draft, priority),
        )
        position = self._tasks.queue_position(task.id)
        return Submission(task, spec, position, self._estimate(spec, position))

    def detect_model(self, prompt: str, *, has_image: bool, has_end_image: bool) -> Detection:
        """Say which model `auto` takes for this request, and why."""
        if not prompt.strip():
            raise InvalidRequest("Prompt cannot be empty", details={"field": "prompt"})
        return self._choose(with_image=has_image or has_end_image)

    def cancel(self, task_id: str) -> Task:
        """Cancel a task: at once while it waits, within one step while it runs.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it is finished.
        """
        return self._tasks.request_cancel(task_id)

    def delete(self, task_id: str) -> None:
        """Remove a finished task from the queue view; its video stays.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it still waits or runs.
        """
        self._tasks.delete(task_id)

    def clear(self) -> int:
        """Remove every finished task from the queue view and return how many there were."""
        return len(self._tasks.clear_finished())

    def _spec(self, model: str, images: frozenset[str]) -> ModelSpec:
        if model.strip().lower() == AUTO:
            return self._choose(with_image=bool(images)).spec
        spec = find_model(model)
        if spec.mode is Mode.T2V and images:
            raise ImageNotAccepted(f"{spec.id} makes video from text alone and takes no image")
        if spec.mode is Mode.I2V and "image" not in images:
            raise ImageRequired(f"Start image is required for {spec.id} model")
        return spec

    def _choose(self, *, with_image: bool) -> Detection:
        here = [state.spec for state in self._models.states() if state.available]
        if with_image:
            fitting = [spec for spec in here if spec.mode in (Mode.I2V, Mode.TI2V)]
            if not fitting:
                raise ImageNotAccepted(
                    "No model that takes an image is on this server",
                    suggestions=("Leave the image out.", *(f"Use `{spec.id}` with text alone." for spec in here)),
                )
            spec = max(fitting, key=lambda one: one.weights_gb)
            reasons = ("an image was given", f"{spec.id} is the largest model here that starts from an image")
        else:
            spec = self._models.default()
            reasons = ("no image was given", f"{spec.id} is the model here that fits this machine")
        return Detection(spec, reasons, tuple(other for other in here if other is not spec))

    def _estimate(self, spec: ModelSpec, position: int | None) -> float | None:
        """Seconds until done, from the median of this machine's last runs of the model; None before the first."""
        runs = sorted(self._outputs.durations(spec.id, limit=9))
        return runs[len(runs) // 2] * (position or 1) if runs else None


def _fingerprint(spec: ModelSpec, draft: RequestDraft, priority: Priority) -> str:
    """Hash what the user asked for, before the seed is drawn: a retried submit has the same one."""
    wish = {"model": spec.id, "priority": priority, **asdict(draft)}
    return hashlib.sha256(json.dumps(wish, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
