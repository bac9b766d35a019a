"""The words in which is said what a file of weights is: its kind, what it can be, and the places that it can take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from backend.core.formats.weights import WeightHeader


class Kind(StrEnum):
    """What a file is."""

    TRANSFORMER = "transformer"
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    IMAGE_ENCODER = "image_encoder"
    LORA = "lora"
    UNKNOWN = "unknown"  # weights, and of nothing that is known here
    REFUSED = "refused"  # no file that is read: a pickle, a pointer, a part of a file


class Naming(StrEnum):
    """Whose names the tensors have."""

    DIFFUSERS = "diffusers"  # of the text encoder: Hugging Face's
    ORIGINAL = "original"
    LLAMA = "llama.cpp"


@dataclass(frozen=True, slots=True)
class Use:
    """One place that a file can take."""

    model: str  #: id in the model table
    component: str  #: folder in diffusers' layout


@dataclass(frozen=True, slots=True)
class Identity:
    """One thing that a file can be."""

    name: str
    uses: tuple[Use, ...] = ()  #: none: nothing here can run it


@dataclass(frozen=True, slots=True)
class Recognised:
    """What was found out about a file."""

    path: Path
    kind: Kind
    size: int  #: bytes, of all shards
    identities: tuple[Identity, ...] = ()  #: more than one: ambiguous
    naming: Naming | None = None
    header: WeightHeader | None = None
    note: str = ""  #: why it is not used, what would settle it, or which part of it is not used, in one sentence

    @property
    def ambiguous(self) -> bool:
        """Whether somebody has to say which of several things it is."""
        return len(self.identities) > 1

    @property
    def uses(self) -> tuple[Use, ...]:
        """The places that it takes for certain."""
        return self.identities[0].uses if len(self.identities) == 1 else ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or the index and its shards."""
        return (self.path,) if self.header is None else self.header.files

    @property
    def precision(self) -> tuple[str, ...]:
        """The types of its numbers, the most frequent first."""
        return () if self.header is None else self.header.precision

    def choose(self, use: Use) -> Recognised | None:
        """Return the same file with the ambiguity settled for `use`; None where it cannot be that."""
        fitting = [identity for identity in self.identities if use in identity.uses]
        if not fitting:
            return None
        return replace(self, identities=(fitting[0],), note="")
