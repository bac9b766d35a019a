"""The shapes of the LoRA routes: what older clients expect, and what a LoRA really is beside it.

Older clients know a LoRA as a name, a file and a path; `path` is its id, because clients name no paths here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from backend.api.schemas import Timestamp


class LoraFileInfo(BaseModel):
    """One file of a LoRA."""

    filename: str
    size_mb: float
    expert: str | None = Field(None, description="high, low or both; absent where nothing says it")
    decided_by: str = Field(
        description="What says so: metadata, keys (names of tensors), name (of the file) or nothing"
    )
    format: str = Field(description="Who writes files like this")
    ranks: list[int] = Field(description="Ranks that occur; empty for full differences only")
    tensors: int


class LoraInfo(BaseModel):
    """One LoRA: a file, or the pair of files for the two experts."""

    id: str = Field(description="What requests name")
    name: str = Field(description="The same as `id`")
    filename: str = Field(description="Its file; of a pair, the one for the high-noise expert")
    path: str = Field(description="The same as `id`; older clients send it as `lora_path`")
    size_mb: float
    modified_time: Timestamp
    created_at: Timestamp
    compatible_models: list[str] = Field(description="Ids of the models that it fits")
    base: str | None = Field(None, description="What it was made for, by its shapes")
    is_pair: bool
    embedded: bool = Field(description="Ships with the package and cannot be deleted")
    files: list[LoraFileInfo]
    trigger_words: list[str] = Field(description="Words that belong into the prompt, from the file's metadata")
    preset: dict[str, Any] | None = Field(None, description="The settings that it needs, for the field `preset`")
    problem: str | None = Field(None, description="Why it cannot be used")
    is_loaded: bool = Field(description="Whether a running task has it in memory")
    is_applied: bool = Field(description="Whether a running task asked for it")
    current_strength: float = Field(description="In that task; 0 in none")


class LoraList(BaseModel):
    """Every LoRA on this server."""

    loras: list[LoraInfo]
    total_count: int
    total_size_mb: float


class LoraUploaded(BaseModel):
    """A LoRA file that is in its place."""

    success: bool = True
    message: str
    id: str = Field(description="What requests name; for the second half of a pair, the pair")
    name: str
    lora_name: str
    filename: str
    path: str
    file_path: str
    size_mb: float
    compatible_models: list[str]
    trigger_words: list[str]


class LoraStatus(BaseModel):
    """Whether a LoRA is here and in use; an unknown name is an answer, not an error."""

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
    """How much memory a LoRA takes beside its model."""

    lora_name: str
    name: str
    file_size_mb: float
    estimated_memory_mb: float = Field(description="Its numbers in the precision of this machine, for every expert")
    estimated_vram_increase_mb: float
    vram_available_mb: float = Field(description="Free memory of the GPUs, or of the machine where there is none")
    can_load: bool
    compatible_with_current_setup: bool
    memory_impact: str = Field(description="low (under 100 MB), medium (under 300 MB) or high")
    recommendation: str


class LoraDeleted(BaseModel):
    """What was deleted."""

    message: str
