"""Memory of a run on a processor beyond its tensors: unfolded convolutions, and what the C library's heap retains.

Pure arithmetic over the VAE's layers, for float32 and one clip at a time. Knows neither plans nor models' names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from backend.core.catalogue.architecture import DECODER_MULTIPLES, ENCODER_MULTIPLES, REMEMBERED, VaeShape, is_unfolded

FLOAT32: Final = 4
#: Inputs that a convolution of the VAE reads for each output value: 3 frames of 3 x 3.
_NEIGHBOURS: Final = 27
#: Blocks of at least this size are mapped and returned individually (glibc `DEFAULT_MMAP_THRESHOLD_MAX`, 64 bit);
#: smaller ones come from the heap, whose dynamic threshold grows to this value.
_MAPPED_BYTES: Final = 32 * 1024**2
#: Kernels that oneDNN generates and caches for the shapes of one half of the VAE; bytes, measured on x86-64.
GENERATED_KERNELS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution over 3 frames and 3 x 3 pixels, with one pixel of padding, in the middle of a clip."""

    channels: int  #: of its input
    frames: int  #: of its output; its input has the remembered frames in addition
    reduction: int  #: factor by which its sides are smaller than the VAE's largest picture
    share: float = 1.0  #: size of its level's tensors relative to the largest level

    def unfolded(self, width: int, height: int) -> int:
        """Return the bytes that it unfolds into, given the size of the largest picture; 0 if oneDNN computes it."""
        rows, columns = height // self.reduction, width // self.reduction
        if not is_unfolded(self.channels, self.frames + REMEMBERED, rows + 2):
            return 0
        return FLOAT32 * _NEIGHBOURS * self.channels * self.frames * rows * columns


def unfolded_bytes(layers: Iterable[Layer], alive: int, width: int, height: int) -> int:
    """Return by how many bytes unfolding raises the peak of one half of the VAE.

    One layer unfolds at a time, and meanwhile the tensors of its own level are alive, not those of the largest level,
    which take `alive` bytes. Width and height are those of the largest picture.
    """
    return max(0, *(int(layer.share * alive) + layer.unfolded(width, height) - alive for layer in layers))


def decoder_layers(vae: VaeShape) -> list[Layer]:
    """Return the decoder's layers that unfold differently, for a chunk of one latent frame."""
    widths = [vae.decoder_width * by for by in DECODER_MULTIPLES]
    layers = [Layer(vae.channels, 1, 8, 0.0)]
    for level, ((above, width), frames) in enumerate(zip(pairwise(widths), (1, 2, 4, 4), strict=True)):
        inputs = above if level == 0 or vae.residual else above // 2
        share = width * frames * 4**level / (widths[-1] * 4 * 4**3)
        layers += [Layer(channels, frames, 8 >> level, share) for channels in {inputs, width}]
    return layers


def encoder_layers(vae: VaeShape, frames: int) -> list[Layer]:
    """Return the same for the encoder, which takes the first frame of a clip alone and then four at a time."""
    widths = [vae.encoder_width * by for by in ENCODER_MULTIPLES]
    chunks = (4, 4, 2, 1) if frames > 1 else (1, 1, 1, 1)
    layers = [Layer(3 * vae.patch**2, chunks[0], 1)]
    for level, ((above, width), chunk) in enumerate(zip(pairwise(widths), chunks, strict=True)):
        share = width * chunk / (4**level * widths[0] * chunks[0])
        layers += [Layer(channels, chunk, 1 << level, share) for channels in {above, width}]
    return layers


def kept_bytes(alive: int, block: int) -> int:
    """Return the free bytes that the heap retains, given the bytes alive and the size of their largest block.

    Each level of the VAE doubles its blocks; freed ones are too small for the next level, so the heap grows to about
    twice what is alive. This was measured, with a spread of a third between runs (docs/benchmarks/memory.md).
    Individually mapped blocks leave nothing behind.
    """
    return alive if block <= _MAPPED_BYTES else int(alive * _MAPPED_BYTES / block)
