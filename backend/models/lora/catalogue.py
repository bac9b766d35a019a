"""Groups files into LoRAs (one file, or two whose names differ only in the word for the expert) and names them.

Knows files that were already read, not folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.lora.presets import Preset, known_preset
from backend.models.lora.files import LoraFile
from backend.models.lora.upload import safe_stem


@dataclass(frozen=True, slots=True)
class Lora:
    """One LoRA: a file, or the pair of files for the two experts."""

    id: str
    files: tuple[LoraFile, ...]  #: in a pair, the high-noise file first
    embedded: bool  #: whether it ships inside this package

    @property
    def is_pair(self) -> bool:
        """Whether it has a file for each expert."""
        return len(self.files) == 2

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def values(self) -> int:
        """Values in all files; times their width, the memory needed in addition to the model."""
        return sum(file.values for file in self.files)

    @property
    def modified(self) -> datetime:
        """When its newest file was changed."""
        return max(file.modified for file in self.files)

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that every file fits."""
        first, *rest = self.files
        return tuple(model for model in first.models if all(model in file.models for file in rest))

    @property
    def bases(self) -> tuple[str, ...]:
        """The structures that every file fits, including models of other families."""
        first, *rest = self.files
        return tuple(base for base in first.bases if all(base in file.bases for file in rest))

    @property
    def trigger_words(self) -> tuple[str, ...]:
        """The trigger words named in its files."""
        return tuple(dict.fromkeys(word for file in self.files for word in file.trigger_words))

    @property
    def preset(self) -> Preset | None:
        """The settings it needs, from its files or known by its name."""
        own = next((file.preset for file in self.files if file.preset is not None), None)
        return own or known_preset(self.files[0].path.stem) or known_preset(self.id)

    @property
    def problem(self) -> str | None:
        """Why it cannot be used."""
        return next((file.problem for file in self.files if file.problem is not None), None)


def catalogue(files: Sequence[tuple[bool, LoraFile]]) -> tuple[list[Lora], dict[str, Lora]]:
    """Return the listed LoRAs, and by id everything that can be named: those and the halves of pairs.

    `files` are pairs of (whether it ships with the package, file).
    """
    halves = _pairs(files)
    by_id: dict[str, Lora] = {}
    for embedded, file in files:
        lora_id = _free_id(safe_stem(file.path.stem), file.name, by_id)
        by_id[lora_id] = Lora(lora_id, (file,), embedded)
    paired = {half.path for _, high, low in halves for half in (high, low)}
    listed = [lora for lora in by_id.values() if lora.files[0].path not in paired]
    for embedded, high, low in halves:
        lora_id = _free_id(_pair_id(high), high.name, by_id)
        by_id[lora_id] = Lora(lora_id, (high, low), embedded)
        listed.append(by_id[lora_id])
    return listed, by_id


def _pairs(files: Sequence[tuple[bool, LoraFile]]) -> list[tuple[bool, LoraFile, LoraFile]]:
    """Find pairs of high- and low-noise files of one family; a family of three files has no pair."""
    groups: dict[tuple[bool, str], list[LoraFile]] = {}
    for embedded, file in files:
        if file.hint is not None and file.problem is None:
            groups.setdefault((embedded, file.family), []).append(file)
    pairs = []
    for (embedded, _), group in groups.items():
        sides = {file.side: file for file in group}
        if len(group) == 2 and sides.keys() == {HIGH, LOW} and set(sides[HIGH].bases) & set(sides[LOW].bases):
            pairs.append((embedded, sides[HIGH], sides[LOW]))
    return pairs


def _pair_id(high: LoraFile) -> str:
    family = "" if high.hint is None else high.hint.family.strip("-._ ")
    return safe_stem(family) if family else "high-low-pair"


def _free_id(preferred: str, name: str, taken: dict[str, Lora]) -> str:
    return preferred if preferred not in taken else f"{preferred}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
