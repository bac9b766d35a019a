"""The bytes that a request needs under a plan: on the device, in the host's memory, on disk.

Pure arithmetic over a structure, a size and a plan; every number is an estimate until a run was measured. Assumes that
components are loaded one after the other, and blocks moved one at a time. Knows no machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Final

from backend.core.catalogue.architecture import Architecture, VaeShape
from backend.core.catalogue.transformer import WanShape
from backend.core.formats.packed_matrices import PackedMatrices
from backend.core.planning.memory_plan import MemoryPlan, Placement, Storage
from backend.core.planning.processor_memory import (
    FLOAT32,
    GENERATED_KERNELS,
    decoder_layers,
    encoder_layers,
    kept_bytes,
    unfolded_bytes,
)

#: Bytes per number on a card; processors compute in float32, and so do cards whose bfloat16 is wrong or slow.
BFLOAT16: Final = 2
#: Blocks on the device while a model is streamed: one computing, one arriving.
STREAM_WINDOW: Final = 2
#: CUDA's context, handles and the libraries' workspaces on the card; bytes, an empirical value.
CUDA_CONTEXT: Final = 800_000_000
#: Fragmentation of the card's allocator, as a factor on the bytes alive.
ALLOCATOR_SLACK: Final = 1.05
#: Memory of a worker process without a model, in bytes: Python, torch, and CUDA's libraries on a card. Measured for a
#: worker on a processor (docs/benchmarks/memory.md), assumed for one on a card.
WORKER_BASE: Final = {"cpu": 505_000_000, "cuda": 3_000_000_000}
#: Most frames that the video encoder buffers for its lookahead (x264 `rc-lookahead` and references).
ENCODER_FRAMES: Final = 64
#: Side of a tile in pixels (`tile_sample_min_*` of diffusers), and the distance between tiles as a share of it.
TILE, TILE_STRIDE_SHARE = 256, 0.75

# Bytes per token alive at the peak of one forward, counted tensor by tensor on the real modules (diffusers 0.42.1,
# meta device): the attention half needs this many times the dim, the feed-forward half holds its input twice and its
# hidden layer twice; the rotary tables and, with a timestep for each token, its modulation are added.
_ATTENTION_BYTES: Final = {BFLOAT16: 22.0, FLOAT32: 37.7}
_TOKEN_TIME_BYTES: Final = {BFLOAT16: 38.0, FLOAT32: 52.0}
# Bytes per pixel and channel for decoding one chunk and for encoding, counted the same way: (fixed, per res block).
_DECODE_BYTES: Final = {False: (151.8, 25.7), True: (76.6, 3.8)}
_ENCODE_BYTES: Final = {False: (93.1, 26.8), True: (27.4, 8.7)}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Peak memory of a run, and its disk space, in bytes."""

    vram: int  #: 0 if the processor computes
    pinned: int  #: page-locked host memory
    pageable: int  #: other host memory of the worker
    disk: int  #: the model's files and a run's saved state, without the finished clip
    heap: int = 0  #: the part of `pageable` that is freed but not returned to the system
    measured: frozenset[str] = frozenset()  #: which of "ram" and "vram" were corrected by measured runs

    @property
    def ram(self) -> int:
        """All host memory."""
        return self.pinned + self.pageable


@lru_cache(maxsize=64)
def expert_bytes(
    shape: WanShape, storage: Storage, *, float32: bool = False, packed: PackedMatrices | None = None
) -> tuple[int, int]:
    """Return the bytes of an expert: those of all its blocks, and those of the rest.

    diffusers keeps some parameters in float32 (`_keep_in_fp32_modules`); fp8 applies to the matrices of blocks only.

    Args:
        shape: the expert's structure.
        storage: how the plan stores it.
        float32: whether it computes in float32.
        packed: what its GGUF file holds quantised, which no plan changes; None = nothing, or unknown. A file that was
            not read counts as not quantised, which never underestimates.
    """
    blocks = rest = 0
    wide = FLOAT32 if float32 else BFLOAT16
    for name, sides in shape.parameters().items():
        in_block = name.startswith("blocks.")
        if any(part in name for part in ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")):
            size = FLOAT32
        elif storage is Storage.FP8 and packed is None and in_block and len(sides) == 2:
            size = 1
        else:
            size = wide
        if in_block:
            blocks += size * prod(sides)
        else:
            rest += size * prod(sides)
    if packed is None:
        return blocks, rest
    return blocks + packed.blocks - wide * packed.block_numbers, rest + packed.rest - wide * packed.rest_numbers


def forward_bytes(arch: Architecture, tokens: int, text_tokens: int, precision: int) -> int:
    """Return the bytes that one forward of an expert needs beyond its weights."""
    dim, ffn = arch.transformer.dim, arch.transformer.ffn_dim
    per_token = max(_ATTENTION_BYTES[precision] * dim, precision * (4 * dim + 2 * ffn)) + 8 * arch.head_dim
    if arch.per_token_time:
        per_token += _TOKEN_TIME_BYTES[precision] * dim
    seen = text_tokens * (arch.transformer.text_dim + 4 * dim)
    if arch.image is not None:
        seen += arch.image_tokens * (arch.image.dim + 4 * dim)
    return int(tokens * per_token) + seen * precision


def decode_bytes(vae: VaeShape, width: int, height: int, *, tiled: bool, tile: int = TILE) -> int:
    """Return the bytes for decoding beyond the VAE's weights; not growing with frames: finished tiles are on disk."""
    pixels = min(width, tile) * min(height, tile) if tiled else width * height
    return _per_pixel(_DECODE_BYTES, vae, vae.decoder_width) * pixels


def encode_bytes(vae: VaeShape, width: int, height: int, frames: int, *, tiled: bool, tile: int = TILE) -> int:
    """Return the bytes for encoding this many frames beyond the VAE's weights."""
    if frames == 0:
        return 0
    pixels = min(width, tile) * min(height, tile) if tiled else width * height
    clip = 3 * FLOAT32 * width * height * frames * (2 if vae.patch > 1 else 1)
    return _per_pixel(_ENCODE_BYTES, vae, vae.encoder_width) * pixels + clip


def _per_pixel(table: dict[bool, tuple[float, float]], vae: VaeShape, width: int) -> int:
    fixed, per_block = table[vae.residual]
    return int(width * (fixed + per_block * vae.res_blocks))


def footprint(
    arch: Architecture,
    plan: MemoryPlan,
    size: tuple[int, int, int],
    *,
    text_tokens: int,
    encoded_frames: int = 0,
    lora_bytes: int = 0,
    cpu: bool = False,
    float32: bool = False,
    packed: PackedMatrices | None = None,
) -> Footprint:
    """Return the memory and disk space that a run needs.

    Args:
        arch: the model.
        plan: how it is laid out; on a processor only its decoding counts.
        size: width, height and frames of the clip.
        text_tokens: length of the prompt as the model sees it.
        encoded_frames: frames that go through the VAE's encoder before the denoising.
        lora_bytes: LoRAs of the request.
        cpu: whether the processor computes, in float32.
        float32: whether a card does so too, including text encoder and experts; all else is float32 everywhere.
        packed: the part of each expert that is quantised in its file; None = nothing, or unknown.
    """
    width, height, frames = size
    tokens = arch.tokens(width, height, frames)
    float32 = float32 or cpu
    precision = FLOAT32 if float32 else BFLOAT16
    tile = plan.tile_size
    forward = forward_bytes(arch, tokens, text_tokens, precision) + (0 if packed is None else packed.unpacking)
    decoding = decode_bytes(arch.vae, width, height, tiled=plan.tiled_decode, tile=tile)
    encoding = encode_bytes(arch.vae, width, height, encoded_frames, tiled=plan.tiled_decode, tile=tile)
    heap = 0
    if cpu:
        picture = (min(width, tile), min(height, tile)) if plan.tiled_decode else (width, height)
        activations, heap = _on_processor(arch, picture, tokens, encoded_frames, (forward, decoding, encoding))
    else:
        activations = int(max(forward, decoding, encoding) * ALLOCATOR_SLACK)
    blocks, rest = expert_bytes(arch.transformer, Storage.BF16 if cpu else plan.storage, float32=float32, packed=packed)
    # While an expert is loaded from a GGUF file, its unpacked parameters are float32.
    full = sum(expert_bytes(arch.transformer, Storage.BF16, float32=float32 or packed is not None, packed=packed))
    text, vae = precision * arch.text.parameters, FLOAT32 * arch.vae.parameters
    image = FLOAT32 * arch.image_parameters
    frames_out = 3 * width * height * min(frames, ENCODER_FRAMES)
    halves = arch.experts * arch.expert_parameters + arch.text.parameters + arch.image_parameters
    disk = BFLOAT16 * halves + vae + state_bytes(arch, size)
    if packed is not None:
        disk -= arch.experts * (BFLOAT16 * packed.numbers - packed.bytes)
    if cpu:
        weights = arch.experts * (blocks + rest) + text + image + vae + lora_bytes
        return Footprint(0, 0, WORKER_BASE["cpu"] + weights + activations + frames_out, disk, heap)
    # LoRA files hold 16-bit numbers; on the card they have the precision of the experts.
    device = CUDA_CONTEXT + vae + lora_bytes * precision // BFLOAT16 + activations
    host, pinned = WORKER_BASE["cuda"] + frames_out, 0
    if plan.placement is not Placement.RESIDENT:
        host += image  # on the device only while the image is encoded, when the experts are off it
    if plan.placement is Placement.RESIDENT:
        device += image + arch.experts * (blocks + rest)
        staging = full  # an expert passes through the host while it is loaded
    elif plan.placement is Placement.EXPERT_SWAP:
        device += blocks + rest
        others = (arch.experts - 1) * (blocks + rest)
        staging = max(others, full) + blocks // arch.transformer.layers
    else:
        device += rest + STREAM_WINDOW * blocks // arch.transformer.layers
        pinned = arch.experts * blocks
        staging = max(0, full - blocks) + (arch.experts - 1) * rest
    if plan.text_encoder_on_cpu:
        host += text
    else:
        device += text
        staging = max(staging, text)
    return Footprint(max(device, CUDA_CONTEXT + image), pinned, host + staging, disk)


def _on_processor(
    arch: Architecture, picture: tuple[int, int], tokens: int, encoded_frames: int, alive: tuple[int, int, int]
) -> tuple[int, int]:
    """Return the bytes of the largest of forward, decoding and encoding, and the part of them that is free.

    Args:
        arch: the model's structure.
        picture: width and height of the part that passes through the VAE at once.
        tokens: number of the transformer's tokens.
        encoded_frames: number of frames to encode.
        alive: bytes of the tensors of a forward, of decoding and of encoding.
    """
    vae = arch.vae
    width, height = (side // vae.patch for side in picture)
    _, decoding, encoding = alive
    block = 4 * FLOAT32 * width * height  # of one channel in a chunk of four frames
    decoder = unfolded_bytes(decoder_layers(vae), decoding, width, height)
    encoder = unfolded_bytes(encoder_layers(vae, encoded_frames), encoding, width, height) if encoded_frames else 0
    blocks = FLOAT32 * tokens * arch.transformer.ffn_dim, block * vae.decoder_width, block * vae.encoder_width
    kept = [kept_bytes(*one) for one in zip(alive, blocks, strict=True)]
    taken, heap = max(
        (tensors + free + unfolded, free)
        for tensors, free, unfolded in zip(alive, kept, (0, decoder, encoder), strict=True)
    )
    return taken + GENERATED_KERNELS * (2 if encoded_frames else 1), heap


def state_bytes(arch: Architecture, size: tuple[int, int, int]) -> int:
    """Return the size of a run's saved state on disk: float32 latents, and three more that UniPC remembers."""
    return 4 * FLOAT32 * arch.transformer.out_channels * prod(arch.latents(*size))
