"""Pairs the two experts of a model by the family of their names, so that one model's never meets another's.

Chooses among recognised files, best pair first; when no name links two experts it returns a question for the user
instead of a guess. Reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from backend.core.formats.weights import SHARD_INDEX, WEIGHT_SUFFIXES
from backend.core.lora.experts import hint_of
from backend.models.adoption.structure import Recognised

EXPERTS: Final = ("transformer", "transformer_2")

_START, _END = r"(?<![a-z0-9])", r"(?![a-z0-9])"
#: Words for number formats: two files that differ only in these are roundings of one model.
_PRECISION: Final = re.compile(
    rf"{_START}(?:m?bf16|fp?16|fp?32|fp8(?:[ ._-]?scaled)?|e[45]m[23](?:fn)?|scaled|gguf"
    rf"|i?q[1-8](?:_(?:[01klms]|nl|x?xs))*){_END}"
)
#: Words that every copy of the published models may have in its name.
_ORDINARY: Final = re.compile(
    rf"{_START}(?:wan(?:video)?(?:[ ._-]?2[ ._-]?2)?|2[._-]2|[it]2v|(?:image|text)[ _-]?(?:2|to)[ _-]?video|a?14b"
    rf"|diffusion[ _-]?(?:pytorch[ _-]?)?models?|models?|noise|experts?|comfy(?:ui)?|kj|unet|transformer){_END}"
)


class Closeness(IntEnum):
    """How strongly two names say that their files belong together."""

    NONE = 0
    VOCABULARY = 1  # both consist of ordinary words and the same further ones
    ROUNDED = 2  # equal but for the number format
    EQUAL = 3


@dataclass(frozen=True, slots=True)
class Pairing:
    """The chosen experts; one or both may be absent."""

    high: Recognised | None
    low: Recognised | None
    question: str = ""  #: what the user has to decide, in one sentence


@dataclass(frozen=True, slots=True)
class _Family:
    """A file's name without the word for the expert, in three degrees of detail."""

    exact: str
    unrounded: tuple[str, ...]
    distinctive: tuple[str, ...]  #: empty for the published models

    @classmethod
    def of(cls, path: Path) -> _Family:
        name = _family_name(path).lower()
        unrounded = _PRECISION.sub(" ", name)
        return cls(name, _words(unrounded), _words(_ORDINARY.sub(" ", unrounded)))

    def closeness(self, other: _Family) -> Closeness:
        if self.exact == other.exact:
            return Closeness.EQUAL
        if self.unrounded == other.unrounded:
            return Closeness.ROUNDED
        return Closeness.VOCABULARY if self.distinctive == other.distinctive else Closeness.NONE


def pair(
    highs: Sequence[Recognised], lows: Sequence[Recognised], *, high_chosen: bool = False, low_chosen: bool = False
) -> Pairing:
    """Return the best pair of experts of one family.

    A published model precedes others, and then the larger files; a chosen expert is the only candidate of its kind.
    """
    if high_chosen and low_chosen:
        return Pairing(highs[0], lows[0])
    if not highs or not lows:
        alone = next(iter((*highs, *lows)), None)
        if alone is None or high_chosen or low_chosen or not _Family.of(alone.path).distinctive:
            return Pairing(next(iter(highs), None), next(iter(lows), None))
        return Pairing(None, None, f"{alone.path.name} is one expert of a model whose other expert was not found")
    families = {found.path: _Family.of(found.path) for found in (*highs, *lows)}

    def rank(high: Recognised, low: Recognised) -> tuple[int, ...]:
        first, second = families[high.path], families[low.path]
        return (
            not first.distinctive,
            first.closeness(second),
            high.path.parent == low.path.parent,
            high.precision[:1] == low.precision[:1],
            high.size + low.size,
        )

    linked = [
        (high, low)
        for high in highs
        for low in lows
        if families[high.path].closeness(families[low.path]) is not Closeness.NONE
    ]
    if linked:
        return Pairing(*max(linked, key=lambda both: rank(*both)))
    question = "the names of its experts do not show which belong together"
    return Pairing(highs[0] if high_chosen else None, lows[0] if low_chosen else None, question)


def _family_name(path: Path) -> str:
    """Return the name that both experts of a model share: of the file, else of its folder, else of the one above."""
    ending = next((end for end in (SHARD_INDEX, *WEIGHT_SUFFIXES) if path.name.endswith(end)), path.suffix)
    stem = path.name.removesuffix(ending)
    hint = hint_of(stem)
    if hint is not None:
        return hint.family if _words(hint.family.lower()) else path.parent.name
    if path.parent.name in EXPERTS:  # diffusers' layout
        return path.parent.parent.name
    above = hint_of(path.parent.name)
    if above is None:
        return stem
    return f"{above.family if _words(above.family.lower()) else path.parent.parent.name}/{stem}"


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", name))
