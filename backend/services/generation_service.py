"""The web side of a task's life: submit, extend, decode again, cancel, delete.

Everything here is decided before a task is queued; nothing here generates. Knows the store, the model
files and the stored images, never the engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.domain import Priority, Task, new_task_id
from backend.core.errors import InvalidRequest, LoraNotFound
from backend.core.paths import Home
from backend.core.planning.optimizer import Decision
from backend.core.requests import MAX_SEED, GenerationRequest, LoraUse, RequestDraft, resolve_request
from backend.core.settings import Settings
from backend.models.folder.manager import ModelManager
from backend.models.lora.library import LoraLibrary
from backend.services.continuation import Continuation
from backend.services.media.images import InputStore
from backend.services.model_choice import Choice, choose_model
from backend.services.models.availability import FetchFirst, ModelAvailability
from backend.services.planning.forecast import Forecast, Span
from backend.store.outputs import OutputStore
from backend.store.tasks import TaskStore

MAX_VARIATIONS = 16
MAX_LORAS = 8


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA as a request names it."""

    id: str
    strength: float = 1.0  #: on the high-noise expert, or the only one
    strength_2: float | None = None  #: on the low-noise expert; None = the same
    expert: str | None = None  #: "high", "low" or "both"; None = as its files say


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """What a client asks for."""

    model: str  #: a name, or "auto"
    draft: RequestDraft
    loras: tuple[LoraChoice, ...] = ()
    preset: str | None = None
    variations: int = 1  #: as many tasks, with seeds that follow each other
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """Tasks that are safely on disk."""

    tasks: tuple[Task, ...]  #: one, or one for each variation
    spec: ModelSpec
    reasons: tuple[str, ...]  #: why this model was chosen; empty when it was named
    queue_position: int | None  #: of the first task; 1 = next; None = it does not wait for its turn
    until_done: Span | None  #: of the first task; None while nothing is known
    fetch: FetchFirst | None = None  #: what is fetched before the first can run

    @property
    def task(self) -> Task:
        """The first task."""
        return self.tasks[0]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with nothing left open, before anything is queued."""

    requests: tuple[GenerationRequest, ...]  #: one for each variation
    choice: Choice
    notes: tuple[str, ...]  #: one sentence for each value that was changed to fit the model
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request would take, without queuing it."""

    prepared: Prepared
    decision: Decision
    available: bool  #: whether the model's files are here
    fetch: FetchFirst | None = None  #: what a task would fetch first


class GenerationService:
    """Turns requests into tasks by the rules of the model."""

    def __init__(
        self,
        settings: Settings,
        home: Home,
        tasks: TaskStore,
        outputs: OutputStore,
        models: ModelManager,
        loras: LoraLibrary,
        inputs: InputStore,
        forecast: Forecast,
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._outputs = outputs
        self._models = models
        self._supply = ModelAvailability(home, models, fetches=settings.auto_download)
        self._loras = loras
        self._inputs = inputs
        self._forecast = forecast
        self._continuation = Continuation(home, outputs, inputs)

    def submit(self, wish: SubmitRequest) -> Submission:
        """Check a request, queue it and return its tasks once the commit is on disk.

        A repeated `idempotency_key` returns the first tasks.

        Raises:
            InvalidRequest: the request does not fit the model, or the machine; nothing was queued.
            ModelUnavailable, ModelDamaged: the model's files are not here, and no task would fetch them.
            StorageFull: there is no room for what would have to be fetched.
            IdempotencyConflict: the key belongs to a different request.
        """
        return self._submit(self._prepare(wish, choose_model(self._models, wish.model, wish.draft)), wish)

    def estimate(self, wish: SubmitRequest) -> Estimate:
        """Say what a request would become and take, without queuing it and whether or not the model is here.

        Raises:
            InvalidRequest: the request does not fit the model.
        """
        return self._estimated(self._prepare(wish, choose_model(self._models, wish.model, wish.draft)))

    def extend(self, output_id: str, wish: SubmitRequest) -> Submission:
        """Queue a clip that starts from the last frame of an earlier one. Raises like `submit`.

        What the wish leaves open is taken from the earlier clip: prompt, size, frame rate and length.

        Raises:
            OutputNotFound, OutputFileMissing: there is no such video, or its file is gone.
        """
        return self._submit(*self._extension(output_id, wish))

    def estimate_extension(self, output_id: str, wish: SubmitRequest) -> Estimate:
        """Say what `extend` would queue and what it would take. Raises like `extend`."""
        return self._estimated(self._extension(output_id, wish)[0])

    def redecode(
        self, output_id: str, *, fps: float | None = None, crf: int | None = None, key: str | None = None
    ) -> Submission:
        """Queue a new file from the kept latents of a video, with other settings of the encoder.

        Raises:
            OutputNotFound: there is no such video.
            LatentsNotKept: its latents were not kept.
            InvalidRequest: a setting is out of range.
            ModelUnavailable, ModelDamaged, StorageFull: as `submit`.
        """
        request = self._continuation.redecoding(output_id, fps=fps, crf=crf)
        spec = find_model(request.model)
        notes = (f"the latents of {request.latents_of} are decoded again, without denoising",)
        with self._supply.hold(spec):
            fetch = self._supply.inspect(spec)[1]
            queued = self._queue([request], Choice(spec, (), ()), notes, Priority.NORMAL, key, request.digest)
        return replace(queued, fetch=fetch)

    def choice(self, prompt: str, *, model: str, draft: RequestDraft) -> Choice:
        """Say which model takes this request, and why. Raises like `submit`."""
        if not prompt.strip():
            raise InvalidRequest("Prompt cannot be empty", details={"field": "prompt"})
        return choose_model(self._models, model, draft)

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
        self.prune_inputs()

    def clear(self) -> int:
        """Remove every finished task from the queue view and return how many there were."""
        cleared = len(self._tasks.clear_finished())
        self.prune_inputs()
        return cleared

    def delete_output(self, output_id: str) -> None:
        """Delete a video with everything that was kept for it.

        Raises:
            OutputNotFound: there is no such video.
        """
        self._outputs.delete(output_id)
        self.prune_inputs()

    def prune_inputs(self) -> int:
        """Delete stored images that no task and no video names any more; return how many."""
        return self._inputs.prune(self._tasks.image_ids())

    def _extension(self, output_id: str, wish: SubmitRequest) -> tuple[Prepared, SubmitRequest]:
        extension = self._continuation.extension(output_id, wish.draft)
        choice = choose_model(self._models, wish.model, extension.draft, before=extension.before)
        wish = replace(wish, draft=extension.draft)
        return self._prepare(wish, choice, extension.notes), wish

    def _prepare(self, wish: SubmitRequest, choice: Choice, notes: Sequence[str] = ()) -> Prepared:
        if not 1 <= wish.variations <= MAX_VARIATIONS:
            raise InvalidRequest(
                f"variations must be between 1 and {MAX_VARIATIONS}",
                details={"field": "variations", "minimum": 1, "maximum": MAX_VARIATIONS},
            )
        draft, more = self._with_loras(choice.spec, wish)
        first, adjusted = resolve_request(choice.spec, draft)
        requests = tuple(replace(first, seed=(first.seed + index) % (MAX_SEED + 1)) for index in range(wish.variations))
        return Prepared(requests, choice, (*notes, *more, *adjusted), _fingerprint(choice.spec, wish))

    def _estimated(self, prepared: Prepared) -> Estimate:
        available, fetch = self._supply.foresee(prepared.choice.spec)
        return Estimate(prepared, self._forecast.decide(prepared.requests[0]), available, fetch)

    def _submit(self, prepared: Prepared, wish: SubmitRequest) -> Submission:
        key, fingerprint = wish.idempotency_key, prepared.fingerprint
        with self._supply.hold(prepared.choice.spec):
            state, fetch = self._supply.inspect(prepared.choice.spec)
            to_come = 0 if fetch is None else fetch.missing_bytes or 0
            self._forecast.check(prepared.requests[0], state.size_bytes + to_come)
            queued = self._queue(prepared.requests, prepared.choice, prepared.notes, wish.priority, key, fingerprint)
        # What earlier videos took says nothing of the network.
        return queued if fetch is None else replace(queued, fetch=fetch, until_done=None)

    def _with_loras(self, spec: ModelSpec, wish: SubmitRequest) -> tuple[RequestDraft, list[str]]:
        """Fill in the preset and the LoRAs, whose files must be here and fit the model."""
        draft, wishes, notes = wish.draft, list(wish.loras), []
        if wish.preset is not None:
            preset = self._loras.preset(wish.preset)
            if preset is None:
                raise LoraNotFound(
                    "There is no preset with this name", suggestions=("List the LoRAs; some of them are presets.",)
                )
            if all(one.id != wish.preset for one in wishes):
                wishes.insert(0, LoraChoice(wish.preset))
            filled = {name: value for name, value in preset.items() if getattr(draft, name) is None}
            draft = replace(draft, preset=wish.preset, **filled)
            notes.append(f"preset {wish.preset}: " + ", ".join(f"{name} {value}" for name, value in filled.items()))
        if len(wishes) > MAX_LORAS:
            raise InvalidRequest(f"At most {MAX_LORAS} LoRAs can be used at once", details={"field": "loras"})
        uses: list[LoraUse] = []
        for one in wishes:
            use, said = self._loras.plan_use(
                spec,
                one.id,
                strength=one.strength,
                strength_2=one.strength_2,
                expert=one.expert,
                on_failure=draft.on_lora_failure,
            )
            uses.append(use)
            notes += said
        return replace(draft, loras=tuple(uses)), notes

    def _queue(
        self,
        requests: Sequence[GenerationRequest],
        choice: Choice,
        notes: Sequence[str],
        priority: Priority,
        key: str | None,
        fingerprint: str,
    ) -> Submission:
        tasks = self._tasks.insert_all(
            [(new_task_id(), request) for request in requests],
            adjustments=notes,
            priority=priority,
            max_attempts=self._settings.max_attempts,
            idempotency_key=key,
            fingerprint=fingerprint,
        )
        position, until_done = self._tasks.queue_position(tasks[0].id), self._until_done(tasks[0].id)
        return Submission(tuple(tasks), choice.spec, choice.reasons, position, until_done)

    def _until_done(self, task_id: str) -> Span | None:
        """Say when a task that waits is done, with everything that runs before it."""
        ahead = self._tasks.up_to(task_id)
        return (
            self._forecast.until_done(
                [
                    (GenerationRequest.from_json(task.request), task.eta_seconds if task.id != task_id else None)
                    for task in ahead
                ]
            )
            if ahead
            else None
        )


def _fingerprint(spec: ModelSpec, wish: SubmitRequest) -> str:
    """Hash what the user asked for, before the seed is drawn: a retried submit has the same one."""
    asked = {"model": spec.id, **asdict(replace(wish, model=spec.id, idempotency_key=None))}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
