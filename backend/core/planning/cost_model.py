"""Counts the arithmetic of a request, and predicts the time that a machine needs for it.

Operations are counted exactly (a multiply-add is two). Seconds are operations divided by a rate, plus fixed costs per
forward, chunk and run. Rates start as constants with a source; `calibration.py` fits them to finished tasks. Pure
calculation; knows neither files nor the queue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, prod
from typing import Final

from backend.core.catalogue.architecture import Architecture, architecture_of
from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.formats.packed_matrices import PackedMatrices
from backend.core.planning.footprint import BFLOAT16, TILE, TILE_STRIDE_SHARE, expert_bytes
from backend.core.planning.memory_plan import MemoryPlan, Placement, Storage
from backend.core.planning.processor_memory import FLOAT32
from backend.core.requests.forms import GenerationRequest
from backend.core.requests.rules import guidance_plan, native_request

TERA: Final = 1e12
GIGA: Final = 1e9


class Basis(StrEnum):
    """The origin of a number."""

    ESTIMATED = "estimated"  #: from formulas and published rates
    MEASURED = "measured"  #: from rates fitted to finished tasks of this machine


@dataclass(frozen=True, slots=True)
class ForwardFlops:
    """Operations of one forward of a transformer, by part (n layers, L tokens, T text tokens, d wide, f inside)."""

    projections: int  #: n 8 L d^2: queries, keys, values and output of self-attention
    self_attention: int  #: n 4 L^2 d
    cross_projections: int  #: n 4 L d^2: queries and output of cross-attention
    text_projections: int  #: n 4 T d^2: its keys and values
    cross_attention: int  #: n 4 L T d
    feed_forward: int  #: n 4 L d f
    ends: int  #: tokens in and out, text and time embedded

    @property
    def total(self) -> int:
        """Sum over all parts."""
        inside = self.projections + self.self_attention + self.cross_projections
        return inside + self.text_projections + self.cross_attention + self.feed_forward + self.ends


def forward_flops(arch: Architecture, tokens: int, text_tokens: int, *, per_token_time: bool) -> ForwardFlops:
    """Count one forward; the time is embedded once, or for every token (TI2V as diffusers runs it)."""
    shape = arch.transformer
    layers, dim, patch = shape.layers, shape.dim, prod(shape.patch)
    seen = text_tokens + arch.image_tokens
    image_dim = 0 if arch.image is None else arch.image.dim
    return ForwardFlops(
        projections=layers * 8 * tokens * dim * dim,
        self_attention=layers * 4 * tokens * tokens * dim,
        cross_projections=layers * 4 * tokens * dim * dim,
        text_projections=layers * 4 * seen * dim * dim,
        cross_attention=layers * 4 * tokens * seen * dim,
        feed_forward=layers * 4 * tokens * dim * shape.ffn_dim,
        ends=2 * tokens * dim * patch * (shape.in_channels + shape.out_channels)
        + 2 * text_tokens * (shape.text_dim * dim + dim * dim)
        + 2 * arch.image_tokens * image_dim * (image_dim + dim)
        + 2 * (tokens if per_token_time else 1) * (shape.freq_dim * dim + dim * dim + 6 * dim * dim),
    )


@dataclass(frozen=True, slots=True)
class Workload:
    """The part of a request that determines its cost."""

    spec: ModelSpec
    width: int
    height: int
    num_frames: int
    steps: int
    passes: int  #: forwards over all steps; a guided step takes two
    prompts: int  #: number of texts to encode
    text_tokens: int
    encoded_frames: int  #: frames that the VAE encodes before denoising
    lora_bytes: int = 0
    packed: PackedMatrices | None = None  #: what the model's files hold quantised; None = nothing, or unknown

    @classmethod
    def of(
        cls,
        request: GenerationRequest,
        spec: ModelSpec | None = None,
        *,
        lora_bytes: int = 0,
        packed: PackedMatrices | None = None,
    ) -> Workload:
        """Derive the workload of a full request; `spec` is its model, looked up by name if None."""
        spec = spec or find_model(request.model)
        passes = sum(forwards for _, forwards in forwards_of_steps(spec, request))
        encoded = 0
        if request.image is not None:
            encoded = request.num_frames if spec.needs_image else 1
        denoises = request.latents_of is None
        return cls(
            spec=spec,
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            steps=request.steps if denoises else 0,
            passes=passes if denoises else 0,
            prompts=(2 if passes > request.steps else 1) if denoises else 0,
            text_tokens=request.max_sequence_length,
            encoded_frames=encoded if denoises else 0,
            lora_bytes=lora_bytes,
            packed=packed,
        )

    @classmethod
    def native(
        cls,
        spec: ModelSpec,
        size: tuple[int, int] | None = None,
        num_frames: int | None = None,
        steps: int | None = None,
        *,
        image: bool = False,
    ) -> Workload:
        """Return the workload of the model's default request, with an image if the model needs one.

        Raises:
            InvalidRequest: the model cannot generate such a clip.
        """
        return cls.of(native_request(spec, size, num_frames, steps, image=image), spec)

    @property
    def model(self) -> str:
        """The model's id."""
        return self.spec.id

    @property
    def architecture(self) -> Architecture:
        """The model's structure."""
        return architecture_of(self.spec)

    @property
    def size(self) -> tuple[int, int, int]:
        """Width, height, frames."""
        return self.width, self.height, self.num_frames

    def resized(self, width: int, height: int, num_frames: int) -> Workload:
        """Return the same workload for a clip of another size."""
        encoded = min(self.encoded_frames, num_frames)
        return replace(self, width=width, height=height, num_frames=num_frames, encoded_frames=encoded)


def forwards_of_steps(spec: ModelSpec, request: GenerationRequest) -> list[tuple[str, int]]:
    """Return the expert of every step and the number of its forwards: 2 where guidance applies, else 1."""
    experts = experts_of_steps(spec, request)
    scales = guidance_plan(request, experts)
    return [(expert, 1 if scale is None else 2) for expert, scale in zip(experts, scales, strict=True)]


def experts_of_steps(spec: ModelSpec, request: GenerationRequest) -> list[str]:
    """Return the expert of every step by the shifted flow-matching schedule, s' = m s / (1 + (m - 1) s)."""
    if spec.boundary_ratio is None:
        return [HIGH] * request.steps
    noise = [1 - index / request.steps for index in range(request.steps)]
    shift = request.flow_shift
    shifted = [shift * one / (1 + (shift - 1) * one) for one in noise]
    return [HIGH if one >= spec.boundary_ratio else LOW for one in shifted]


@dataclass(frozen=True, slots=True)
class Rates:
    """Speed and fixed costs of a device."""

    transformer: float  #: TFLOP/s of a whole forward
    decode: float  #: TFLOP/s of the VAE, in float32
    host: float  #: TFLOP/s of the processor, for the text encoder
    pinned: float  #: GB/s from pinned host memory to the device
    pageable: float  #: GB/s from other host memory
    memory: float  #: TB/s of the device's own memory
    source: str
    load: float | None = None  #: GB/s from disk into a ready model; None until a model was loaded
    known: bool = True  #: False: the device is in no table; plans can be compared, but seconds are unknown
    measured: frozenset[str] = frozenset()  #: the rates that were fitted to this machine's own tasks
    # Costs that do not grow with the picture, in seconds; they dominate for tiny models, and are 0 where unknown.
    begin: float = 0.0  #: for the prompt of a run
    forward: float = 0.0  #: for each forward
    chunk: float = 0.0  #: for each chunk that is decoded or encoded
    finish: float = 0.0  #: for each run: finishing the file and moving it into place
    finish_pixels: float = 0.0  #: for a million pixels of all frames: finishing the file
    unfolding: float | None = None  #: GB/s that a processor writes out for convolutions; None on a card
    image: float = 1.0  #: time to encode relative to what the rates of decoding predict


def _card(transformer: float, pinned: float, memory: float, source: str, *, known: bool = True) -> Rates:
    # The VAE in float32 on TF32 units reaches about 0.4 of the transformer's rate: 275 TFLOP in 1.4 s on an H200.
    return Rates(transformer, 0.4 * transformer, 1.0, pinned, 5.0, memory, source, known=known)


#: By a word in the card's name; the first match counts. TFLOP/s of the transformer: operations of whole runs divided
#: by their published seconds; bandwidths from the data sheets. PCIe 5: 50 GB/s, PCIe 4: 25 GB/s.
CARDS: Final[tuple[tuple[str, Rates], ...]] = (
    ("B200", _card(900.0, 50.0, 8.0, "TI2V-5B on a B200, 0.575 s a forward (unslothai/unsloth#10729)")),
    ("H200", _card(500.0, 50.0, 4.8, "the H100's: the same processor")),
    ("H100", _card(500.0, 50.0, 3.35, "A14B 720p on an H100, 13.0 s a forward (Wan2.2's README)")),
    ("H800", _card(500.0, 50.0, 3.35, "A14B 720p on an H800, 13.0 s a forward (Wan2.2's README)")),
    ("H20", _card(118.0, 50.0, 4.0, "A14B 480p on an H20, 14.2 s a forward (Wan2.2's README)")),
    ("A100", _card(180.0, 25.0, 2.0, "A14B on an A100, 9.8 s (480p) and 34 s (720p) a forward (Wan2.2's README)")),
    ("A800", _card(180.0, 25.0, 2.0, "A14B on an A800, 9.8 s (480p) and 34 s (720p) a forward (Wan2.2's README)")),
    ("5090", _card(200.0, 50.0, 1.8, "14B 720p on a 5090, 31.8 s a forward (TurboDiffusion's README)")),
    ("4090", _card(120.0, 25.0, 1.0, "14B 480p on a 4090, 13.7 s a forward (huggingface/diffusers#11605)")),
)
#: Used only to compare plans with each other.
_UNKNOWN_CARD: Final = _card(100.0, 12.0, 0.5, "no published run on this card is known", known=False)
#: A processor: fitted to the ten runs of `tiny-t2v-a14b` that docs/benchmarks/seconds.md learns from, on two idle
#: cores of an x86-64 server with AVX2. TFLOP/s and GB/s per core; seconds, which more cores do not shorten.
_CORE_TRANSFORMER, _CORE_VAE, _CORE_UNFOLDING = 0.05, 0.03, 1.0
_BEGIN, _FORWARD, _CHUNK, _FINISH, _FINISH_PIXELS = 0.015, 0.012, 0.006, 0.025, 0.015


def rates_of(card: str | None, cores: int, *, float32: bool = False) -> Rates:
    """Return the initial rates of a card by its name, or of a processor for None.

    Published runs use 16 bits, so for a card that computes in float32 they only show how plans compare.
    """
    if card is None:
        rate = _CORE_TRANSFORMER * cores
        return Rates(
            rate,
            _CORE_VAE * cores,
            rate,
            10.0,
            10.0,
            0.01,
            "the tiny models on two idle cores",
            begin=_BEGIN,
            forward=_FORWARD,
            chunk=_CHUNK,
            finish=_FINISH,
            finish_pixels=_FINISH_PIXELS,
            unfolding=_CORE_UNFOLDING * cores,
        )
    found = next((rates for word, rates in CARDS if re.search(rf"\b{word}\b", card)), _UNKNOWN_CARD)
    return replace(found, source="no published run of this card in float32 is known", known=False) if float32 else found


def denoise_flops(work: Workload) -> int:
    """Count the operations of all forwards of a run."""
    arch = work.architecture
    tokens = arch.tokens(*work.size)
    return work.passes * forward_flops(arch, tokens, work.text_tokens, per_token_time=arch.per_token_time).total


def decode_flops(work: Workload, *, tiled: bool = False, tile: int = TILE) -> int:
    """Count the operations of decoding; tiles overlap, so they add work."""
    arch = work.architecture
    if not tiled:
        return arch.vae.decode_flops(*arch.latents(*work.size))
    one = arch.vae.decode_flops(*arch.latents(min(work.width, tile), min(work.height, tile), work.num_frames))
    stride = int(TILE_STRIDE_SHARE * tile)
    return one * ceil(work.width / stride) * ceil(work.height / stride)


def decode_amounts(work: Workload, *, tiled: bool = False, tile: int = TILE) -> tuple[float, float, float]:
    """Return the amounts of decoding: chunks, operations in 10^12, and GB that a processor unfolds for convolutions."""
    arch = work.architecture
    size, tiles = work.size, 1
    if tiled:
        size = min(work.width, tile), min(work.height, tile), work.num_frames
        stride = int(TILE_STRIDE_SHARE * tile)
        tiles = ceil(work.width / stride) * ceil(work.height / stride)
    frames, *sides = arch.latents(*size)
    unfolded = FLOAT32 * arch.vae.decode_unfolded(frames, *sides)
    return tiles * frames, decode_flops(work, tiled=tiled, tile=tile) / TERA, tiles * unfolded / GIGA


def vae_costs(rates: Rates) -> tuple[float, float, float]:
    """Return the seconds for a unit of each of `decode_amounts`."""
    return rates.chunk, 1 / rates.decode, 0.0 if rates.unfolding is None else 1 / rates.unfolding


def image_seconds(work: Workload, rates: Rates) -> float:
    """Return the seconds to encode the request's image, at the rates of decoding."""
    if not work.encoded_frames:
        return 0.0
    arch = work.architecture
    frames, *sides = arch.latents(work.width, work.height, work.encoded_frames)
    unfolded = FLOAT32 * arch.vae.encode_unfolded(frames, *sides) / GIGA
    return _sum((frames, arch.vae.encode_flops(frames, *sides) / TERA, unfolded), vae_costs(rates))


def _sum(amounts: tuple[float, float, float], costs: tuple[float, float, float]) -> float:
    return sum(amount * cost for amount, cost in zip(amounts, costs, strict=True))


def weight_bytes(arch: Architecture) -> int:
    """Return the size of a model's published weights in bytes: float32 for the VAE, 16 bits for the rest."""
    halves = arch.experts * arch.expert_parameters + arch.text.parameters + arch.image_parameters
    return 2 * halves + 4 * arch.vae.parameters


@dataclass(frozen=True, slots=True)
class Seconds:
    """The phases of a run, in seconds."""

    load: float | None  #: once, if the model is not in memory yet; None = unknown
    encode: float  #: prompt and image
    denoise: float
    transfer: float  #: weights moved while nothing computes
    decode: float
    finish: float  #: completing the file
    basis: Basis

    @property
    def warm(self) -> float:
        """The time of a run with the model in memory."""
        return self.encode + self.denoise + self.transfer + self.decode + self.finish


def seconds(work: Workload, plan: MemoryPlan, rates: Rates, *, cpu: bool = False, float32: bool = False) -> Seconds:
    """Predict a run: operations divided by rates, and the plan's transfers that do not overlap with them.

    Streaming moves all blocks in every forward; it is hidden if computing takes longer, and always costs 5 % (3 to 7 %
    published). A swap moves both experts, to the device and back, once each way in a run. Weights stored in fp8 or
    packed are read, and written in the computing precision (bfloat16, on some cards `float32`), before each use.
    """
    arch = work.architecture
    forward = rates.forward + denoise_flops(work) / work.passes / TERA / rates.transformer if work.passes else 0.0
    blocks, rest = expert_bytes(arch.transformer, plan.storage, float32=cpu or float32, packed=work.packed)
    transfer = 0.0
    written = FLOAT32 if cpu or float32 else BFLOAT16
    if work.packed is not None:
        forward += (work.packed.bytes + written * work.packed.numbers) / (rates.memory * TERA)
    elif plan.storage is Storage.FP8:
        forward += (1 + written) * arch.expert_parameters / (rates.memory * TERA)
    if plan.placement is Placement.BLOCK_STREAM:
        forward = max(1.05 * forward, blocks / (rates.pinned * GIGA))
    elif plan.placement is Placement.EXPERT_SWAP and work.passes:
        transfer = 4 * (blocks + rest) / (rates.pageable * GIGA)
    text_rate = rates.host if plan.text_encoder_on_cpu or cpu else rates.transformer
    encode = work.prompts * arch.text.flops(work.text_tokens) / TERA / text_rate
    if work.prompts:
        encode += rates.begin + rates.image * image_seconds(work, rates)
        if arch.image is not None:
            encode += arch.image.flops / TERA / rates.transformer
    return Seconds(
        load=None if rates.load is None else weight_bytes(arch) / (rates.load * GIGA),
        encode=encode,
        denoise=work.passes * forward,
        transfer=transfer,
        decode=_sum(decode_amounts(work, tiled=plan.tiled_decode, tile=plan.tile_size), vae_costs(rates)),
        finish=rates.finish + rates.finish_pixels * prod(work.size) / 1e6,
        basis=Basis.MEASURED if {"transformer", "decode"} <= rates.measured else Basis.ESTIMATED,
    )
