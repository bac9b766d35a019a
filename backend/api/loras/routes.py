"""Routes of the LoRAs: list, upload, inspect, delete. Which LoRA a task uses is part of its request.

Older clients know a LoRA by name, file and path. Clients never see paths, so `path` is the LoRA's id.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.api.loras.bodies import PROMPT_DOCS, UPLOAD_DOCS, LoraUpload, read_prompt, read_upload
from backend.core.domain import TaskStatus, iso
from backend.core.errors.lookups import LoraMissing
from backend.models.lora.catalogue import Lora
from backend.services.system.container import Services
from backend.services.system.host_stats import MIB, memory_impact_of

router = Routes(prefix="/lora", tags=["lora"])

LoraId = Annotated[str, Path(description="Id of the LoRA, as the list has it")]
UploadDep = Annotated[LoraUpload, Depends(read_upload)]
PromptDep = Annotated[str, Depends(read_prompt)]
_ABSENT = refusals({404: "There is no such LoRA"})


def lora_in_path(lora_id: LoraId, services: ServicesDep) -> Lora:
    """Return the LoRA that the path names.

    Raises:
        LoraMissing: there is none.
    """
    lora = services.loras.find(lora_id)
    if lora is None:
        raise LoraMissing
    return lora


LoraInPath = Annotated[Lora, Depends(lora_in_path)]


class LoraFileInfo(BaseModel):
    """One file of a LoRA."""

    filename: str
    size_mb: float
    expert: str | None = Field(None, description="high, low or both; absent if nothing indicates it")
    decided_by: str = Field(
        description="What indicates it: metadata, keys (tensor names), name (of the file) or nothing"
    )
    format: str = Field(description="The tools that write such files")
    ranks: list[int] = Field(description="The ranks that occur; empty if there are only full differences")
    tensors: int


class LoraInfo(BaseModel):
    """One LoRA: a file, or the pair of files for the two experts."""

    id: str = Field(description="What requests name")
    name: str = Field(description="The same as `id`")
    title: str = Field(description="Its original name, in any script; accepted wherever the id is")
    filename: str = Field(description="Its file; of a pair, the one for the high-noise expert")
    path: str = Field(description="The same as `id`; older clients send it as `lora_path`")
    size_mb: float
    modified_time: Timestamp
    created_at: Timestamp
    compatible_models: list[str] = Field(description="Ids of the models that it fits")
    base: str | None = Field(None, description="The models it was made for, by its shapes")
    is_pair: bool
    embedded: bool = Field(description="Ships with the package and cannot be deleted")
    files: list[LoraFileInfo]
    trigger_words: list[str] = Field(description="Words to use in the prompt, from the file's metadata")
    preset: dict[str, Any] | None = Field(None, description="The settings that it needs, for the field `preset`")
    problem: str | None = Field(None, description="Why it cannot be used")
    is_loaded: bool = Field(description="Whether a running task has it in memory")
    is_applied: bool = Field(description="Whether a running task asked for it")
    current_strength: float = Field(description="In that task; 0 without one")


class LoraList(BaseModel):
    """Every LoRA on this server."""

    loras: list[LoraInfo]
    total_count: int
    total_size_mb: float


class LoraUploaded(BaseModel):
    """An uploaded LoRA file."""

    success: bool = True
    message: str
    id: str = Field(description="What requests name; for the second half of a pair, the pair")
    name: str
    title: str = Field(description="Its original name, in any script; accepted wherever the id is")
    lora_name: str
    filename: str
    path: str
    file_path: str
    size_mb: float
    compatible_models: list[str]
    trigger_words: list[str]


class LoraStatus(BaseModel):
    """Whether a LoRA is installed and in use; for an unknown name, `exists` is false."""

    name: str
    exists: bool
    path: str | None = None
    size_mb: float | None = None
    modified_time: Timestamp | None = None
    problem: str | None = None
    is_loaded: bool
    is_applied: bool
    current_strength: float


class LoraPreview(BaseModel):
    """A prompt with the words that the LoRA was trained on; nothing is generated."""

    lora_name: str
    base_prompt: str
    enhanced_prompt: str
    style_indicators: list[str] = Field(description="The LoRA's trigger words")
    preview_note: str


class LoraMemory(BaseModel):
    """The memory that a LoRA needs in addition to its model."""

    lora_name: str
    name: str
    file_size_mb: float
    estimated_memory_mb: float = Field(description="Its values in the precision of this machine, for every expert")
    estimated_vram_increase_mb: float
    vram_available_mb: float = Field(description="Free memory of the GPUs, or of the machine where there is none")
    can_load: bool
    compatible_with_current_setup: bool
    memory_impact: str = Field(description="low (under 100 MB), medium (under 300 MB) or high")
    recommendation: str


class LoraDeleted(BaseModel):
    """What was deleted."""

    message: str


@router.get("", summary="All LoRAs")
def list_loras(services: ServicesDep) -> LoraList:
    """List every LoRA with the models that it fits; for a file that cannot be used, `problem` says why."""
    strengths = _strengths(services)
    infos = [_info(lora, strengths) for lora in services.loras.all()]
    return LoraList(loras=infos, total_count=len(infos), total_size_mb=round(sum(one.size_mb for one in infos), 3))


@router.get("/list", summary="All LoRAs (older path)")
def list_loras_too(services: ServicesDep) -> LoraList:
    """List every LoRA; the same as `GET /api/v1/lora`."""
    return list_loras(services)


@router.create("/upload", summary="Upload a LoRA file", openapi_extra=UPLOAD_DOCS)
def upload(sent: UploadDep, services: ServicesDep) -> LoraUploaded:
    """Store a safetensors file after checking its content; nothing in it is executed.

    Of a pair for two experts, send both files; they are one LoRA when their names differ only in `high_noise` and
    `low_noise`. Uploading the same file twice is not an error.
    """
    lora = services.loras.add(sent.stream, sent.filename, sent.name)
    message = "LoRA uploaded successfully"
    if lora.is_pair:
        message += f"; {lora.files[0].name} and {lora.files[1].name} are one LoRA for both experts"
    return LoraUploaded(
        message=message,
        id=lora.id,
        name=lora.id,
        title=lora.title,
        lora_name=lora.id,
        filename=lora.files[0].name,
        path=lora.id,
        file_path=lora.id,
        size_mb=_mb(lora.size_bytes),
        compatible_models=list(lora.models),
        trigger_words=list(lora.trigger_words),
    )


@router.get("/{lora_id}", summary="One LoRA", responses=_ABSENT)
def one_lora(lora: LoraInPath, services: ServicesDep) -> LoraInfo:
    """Show all details of a LoRA."""
    return _info(lora, _strengths(services))


@router.get("/{lora_id}/status", summary="Whether a LoRA is in use")
def status(lora_id: LoraId, services: ServicesDep) -> LoraStatus:
    """Report whether a LoRA is installed and whether a running task uses it."""
    lora = services.loras.find(lora_id)
    strength = _strengths(services).get(lora_id if lora is None else lora.id)
    used = strength is not None
    return LoraStatus(
        name=lora_id,
        exists=lora is not None,
        path=None if lora is None else lora.id,
        size_mb=None if lora is None else _mb(lora.size_bytes),
        modified_time=None if lora is None else iso(lora.modified),
        problem=None if lora is None else lora.problem,
        is_loaded=used,
        is_applied=used,
        current_strength=strength or 0.0,
    )


@router.post(
    "/{lora_id}/preview",
    summary="A prompt with a LoRA's words",
    openapi_extra=PROMPT_DOCS,
    responses=_ABSENT,
)
def preview(prompt: PromptDep, lora: LoraInPath) -> LoraPreview:
    """Show the prompt with the LoRA's trigger words added; the words come from the file, nothing is generated."""
    words = [word for word in lora.trigger_words if word.lower() not in prompt.lower()]
    if not lora.trigger_words:
        note = "The LoRA's file names no trigger words, so the prompt stays as it is"
    elif not words:
        note = "The prompt already has the LoRA's trigger words"
    else:
        note = "The LoRA's trigger words are added to the prompt; nothing was generated"
    return LoraPreview(
        lora_name=lora.id,
        base_prompt=prompt,
        enhanced_prompt=", ".join([prompt, *words]),
        style_indicators=list(lora.trigger_words),
        preview_note=note,
    )


@router.get("/{lora_id}/memory-impact", summary="The memory that a LoRA needs", responses=_ABSENT)
def memory_impact(lora: LoraInPath, services: ServicesDep) -> LoraMemory:
    """Estimate the memory that a LoRA needs in addition to its model: its values, for each expert it applies to."""
    memory = memory_impact_of(lora, services.stats.read())
    where = "GPU memory" if memory.on_gpu else "memory"
    return LoraMemory(
        lora_name=lora.id,
        name=lora.id,
        file_size_mb=_mb(lora.size_bytes),
        estimated_memory_mb=memory.needed_mb,
        estimated_vram_increase_mb=memory.needed_mb,
        vram_available_mb=round(memory.free_mb, 1),
        can_load=memory.fits,
        compatible_with_current_setup=memory.fits and lora.problem is None,
        memory_impact=memory.impact,
        recommendation=f"There is enough free {where}" if memory.fits else f"It may not fit: free some {where} first",
    )


@router.delete("/{lora_id}", summary="Delete a LoRA", responses=_ABSENT)
def delete(lora: LoraInPath, services: ServicesDep) -> LoraDeleted:
    """Delete a LoRA's files, both of a pair. A task that is already running with it is not affected."""
    services.loras.delete(lora.id)
    return LoraDeleted(message="LoRA deleted successfully")


def _strengths(services: Services) -> dict[str, float]:
    """Return the LoRAs of the running tasks with their strengths."""
    running = services.tasks.list(TaskStatus.PROCESSING)
    return {str(use["id"]): float(use["strength"]) for task in running for use in task.request.get("loras", ())}


def _info(lora: Lora, strengths: dict[str, float]) -> LoraInfo:
    strength = strengths.get(lora.id)
    modified = iso(lora.modified)
    return LoraInfo(
        id=lora.id,
        name=lora.id,
        title=lora.title,
        filename=lora.files[0].name,
        path=lora.id,
        size_mb=_mb(lora.size_bytes),
        modified_time=modified,
        created_at=modified,
        compatible_models=list(lora.models),
        base=" or ".join(lora.bases) or None,
        is_pair=lora.is_pair,
        embedded=lora.embedded,
        files=[
            LoraFileInfo(
                filename=file.name,
                size_mb=_mb(file.size_bytes),
                expert=file.expert,
                decided_by=file.decided_by,
                format=file.format,
                ranks=list(file.ranks),
                tensors=file.tensors,
            )
            for file in lora.files
        ],
        trigger_words=list(lora.trigger_words),
        preset=None if lora.preset is None else lora.preset.values(),
        problem=lora.problem,
        is_loaded=strength is not None,
        is_applied=strength is not None,
        current_strength=strength or 0.0,
    )


def _mb(size: int) -> float:
    return round(size / MIB, 3)
