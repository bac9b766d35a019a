"""How many bytes a request takes under a plan: on the device, in the host's memory, on disk.

Pure arithmetic over a structure, a size and a plan; every number is an estimate until a run was measured. Assumes
that a model is loaded one component after the other, and that blocks are moved one at a time. Knows no machine.
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

#: Bytes per number where a card computes; a processor does it in float32, and so does a card whose bfloat16 is no good.
BFLOAT16: Final = 2
#: Blocks on the device while a model is streamed: one that computes, one that arrives.
STREAM_WINDOW: Final = 2
#: CUDA's context, handles and the libraries' workspaces on the card; bytes, an experience value.
CUDA_CONTEXT: Final = 800_000_000
#: What the card's allocator loses between blocks of other sizes, as a share of what is alive.
ALLOCATOR_SLACK: Final = 1.05
#: Memory of a worker process without any model: Python, torch, and CUDA's libraries where there is a card; bytes. That
#: of a worker on a processor was measured (docs/benchmarks/memory.md); that on a card is an assumption.
WORKER_BASE: Final = {"cpu": 505_000_000, "cuda": 3_000_000_000}
#: Frames that the encoder of the file holds back at most while it looks ahead (x264 `rc-lookahead` and references).
ENCODER_FRAMES: Final = 64
#: Pixels along the side of a tile (`tile_sample_min_*` of diffusers), and which part of it lies between two tiles.
TILE, TILE_STRIDE_SHARE = 256, 0.75

# Bytes per token that are alive at the highest point of one forward, counted tensor by tensor on the real modules
# (diffusers 0.42.1, meta device): the attention half needs `width` times the dim, the feed-forward half keeps its
# input twice and its inside twice; the rotary tables and, with a timestep for each token, its modulation come on top.
_ATTENTION_BYTES: Final = {BFLOAT16: 22.0, FLOAT32: 37.7}
_TOKEN_TIME_BYTES: Final = {BFLOAT16: 38.0, FLOAT32: 52.0}
# Bytes per pixel and unit of width in decoding one chunk and in encoding, counted the same way: (fixed, per res block).
_DECODE_BYTES: Final = {False: (151.8, 25.7), True: (76.6, 3.8)}
_ENCODE_BYTES: Final = {False: (93.1, 26.8), True: (27.4, 8.7)}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes at the highest point of a run."""

    vram: int  #: 0 where the processor computes
    pinned: int  #: host memory that the system cannot move
    pageable: int  #: other host memory of the worker
    disk: int  #: the model's files and what a run saves; not the finished clip
    heap: int = 0  #: the part of `pageable` that is free again and not given back yet
    measured: frozenset[str] = frozenset()  #: which of "ram" and "vram" were corrected by what runs took

    @property
    def ram(self) -> int:
        """All host memory."""
        return self.pinned + self.pageable


@lru_cache(maxsize=64)
def expert_bytes(
    shape: WanShape, storage: Storage, *, float32: bool = False, packed: PackedMatrices | None = None
) -> tuple[int, int]:
    """Return the bytes of an expert: of all its blocks, and of the rest.

    diffusers keeps some parameters in float32 (`_keep_in_fp32_modules`); fp8 is for the matrices of the blocks alone.

    Args:
        shape: of the expert.
        storage: in which form the plan keeps it.
        float32: whether it computes in float32.
        packed: what its GGUF file has quantised, which stays so under every plan; None = nothing, as far as is known.
            A file that was not looked at is counted as if it were not quantised, which is never too little.
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
    """Return what one forward of an expert needs beside its weights."""
    dim, ffn = arch.transformer.dim, arch.transformer.ffn_dim
    per_token = max(_ATTENTION_BYTES[precision] * dim, precision * (4 * dim + 2 * ffn)) + 8 * arch.head_dim
    if arch.per_token_time:
        per_token += _TOKEN_TIME_BYTES[precision] * dim
    seen = text_tokens * (arch.transformer.text_dim + 4 * dim)
    if arch.image is not None:
        seen += arch.image_tokens * (arch.image.dim + 4 * dim)
    return int(tokens * per_token) + seen * precision


def decode_bytes(vae: VaeShape, width: int, height: int, *, tiled: bool, tile: int = TILE) -> int:
    """Return what decoding needs beside the VAE's weights; it grows with no frame: finished tiles lie on disk."""
    pixels = min(width, tile) * min(height, tile) if tiled else width * height
    return _per_pixel(_DECODE_BYTES, vae, vae.decoder_width) * pixels


def encode_bytes(vae: VaeShape, width: int, height: int, frames: int, *, tiled: bool, tile: int = TILE) -> int:
    """Return what encoding so many frames needs beside the VAE's weights; 0 frames need nothing."""
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
    """Return what a run takes.

    Args:
        arch: the model.
        plan: how it is laid out; on a processor only its decoding counts.
        size: width, height and frames of the clip.
        text_tokens: length of the prompt as the model sees it.
        encoded_frames: frames that go through the VAE's encoder before the denoising.
        lora_bytes: LoRAs of the request.
        cpu: whether the processor computes, in float32.
        float32: whether a card does so too, with text encoder and experts in it; all else is in float32 anywhere.
        packed: what of each expert is quantised in its file; None = nothing, as far as is known.
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
    # What is not packed is float32 while an expert comes from a GGUF file.
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
    # The files of LoRAs hold 16 bits for a number; on the card they are in the precision of the experts.
    device = CUDA_CONTEXT + vae + lora_bytes * precision // BFLOAT16 + activations
    host, pinned = WORKER_BASE["cuda"] + frames_out, 0
    if plan.placement is not Placement.RESIDENT:
        host += image  # it is on the device only while the image is encoded, and the experts are away then
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
    """Return what the largest of a forward, the decoding and the encoding takes, and the part of it that is free.

    Args:
        arch: the model.
        picture: width and height of what goes through the VAE at once.
        tokens: how many the transformer sees.
        encoded_frames: frames that are encoded.
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
    """Return what a saved state of a run takes on disk: float32 latents, and three of them that UniPC remembers."""
    return 4 * FLOAT32 * arch.transformer.out_channels * prod(arch.latents(*size))
