"""Recognises the content of a clip: colour, background, shape and motion, and how well the shape keeps its outline.

Plain image analysis on uint8 frames. It shares the colour tables and the vocabulary with the renderer, but
no drawing code; whatever it cannot recognise it reports as unclear, which the judge counts as wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world.scenes import BACKGROUNDS, COLOURS, RGB

UNCLEAR = "unclear"

Frames = NDArray[np.uint8]
_Mask = NDArray[np.bool_]

#: Share of the frames that must agree on a colour.
_AGREEMENT = 0.8
#: Distance in RGB from the background above which a pixel may belong to the shape.
_CONTRAST = 40.0
#: Share of the pixels of a frame that must be clearly background or clearly shape; the rest is edge or noise.
_CLEAN = 0.85
#: Smallest accepted shape in any frame, in pixels.
_FEWEST_PIXELS = 20
#: Share of the filled outline taken up by a hole above which the shape is a ring (a perfect ring has 0.3).
_RING_HOLE = 0.08
#: Strength of the threefold and fourfold symmetry above which a shape is a triangle or a square. The integral
#: over the outline is 0.5 for a triangle and 0.24 for a square; a circle has neither.
_TRIANGLE, _SQUARE = 0.25, 0.11
#: Largest twofold symmetry, that is elongation, of a circle or ring (a 2:1 ellipse has 0.6).
_ELONGATED = 0.15
#: Travel over the clip as a share of the width: below the first value the shape stays, above the second it moves.
_STAYS, _MOVES = 0.08, 0.15
#: Ratio of the area over the clip: below the first value the size is constant, above the second it changes.
_SAME_SIZE, _OTHER_SIZE = 1.5, 2.5
#: Rotation over the clip in degrees: below the first value the shape rests, above the second it spins.
_RESTS, _SPINS = 20.0, 60.0


@dataclass(frozen=True)
class ObservedScene:
    """The content of a clip in the vocabulary of the world; `UNCLEAR` where it was not recognised."""

    colour: str
    shape: str
    motion: str
    background: str
    #: Overlap of the shape with a perfect one of its kind, place, size and angle: intersection over union, 0 to 1,
    #: averaged over the frames. 0 where the shape was not recognised.
    outline: float = 0.0


@dataclass(frozen=True)
class _Outline:
    """The shape in one frame: its pixels, filled area, share of the hole, centre, and n-fold symmetry moments."""

    covered: _Mask
    area: float
    hole: float
    centre: complex
    folds: dict[int, complex]


def observe(frames: Frames) -> ObservedScene:
    """Recognise the content of a clip of (frames, height, width, 3)."""
    pixels = frames.astype(np.float32)
    backdrop = np.stack([np.median(_border(frame), axis=0) for frame in pixels])
    background = _agree([_nearest(colour, BACKGROUNDS) for colour in backdrop])
    contrast = np.linalg.norm(pixels - backdrop[:, None, None], axis=-1)
    colours, outlines = [], []
    for frame, back, difference in zip(pixels, backdrop, contrast, strict=True):
        rough = difference > _CONTRAST
        if rough.sum() < _FEWEST_PIXELS:
            return ObservedScene(UNCLEAR, UNCLEAR, UNCLEAR, background)
        # The half with the strongest contrast is inside the shape, not on its soft edge.
        colour = np.median(frame[rough & (difference >= np.median(difference[rough]))], axis=0)
        colours.append(_nearest(colour, COLOURS))
        plain = (difference < _CONTRAST) | (np.linalg.norm(frame - colour, axis=-1) < _CONTRAST)
        covered = (frame - back) @ (colour - back) / np.sum((colour - back) ** 2) > 0.5
        if covered.sum() < _FEWEST_PIXELS or plain.mean() < _CLEAN:
            return ObservedScene(UNCLEAR, UNCLEAR, UNCLEAR, background)
        outlines.append(_outline(covered))
    shape = _shape(outlines)
    overlap = 0.0 if shape == UNCLEAR else float(np.mean([_overlap(outline, shape) for outline in outlines]))
    return ObservedScene(_agree(colours), shape, _motion(outlines, shape, frames.shape[2]), background, overlap)


def travel(frames: Frames) -> complex:
    """Return the travel of the shape over a clip as a share of the width: right is real, down is imaginary."""
    centres = []
    for frame in frames.astype(np.float32):
        difference = np.linalg.norm(frame - np.median(_border(frame), axis=0), axis=-1)
        rows, columns = np.nonzero(difference > _CONTRAST)
        if len(rows):
            centres.append((columns + 1j * rows).mean())
    return _change(np.array(centres)) / frames.shape[2] if len(centres) > 1 else 0j


def saturation(frames: Frames) -> float:
    """Return the saturation of a clip, 0 to 1: the mean difference between the strongest and weakest channel."""
    return float((frames.max(axis=-1).astype(np.float32) - frames.min(axis=-1)).mean() / 255)


def _border(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = (frame[:3], frame[-3:], frame[:, :3], frame[:, -3:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def _nearest(colour: NDArray[np.float32], table: dict[str, RGB]) -> str:
    return min(table, key=lambda name: float(np.sum((colour - np.asarray(table[name])) ** 2)))


def _agree(names: list[str]) -> str:
    commonest = max(set(names), key=names.count)
    return commonest if names.count(commonest) >= _AGREEMENT * len(names) else UNCLEAR


def _outline(covered: _Mask) -> _Outline:
    filled = ~_reached_from_outside(~covered)
    rows, columns = np.nonzero(filled)
    points = columns + 1j * rows
    centre = points.mean()
    arms = points - centre
    # Distant pixels weigh more, because corners are what distinguishes the shapes.
    weights = np.abs(arms) ** 2
    turns = np.exp(1j * np.angle(arms))
    folds = {n: complex((weights * turns**n).sum() / weights.sum()) for n in (2, 3, 4)}
    hole = 1.0 - float((covered & filled).sum()) / len(points)
    return _Outline(covered, float(len(points)), hole, complex(centre), folds)


def _overlap(outline: _Outline, shape: str) -> float:
    """Return the intersection over union of a shape with the perfect one of the same centre, area and angle."""
    rows, columns = np.indices(outline.covered.shape)
    arms: NDArray[np.complex128] = np.asarray(columns + 1j * rows - outline.centre)
    if shape in ("circle", "ring"):
        size = np.abs(arms) ** 2 * math.pi
        perfect = size <= outline.area
        if shape == "ring":
            perfect &= size >= outline.area * outline.hole
    else:
        # A regular polygon is where the arms reach no further along any side's normal than its inradius.
        corners = {"triangle": 3, "square": 4}[shape]
        inradius = math.sqrt(outline.area / (corners * math.tan(math.pi / corners)))
        first = np.angle(outline.folds[corners]) / corners + math.pi / corners
        normals = np.exp(1j * (first + 2 * math.pi * np.arange(corners) / corners))
        perfect = (arms[..., None] * normals.conj()).real.max(axis=-1) <= inradius
    return float((perfect & outline.covered).sum() / (perfect | outline.covered).sum())


def _reached_from_outside(empty: _Mask) -> _Mask:
    """Flood-fill the empty pixels from outside the picture; the rest is the shape with its holes."""
    grown = np.pad(empty, 1, constant_values=True)
    reached = np.zeros_like(grown)
    reached[0] = reached[-1] = True
    reached[:, 0] = reached[:, -1] = True
    while True:
        wider = reached.copy()
        wider[1:] |= reached[:-1]
        wider[:-1] |= reached[1:]
        wider[:, 1:] |= reached[:, :-1]
        wider[:, :-1] |= reached[:, 1:]
        wider &= grown
        if (wider == reached).all():
            return reached[1:-1, 1:-1]
        reached = wider


def _shape(outlines: list[_Outline]) -> str:
    strength = {n: float(np.median([abs(outline.folds[n]) for outline in outlines])) for n in (2, 3, 4)}
    if strength[3] > _TRIANGLE:
        return "triangle"
    if np.median([outline.hole for outline in outlines]) > _RING_HOLE:
        return "ring" if strength[2] < _ELONGATED else UNCLEAR
    if strength[4] > _SQUARE:
        return "square"
    return "circle" if strength[2] < _ELONGATED else UNCLEAR


def _motion(outlines: list[_Outline], shape: str, width: int) -> str:
    travel = _change(np.array([outline.centre for outline in outlines])) / width
    growth = math.exp(float(_change(np.log([outline.area for outline in outlines])).real))
    ratio = max(growth, 1 / growth)
    turn = abs(_turn(outlines, shape))
    resting = abs(travel) < _STAYS
    if resting and ratio > _OTHER_SIZE:
        return "growing" if growth > 1 else "shrinking"
    if ratio > _SAME_SIZE:
        return UNCLEAR
    if resting:
        if turn < _RESTS:
            return "staying still"
        return "spinning" if turn > _SPINS else UNCLEAR
    if abs(travel) < _MOVES or turn > _SPINS:
        return UNCLEAR
    if abs(travel.real) > 2 * abs(travel.imag):
        return "moving right" if travel.real > 0 else "moving left"
    if abs(travel.imag) > 2 * abs(travel.real):
        return "moving down" if travel.imag > 0 else "moving up"
    return UNCLEAR


def _change(values: NDArray[np.complex128] | NDArray[np.float64]) -> complex:
    """Return the change from the first to the last frame along the least-squares line."""
    time = np.linspace(-0.5, 0.5, len(values))
    return complex((values * time).sum() / (time**2).sum())


def _turn(outlines: list[_Outline], shape: str) -> float:
    """Return the rotation over the clip in degrees, clockwise positive; 0 for shapes without corners."""
    corners = {"triangle": 3, "square": 4}.get(shape)
    if corners is None:
        return 0.0
    phases = np.unwrap([np.angle(outline.folds[corners]) for outline in outlines]) / corners
    return math.degrees(_change(phases).real)
