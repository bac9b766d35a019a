"""Single LoRA files on disk: their digest, their header, the models they fit, and the expert they are for.

Digests and headers are cached while a file keeps its size and time, digests also across restarts. Knows nothing about
requests or clients.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.table import BUILT_IN, ModelSpec, models_in_force
from backend.core.catalogue.transformer import PUBLISHED, WanShape
from backend.core.errors.requests import LoraInvalid, LoraNotFound, LoraUnsupported
from backend.core.files import read_json, replacing
from backend.core.lora.experts import UNKNOWN, Hint, expert_in_metadata, fitting_bases, hint_of
from backend.core.lora.keys import BOTH
from backend.core.lora.kinds import several_loras, unsupported_kind
from backend.core.lora.match import match_tensors, read_lora
from backend.core.lora.presets import Preset, preset_in, trigger_words


class DigestCache:
    """Digests by file; many threads and processes may use the same cache file."""

    def __init__(self, file: Path) -> None:
        """Store known digests in `file`; if it is missing or unreadable, files are hashed again."""
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, list[object]] | None = None

    def of(self, path: Path) -> str:
        """Return the digest of a file as 64 hexadecimal digits.

        Raises:
            LoraNotFound: the file is gone or cannot be read.
        """
        try:
            stat = path.stat()
            mark: list[object] = [stat.st_size, stat.st_mtime_ns]
            known = self._load().get(str(path))
            if known is not None and known[:2] == mark and isinstance(known[-1], str):
                return known[-1]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LoraNotFound(f"The file {path.name} is no longer there") from error
        self.remember(path, (stat.st_size, stat.st_mtime_ns), digest)
        return digest

    def remember(self, path: Path, mark: tuple[int, int], digest: str) -> None:
        """Store the digest of a file with this size and time."""
        with self._lock:
            known = self._known if self._known is not None else {}
            known[str(path)] = [*mark, digest]
            self._known = {name: value for name, value in known.items() if Path(name).exists()}
            # Only a cache: without it, files are hashed once more.
            with contextlib.suppress(OSError), replacing(self._file, durable=False) as part:
                part.write_text(json.dumps(self._known))

    def _load(self) -> dict[str, list[object]]:
        with self._lock:
            if self._known is None:
                try:
                    values = read_json(self._file)
                except (OSError, ValueError):
                    values = {}
                self._known = {
                    name: value
                    for name, value in (values.items() if isinstance(values, dict) else ())
                    if isinstance(value, list) and len(value) == 3
                }
            return self._known


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file and what is known of it; `problem` says why it cannot be used."""

    path: Path
    size_bytes: int
    modified: datetime
    modified_ns: int
    expert: str | None  #: "high", "low" or "both" if the file says so, else None
    decided_by: str  #: "metadata", "keys", "name" or "nothing"
    hint: Hint | None  #: the expert named in the file name, for finding its counterpart
    bases: tuple[str, ...] = ()  #: the structures that it fits
    format: str = UNKNOWN
    ranks: tuple[int, ...] = ()
    tensors: int = 0
    values: int = 0  #: numbers in all tensors
    trigger_words: tuple[str, ...] = ()
    preset: Preset | None = None
    problem: str | None = None
    damaged: bool = True  #: False if the problem is that its content is not supported

    def error(self, sentence: str) -> LoraInvalid:
        """Return the error for a file that cannot be used."""
        return LoraInvalid(sentence) if self.damaged else LoraUnsupported(sentence)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def family(self) -> str:
        """The name without the word for the expert and without case: equal for both files of a pair."""
        return (self.path.stem if self.hint is None else self.hint.family).casefold()

    @property
    def side(self) -> str | None:
        """The expert that it is for if it has a counterpart."""
        return self.expert or (None if self.hint is None else self.hint.expert)

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that it fits."""
        return tuple(spec.id for spec in models_in_force().specs if spec.structure in self.bases)


class ModelShapes:
    """The structure of every model, so that a LoRA can be matched to models that are not installed."""

    def __init__(self, embedded: Path) -> None:
        """Take the published structures, and those of the embedded models from their folders."""
        self._embedded = embedded

    def of(self, spec: ModelSpec) -> WanShape | None:
        """Return a model's structure; None for an embedded model that is not part of this release."""
        if spec.structure in PUBLISHED:
            return PUBLISHED[spec.structure]
        try:
            return WanShape.from_config(read_json(self._embedded / spec.structure / "transformer" / "config.json"))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def all(self) -> dict[str, WanShape]:
        """Return all structures by built-in model id, including those of other known models."""
        own = {spec.id: shape for spec in BUILT_IN.specs if (shape := self.of(spec)) is not None}
        return PUBLISHED | own


class LoraFileReader:
    """Reads file headers and caches them by size and time."""

    def __init__(self, shapes: ModelShapes) -> None:
        self._shapes = shapes
        self._known: dict[Path, LoraFile] = {}
        self._lock = threading.Lock()

    def read(self, path: Path) -> LoraFile | None:
        """Return the description of a file; None if it no longer exists."""
        try:
            stat = path.stat()
        except OSError:
            return None
        with self._lock:
            known = self._known.get(path)
        if known is not None and (known.size_bytes, known.modified_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        modified = datetime.fromtimestamp(stat.st_mtime, UTC)
        file = self._described(path, stat.st_size, modified, stat.st_mtime_ns)
        with self._lock:
            self._known[path] = file
        return file

    def forget(self, path: Path) -> None:
        """Drop a file's cached description."""
        with self._lock:
            self._known.pop(path, None)

    def _described(self, path: Path, size: int, modified: datetime, modified_ns: int) -> LoraFile:
        hint = hint_of(path.stem)
        try:
            header = read_lora(path)
            shapes = self._shapes.all()
            several = several_loras(header.tensors)
            if several is not None:
                raise LoraUnsupported(several)
            bases = fitting_bases(header.tensors, header.metadata, shapes)
            if not bases:
                nothing = "It holds no LoRA for a Wan model: not one tensor has a place there"
                raise LoraUnsupported(unsupported_kind(header.tensors) or nothing)
            match = match_tensors(header.tensors, header.metadata, shapes[bases[0]])
            preset = preset_in(header.metadata)
        except LoraInvalid as error:
            damaged = not isinstance(error, LoraUnsupported)
            return LoraFile(
                path, size, modified, modified_ns, None, "nothing", hint, problem=error.message, damaged=damaged
            )
        except ValueError as error:
            return LoraFile(path, size, modified, modified_ns, None, "nothing", hint, problem=f"In it, {error}")
        expert, decided_by = _expert(header.metadata, match.key_experts, hint)
        return LoraFile(
            path,
            size,
            modified,
            modified_ns,
            expert,
            decided_by,
            hint,
            bases=bases,
            format=match.format,
            ranks=match.ranks,
            tensors=len(header.tensors),
            values=sum(prod(info.shape) for info in header.tensors.values()),
            trigger_words=trigger_words(header.metadata),
            preset=preset,
        )


def _expert(metadata: Mapping[str, str], in_keys: frozenset[str], hint: Hint | None) -> tuple[str | None, str]:
    """Decide by the tensor names, then the metadata, then the file name."""
    if in_keys == {HIGH, LOW}:
        return BOTH, "keys"
    if len(in_keys) == 1:
        return next(iter(in_keys)), "keys"
    named = expert_in_metadata(metadata)
    if named is not None:
        return named, "metadata"
    if hint is not None and hint.certain:
        return hint.expert, "name"
    return None, "nothing"
