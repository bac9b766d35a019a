"""What a run takes on a processor beside its tensors: what torch's convolutions write out, what the C library keeps.

Pure arithmetic over the VAE's layers. Knows no plans and no models' names; only float32 and one clip at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from backend.core.catalogue.architecture import DECODER_MULTIPLES, ENCODER_MULTIPLES, REMEMBERED, VaeShape, is_unfolded

FLOAT32: Final = 4
#: What a convolution of the VAE reads for each value: 3 frames of 3 x 3.
_NEIGHBOURS: Final = 27
#: Blocks from this size on are mapped and given back one by one (glibc `DEFAULT_MMAP_THRESHOLD_MAX`, 64 bit); smaller
#: ones come from a heap that grows to it by itself.
_MAPPED_BYTES: Final = 32 * 1024**2
#: Kernels that oneDNN generates for the shapes of one half of the VAE, and keeps; bytes, measured on x86-64.
GENERATED_KERNELS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution over 3 frames and 3 x 3 pixels, with one pixel of padding, in the middle of a clip."""

    channels: int  #: of its input
    frames: int  #: of its output; what it remembers comes on top in the input
    reduction: int  #: how many times smaller than the VAE's largest picture its sides are
    share: float = 1.0  #: its level's tensors as a part of those of the largest level

    def unfolded(self, width: int, height: int) -> int:
        """Return the bytes that it unfolds into for a largest picture of this size; 0 where oneDNN computes it."""
        rows, columns = height // self.reduction, width // self.reduction
        if not is_unfolded(self.channels, self.frames + REMEMBERED, rows + 2):
            return 0
        return FLOAT32 * _NEIGHBOURS * self.channels * self.frames * rows * columns


def unfolded_bytes(layers: Iterable[Layer], alive: int, width: int, height: int) -> int:
    """Return by how much what the layers unfold raises the highest point of one half of the VAE.

    One layer unfolds at a time, and beside it the tensors of its own level are alive, not those of the largest.

    Args:
        layers: that may unfold.
        alive: bytes of the tensors of the largest level.
        width: of the largest picture.
        height: of the largest picture.
    """
    return max(0, *(int(layer.share * alive) + layer.unfolded(width, height) - alive for layer in layers))


def decoder_layers(vae: VaeShape) -> list[Layer]:
    """Return the layers of the decoder that can differ in what they unfold, with a chunk of one latent frame."""
    widths = [vae.decoder_width * by for by in DECODER_MULTIPLES]
    layers = [Layer(vae.channels, 1, 8, 0.0)]
    for level, ((above, width), frames) in enumerate(zip(pairwise(widths), (1, 2, 4, 4), strict=True)):
        inputs = above if level == 0 or vae.residual else above // 2
        share = width * frames * 4**level / (widths[-1] * 4 * 4**3)
        layers += [Layer(channels, frames, 8 >> level, share) for channels in {inputs, width}]
    return layers


def encoder_layers(vae: VaeShape, frames: int) -> list[Layer]:
    """Return the same of the encoder, which takes the first frame of a clip alone and then four at a time."""
    widths = [vae.encoder_width * by for by in ENCODER_MULTIPLES]
    chunks = (4, 4, 2, 1) if frames > 1 else (1, 1, 1, 1)
    layers = [Layer(3 * vae.patch**2, chunks[0], 1)]
    for level, ((above, width), chunk) in enumerate(zip(pairwise(widths), chunks, strict=True)):
        share = width * chunk / (4**level * widths[0] * chunks[0])
        layers += [Layer(channels, chunk, 1 << level, share) for channels in {above, width}]
    return layers


def kept_bytes(alive: int, block: int) -> int:
    """Return what the heap holds although it is free, beside so many bytes alive whose largest block has this size.

    The levels of the VAE double their blocks; those that were freed are too small for the next level, so that the heap
    grows to about twice what is alive. That is what was measured, with a spread of a third from run to run
    (docs/benchmarks/memory.md). Blocks that are mapped by themselves leave nothing behind.
    """
    return alive if block <= _MAPPED_BYTES else int(alive * _MAPPED_BYTES / block)
