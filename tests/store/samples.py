"""Requests, tasks and outputs for tests."""

from __future__ import annotations

from backend.core.catalogue.table import MODELS
from backend.core.domain import Output, Priority, Progress, Stage, Task, new_task_id
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.core.requests.webhooks import Webhook
from backend.store.tasks import TaskStore

LEASE = 30.0


def order(store: TaskStore) -> list[str]:
    """Return the ids of the tasks that are ready to run, the next one first."""
    positions = store.positions([task.id for task in store.list()])
    return sorted(positions, key=lambda task_id: positions[task_id])


def submit(
    store: TaskStore,
    prompt: str = "a red circle moving right on a navy background",
    *,
    task_id: str | None = None,
    priority: Priority = Priority.NORMAL,
    max_attempts: int = 3,
    key: str | None = None,
    model: str = "tiny-t2v-a14b",
    webhook: Webhook | None = None,
) -> Task:
    """Queue a small task; equal prompts are equal requests."""
    draft = RequestDraft(prompt=prompt, seed=7)
    request, notes = resolve_request(MODELS[model], draft)
    return store.insert(
        task_id or new_task_id(),
        request,
        adjustments=notes,
        priority=priority,
        max_attempts=max_attempts,
        fingerprint=request.digest,
        idempotency_key=key,
        webhook=webhook,
    )


def claimed(
    store: TaskStore, worker_id: str = "w1", lease_seconds: float = LEASE, *, downloads: bool = True
) -> tuple[Task, str]:
    """Claim the next task, which must exist; return it with its lease token."""
    task = store.claim(worker_id, lease_seconds, downloads=downloads)
    assert task is not None
    assert task.lease_token is not None
    return task, task.lease_token


def at_step(step: int, of: int = 20, message: str = "Denoising") -> Progress:
    """Progress at a denoising step."""
    return Progress(Stage.GENERATING, step / of, message, step=step, total_steps=of, eta_seconds=float(of - step))


def output_of(task_id: str) -> Output:
    """Build an output as a worker would record it."""
    return Output(
        task_id=task_id,
        filename=f"{task_id}.mp4",
        size_bytes=1234,
        sha256="0" * 64,
        width=96,
        height=96,
        num_frames=17,
        fps=8.0,
        generation_seconds=1.5,
        warnings=("the clip is flat",),
        metadata={"prompt": "a red circle", "seed": 7},
    )
