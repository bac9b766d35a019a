"""The shapes of an estimate: what a request would take on this machine, and how it was decided."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from backend.api.schemas import DownloadFirst

Basis = Literal["estimated", "measured"]


class Quantity(BaseModel):
    """A number with where it comes from."""

    value: float
    unit: Literal["GiB", "s"]
    basis: Basis = Field(description="`measured`: from what finished tasks of this machine took")


class PlanView(BaseModel):
    """One way to lay the model out between the device and the host's memory."""

    name: str
    placement: str = Field(description="resident, expert-swap or block-stream")
    storage: str = Field(description="bf16 or fp8")
    tiled_decode: bool
    tile_size: int | None = Field(None, description="Pixels along the side of a tile, where decoding is tiled")
    text_encoder_on_cpu: bool
    fits: bool
    reason: str = Field(description="Why it was taken or not")
    vram: Quantity = Field(description="On the card, at the highest point; 0 where the processor computes")
    ram_pinned: Quantity
    ram_pageable: Quantity
    disk: Quantity = Field(description="The model's files and what a run saves, without the finished clip")
    seconds: Quantity | None = Field(None, description="One run with the model in memory; absent for an unknown card")
    load_seconds: Quantity | None = Field(None, description="Loading the model first; absent until one was loaded here")


class MachineView(BaseModel):
    """The machine that was decided for."""

    device: str
    kind: Literal["cpu", "cuda"]
    vram_gib: float | None = Field(None, description="Absent where there is no card or its memory is unknown")
    ram_gib: float | None = None
    compute_capability: str | None = None


class WouldFit(BaseModel):
    """A request that fits this machine."""

    model_type: str
    resolution: str
    num_frames: int
    steps: int


class Estimated(BaseModel):
    """What a request would become and take; nothing was queued."""

    success: bool = True
    queued: Literal[False] = False
    message: str
    fits: bool
    detected_model_type: str
    available: bool = Field(description="Whether the model's files are on this server")
    download: DownloadFirst | None = Field(None, description="What a task would fetch first")
    reasons: list[str] = Field(description="Why this model; why this plan, or why none")
    adjustments: list[str] = Field(description="One sentence for each value that would be changed to fit the model")
    parameters: dict[str, Any] = Field(description="Every value that decides the frames")
    tokens: int
    forward_passes: int = Field(description="Forwards of a transformer over all steps")
    tflop: float = Field(description="Operations of the denoising, counted exactly, in 10^12")
    machine: MachineView
    plan: PlanView | None = Field(None, description="The plan that would be taken; absent when none fits")
    would_fit: WouldFit | None = Field(None, description="A request that fits, where this one does not")
    options: list[PlanView] = Field(description="Every plan, each with its reason")
