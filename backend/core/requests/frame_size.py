"""Legal widths, heights and frame counts of a model, and the nearest legal values to requested ones.

Pure arithmetic over a model's spec; each change comes with a sentence about it.
"""

from __future__ import annotations

import math

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.requests import InvalidRequest

#: Frames are 4k+1 because the VAE packs four frames into one latent frame after the first.
TEMPORAL_STRIDE = 4
#: Largest ratio of the longer to the shorter side when a size is chosen by aspect.
MAX_ASPECT = 4.0
#: Two aspects are equal when they differ by less than this share, which snapping alone can cause.
SAME_ASPECT = 0.02


def parse_resolution(text: str) -> tuple[int, int]:
    """Read `WIDTHxHEIGHT`.

    Raises:
        InvalidRequest: the text is malformed, or a side is not positive.
    """
    width, cross, height = text.strip().lower().partition("x")
    digits = cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()
    if not digits or len(text) > 16:
        raise InvalidRequest(
            "Invalid resolution format. Write it as WIDTHxHEIGHT, such as 1280x720", details={"field": "resolution"}
        )
    if int(width) == 0 or int(height) == 0:
        raise InvalidRequest("Invalid resolution values. Both sides must be positive", details={"field": "resolution"})
    return int(width), int(height)


def makes_exactly(spec: ModelSpec, width: int | None, height: int | None) -> bool:
    """Whether the model can generate this size unchanged; true if a side is missing."""
    if width is None or height is None:
        return True
    try:
        return not snap_size(spec, width, height)[2]
    except InvalidRequest:
        return False


def snap_size(
    spec: ModelSpec, width: int, height: int, *, however_far: bool = False
) -> tuple[int, int, tuple[str, ...]]:
    """Return the nearest legal size, with a sentence when it differs.

    Raises:
        InvalidRequest: the size is too small or too large, and not to be changed `however_far` the nearest legal one,
            which the message names, is away.
    """
    if width < 1 or height < 1:
        raise InvalidRequest("Invalid resolution values. Both sides must be positive", details={"field": "resolution"})
    step = spec.size_multiple
    snapped = tuple(max(spec.min_side, round(side / step) * step) for side in (width, height))
    too_small = min(width, height) < spec.min_side
    if too_small or snapped[0] * snapped[1] > spec.max_pixels:
        legal = nearest_size(spec, width, height)
        if however_far:
            return *legal, (f"resolution {width}x{height} became {legal[0]}x{legal[1]}, the nearest of {spec.id}",)
        raise InvalidRequest(
            f"{spec.id} cannot make {width}x{height}; the nearest size it can make is {legal[0]}x{legal[1]}",
            details={"field": "resolution", "nearest": f"{legal[0]}x{legal[1]}"},
        )
    notes: tuple[str, ...] = ()
    if snapped != (width, height):
        notes = (f"resolution {width}x{height} became {snapped[0]}x{snapped[1]}: {spec.id} needs multiples of {step}",)
    return snapped[0], snapped[1], notes


def nearest_size(spec: ModelSpec, width: int, height: int) -> tuple[int, int]:
    """Return the legal size nearest to one that is too small or too large, of the same aspect where possible.

    A size that is too small grows until its shorter side is long enough, one that is too large shrinks until it has
    few enough pixels; the longer side of an extremely narrow picture is cut.
    """
    step = spec.size_multiple
    lowest = -(-spec.min_side // step) * step
    longest = spec.max_pixels // lowest // step * step
    shrunk = math.sqrt(spec.max_pixels / (width * height))
    scale = max(min(1.0, shrunk), lowest / min(width, height))
    wanted = [min(float(longest), scale * side) for side in (width, height)]
    around = [{max(lowest, math.floor(side / step) * step + more) for more in (0, step)} for side in wanted]
    legal = ((w, h) for w in around[0] for h in around[1] if w * h <= spec.max_pixels)
    return min(legal, key=lambda size: sum(abs(math.log(a / b)) for a, b in zip(size, wanted, strict=True)))


def size_for_aspect(spec: ModelSpec, aspect: float) -> tuple[int, int]:
    """Return a legal size of about the model's native area and this aspect (width / height)."""
    step = spec.size_multiple
    aspect = min(MAX_ASPECT, max(1 / MAX_ASPECT, aspect))
    width = math.sqrt(spec.width * spec.height * aspect)
    sides = (max(spec.min_side, round(side / step) * step) for side in (width, width / aspect))
    first, second = sides
    return (first, second) if first * second <= spec.max_pixels else (spec.width, spec.height)


def same_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same aspect, apart from snapping."""
    return abs(math.log(first[0] * second[1] / (first[1] * second[0]))) < SAME_ASPECT


def snap_frames(spec: ModelSpec, frames: int) -> tuple[int, tuple[str, ...]]:
    """Return the nearest legal number of frames, with a sentence when it differs.

    Raises:
        InvalidRequest: it is out of the model's range.
    """
    if not 1 <= frames <= spec.max_frames:
        nearest = 1 if frames < 1 else spec.max_frames
        raise InvalidRequest(
            f"num_frames must be between 1 and {spec.max_frames} for {spec.id}",
            details={"field": "num_frames", "nearest": nearest},
        )
    snapped = round((frames - 1) / TEMPORAL_STRIDE) * TEMPORAL_STRIDE + 1
    if snapped != frames:
        return snapped, (f"num_frames {frames} became {snapped}: the model needs 4k+1 frames",)
    return snapped, ()
