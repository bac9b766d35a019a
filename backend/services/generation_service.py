"""The web side of the task lifecycle: submit, extend, decode again, edit, retry, delete.

Makes every decision that precedes queuing; generates nothing. Knows the store, the model files and the
stored images, never the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import structlog

from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.config.file import ConfigFile
from backend.core.config.generation_policy import GenerationMode, stored_policy
from backend.core.domain import Task, TaskStatus, new_task_id
from backend.core.errors.actions import resubmit
from backend.core.errors.lookups import StateConflict, VideoNotReady
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.errors.requests import DoesNotFit, InvalidRequest, LoraNotFound
from backend.core.paths import Home
from backend.core.planning.optimizer import Decision
from backend.core.requests.forms import (
    Call,
    GenerationRequest,
    LoraChoice,
    LoraUse,
    OnLoraFailure,
    OnModelFailure,
    RequestDraft,
)
from backend.core.requests.prompts import syntax_notes
from backend.core.requests.rules import MAX_LORAS, MAX_SEED, MAX_VARIATIONS, resolve_request
from backend.core.requests.webhooks import Webhook
from backend.core.settings import Settings
from backend.models.folder.manager import ModelManager, ModelState
from backend.models.lora.library import LoraLibrary
from backend.services.continuation import Continuation
from backend.services.editing import changed, draft_of
from backend.services.media.images import InputStore
from backend.services.model_choice import Choice, choose_model
from backend.services.models.availability import FetchFirst, ModelAvailability
from backend.services.outbound.targets import OutboundRules
from backend.services.planning.forecast import Forecast, Span
from backend.services.submission import Estimate, Prepared, Submission
from backend.services.webhooks.signing import check_webhook
from backend.store.control import WAITING
from backend.store.gallery.outputs import OutputStore
from backend.store.tasks import FAR, TaskStore

log = structlog.get_logger(__name__)


class GenerationService:
    """Turns requests into tasks, applying the rules of the model."""

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
        self._policy = stored_policy(ConfigFile(home.config_file))
        self._outbound = OutboundRules.of(settings)

    def submit(self, draft: RequestDraft, *, repeated: bool = False) -> Submission:
        """Validate and queue a request; return its tasks once they are committed to disk.

        A repeated `idempotency_key` returns the original tasks. A clip that extends a finished video starts from its
        last frame and inherits prompt, size, frame rate and length unless the request sets them. `repeated` marks a
        call that a client library sends again, without a key, because it got no answer to the first.

        Raises:
            InvalidRequest: the request does not fit the model or the machine; nothing was queued.
            ModelUnavailable, ModelDamaged: the model's files are not installed, and no task would download them.
            StorageFull: the disk has no room for the download.
            IdempotencyConflict: the key belongs to a different request.
            OutputNotFound, OutputFileMissing: the video to extend is unknown, or its file is gone.
        """
        # `force` is added by a user who was told what does not fit: it is the same wish.
        asked = asdict(replace(draft, idempotency_key=None, force=False))
        del asked["any_size"]  # says nothing about what was asked for
        call = Call.to("submit", asked, draft.idempotency_key, repeated=repeated)
        return self._once(call, lambda: self._prepared(draft))

    def remix(
        self, video_id: str, prompt: str, hook: Webhook | None = None, *, repeated: bool = False, key: str | None = None
    ) -> Submission:
        """Queue the request of a video again with another prompt, and so with the same seed.

        Raises:
            VideoNotFound: there is no such video.
            VideoNotReady: it is not finished.
            InputMissing: the image that it starts from is gone.
            InvalidRequest, ModelUnavailable, ModelDamaged, StorageFull: as `submit`.
        """

        def prepared() -> Prepared:
            task = self._tasks.video(video_id)
            if task.status is not TaskStatus.COMPLETED:
                raise VideoNotReady("Only a finished video can be remixed", details={"field": "video_id"})
            return self._prepared(replace(draft_of(task, self._inputs), prompt=prompt, remix_of=video_id, webhook=hook))

        asked = {"video": video_id, "prompt": prompt, "webhook": hook}
        return self._once(Call.to("remix", asked, key, repeated=repeated), prepared)

    def estimate(self, draft: RequestDraft) -> Estimate:
        """Estimate what `submit` would queue and its cost, whether or not the model is installed.

        Raises:
            InvalidRequest: the request does not fit the model.
            OutputNotFound, OutputFileMissing: as `submit`.
        """
        prepared = self._prepared(draft)
        available, fetch = self._supply.foresee(prepared.choice.spec)
        size = self._model_bytes(self._models.state(prepared.choice.spec), fetch)
        lacking = self._forecast.shortfall(prepared.requests[0], size)
        decision = lacking or self._forecast.decide(prepared.requests[0])
        first = prepared.requests[0]
        length = self._models.prompt_length(prepared.choice.spec, first.prompt, first.max_sequence_length)
        return Estimate(_forced(prepared, lacking), decision, available, lacking is None, fetch, length)

    def redecode(
        self,
        output_id: str,
        fps: float | None,
        crf: int | None,
        *,
        key: str | None = None,
        webhook: Webhook | None = None,
    ) -> Submission:
        """Queue a new file from the kept latents of a video, with different encoder settings.

        Raises:
            OutputNotFound: there is no such video.
            LatentsNotKept: its latents were not kept.
            InvalidRequest: a setting is out of range.
            ModelUnavailable, ModelDamaged, StorageFull: as `submit`.
        """

        def prepared() -> Prepared:
            request = self._continuation.redecoding(output_id, fps=fps, crf=crf)
            notes = (f"the latents of {request.latents_of} are decoded again, without denoising",)
            check_webhook(webhook, self._outbound)
            draft = RequestDraft(request.prompt, request.model, webhook=webhook)
            return Prepared((request,), Choice(find_model(request.model), (), ()), notes, draft)

        asked = {"output": output_id, "fps": fps, "crf": crf, "webhook": webhook}
        return self._once(Call.to("redecode", asked, key), prepared)

    def choice(self, draft: RequestDraft) -> Choice:
        """Return the model for this request, and why it was chosen. Raises like `submit`."""
        if not draft.prompt.strip():
            raise InvalidRequest("Prompt cannot be empty", details={"field": "prompt"})
        return choose_model(self._models, draft)

    def edit(self, task_id: str, changes: Mapping[str, Any]) -> Task:
        """Change fields of the request of a task that waits or is paused, by the rules for a new one.

        `changes` has values of `RequestDraft` by name; None stands for the model's default. What the task has computed
        is used where the new request gives the same latents.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it runs or has ended, or was edited meanwhile.
            InvalidRequest, ModelUnavailable, ModelDamaged, StorageFull: as `submit`; the task stays as it is.
        """
        task = self._tasks.get(task_id)
        if task.status not in WAITING:
            raise StateConflict(f"Cannot edit task with status: {task.status}")
        prepared = self._prepared(changed(draft_of(task, self._inputs), changes))
        before = GenerationRequest.from_json(task.request)
        with self._supply.hold(prepared.choice.spec):
            prepared = self._admitted(prepared)[0]
            request = prepared.requests[0]
            how: Any = {"adjustments": prepared.notes, "priority": prepared.draft.priority}
            edited = self._tasks.edit(task_id, before, request, **how)
        self.prune_inputs()
        return edited

    def duplicate(self, task_id: str, changes: Mapping[str, Any], *, key: str | None = None) -> Submission:
        """Queue the request of a task again, in any state, with some fields changed.

        Raises:
            TaskNotFound: there is no such task.
            InvalidRequest, ModelUnavailable, ModelDamaged, StorageFull: as `submit`.
        """
        return self._once(
            Call.to("duplicate", {"task": task_id, "changes": dict(changes)}, key),
            lambda: self._prepared(changed(draft_of(self._tasks.get(task_id), self._inputs), changes)),
        )

    def retry(self, task_id: str) -> Task:
        """Return a failed or cancelled task to the queue; it goes on from its newest saved state.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it is paused, or has completed.
            UnknownModel, ModelUnavailable, ModelDamaged, StorageFull: its model can no longer be used.
        """
        spec = find_model(self._tasks.get(task_id).model)
        with self._supply.hold(spec):
            self._supply.inspect(spec)
            return self._tasks.retry(task_id)

    def delete(self, task_id: str) -> None:
        """Remove a finished task from the queue view; its video stays.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it is still waiting or running.
        """
        self._tasks.delete(task_id)
        self.prune_inputs()

    def clear(self, until: datetime | None = None) -> int:
        """Remove the finished tasks, or those that ended until then, from the queue view; return their number."""
        cleared = len(self._tasks.clear_finished(until))
        self.prune_inputs()
        return cleared

    def prune_inputs(self) -> int:
        """Delete stored images that no task or video references any more; return the number deleted."""
        return self._inputs.prune(self._tasks.images_in_use)

    @staticmethod
    def _model_bytes(state: ModelState, fetch: FetchFirst | None) -> int | None:
        """Return the size of a model's files once they are complete; None until the hub was asked."""
        if fetch is None:
            return state.size_bytes if state.available else None
        return None if fetch.missing_bytes is None else state.size_bytes + fetch.missing_bytes

    def _prepared(self, asked: RequestDraft) -> Prepared:
        draft = asked
        before: ModelSpec | None = None
        notes: tuple[str, ...] = ()
        check_webhook(asked.webhook, self._outbound)
        if asked.extends is not None:
            extension = self._continuation.extension(asked.extends, asked)
            draft, before, notes = extension.draft, extension.before, extension.notes
        choice = choose_model(self._models, draft, before=before)
        if not 1 <= asked.variations <= MAX_VARIATIONS:
            raise InvalidRequest(
                f"variations must be between 1 and {MAX_VARIATIONS}",
                details={"field": "variations", "minimum": 1, "maximum": MAX_VARIATIONS},
            )
        draft, loras, more = self._with_loras(choice.spec, draft)
        first, adjusted = resolve_request(choice.spec, draft, loras)
        seeds = [(first.seed + index) % (MAX_SEED + 1) for index in range(asked.variations)]
        requests = tuple(
            replace(first, seed=seed, force=asked.force, on_model_failure=asked.on_model_failure) for seed in seeds
        )
        read = self._prompt_notes(choice.spec, first)
        return Prepared(requests, choice, (*notes, *more, *adjusted, *read), asked, read)

    def _prompt_notes(self, spec: ModelSpec, request: GenerationRequest) -> tuple[str, ...]:
        """Say what the model does not read of the prompts: foreign syntax, unknown words, what is too long."""
        unknown = self._models.unknown_words(spec, request.prompt)
        cut = (
            self._models.unread(spec, field, getattr(request, field), request.max_sequence_length)
            for field in ("prompt", "negative_prompt")
        )
        return (*syntax_notes(request.prompt), *(note for note in (*cut, unknown) if note is not None))

    def _with_loras(self, spec: ModelSpec, draft: RequestDraft) -> tuple[RequestDraft, tuple[LoraUse, ...], list[str]]:
        """Fill in the preset, and find the files of the LoRAs, which must be installed and fit the model."""
        choices, notes = list(draft.loras), []
        if draft.preset is not None:
            lora = self._loras.find(draft.preset)
            preset = None if lora is None else self._loras.preset(lora.id)
            if lora is None or preset is None:
                raise LoraNotFound(
                    "There is no preset with this name", suggestions=("List the LoRAs; some of them are presets.",)
                )
            draft = replace(draft, preset=lora.id)
            choices = [replace(one, id=lora.id) if self._loras.find(one.id) == lora else one for one in choices]
            own = [one for one in choices if one.id == lora.id]
            if not own:
                choices.insert(0, LoraChoice(lora.id))
            elif all(not one.strength and not one.strength_2 for one in own):
                raise InvalidRequest(
                    f"The preset {lora.id} needs its LoRA, whose strength must not be 0", details={"field": "loras"}
                )
            filled = {name: value for name, value in preset.items() if getattr(draft, name) is None}
            draft = replace(draft, **filled)
            notes.append(f"preset {draft.preset}: " + ", ".join(f"{name} {value}" for name, value in filled.items()))
        if len(choices) > MAX_LORAS:
            raise InvalidRequest(f"At most {MAX_LORAS} LoRAs can be used at once", details={"field": "loras"})
        self._name_nearest(choices)
        uses: list[LoraUse] = []
        for one in choices:
            use, adjusted = self._loras.plan_use(
                spec,
                one.id,
                strength=one.strength,
                strength_2=one.strength_2,
                expert=one.expert,
                # Its steps and guidance are of use only with it.
                on_failure=OnLoraFailure.FAIL if one.id == draft.preset else draft.on_lora_failure,
            )
            uses.append(use)
            notes += adjusted
        return draft, tuple(uses), notes

    def _name_nearest(self, choices: list[LoraChoice]) -> None:
        """Refuse a LoRA that is not installed, and name the whole list as it would be with the nearest name."""
        for place, one in enumerate(choices):
            try:
                self._loras.get(one.id)
            except LoraNotFound as error:
                close = error.details.get("nearest") if isinstance(error.details, dict) else None
                if close is not None:
                    meant = [*choices[:place], replace(one, id=close), *choices[place + 1 :]]
                    error.actions = (resubmit(loras=[_lora_body(choice) for choice in meant]),)
                raise

    def _once(self, call: Call, prepare: Callable[[], Prepared]) -> Submission:
        """Queue what `prepare` returns, or return what the key has queued before.

        That is looked up first: what a request needs may have gone since it was queued.
        """
        earlier = [] if call.key is None else self._tasks.with_key(call.key, call.fingerprint)
        if earlier:
            return Submission(tuple(earlier), earlier[0].model, (), *self._outlook(earlier[0].id))
        return self._queue(prepare(), call)

    def _queue(self, prepared: Prepared, call: Call) -> Submission:
        choice = prepared.choice
        with self._supply.hold(choice.spec):
            prepared, fetch = self._admitted(prepared)
            queued = self._tasks.insert_all(
                [(new_task_id(), request) for request in prepared.requests],
                adjustments=prepared.notes,
                priority=prepared.draft.priority,
                max_attempts=self._settings.max_attempts,
                idempotency_key=call.key,
                fingerprint=call.fingerprint,
                repeated=call.repeated,
                webhook=prepared.draft.webhook,
                keep_prompts=self._settings.keep_prompts,
            )
        position, until_done = self._outlook(queued.tasks[0].id, queued.position)
        # Earlier videos do not predict the speed of the network.
        known = until_done if fetch is None else None
        return Submission(tuple(queued.tasks), choice.spec.id, choice.reasons, position, known, fetch)

    def _admitted(self, prepared: Prepared) -> tuple[Prepared, FetchFirst | None]:
        """Return what is queued, and what has to be downloaded first.

        A model that cannot be used is no reason to refuse where the policy has an answer to it; a note says which.
        Raises like `submit`.
        """
        spec, first, policy = prepared.choice.spec, prepared.requests[0], self._policy.current()
        if policy.mode is GenerationMode.MOCK:
            return replace(prepared, notes=(*prepared.notes, "mock generation is on: no model makes the clip")), None
        try:
            state, fetch = self._supply.inspect(spec)
            if first.latents_of is None:  # decoding again needs no more resources than the first time
                size = self._model_bytes(state, fetch)
                self._forecast.check(first, size)
                if first.force:
                    prepared = _forced(prepared, self._forecast.shortfall(first, size))
        except (ModelUnavailable, ModelDamaged, DoesNotFit) as error:
            allowed = first.on_model_failure or policy.on_model_failure
            if allowed is OnModelFailure.FAIL or first.latents_of is not None:
                raise
            what = "a mock is made" if allowed is OnModelFailure.MOCK else "another model makes the clip"
            note = f"{what} if this is still so then: {error.message.rstrip('.')}"
            return replace(prepared, notes=(*prepared.notes, note)), None
        return prepared, fetch

    def _outlook(self, task_id: str, position: int | None = None) -> tuple[int | None, Span | None]:
        """Return position and time until done of a task that is queued; None for what cannot be told.

        The given position is that of a moment ago: to count again would read the whole queue once more.
        """
        try:
            position = self._tasks.queue_position(task_id) if position is None else position
            before = self._tasks.up_to(task_id) if position is not None and position <= FAR else []
            return position, self._forecast.until_done(before)
        except Exception:  # the task is on disk: an error now would make its client queue it a second time
            log.exception("submit.outlook_unknown", task_id=task_id)
            return None, None


def _forced(prepared: Prepared, lacking: Decision | None) -> Prepared:
    """Note on a forced request that it does not seem to fit."""
    if lacking is None or not prepared.requests[0].force:
        return prepared
    return replace(prepared, notes=(*prepared.notes, f"forced although {lacking.reason}"))


def _lora_body(choice: LoraChoice) -> dict[str, Any]:
    """Return a LoRA of a request in the words of the API."""
    return {name: value for name, value in asdict(choice).items() if value is not None}
