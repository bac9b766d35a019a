"""The yardstick: the same request through the stock `diffusers.WanPipeline`, freshly opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline

from backend.core.requests import GenerationRequest, Scheduler


class StockPipeline:
    """An untouched WanPipeline that takes our requests; the VAE is in float32 in any case."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.pipe = WanPipeline.from_pretrained(folder, dtype={"default": dtype, "vae": torch.float32})
        self.pipe.set_progress_bar_config(disable=True)
        self._config = self.pipe.scheduler.config

    def latents(self, request: GenerationRequest) -> torch.Tensor:
        latents: torch.Tensor = self._call(request, "latent")
        return latents

    def frames(self, request: GenerationRequest) -> npt.NDArray[np.uint8]:
        """The clip as diffusers' own PIL images, uint8 [F, H, W, 3]."""
        return np.stack([np.asarray(image) for image in self._call(request, "pil")[0]])

    def _call(self, request: GenerationRequest, output_type: str):  # type: ignore[no-untyped-def]
        if request.scheduler is Scheduler.EULER:
            scheduler = FlowMatchEulerDiscreteScheduler.from_config(self._config, shift=request.flow_shift)
        else:
            scheduler = UniPCMultistepScheduler.from_config(self._config, flow_shift=request.flow_shift)
        self.pipe.scheduler = scheduler
        return self.pipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            guidance_scale_2=request.guidance_scale_2,
            max_sequence_length=request.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type=output_type,
        ).frames
