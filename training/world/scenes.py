"""The world of the tiny models: one coloured shape performing one motion on a plain background.

Owns the words, the colours, the captions and the renderer. Knows nothing about training or judging;
`split.py` decides which captions are withheld from training.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
RGB = tuple[int, int, int]

#: Width and height of a clip in pixels, and its number of frames (4k+1, as the Wan VAE requires).
SIZE = 96
FRAMES = 17
#: Frames per second at which the motions look natural.
FPS = 8

COLOURS: dict[str, RGB] = {
    "red": (220, 40, 40),
    "green": (40, 180, 70),
    "blue": (50, 90, 230),
    "yellow": (240, 210, 50),
    "purple": (150, 60, 190),
    "orange": (245, 140, 40),
    "white": (245, 245, 245),
    "cyan": (60, 210, 220),
}
BACKGROUNDS: dict[str, RGB] = {
    "black": (12, 12, 16),
    "gray": (120, 120, 125),
    "navy": (18, 28, 70),
    "pink": (240, 170, 190),
    "teal": (20, 95, 95),
}
SHAPES = ("circle", "square", "triangle", "ring")
MOTIONS = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "growing",
    "shrinking",
    "spinning",
    "staying still",
)
#: Shapes on which a spin is visible; the others never spin.
SPINNING_SHAPES = ("square", "triangle")
#: Clockwise rotation of a spinning shape from the first to the last frame, in radians.
SPIN = math.radians(120)

#: Unit direction of each translation; x points right, y down.
_DIRECTIONS = {
    "moving left": (-1.0, 0.0),
    "moving right": (1.0, 0.0),
    "moving up": (0.0, -1.0),
    "moving down": (0.0, 1.0),
}
#: Other words for the motions, used in free phrasings only.
_SYNONYMS = {
    "moving left": ("moves left", "going left"),
    "moving right": ("moves right", "going right"),
    "moving up": ("moves up", "rising"),
    "moving down": ("moves down", "falling"),
    "growing": ("grows", "getting bigger"),
    "shrinking": ("shrinks", "getting smaller"),
    "spinning": ("spins", "rotating"),
    "staying still": ("stays still", "standing still"),
}
#: The canonical sentence of a caption, with the right article once its places are filled.
CANONICAL = "a {colour} {shape} {motion} on a {background} background"
_PHRASINGS = (
    "{colour} {shape} {motion}, {background} background",
    "the {colour} {shape} is {motion}, the background is {background}",
    "on a {background} background, a {colour} {shape} {motion}",
    "a {colour} {shape} {synonym} on a {background} background",
    "a {background} background with a {colour} {shape} {synonym}",
)
#: Words outside the vocabulary that free phrasings sometimes contain: unknown words must do no harm.
FILLERS = ("shiny", "nice", "big", "please", "video", "slowly")
#: Share of the captions phrased freely; the rest use the canonical sentence.
FREE_PHRASING = 0.2


@dataclass(frozen=True, order=True)
class Scene:
    """The content of a caption: the four words that define a clip."""

    colour: str
    shape: str
    motion: str
    background: str

    @property
    def caption(self) -> str:
        """The canonical sentence, which is the one that is judged."""
        words = {"colour": self.colour, "shape": self.shape, "motion": self.motion, "background": self.background}
        return with_articles(CANONICAL.format(**words))

    def phrase(self, rng: np.random.Generator) -> str:
        """Describe the scene, usually in the canonical sentence, sometimes in a free phrasing."""
        if rng.random() >= FREE_PHRASING:
            return self.caption
        synonyms = _SYNONYMS[self.motion]
        text = str(rng.choice(_PHRASINGS)).format(
            colour=self.colour,
            shape=self.shape,
            motion=self.motion,
            background=self.background,
            synonym=synonyms[int(rng.integers(len(synonyms)))],
        )
        words = with_articles(text).split()
        if rng.random() < 0.3:
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(FILLERS)))
        return " ".join(words)


def with_articles(text: str) -> str:
    """Return a caption with "an" before a vowel."""
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def world_words() -> dict[str, list[str]]:
    """Return what may stand in each place of the canonical sentence."""
    return {
        "colour": list(COLOURS),
        "shape": list(SHAPES),
        "motion": list(MOTIONS),
        "background": list(BACKGROUNDS),
    }


def all_scenes() -> list[Scene]:
    """Return every scene of the world in a fixed order."""
    return [
        Scene(*words)
        for words in itertools.product(COLOURS, SHAPES, MOTIONS, BACKGROUNDS)
        if words[2] != "spinning" or words[1] in SPINNING_SHAPES
    ]


def vocabulary() -> list[str]:
    """Return every word a caption of this world can contain, sorted."""
    texts = [*COLOURS, *BACKGROUNDS, *SHAPES, *MOTIONS, "a an on background"]
    texts += [word for synonyms in _SYNONYMS.values() for word in synonyms]
    texts += [phrasing.replace("{", "<").replace("}", ">") for phrasing in _PHRASINGS]
    words = {word.strip(",") for text in texts for word in text.split()}
    return sorted(word for word in words if not word.startswith("<"))


@dataclass(frozen=True)
class RenderedClip:
    """One rendered scene: pixels in -1..1 as (3, frames, size, size), and the coverage of the shape in 0..1."""

    pixels: Floats
    coverage: Floats


def render(
    scene: Scene,
    rng: np.random.Generator,
    size: int = SIZE,
    frames: int = FRAMES,
    roaming: bool = False,
    drift: float = 0.0,
) -> RenderedClip:
    """Draw a scene; `rng` determines position, size and speed, the scene everything else.

    A roaming shape starts almost anywhere, so that its first frame barely reveals the motion. With `drift` it also
    sinks by that share of half the height over the clip.
    """
    time = np.linspace(0.0, 1.0, frames, dtype=np.float32)
    x, y, radius, angle = (_roam if roaming else _pose)(scene.motion, rng, time)
    y = y + np.float32(drift) * (time - 0.5)
    coverage = _coverage(scene.shape, x, y, radius, angle, size)
    foreground = np.asarray(COLOURS[scene.colour], dtype=np.float32) / 127.5 - 1.0
    background = np.asarray(BACKGROUNDS[scene.background], dtype=np.float32) / 127.5 - 1.0
    pixels = background[:, None, None, None] + coverage * (foreground - background)[:, None, None, None]
    return RenderedClip(pixels.astype(np.float32), coverage)


def _pose(motion: str, rng: np.random.Generator, time: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return x, y, radius and angle over time; the motion is centred in the picture and in the clip."""
    still = np.ones_like(time)
    radius = still * np.float32(rng.uniform(0.36, 0.46))
    x = still * np.float32(rng.uniform(-0.2, 0.2))
    y = still * np.float32(rng.uniform(-0.2, 0.2))
    angle = 0.0 * still
    distance, drift = rng.uniform(0.7, 0.9), rng.uniform(-0.05, 0.05)
    if motion in _DIRECTIONS:
        along_x, along_y = _DIRECTIONS[motion]
        path = drift + distance * (time - 0.5)
        x = along_x * path if along_x else x
        y = along_y * path if along_y else y
    elif motion in ("growing", "shrinking"):
        grown = time if motion == "growing" else 1.0 - time
        radius = radius * (0.5 + 0.9 * grown)
    elif motion == "spinning":
        angle = SPIN * time
    return x, y, radius, angle


def _roam(motion: str, rng: np.random.Generator, time: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return x, y, radius and angle over time from a free start that leaves moving shapes room for their path."""
    still = np.ones_like(time)
    x = still * np.float32(rng.uniform(-0.3, 0.3))
    y = still * np.float32(rng.uniform(-0.3, 0.3))
    smallest, largest = {"growing": (0.22, 0.34), "shrinking": (0.36, 0.56)}.get(motion, (0.28, 0.46))
    radius = still * np.float32(rng.uniform(smallest, largest))
    angle = 0.0 * still
    start, distance, factor = rng.uniform(-0.45, 0.1), rng.uniform(0.5, 0.9), rng.uniform(1.8, 2.2)
    if motion in _DIRECTIONS:
        along_x, along_y = _DIRECTIONS[motion]
        path = start + min(distance, 0.5 - start) * time
        x = along_x * path if along_x else x
        y = along_y * path if along_y else y
    elif motion == "growing":
        radius = radius * (1.0 + (factor - 1.0) * time)
    elif motion == "shrinking":
        radius = radius * (1.0 + (1.0 / factor - 1.0) * time)
    elif motion == "spinning":
        angle = SPIN * time
    return x, y, radius, angle


def _coverage(shape: str, x: Floats, y: Floats, radius: Floats, angle: Floats, size: int) -> Floats:
    """Return the antialiased coverage (frames, size, size) of a shape at the given positions, radii and angles."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size * 2.0 - 1.0
    dx = grid[None, None, :] - x[:, None, None]
    dy = grid[None, :, None] - y[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    distance = _distance(shape, u, v, radius[:, None, None])
    coverage: Floats = np.clip(0.5 - distance * (size / 2), 0.0, 1.0).astype(np.float32)
    return coverage


def _distance(shape: str, u: Floats, v: Floats, radius: Floats) -> Floats:
    """Return the signed distance (negative inside) to a shape of the given radius at the origin; v points down."""
    distance: Floats
    if shape == "circle":
        distance = np.hypot(u, v) - 0.9 * radius
    elif shape == "ring":
        distance = np.abs(np.hypot(u, v) - 0.75 * radius) - 0.22 * radius
    elif shape == "square":
        distance = np.maximum(np.abs(u), np.abs(v)) - 0.8 * radius
    else:
        # An equilateral triangle pointing up, with its centroid at the origin: three half planes.
        slanted = np.abs(u) * (math.sqrt(3) / 2) - v * 0.5
        distance = np.maximum(slanted, v) - 0.58 * radius
    return distance
