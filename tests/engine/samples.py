"""One small request for each mode, and the parts that run it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from backend.core.catalogue.table import MODELS
from backend.core.requests.forms import GenerationRequest, RequestDraft, Scheduler
from backend.core.requests.rules import resolve_request
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.memory.offload import EXPERTS
from backend.engine.sampling.denoise import DenoiseJob
from tests.engine.reference import StockPipeline

Picture = npt.NDArray[np.uint8]
#: Diffusers' samplers, which every model accepts unless it was distilled for another one.
SAMPLERS = (Scheduler.UNIPC, Scheduler.EULER)
#: The modes by name: the model, and whether it gets a start image and an end image.
MODES = {
    "t2v": ("tiny-t2v-a14b", False, False),
    "i2v": ("tiny-i2v-a14b", True, False),
    "i2v_end": ("tiny-i2v-a14b", True, True),
    "ti2v_text": ("tiny-ti2v-5b", False, False),
    "ti2v_image": ("tiny-ti2v-5b", True, False),
}
_FIXTURE = {"tiny-t2v-a14b": "random_components", "tiny-i2v-a14b": "random_i2v", "tiny-ti2v-5b": "random_ti2v"}


def picture_of(width: int, height: int, seed: int = 0) -> Picture:
    """A picture with varying colours, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Sample:
    """A request with its pictures and the loaded model for it."""

    components: WanComponents
    request: GenerationRequest
    image: Picture | None
    end_image: Picture | None

    def start(self) -> DenoiseJob:
        return DenoiseJob.start(self.components, self.request, image=self.image, end_image=self.end_image)

    def run(self) -> torch.Tensor:
        return finish(self.start())

    def stock(self) -> StockPipeline:
        """The stock pipeline for this request, on the same device and in the same precision."""
        return StockPipeline.like(self.components, image=self.image, end_image=self.end_image)


def finish(job: DenoiseJob) -> torch.Tensor:
    """Run the remaining steps and return the latents."""
    while not job.done:
        job.step()
    return job.latents


def stored_bytes(module: torch.nn.Module) -> int:
    """The bytes of a module's parameters in the form in which they are stored."""
    return sum(parameter.nbytes for parameter in module.parameters())


def weight_addresses(components: WanComponents) -> dict[str, int]:
    """The address of each component's first parameter; it differs between the device copy and the parked one."""
    parts = {name: getattr(components, name) for name in ("text_encoder", "image_encoder", "vae", *EXPERTS)}
    return {name: next(part.parameters()).data_ptr() for name, part in parts.items() if part is not None}


def on_device(components: WanComponents, parked: dict[str, int]) -> tuple[str, ...]:
    """Names of the components whose weights, except streamed blocks, are not at their parked addresses."""
    return tuple(name for name, address in weight_addresses(components).items() if address != parked[name])


def sample(fixtures: pytest.FixtureRequest, mode: str, **values: Any) -> Sample:
    """Build the sample of a mode; `values` are fields of the request."""
    model, starts, ends = MODES[mode]
    draft = RequestDraft(
        prompt="a red circle moving right on a navy background", negative_prompt="a blue square", seed=1
    )
    # The images are given to the engine directly, so the request is resolved as if there were none.
    text_only = replace(MODELS[model], mode=MODELS["tiny-t2v-a14b"].mode)
    request, _ = resolve_request(text_only, draft)
    defaults: dict[str, Any] = {"width": 64, "height": 64, "num_frames": 9, "steps": 6, "scheduler": Scheduler.UNIPC}
    request = replace(request, **(defaults | values))
    return Sample(
        fixtures.getfixturevalue(_FIXTURE[model]),
        request,
        picture_of(request.width, request.height, 3) if starts else None,
        picture_of(request.width, request.height, 4) if ends else None,
    )
