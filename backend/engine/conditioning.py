"""What a denoising run starts from: prompt embeddings and seeded noise.

Both come from the pipeline's own methods, so they are what `diffusers.WanPipeline` would use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backend.core.requests import GenerationRequest
from backend.engine.failures import device_errors
from backend.engine.pipeline_loader import WanComponents


@dataclass(frozen=True, slots=True)
class TextConditioning:
    """Embeddings of the prompts, [1, max_sequence_length, text_dim], in the transformer's precision."""

    prompt: torch.Tensor
    negative: torch.Tensor | None  #: None = no classifier-free guidance


def uses_guidance(request: GenerationRequest) -> bool:
    """Whether each step runs twice; like the pipeline, only the first scale decides, for both experts."""
    return request.guidance_scale > 1.0


@torch.no_grad()
def encode_text(components: WanComponents, request: GenerationRequest) -> TextConditioning:
    """Encode prompt and, where guidance needs it, negative prompt.

    Raises:
        OutOfMemory: the text encoder did not fit.
    """
    with device_errors("encoding the prompt"):
        prompt, negative = components.pipeline.encode_prompt(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            do_classifier_free_guidance=uses_guidance(request),
            num_videos_per_prompt=1,
            max_sequence_length=request.max_sequence_length,
            device=components.device,
        )
    dtype = components.transformer.dtype
    return TextConditioning(prompt.to(dtype), None if negative is None else negative.to(dtype))


def initial_noise(components: WanComponents, request: GenerationRequest) -> torch.Tensor:
    """Draw the first latents, float32 [1, C, (frames-1)/4+1, height/s, width/s], s = the VAE's spatial factor.

    The generator is the CPU's on every device, so that a seed means the same noise everywhere.
    """
    noise: torch.Tensor = components.pipeline.prepare_latents(
        1,
        components.transformer.config.in_channels,
        request.height,
        request.width,
        request.num_frames,
        torch.float32,
        components.device,
        torch.Generator("cpu").manual_seed(request.seed),
    )
    return noise
