"""Prepares the inputs of a denoising run: prompt embeddings, seeded noise, and the images, if any.

Everything comes from the pipelines' own methods, so it is what diffusers' `WanPipeline` and
`WanImageToVideoPipeline` would use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from backend.core.catalogue.table import Mode
from backend.core.errors.requests import InvalidRequest
from backend.core.faults import fault_point
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.requests.forms import GenerationRequest
from backend.core.requests.rules import check_images
from backend.engine.failures import device_errors
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.memory.offload import IMAGE_ENCODER, TEXT_ENCODER, VAE

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TextConditioning:
    """Embeddings of the prompts, [1, max_sequence_length, text_dim], in the transformer's precision."""

    prompt: torch.Tensor
    negative: torch.Tensor | None  #: None = no step is guided


@dataclass(frozen=True, slots=True)
class LatentConditioning:
    """The initial noise, and the transformer's view of the image; float32 except for the tokens."""

    noise: torch.Tensor  #: [1, C, T, h, w]
    #: I2V: mask and encoded image [1, 4 + C, T, h, w], concatenated to the latents. TI2V: the encoded image
    #: [1, C, 1, h, w], which replaces the first latent frame. None without an image.
    image: torch.Tensor | None
    #: TI2V only, [1, 1, T, h, w]: 1 where the model denoises, 0 in the image's frame.
    mask: torch.Tensor | None
    #: I2V of Wan2.1, [1, tokens, image_dim]: the image encoder's output, in the transformer's precision.
    tokens: torch.Tensor | None = None


@torch.no_grad()
def encode_text(components: WanComponents, request: GenerationRequest, *, guided: bool) -> TextConditioning:
    """Encode the prompt and, if any step is guided, the negative prompt.

    Raises:
        OutOfMemory: the text encoder did not fit.
    """
    layout = components.layout
    with device_errors("encoding the prompt", MemoryUse.TEXT), layout.using(TEXT_ENCODER):
        fault_point("encode.text")
        prompt, negative = components.pipeline.encode_prompt(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            do_classifier_free_guidance=guided,
            num_videos_per_prompt=1,
            max_sequence_length=request.max_sequence_length,
            device=layout.text_device,
        )
    place = {"device": components.device, "dtype": components.transformer.dtype}
    return TextConditioning(prompt.to(**place), None if negative is None else negative.to(**place))


@torch.no_grad()
def prepare_latents(
    components: WanComponents,
    request: GenerationRequest,
    image: Picture | None = None,
    end_image: Picture | None = None,
) -> LatentConditioning:
    """Draw the noise and encode the image.

    The noise is [1, C, (frames-1)/4+1, height/s, width/s] with s = the VAE's spatial factor. It is always drawn on the
    CPU, so that a seed means the same noise on every device.

    Args:
        components: the loaded model.
        request: gives size, frames and seed.
        image: the first frame, uint8 RGB [height, width, 3], of the request's size.
        end_image: the last frame, in the same form.

    Raises:
        ImageRequired, ImageNotAccepted: the model needs an image, or takes none or only one.
        InvalidRequest: a picture has another size, or a clip of one frame got two pictures.
        OutOfMemory: the VAE's encoder or the image encoder did not fit.
    """
    mode = components.spec.mode
    _check_pictures(components, request, image, end_image)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    if image is None:
        noise: torch.Tensor = components.pipeline.prepare_latents(
            1,
            components.transformer.config.in_channels,
            request.height,
            request.width,
            request.num_frames,
            torch.float32,
            components.device,
            generator,
        )
        # Without an image all tokens of a TI2V clip have the same timestep.
        mask = torch.ones_like(noise[:, :1]) if mode is Mode.TI2V else None
        return LatentConditioning(noise, None, mask)
    pipeline = components.image_pipeline
    tiled = _tiled(components, request)
    with device_errors("encoding the image", MemoryUse.IMAGE), components.layout.using(VAE), tiled:
        fault_point("encode.image")
        prepared = pipeline.prepare_latents(
            _pixels(pipeline, components, image),
            1,
            components.vae.config.z_dim,
            request.height,
            request.width,
            request.num_frames,
            torch.float32,
            components.device,
            generator,
            None,
            None if end_image is None else _pixels(pipeline, components, end_image),
        )
    if mode is Mode.TI2V:
        noise, encoded, mask = prepared
        return LatentConditioning(noise, encoded, mask)
    noise, encoded = prepared
    return LatentConditioning(noise, encoded, None, _image_tokens(components, image))


def _image_tokens(components: WanComponents, image: Picture) -> torch.Tensor | None:
    """Encode the start image as tokens; None if the model does not read them."""
    if components.image_encoder is None:
        return None
    with device_errors("encoding the image", MemoryUse.IMAGE), components.layout.using(IMAGE_ENCODER):
        tokens: torch.Tensor = components.pipeline.encode_image(Image.fromarray(image), components.device)
    return tokens.to(components.transformer.dtype)


def encoded_as(components: WanComponents, request: GenerationRequest, *, with_image: bool) -> str | None:
    """Describe how the current plan changes bits of the encoded text or image; None if it does not."""
    plan, parts = components.plan, []
    if plan.text_encoder_on_cpu and components.device.type != "cpu":
        parts.append("text on the CPU")
    if with_image:
        if plan.vae_on_cpu and components.device.type != "cpu":
            parts.append("image on the CPU")
        if _needs_tiles(components, request):
            parts.append(f"image in tiles of {plan.tile_size}")
    return ", ".join(parts) or None


def _needs_tiles(components: WanComponents, request: GenerationRequest) -> bool:
    plan = components.plan
    return plan.tiled_decode and max(request.width, request.height) > plan.tile_size


@contextmanager
def _tiled(components: WanComponents, request: GenerationRequest) -> Iterator[None]:
    """Encode in diffusers' own tiles within the block, if the plan asks for it."""
    if not _needs_tiles(components, request):
        yield
        return
    vae, patch = components.vae, components.vae.config.patch_size or 1
    latent = vae.spatial_compression_ratio // patch  # diffusers measures tiles in pixels after patchifying
    side = components.plan.tile_size // patch
    stride = side * 3 // 4 // latent * latent
    vae.enable_tiling(side, side, stride, stride)
    try:
        yield
    finally:
        vae.disable_tiling()


def _pixels(pipeline: object, components: WanComponents, picture: Picture) -> torch.Tensor:
    """Convert a picture to float32 [1, 3, H, W] in -1..1 with the pipeline's own image processor."""
    height, width = picture.shape[:2]
    processor = pipeline.video_processor  # type: ignore[attr-defined]
    tensor: torch.Tensor = processor.preprocess(Image.fromarray(picture), height=height, width=width)
    return tensor.to(components.device, dtype=torch.float32)


def _check_pictures(
    components: WanComponents, request: GenerationRequest, image: Picture | None, end_image: Picture | None
) -> None:
    check_images(components.spec, image=image is not None, end_image=end_image is not None)
    if end_image is not None and request.num_frames == 1:
        raise InvalidRequest("A clip of one frame cannot start and end with different images")
    for picture in (image, end_image):
        if picture is not None and picture.shape != (request.height, request.width, 3):
            raise InvalidRequest(
                f"An image of shape {picture.shape} does not fit a {request.width}x{request.height} video"
            )
