"""Assembles a model's folder in diffusers' layout from local files, by links, atomically.

Reads every byte once, so that the manifest reveals later changes. Takes recognised files; leaves the sources untouched.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.files import storage_errors, sync_folder
from backend.core.formats.weights import SAFETENSORS_SUFFIX, SHARD_INDEX, WEIGHT_SUFFIXES
from backend.core.paths import Home
from backend.models.adoption.structure import Recognised
from backend.models.download.hub import RemoteFile
from backend.models.download.linking import Link, link_file
from backend.models.download.local_files import content_name
from backend.models.download.transfer import content_of
from backend.models.folder.condition import CONFIG_FILE, INDEX_FILE, fault_of
from backend.models.folder.integrity import digest_of, header_reads
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.folder.manifest import FileRecord, Manifest, is_inside

#: Configurations of the published models, for components without one.
CONFIGS: Final = EMBEDDED_MODELS.parent / "configs"
#: Files that no weight file contains and the package provides.
_SCHEDULER = "scheduler"
_PROCESSOR, _PROCESSOR_CONFIG = "image_processor", "preprocessor_config.json"
_TOKENIZER_FILES: Final = (("tokenizer_config.json",), ("tokenizer.json", "spiece.model"))
_USUAL_NAME: Final = {"text_encoder": "model", "image_encoder": "model"}

#: Called with the file and the bytes read of it since the last call; may raise to stop.
OnRead = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class PartFile:
    """One file that becomes part of a model."""

    source: Path
    name: str  #: in the model's folder, with forward slashes
    etag: str = ""  #: the hub's name for this content, if known


@dataclass(frozen=True, slots=True)
class Parts:
    """The local files of a model; missing ones are downloaded from the hub."""

    files: tuple[PartFile, ...]
    repository: str = ""  #: the source repository, if the files are a copy of the published folder
    commit: str = ""

    @property
    def components(self) -> list[str]:
        """The folders that get files."""
        return sorted({part.name.partition("/")[0] for part in self.files if "/" in part.name})


@dataclass(slots=True)
class Assembled:
    """The result of assembling a model."""

    folder: Path
    complete: bool  #: False: it waits in `models/ID.partial` for the downloader
    links: dict[str, Link] = field(default_factory=dict)  #: by name
    spared_bytes: int = 0  #: bytes that were neither downloaded nor copied
    refused: list[str] = field(default_factory=list)  #: files whose content has changed


def components_of(spec: ModelSpec) -> tuple[str, ...]:
    """Return the folders that a model needs besides its scheduler and image processor, which the package has."""
    experts = ("transformer", "transformer_2") if spec.experts == 2 else ("transformer",)
    image = ("image_encoder",) if spec.image_tokens else ()
    return (*experts, "vae", "text_encoder", *image, "tokenizer")


def lacking(spec: ModelSpec, names: Iterable[str]) -> list[str]:
    """Return the components without weights or tokenizer files among these (relative to the model's folder)."""
    names = set(names)
    missing = []
    for component in components_of(spec):
        files = {name.partition("/")[2] for name in names if name.startswith(f"{component}/")}
        if component == "tokenizer":
            here = all(any(choice in files for choice in row) for row in _TOKENIZER_FILES)
        else:
            here = any(name.endswith(WEIGHT_SUFFIXES) for name in files)
        if not here:
            missing.append(component)
    return missing


def part_files(component: str, found: Recognised) -> tuple[PartFile, ...]:
    """Name a recognised component's files in its folder, by their own names where possible."""
    stem = _USUAL_NAME.get(component, "diffusion_pytorch_model")
    if len(found.files) > 1:  # the index of shards, and the shards that it lists by name
        index, *shards = found.files
        names = [stem + SHARD_INDEX, *(shard.name for shard in shards)]
        return tuple(_part(path, f"{component}/{name}") for path, name in zip((index, *shards), names, strict=True))
    header = found.header
    ending = f".{header.container}" if header is not None else found.path.suffix
    own = f"{found.path.stem}{ending}"
    return (_part(found.path, f"{component}/{own if is_inside(own) else stem + ending}"),)


def _part(path: Path, name: str) -> PartFile:
    return PartFile(path, name, content_name(path))


def assemble(
    home: Home, spec: ModelSpec, parts: Parts, *, copy: bool = False, on_read: OnRead = lambda _name, _count: None
) -> Assembled:
    """Create the model's folder; files whose content does not match their name in a cache are skipped.

    Raises:
        ModelUnavailable: the model ships with the package, is installed, or its folder is being changed.
        ModelDamaged: a file cannot be read, or no file is usable.
        StorageFull: the disk is full.
    """
    if spec.embedded:
        raise ModelUnavailable(f"{spec.id} ships with wan22 and needs no files", suggestions=("Nothing to do.",))
    with sole_writer(home, spec), storage_errors():
        target, partial = home.model_of(spec.id), home.partial_model_of(spec.id)
        for folder in (target, partial):
            if folder.exists() or folder.is_symlink():
                raise ModelUnavailable(
                    f"{spec.id} already has a folder in the home folder",
                    suggestions=(
                        f"`wan22 models download {spec.id}` completes it; `wan22 models remove {spec.id}` makes room.",
                    ),
                )
        beside = home.models / f"{spec.id}.assembling"
        shutil.rmtree(beside, ignore_errors=True)  # left by a killed process
        try:
            made = _fill(beside, spec, parts, copy=copy, on_read=on_read)
            made.folder = target if made.complete else partial
            beside.rename(made.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        sync_folder(home.models)
        return made


@contextmanager
def sole_writer(home: Home, spec: ModelSpec) -> Iterator[None]:
    """Hold the lock of the model's folder within the block.

    Raises:
        ModelUnavailable: another process holds it.
    """
    home.models.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home.model_lock_of(spec.id), timeout=0, thread_local=False):
            yield
    except Timeout:
        raise ModelUnavailable(
            f"{spec.id} is being downloaded by another process", suggestions=("Wait for it, or stop it first.",)
        ) from None


def _fill(folder: Path, spec: ModelSpec, parts: Parts, *, copy: bool, on_read: OnRead) -> Assembled:
    folder.mkdir()
    made = Assembled(folder, complete=False)
    manifest = Manifest(spec.id, parts.repository, parts.commit)
    for part in parts.files:
        record = _record(part, on_read)
        if record is None:
            made.refused.append(part.name)
            continue
        link = link_file(part.source, folder / part.name, copy=copy)
        made.links[part.name] = link
        made.spared_bytes += 0 if link is Link.COPY else record.size
        manifest.files[part.name] = record
    missing = lacking(spec, manifest.files)
    if not manifest.files or len(missing) == len(components_of(spec)):
        raise ModelDamaged(f"None of the files can be used for {spec.id}", suggestions=("Download it.",))
    if not parts.repository:
        manifest.adopted = [component for component in components_of(spec) if component not in missing]
        _add_configurations(folder, spec, manifest, whole=not missing)
    made.complete = not missing and fault_of(folder) is None
    manifest.write(folder)
    return made


def _record(part: PartFile, on_read: OnRead) -> FileRecord | None:
    """Read a file and return its manifest record; None if its content does not match its name in a cache."""
    try:
        size = part.source.stat().st_size
        sha256 = part.etag if len(part.etag) == 64 else None
        wanted = RemoteFile(part.name, size, sha256, part.etag)
        if part.etag:
            found = content_of(part.source, wanted, lambda: None, lambda count: on_read(part.name, count))
        else:
            found = _digest(part, on_read)
    except OSError as error:
        raise ModelDamaged(f"The file for {part.name} cannot be read ({type(error).__name__})") from error
    if found is None or (part.source.suffix == SAFETENSORS_SUFFIX and not header_reads(part.source)):
        return None
    return FileRecord(size, found, part.etag)


def _digest(part: PartFile, on_read: OnRead) -> str:
    digest = digest_of(part.source, lambda count: on_read(part.name, count))
    if digest is None:
        raise OSError
    return digest


def _add_configurations(folder: Path, spec: ModelSpec, manifest: Manifest, *, whole: bool) -> None:
    """Write the configurations that single files lack and, if no component is missing, the index and the scheduler.

    A model that is still to be completed gets its index and scheduler from the download.
    """
    source = CONFIGS / spec.structure
    source = source if source.is_dir() else EMBEDDED_MODELS / spec.structure
    names = [f"{component}/{CONFIG_FILE}" for component in manifest.adopted if component != "tokenizer"]
    if whole:
        names += [INDEX_FILE, f"{_SCHEDULER}/scheduler_config.json"]
        manifest.adopted.append(_SCHEDULER)
        if spec.image_tokens:
            names.append(f"{_PROCESSOR}/{_PROCESSOR_CONFIG}")
            manifest.adopted.append(_PROCESSOR)
    for name in names:
        if name in manifest.files:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
        record = _record(PartFile(folder / name, name), lambda _name, _count: None)
        if record is not None:
            manifest.files[name] = record
