"""Scans the folders of other programs for models: published snapshots, loose weight files, tokenizers.

Adopts nothing. Knows where the Hugging Face cache, ComfyUI and Wan2GP keep their files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backend.core.catalogue.table import MODELS, ModelSpec
from backend.core.formats.tensors import UnreadableWeights
from backend.core.formats.weights import SHARD_INDEX, WEIGHT_SUFFIXES, shard_names
from backend.models.adoption.assembly import PartFile, Parts, lacking
from backend.models.adoption.recognition import recognise
from backend.models.adoption.structure import Kind, Recognised
from backend.models.download.extra_paths import FILE_NAME, follow
from backend.models.download.hub import MODEL_INDEX, is_needed
from backend.models.download.local_files import Walk, content_name
from backend.models.folder.integrity import digest_of

#: Relevant subfolders of ComfyUI and of Wan2GP.
_PROGRAMS: Final = ("ComfyUI", "comfyui", "Wan2GP")
_THEIR_FOLDERS: Final = (
    *(
        f"models/{name}"
        for name in ("diffusion_models", "unet", "vae", "text_encoders", "clip", "clip_vision", "loras")
    ),
    "ckpts",
)
#: Formats that can contain code: listed to explain why they are not used, but never loaded.
_PICKLES: Final = (".pt", ".pth", ".ckpt", ".bin")
_OURS = re.compile(r"wan|t5", re.IGNORECASE)
_TOKENIZER: Final = ("tokenizer_config.json", "spiece.model", "tokenizer.json", "special_tokens_map.json")
#: `spiece.model` of google/umt5-xxl, which all Wan models use: bytes and SHA-256.
_UMT5_WORDS: Final = (4_548_313, "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458")


@dataclass(slots=True)
class Survey:
    """The result of a scan."""

    snapshots: dict[str, Parts] = field(default_factory=dict)  #: by model: the best copy of the published files
    weights: list[Recognised] = field(default_factory=list)  #: each file or set of shards once
    tokenizer: tuple[Path, ...] = ()  #: the files of a tokenizer that fits every published model
    unreadable: list[Path] = field(default_factory=list)
    cut_short: bool = False
    notes: list[str] = field(default_factory=list)  #: what a file that names further folders could not lead to


def usual_roots(user: Path) -> list[Path]:
    """Return the folders of ComfyUI and Wan2GP in a user's home folder, and ComfyUI's file with further ones."""
    paths = [user / program / name for program in _PROGRAMS for name in (*_THEIR_FOLDERS, FILE_NAME)]
    return [path for path in paths if path.exists()]


def scan_folders(roots: Iterable[Path], on_file: Callable[[Path], None] = lambda _path: None) -> Survey:
    """Scan folders and single files, and the folders that an `extra_model_paths.yaml` at the top of one names.

    `on_file` is called with each file before its header is read.
    """
    roots = tuple(roots)
    extra = follow(roots)
    walk = Walk((*roots, *extra.folders))
    paths = list(walk.files())
    survey = Survey(unreadable=walk.unreadable, cut_short=walk.cut_short, notes=extra.notes)
    _snapshots(paths, survey)
    _tokenizer(paths, survey)
    taken = {part.source.resolve() for parts in survey.snapshots.values() for part in parts.files}
    shards = _shards(paths)
    seen: set[tuple[int, int]] = set()
    for path in paths:
        if not _interesting(path) or path in shards or path.resolve() in taken:
            continue
        try:
            status = path.stat()
        except OSError:  # gone since the folder was listed
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        on_file(path)
        survey.weights.append(recognise(path, sha256=_known_sha256(path)))
    return survey


def _interesting(path: Path) -> bool:
    if path.name.endswith((*WEIGHT_SUFFIXES, SHARD_INDEX)):
        return True
    return path.name.endswith(_PICKLES) and bool(_OURS.search(path.name))


def _shards(paths: list[Path]) -> set[Path]:
    """Return the files listed by an index beside them; they are read together with it."""
    found: set[Path] = set()
    for path in paths:
        if path.name.endswith(SHARD_INDEX):
            try:
                found |= {path.parent / name for name in shard_names(path)}
            except UnreadableWeights:
                continue
    return found


def _known_sha256(path: Path) -> str | None:
    """Return the digest by which a cache names the file; adoption compares it with the content."""
    name = content_name(path)
    return name if len(name) == 64 else None


def _snapshots(paths: list[Path], survey: Survey) -> None:
    """Find the published repositories in a Hugging Face cache: `models--OWNER--NAME/snapshots/COMMIT`."""
    by_folder = {f"models--{spec.repo_id.replace('/', '--')}": spec for spec in MODELS.values() if spec.repo_id}
    folders: dict[Path, ModelSpec] = {}
    for path in paths:
        for depth in (path.parent, path.parent.parent):  # a file of the repository, or of one of its components
            if depth.parent.name == "snapshots" and depth.parent.parent.name in by_folder:
                folders[depth] = by_folder[depth.parent.parent.name]
    best: dict[str, tuple[tuple[int, int], Parts]] = {}
    for folder, spec in folders.items():
        names = {path: path.relative_to(folder).as_posix() for path in paths if path.is_relative_to(folder)}
        files = tuple(PartFile(path, name, content_name(path)) for path, name in names.items() if is_needed(name))
        parts = Parts(files, str(spec.repo_id), folder.name)
        rank = (-len(lacking(spec, (part.name for part in files))), int(any(p.name == MODEL_INDEX for p in files)))
        if spec.id not in best or rank > best[spec.id][0]:
            best[spec.id] = (rank, parts)
    survey.snapshots = {model: parts for model, (_, parts) in best.items()}


def _tokenizer(paths: list[Path], survey: Survey) -> None:
    """Find a tokenizer with the vocabulary of UMT5-XXL, by digest."""
    here = set(paths)
    for path in paths:
        if path.name != "spiece.model" or path.with_name(_TOKENIZER[0]) not in here:
            continue
        if path.stat().st_size == _UMT5_WORDS[0] and digest_of(path) == _UMT5_WORDS[1]:
            survey.tokenizer = tuple(path.with_name(name) for name in _TOKENIZER if path.with_name(name) in here)
            return


def unusable(found: Recognised) -> bool:
    """Whether no model here could use a file, whatever the user chooses."""
    return found.kind in (Kind.UNKNOWN, Kind.UNSUPPORTED, Kind.REFUSED) or not any(it.uses for it in found.identities)
