"""Turns the request of a queued task back into a draft, and changes some of its fields.

The draft then goes through the same rules as a new one, in `generation_service`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from backend.core.catalogue.table import find_model
from backend.core.domain import Priority, Task
from backend.core.errors.lookups import StateConflict
from backend.core.requests.forms import GenerationRequest, LoraChoice, LoraUse, RequestDraft
from backend.services.media.images import InputStore

#: Values that every model and preset has its own defaults for; a change of one sets those that are not named to them.
_OF_MODEL: Final = ("steps", "guidance_scale", "guidance_scale_2", "flow_shift", "scheduler")
_ALSO_OF_MODEL: Final = ("fps", "max_sequence_length")
#: Two names of one value: naming one unsets the other.
_SAME: Final = {"num_frames": "seconds", "seconds": "num_frames"}
#: Values that a draft and a request share by name.
_SHARED: Final = (
    "prompt",
    "model",
    "negative_prompt",
    "width",
    "height",
    "num_frames",
    "fps",
    *_OF_MODEL,
    "seed",
    "max_sequence_length",
    "image_fit",
    "on_lora_failure",
    "guidance_start",
    "guidance_end",
    "crf",
    "keep_latents",
    "extends",
    "preset",
    "force",
)
_PRIORITIES: Final = {priority.rank: priority for priority in Priority}


def draft_of(task: Task, inputs: InputStore) -> RequestDraft:
    """Return what a user would have to ask for to get the request of this task.

    Raises:
        InputMissing: its image is no longer here.
        StateConflict: it decodes kept latents, which is no request of this form.
    """
    request = GenerationRequest.from_json(task.request)
    if request.latents_of is not None:
        raise StateConflict(
            "This task decodes kept latents again, so there is nothing to edit",
            suggestions=("Cancel it, and decode the video again with other settings.",),
        )
    # An extension starts from a frame that is taken from its video again.
    image, end_image = None if request.extends else request.image, request.end_image
    return RequestDraft(
        **{name: getattr(request, name) for name in _SHARED},
        image=None if image is None else inputs.find(image),
        end_image=None if end_image is None else inputs.find(end_image),
        loras=tuple(map(_choice, request.loras)),
        priority=_PRIORITIES[task.priority],
    )


def changed(draft: RequestDraft, changes: Mapping[str, Any]) -> RequestDraft:
    """Return the draft with these fields changed; None stands for the default of the model.

    Another model or preset brings its own sampler settings, and another length replaces the old one, as long as
    `changes` does not name them.
    """
    changes = dict(changes)
    reset: list[str] = [other for name, other in _SAME.items() if name in changes]
    model = changes.get("model")
    if model is not None and (model == "auto" or find_model(model).id != draft.model):
        reset += [*_OF_MODEL, *_ALSO_OF_MODEL]
    if changes.get("preset", draft.preset) != draft.preset:
        reset += _OF_MODEL
        if "loras" not in changes:
            changes["loras"] = tuple(one for one in draft.loras if one.id != draft.preset)
    values: dict[str, Any] = dict.fromkeys(reset) | changes
    return replace(draft, **values)


def _choice(use: LoraUse) -> LoraChoice:
    experts = {file.expert for file in use.files}
    expert = next(iter(experts)) if len(experts) == 1 and experts <= {"high", "low"} else None
    return LoraChoice(use.id, use.strength, use.strength_2, expert)
