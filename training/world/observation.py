"""Looks at a clip and says what is in it: colour, background, shape and motion.

Plain image analysis on uint8 frames. It shares the colour tables and the words with the world, but
none of its drawing; what it cannot tell it calls unclear, which a judge counts as wrong.
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
#: Distance in RGB from the background at which a pixel may belong to the shape.
_CONTRAST = 40.0
#: Share of a frame's pixels that must be plainly background or plainly shape; the rest is edge or dirt.
_CLEAN = 0.85
#: Smallest shape in pixels, in every frame.
_FEWEST_PIXELS = 20
#: Share of a shape's outline that is hole, from which it is a ring (a true ring has 0.3).
_RING_HOLE = 0.08
#: Strength of the three- and fourfold symmetry from which a shape is a triangle or a square. Outlines
#: integrate to 0.5 for a triangle and 0.24 for a square; a circle has neither.
_TRIANGLE, _SQUARE = 0.25, 0.11
#: A circle may be no longer than this (a 2:1 ellipse has 0.6).
_ELONGATED = 0.15
#: Travel over the clip as a share of the width: below the first it stays, above the second it moves.
_STAYS, _MOVES = 0.08, 0.15
#: Change of the area over the clip: below the first the size stays, above the second it changes.
_SAME_SIZE, _OTHER_SIZE = 1.5, 2.5
#: Turn over the clip in degrees: below the first it rests, above the second it spins.
_RESTS, _SPINS = 20.0, 60.0


@dataclass(frozen=True)
class Observation:
    """What was seen, in the words of the world or `UNCLEAR`."""

    colour: str
    shape: str
    motion: str
    background: str


@dataclass(frozen=True)
class _Outline:
    """The shape in one frame: filled area, hole share, centre, and complex n-fold symmetry moments."""

    area: float
    hole: float
    centre: complex
    folds: dict[int, complex]


def observe(frames: Frames) -> Observation:
    """Look at a clip of (frames, height, width, 3) and name what is in it."""
    pixels = frames.astype(np.float32)
    backdrop = np.stack([np.median(_border(frame), axis=0) for frame in pixels])
    background = _agree([_nearest(colour, BACKGROUNDS) for colour in backdrop])
    contrast = np.linalg.norm(pixels - backdrop[:, None, None], axis=-1)
    colours, outlines = [], []
    for frame, back, difference in zip(pixels, backdrop, contrast, strict=True):
        rough = difference > _CONTRAST
        if rough.sum() < _FEWEST_PIXELS:
            return Observation(UNCLEAR, UNCLEAR, UNCLEAR, background)
        # The strongest half is inside the shape, not on its soft edge.
        colour = np.median(frame[rough & (difference >= np.median(difference[rough]))], axis=0)
        colours.append(_nearest(colour, COLOURS))
        plain = (difference < _CONTRAST) | (np.linalg.norm(frame - colour, axis=-1) < _CONTRAST)
        covered = (frame - back) @ (colour - back) / np.sum((colour - back) ** 2) > 0.5
        if covered.sum() < _FEWEST_PIXELS or plain.mean() < _CLEAN:
            return Observation(UNCLEAR, UNCLEAR, UNCLEAR, background)
        outlines.append(_outline(covered))
    shape = _shape(outlines)
    return Observation(_agree(colours), shape, _motion(outlines, shape, frames.shape[2]), background)


def travel(frames: Frames) -> complex:
    """How far the shape moves over a clip, as a share of the width: to the right plus 1j times down."""
    centres = []
    for frame in frames.astype(np.float32):
        difference = np.linalg.norm(frame - np.median(_border(frame), axis=0), axis=-1)
        rows, columns = np.nonzero(difference > _CONTRAST)
        if len(rows):
            centres.append((columns + 1j * rows).mean())
    return _change(np.array(centres)) / frames.shape[2] if len(centres) > 1 else 0j


def saturation(frames: Frames) -> float:
    """How colourful a clip is, 0 to 1: the mean distance between a pixel's strongest and weakest channel."""
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
    # Far pixels weigh more: corners are what tells shapes apart.
    weights = np.abs(arms) ** 2
    turns = np.exp(1j * np.angle(arms))
    folds = {n: complex((weights * turns**n).sum() / weights.sum()) for n in (2, 3, 4)}
    hole = 1.0 - float((covered & filled).sum()) / len(points)
    return _Outline(float(len(points)), hole, complex(centre), folds)


def _reached_from_outside(empty: _Mask) -> _Mask:
    """Flood the empty pixels from beyond the picture; what stays dry is the shape with its holes."""
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
    """Change from the first to the last frame along the best straight line."""
    time = np.linspace(-0.5, 0.5, len(values))
    return complex((values * time).sum() / (time**2).sum())


def _turn(outlines: list[_Outline], shape: str) -> float:
    """Degrees turned over the clip; clockwise is positive. Only corners show a turn."""
    corners = {"triangle": 3, "square": 4}.get(shape)
    if corners is None:
        return 0.0
    phases = np.unwrap([np.angle(outline.folds[corners]) for outline in outlines]) / corners
    return math.degrees(_change(phases).real)
