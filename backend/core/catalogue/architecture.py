"""The structure of every model in numbers (transformer, VAE, text and image encoder), with parameters and operations.

Also which convolutions torch unfolds on a CPU, which changes memory and speed. Pure arithmetic, checked against the
real modules by a test. Knows no files, no devices and no requests.
Sources: `config.json` of each component of the published and the embedded models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Final

from backend.core.catalogue.spec import ModelSpec
from backend.core.catalogue.transformer import PUBLISHED, WanShape

#: Earlier frames that a convolution over three frames caches between chunks.
REMEMBERED: Final = 2
#: Largest channels x frames x rows of an input for which torch does not use oneDNN.
_NATIVE_LIMIT: Final = 20480
#: Widths of the VAE's levels as multiples of its base width, the same in both VAEs (`dim_mult`).
_MULTIPLES: Final = (1, 2, 4, 4)
#: Input and output widths of each level, as the same multiples.
ENCODER_MULTIPLES: Final = (1, *_MULTIPLES)
DECODER_MULTIPLES: Final = (_MULTIPLES[-1], *reversed(_MULTIPLES))
#: Which of the encoder's three resamplings also halve the number of frames (`temperal_downsample`).
_HALVES_FRAMES: Final = (False, True, True)


def is_unfolded(channels: int, frames: int, rows: int) -> bool:
    """Return whether torch computes a 3 x 3 x 3 convolution of one clip by unfolding its whole input (`slow_conv3d`).

    It uses oneDNN for a float32 convolution when the product of the first four dimensions (clips, channels, frames,
    rows) exceeds a limit: `ConvParams::use_mkldnn` in aten/src/ATen/native/Convolution.cpp. The rule was written for
    pictures, whose fourth dimension is the last, so for clips the columns do not count. Holds for any number of
    threads. `frames` includes padding and cached frames, `rows` includes padding.
    """
    return channels * frames * rows <= _NATIVE_LIMIT


@dataclass(slots=True)
class _Walk:
    """Counters of a pass through a VAE; a multiply-add counts as two operations."""

    flops: int = 0
    unfolded: int = 0  #: values that a CPU writes out before multiplying (`is_unfolded`)
    parameters: int = 0
    # Current position: frames of the whole clip and of a chunk (the first chunk is one frame); rows of a picture.
    frames: int = 1
    chunk: int = 1
    rows: int = 1

    def go(self, frames: int, chunk: int, rows: int) -> None:
        self.frames, self.chunk, self.rows = frames, chunk, rows

    def conv(self, inputs: int, outputs: int, kernel: int, sites: int) -> None:
        self.flops += 2 * inputs * outputs * kernel * sites
        if kernel == 27:
            first, later = (is_unfolded(inputs, one + REMEMBERED, self.rows + 2) for one in (1, self.chunk))
            slow_frames = first + later * (self.frames - 1)
            self.unfolded += inputs * kernel * sites * slow_frames // self.frames
        self.parameters += inputs * outputs * kernel + outputs

    def resnet(self, inputs: int, outputs: int, sites: int) -> None:
        self.parameters += inputs + outputs  # two norms
        self.conv(inputs, outputs, 27, sites)
        self.conv(outputs, outputs, 27, sites)
        if inputs != outputs:
            self.conv(inputs, outputs, 1, sites)

    def middle(self, width: int, frames: int, area: int) -> None:
        sites = frames * area
        self.resnet(width, width, sites)
        self.parameters += width
        self.conv(width, 3 * width, 1, sites)
        self.flops += frames * 4 * area * area * width  # attention inside each frame
        self.conv(width, width, 1, sites)
        self.resnet(width, width, sites)


@dataclass(frozen=True, slots=True)
class VaeShape:
    """The sizes that determine `diffusers.AutoencoderKLWan`."""

    encoder_width: int
    decoder_width: int
    channels: int  #: of a latent
    spatial_stride: int  #: pixels per latent, along each side
    patch: int = 1  #: pixels along each side that are first folded into channels
    res_blocks: int = 2
    residual: bool = False  #: the newer variant, with shortcuts around the resamplings

    def decode_flops(self, frames: int, rows: int, columns: int) -> int:
        """Count the operations of decoding a clip of these latent frames, rows and columns."""
        return self._decoder(frames, rows, columns).flops

    def encode_flops(self, frames: int, rows: int, columns: int) -> int:
        """Count the operations of encoding a clip into these latent frames, rows and columns."""
        return self._encoder(frames, rows, columns).flops

    def decode_unfolded(self, frames: int, rows: int, columns: int) -> int:
        """Count the values that a CPU writes out while decoding (`is_unfolded`), over all chunks."""
        return self._decoder(frames, rows, columns).unfolded

    def encode_unfolded(self, frames: int, rows: int, columns: int) -> int:
        """Count the same for encoding."""
        return self._encoder(frames, rows, columns).unfolded

    @property
    def parameters(self) -> int:
        """Parameters of encoder and decoder."""
        return _vae_parameters(self)

    @property
    def decoder_parameters(self) -> int:
        """Parameters of the decoder."""
        return self._decoder(1, 1, 1).parameters

    def _decoder(self, frames: int, rows: int, columns: int) -> _Walk:
        walk = _Walk()
        widths = [self.decoder_width * by for by in DECODER_MULTIPLES]
        chunk = 1
        walk.go(frames, chunk, rows)
        walk.conv(self.channels, self.channels, 1, frames * rows * columns)
        walk.conv(self.channels, widths[0], 27, frames * rows * columns)
        walk.middle(widths[0], frames, rows * columns)
        for level, (above, width) in enumerate(pairwise(widths)):
            inputs = above if level == 0 or self.residual else above // 2
            for block in range(self.res_blocks + 1):
                walk.resnet(width if block else inputs, width, frames * rows * columns)
            if level == len(_MULTIPLES) - 1:
                break
            if tuple(reversed(_HALVES_FRAMES))[level]:
                walk.conv(width, 2 * width, 3, (frames - 1) * rows * columns)  # the first frame stays single
                frames, chunk = 2 * frames - 1, 2 * chunk
            rows, columns = 2 * rows, 2 * columns
            walk.go(frames, chunk, rows)
            walk.conv(width, width if self.residual else width // 2, 9, frames * rows * columns)
        walk.parameters += widths[-1]
        walk.conv(widths[-1], 3 * self.patch**2, 27, frames * rows * columns)
        return walk

    def _encoder(self, frames: int, rows: int, columns: int) -> _Walk:
        walk = _Walk()
        frames = 4 * (frames - 1) + 1
        rows, columns = rows * self.spatial_stride // self.patch, columns * self.spatial_stride // self.patch
        widths = [self.encoder_width * by for by in ENCODER_MULTIPLES]
        chunk = 4
        walk.go(frames, chunk, rows)
        walk.conv(3 * self.patch**2, widths[0], 27, frames * rows * columns)
        for level, (above, width) in enumerate(pairwise(widths)):
            for block in range(self.res_blocks):
                walk.resnet(width if block else above, width, frames * rows * columns)
            if level == len(_MULTIPLES) - 1:
                break
            rows, columns = rows // 2, columns // 2
            walk.conv(width, width, 9, frames * rows * columns)
            if _HALVES_FRAMES[level]:
                frames, chunk = (frames - 1) // 2 + 1, chunk // 2
                walk.conv(width, width, 3, (frames - 1) * rows * columns)
            walk.go(frames, chunk, rows)
        walk.middle(widths[-1], frames, rows * columns)
        walk.parameters += widths[-1]
        walk.conv(widths[-1], 2 * self.channels, 27, frames * rows * columns)
        walk.conv(2 * self.channels, 2 * self.channels, 1, frames * rows * columns)
        return walk


@lru_cache(maxsize=16)
def _vae_parameters(vae: VaeShape) -> int:
    return vae._encoder(1, 1, 1).parameters + vae.decoder_parameters


@dataclass(frozen=True, slots=True)
class TextEncoderShape:
    """The sizes that determine `transformers.UMT5EncoderModel`."""

    layers: int
    dim: int
    ffn_dim: int
    heads: int
    head_dim: int
    vocabulary: int
    distance_buckets: int = 32

    @property
    def parameters(self) -> int:
        """All parameters, including the token embedding."""
        return self.layers * _total(self._layer().values()) + self.dim + self.vocabulary * self.dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by transformers' names; every layer has relative position biases."""
        layer = self._layer()
        return {
            "shared.weight": (self.vocabulary, self.dim),
            "encoder.final_layer_norm.weight": (self.dim,),
            **{f"encoder.block.{i}.layer.{name}.weight": it for i in range(self.layers) for name, it in layer.items()},
        }

    def _layer(self) -> dict[str, tuple[int, ...]]:
        inner = self.heads * self.head_dim
        return {
            **{f"0.SelfAttention.{part}": (inner, self.dim) for part in "qkv"},
            "0.SelfAttention.o": (self.dim, inner),
            "0.SelfAttention.relative_attention_bias": (self.distance_buckets, self.heads),
            "0.layer_norm": (self.dim,),
            **{f"1.DenseReluDense.{part}": (self.ffn_dim, self.dim) for part in ("wi_0", "wi_1")},
            "1.DenseReluDense.wo": (self.dim, self.ffn_dim),
            "1.layer_norm": (self.dim,),
        }

    def flops(self, tokens: int) -> int:
        """Count the operations of encoding one prompt."""
        inner = self.heads * self.head_dim
        linear = 2 * tokens * (4 * self.dim * inner + 3 * self.dim * self.ffn_dim)
        return self.layers * (linear + 4 * tokens * tokens * inner)


@dataclass(frozen=True, slots=True)
class ImageEncoderShape:
    """The sizes that determine `transformers.CLIPVisionModel`."""

    layers: int
    dim: int
    ffn_dim: int
    side: int  #: pixels along each side of its input
    patch: int  #: pixels along each side of a token

    @property
    def tokens(self) -> int:
        """Tokens of a picture: its patches and the class token."""
        return (self.side // self.patch) ** 2 + 1

    @property
    def parameters(self) -> int:
        """All parameters, including those after the layer whose output is used."""
        embeddings = self.dim * (1 + 3 * self.patch**2 + self.tokens)
        layer = 4 * self.dim * (self.dim + 1) + 2 * self.dim * self.ffn_dim + self.ffn_dim + 5 * self.dim
        return embeddings + self.layers * layer + 4 * self.dim

    @property
    def flops(self) -> int:
        """The operations of encoding one picture."""
        linear = 2 * self.tokens * (4 * self.dim**2 + 2 * self.dim * self.ffn_dim)
        patches = 2 * (self.tokens - 1) * 3 * self.patch**2 * self.dim
        return patches + self.layers * (linear + 4 * self.tokens**2 * self.dim)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The structure of one model."""

    transformer: WanShape
    heads: int
    experts: int  #: transformers of this shape
    vae: VaeShape
    text: TextEncoderShape
    #: Whether every token has its own timestep (TI2V), as diffusers runs it.
    per_token_time: bool = field(default=False)
    image: ImageEncoderShape | None = None  #: encoder of the start image (I2V of Wan2.1)

    @property
    def image_tokens(self) -> int:
        """Tokens of the start image that the transformer sees beside the text."""
        return 0 if self.image is None else self.image.tokens

    @property
    def image_parameters(self) -> int:
        """Parameters of the image encoder; 0 without one."""
        return 0 if self.image is None else self.image.parameters

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.transformer.dim // self.heads

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert."""
        return count(self.transformer)

    def latents(self, width: int, height: int, num_frames: int) -> tuple[int, int, int]:
        """Return frames, rows and columns of the latents of a clip."""
        stride = self.vae.spatial_stride
        return (num_frames - 1) // 4 + 1, height // stride, width // stride

    def tokens(self, width: int, height: int, num_frames: int) -> int:
        """Return the number of latent tokens that the transformer sees."""
        sides = zip(self.latents(width, height, num_frames), self.transformer.patch, strict=True)
        return prod(side // step for side, step in sides)


@lru_cache(maxsize=32)
def count(shape: WanShape) -> int:
    """Count the parameters of a transformer."""
    return _total(shape.parameters().values())


def _total(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes)


_UMT5_XXL = TextEncoderShape(24, 4096, 10240, 64, 64, 256384)
_VAE_21 = VaeShape(96, 96, 16, 8)
_VAE_22 = VaeShape(160, 256, 48, 16, patch=2, residual=True)
#: CLIP's ViT-H/14, the image half of `clip_xlm_roberta_vit_h_14` (`wan/configs/wan_i2v_14B.py`).
_VIT_H = ImageEncoderShape(32, 1280, 5120, 224, 14)
_TINY_TEXT = TextEncoderShape(2, 64, 128, 4, 16, 50)
_TINY_VAE_21 = VaeShape(16, 16, 16, 8, res_blocks=1)
_TINY_VAE_22 = VaeShape(12, 16, 48, 16, patch=2, res_blocks=1, residual=True)


def _tiny(layers: int, inputs: int, outputs: int) -> WanShape:
    return WanShape(192, 512, layers, inputs, outputs, 64, freq_dim=64)


#: By the id of the built-in model.
ARCHITECTURES: Final[dict[str, Architecture]] = {
    "T2V-A14B": Architecture(PUBLISHED["T2V-A14B"], 40, 2, _VAE_21, _UMT5_XXL),
    "I2V-A14B": Architecture(PUBLISHED["I2V-A14B"], 40, 2, _VAE_21, _UMT5_XXL),
    "TI2V-5B": Architecture(PUBLISHED["TI2V-5B"], 24, 1, _VAE_22, _UMT5_XXL, per_token_time=True),
    "FastWan2.2-TI2V-5B": Architecture(PUBLISHED["FastWan2.2-TI2V-5B"], 24, 1, _VAE_22, _UMT5_XXL, per_token_time=True),
    "Wan2.1-T2V-14B": Architecture(PUBLISHED["Wan2.1-T2V-14B"], 40, 1, _VAE_21, _UMT5_XXL),
    "Wan2.1-T2V-1.3B": Architecture(PUBLISHED["Wan2.1-T2V-1.3B"], 12, 1, _VAE_21, _UMT5_XXL),
    "Wan2.1-I2V-14B-480P": Architecture(PUBLISHED["Wan2.1-I2V-14B-480P"], 40, 1, _VAE_21, _UMT5_XXL, image=_VIT_H),
    "Wan2.1-I2V-14B-720P": Architecture(PUBLISHED["Wan2.1-I2V-14B-720P"], 40, 1, _VAE_21, _UMT5_XXL, image=_VIT_H),
    "tiny-t2v-a14b": Architecture(_tiny(4, 16, 16), 6, 2, _TINY_VAE_21, _TINY_TEXT),
    "tiny-i2v-a14b": Architecture(_tiny(4, 36, 16), 6, 2, _TINY_VAE_21, _TINY_TEXT),
    "tiny-ti2v-5b": Architecture(_tiny(3, 48, 48), 6, 1, _TINY_VAE_22, _TINY_TEXT, per_token_time=True),
}


def architecture_of(spec: ModelSpec) -> Architecture:
    """Return the structure of a model; a user's own model has that of its built-in base."""
    return ARCHITECTURES[spec.structure]
