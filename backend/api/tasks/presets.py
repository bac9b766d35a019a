"""Routes of what users come back to: named requests, and the history of their prompts."""

from __future__ import annotations

import json
import unicodedata
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Message, Timestamp
from backend.api.tasks.body import ChangeBody, with_meant
from backend.core.domain import iso
from backend.core.errors.requests import InvalidRequest
from backend.core.requests.prompts import clean_prompt
from backend.store.kept_requests import SavedPreset, UsedPrompt

router = Routes(prefix="/presets", tags=["generation"])
history = Routes(prefix="/prompts/history", tags=["generation"])

#: Fields that belong to one submit, not to a request that is used again.
_ONCE: Final = ("client_request_id", "dry_run", "force", "enable_prompt_enhancement", "enable_optimization")
#: Longest request of a preset, as JSON.
MAX_CHARS: Final = 16_384
PresetId = Annotated[str, Path(max_length=64, description="Id of the preset")]
PromptId = Annotated[str, Path(max_length=64, description="Id of the prompt")]
_NO_PRESET = refusals({404: "There is no such preset"})
_NO_PROMPT = refusals({404: "It is not in the history"})


def _plain_name(text: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise ValueError("must have visible characters only")
    return name


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain_name)]


class PresetBody(BaseModel):
    """A request to keep under a name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    request: dict[str, Any] = Field(
        description="Fields of a submit, as many as wanted; images by their ids", examples=[{"steps": 20}]
    )


class PresetChange(BaseModel):
    """A new name or request; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name | None = None
    request: dict[str, Any] | None = None


class PresetInfo(BaseModel):
    """A named request."""

    id: str
    name: str
    request: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp


class PresetList(BaseModel):
    """All presets, by name."""

    presets: list[PresetInfo]


class PromptInfo(BaseModel):
    """A prompt that was used."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    prompt: str
    negative_prompt: str
    model_type: str = Field(description="The model that it was last used with")
    uses: int
    favourite: bool
    last_used: Timestamp


class PromptList(BaseModel):
    """Prompts of the history."""

    prompts: list[PromptInfo]
    total_count: int = Field(description="How many there are without `limit` and `offset`")


class PromptMark(BaseModel):
    """A mark on a prompt."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    favourite: bool


class PromptSort(StrEnum):
    """Orders of the history."""

    RECENT = "recent"
    MOST_USED = "most_used"


@router.get("", summary="The presets")
def presets(services: ServicesDep) -> PresetList:
    """List all named requests."""
    return PresetList(presets=[_preset(one) for one in services.presets.list()])


@router.create("", summary="Keep a request under a name")
def add_preset(body: PresetBody, services: ServicesDep) -> PresetInfo:
    """Keep some fields of a request under a free name; a client sends them with a submit when it wants."""
    return _preset(services.presets.add(body.name, _checked(body.request)))


@router.get("/{preset_id}", summary="One preset", responses=_NO_PRESET)
def one_preset(preset_id: PresetId, services: ServicesDep) -> PresetInfo:
    """Show a named request."""
    return _preset(services.presets.get(preset_id))


@router.patch("/{preset_id}", summary="Change a preset", responses=_NO_PRESET)
def change_preset(preset_id: PresetId, body: PresetChange, services: ServicesDep) -> PresetInfo:
    """Give a preset another name, or another request in the place of the old one."""
    request = None if body.request is None else _checked(body.request)
    return _preset(services.presets.change(preset_id, name=body.name, request=request))


@router.delete("/{preset_id}", summary="Delete a preset", responses=_NO_PRESET)
def delete_preset(preset_id: PresetId, services: ServicesDep) -> Message:
    """Delete a named request."""
    services.presets.delete(preset_id)
    return Message(message="Preset deleted")


@history.get("", summary="The prompts that were used")
def prompts(
    services: ServicesDep,
    search: Annotated[str, Query(max_length=500, description="A text that the prompt contains")] = "",
    favourite: Annotated[bool | None, Query(description="Only favourites, or only others")] = None,
    sort: Annotated[PromptSort, Query(description="Order of the list")] = PromptSort.RECENT,
    limit: Annotated[int, Query(ge=1, le=500, description="Most prompts in the answer")] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many to skip")] = 0,
) -> PromptList:
    """List the prompts of submitted tasks; the server remembers a limited number, and every favourite."""
    found = services.prompts.list(search=search, favourite=favourite, most_used=sort is PromptSort.MOST_USED)
    page = found[offset : offset + limit]
    return PromptList(prompts=[_prompt(one) for one in page], total_count=len(found))


@history.patch("/{prompt_id}", summary="Mark a prompt", responses=_NO_PROMPT)
def mark_prompt(prompt_id: PromptId, body: PromptMark, services: ServicesDep) -> PromptInfo:
    """Make a prompt a favourite, which stays in the history, or not."""
    return _prompt(services.prompts.mark(prompt_id, favourite=body.favourite))


@history.delete("/{prompt_id}", summary="Forget a prompt", responses=_NO_PROMPT)
def forget_prompt(prompt_id: PromptId, services: ServicesDep) -> Message:
    """Delete one prompt from the history; tasks and videos keep theirs."""
    services.prompts.forget(prompt_id)
    return Message(message="Prompt forgotten")


@history.delete("", summary="Forget all prompts")
def clear_prompts(
    services: ServicesDep,
    favourites: Annotated[bool, Query(description="Whether favourites are forgotten, too")] = False,
) -> Message:
    """Delete the history; tasks and videos keep their prompts."""
    count = services.prompts.clear(favourites=favourites)
    return Message(message=f"{count} prompt{'' if count == 1 else 's'} forgotten")


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a preset, each by its own name and of the type that a submit takes.

    Raises:
        RequestValidationError: a field is unknown or of the wrong type.
        InvalidRequest: a field belongs to one submit only, or a prompt cannot be used.
    """
    try:
        body = ChangeBody.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        hinted = [with_meant(fault, ChangeBody) | {"loc": ("body", "request", *fault["loc"])} for fault in faults]
        raise RequestValidationError(hinted) from None
    sent = body.model_dump(mode="json", exclude_unset=True)
    for field in _ONCE:
        if field in sent:
            raise InvalidRequest(f"{field} belongs to one submit, not to a preset", details={"field": field})
    for field in ("prompt", "negative_prompt"):
        if sent.get(field):
            sent[field] = clean_prompt(field, sent[field])
    text = json.dumps(sent, ensure_ascii=False)
    if len(text) > MAX_CHARS or "\\u0000" in text or any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise InvalidRequest(
            "The request of a preset is too long, or has invalid characters", details={"field": "request"}
        )
    return sent


def _preset(one: SavedPreset) -> PresetInfo:
    return PresetInfo(
        id=one.id, name=one.name, request=one.request, created_at=iso(one.created_at), updated_at=iso(one.updated_at)
    )


def _prompt(one: UsedPrompt) -> PromptInfo:
    return PromptInfo(
        id=one.id,
        prompt=one.prompt,
        negative_prompt=one.negative_prompt,
        model_type=one.model,
        uses=one.uses,
        favourite=one.favourite,
        last_used=iso(one.used_at),
    )
