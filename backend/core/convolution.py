"""Which way torch computes a convolution of a clip on a processor: by oneDNN, or by unfolding its input first.

The two differ in memory and in speed. Knows no layers.
"""

from __future__ import annotations

from typing import Final

#: Frames before its chunk that a convolution over three frames remembers.
REMEMBERED: Final = 2
#: Channels times frames times rows of an input up to which torch does not give a convolution to oneDNN.
_NATIVE_LIMIT: Final = 20480


def is_unfolded(channels: int, frames: int, rows: int) -> bool:
    """Say whether torch computes a 3 x 3 x 3 convolution of one clip by unfolding its whole input (`slow_conv3d`).

    It gives a float32 convolution to oneDNN when its first four sides (clips, channels, frames, rows) multiply to more
    than a limit: `ConvParams::use_mkldnn` in aten/src/ATen/native/Convolution.cpp. The rule was written for pictures,
    whose fourth side is the last; so for clips the columns do not count. Holds for any number of threads.

    Args:
        channels: of the input.
        frames: of the input, padding and what is remembered included.
        rows: of the input, padding included.
    """
    return channels * frames * rows <= _NATIVE_LIMIT
