"""The reference: the same request through diffusers' own pipeline, freshly opened and called as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline
from PIL import Image

from backend.core.requests.forms import GenerationRequest, Scheduler
from backend.engine.loading.pipeline_loader import WanComponents

Picture = npt.NDArray[np.uint8]


def _realign(pipe: Any) -> None:
    """Copy every parameter to memory allocated by torch.

    safetensors leaves them at their place in the file, at any multiple of eight bytes, where the CPU's matrix
    kernels round the same values differently.
    """
    for module in pipe.components.values():
        for parameter in module.parameters() if isinstance(module, torch.nn.Module) else ():
            parameter.data = parameter.data.clone()


class StockPipeline:
    """An untouched pipeline that takes our requests; its VAE is always float32.

    With images it is a WanImageToVideoPipeline, otherwise a WanPipeline, as a user of diffusers would choose.
    """

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        *,
        image: Picture | None = None,
        end_image: Picture | None = None,
        device: str,
    ) -> None:
        kind = WanPipeline if image is None else WanImageToVideoPipeline
        self.pipe = kind.from_pretrained(folder, dtype={"default": dtype, "vae": torch.float32}).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        _realign(self.pipe)
        self._config = self.pipe.scheduler.config
        self._images: dict[str, Any] = {}
        if image is not None:
            self._images["image"] = Image.fromarray(image)
        if end_image is not None:
            self._images["last_image"] = Image.fromarray(end_image)

    @classmethod
    def like(cls, components: WanComponents, **images: Picture | None) -> StockPipeline:
        """Open the same folder in the same precision on the same device."""
        return cls(components.folder, components.transformer.dtype, device=str(components.device), **images)

    def latents(self, request: GenerationRequest) -> torch.Tensor:
        latents: torch.Tensor = self._call(request, "latent")
        return latents

    def frames(self, request: GenerationRequest) -> npt.NDArray[np.uint8]:
        """The clip as diffusers' own PIL images, uint8 [F, H, W, 3]."""
        return np.stack([np.asarray(image) for image in self._call(request, "pil")[0]])

    def _call(self, request: GenerationRequest, output_type: str) -> Any:
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
            **self._images,
        ).frames
