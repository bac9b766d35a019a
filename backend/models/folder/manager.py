"""Which models are installed, where, and in what condition.

Judges by the files alone and reads no more of the weights than their headers. A model is a folder in diffusers' layout:
inside this package (the tiny family), where the user says, or in the home folder under the model's id, put there by the
user or by `ModelDownloader`. An unfinished download is not the same as a missing model.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import DownloadPhase
from backend.core.errors.actions import download, resubmit
from backend.core.errors.models import ModelDamaged, ModelUnavailable, ModelUnsupported
from backend.core.formats.compatibility import Fault
from backend.core.formats.gguf import read_gguf_header
from backend.core.formats.packed_matrices import PackedMatrices
from backend.core.formats.tensors import UnreadableWeights
from backend.core.formats.weights import SHARD_INDEX, WEIGHT_SUFFIXES, Container
from backend.core.paths import Home
from backend.models.folder.condition import INDEX_FILE, fault_of
from backend.models.folder.integrity import FileFinding, FileState, check_full, check_quick, size_state
from backend.models.folder.manifest import Manifest, read_manifest
from backend.models.folder.progress import read_status
from backend.models.folder.prompt_length import PromptLength, measure_prompt, surely_read
from backend.models.folder.vocabulary import unknown_words

_EXPERTS: Final = ("transformer", "transformer_2")
EMBEDDED_MODELS = Path(__file__).parents[2] / "assets" / "tiny"


def packed_experts(folder: Path, spec: ModelSpec) -> PackedMatrices | None:
    """Return what stays packed of each expert in a model's folder; None when one of them is in another format."""
    return PackedMatrices.of_all([_packed(folder / name) for name in _EXPERTS[: spec.experts]])


def _packed(place: Path) -> PackedMatrices | None:
    """Inspect the weights of one expert: they stay packed when all of them are in one GGUF file."""
    try:
        files = [path for path in place.iterdir() if path.name.endswith((*WEIGHT_SUFFIXES, SHARD_INDEX))]
        if len(files) != 1 or files[0].suffix != f".{Container.GGUF}":
            return None
        status = files[0].stat()
        return _read(files[0], (status.st_size, status.st_mtime_ns))
    except OSError:
        return None


@lru_cache(maxsize=32)  # every estimate asks for it
def _read(path: Path, _state: tuple[int, int]) -> PackedMatrices | None:
    try:
        return PackedMatrices.of(read_gguf_header(path))
    except UnreadableWeights:
        return None


class Presence(StrEnum):
    """What the disk has of a model."""

    AVAILABLE = "available"
    MISSING = "missing"
    PARTIAL = "partial"  # a download that is unfinished and not running
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"  # a running download that reads what is on the disk
    CORRUPTED = "corrupted"  # files are missing or have changed
    UNSUPPORTED = "unsupported"  # intact, but in a form that is not supported


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model as it is on disk now."""

    spec: ModelSpec
    presence: Presence
    folder: Path
    reason: str | None  #: why it cannot be used, in one sentence; None when it can
    size_bytes: int = 0
    missing_bytes: int | None = None  #: still to be downloaded; None = unknown until the hub was asked

    @property
    def available(self) -> bool:
        """Whether a task can use it."""
        return self.presence is Presence.AVAILABLE


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a model's files against the record of its download found."""

    valid: bool
    status: str  #: valid, corrupted, unsupported, not_available or unknown
    message: str
    checked: str  #: contents, sizes or nothing
    findings: tuple[FileFinding, ...] = ()

    @property
    def wrong(self) -> list[FileFinding]:
        """The files that are not as they were."""
        return [one for one in self.findings if one.state is not FileState.OK]


class ModelManager:
    """Inspects the models of one home; a missing model is an error only for callers that need its folder."""

    def __init__(self, home: Home, *, has_gpu: bool | Callable[[], bool], embedded: Path = EMBEDDED_MODELS) -> None:
        """`has_gpu` says whether a GPU computes here; a callable is asked whenever that matters."""
        self._home = home
        self._has_gpu = has_gpu
        self._embedded = embedded

    def state(self, spec: ModelSpec) -> ModelState:
        """Inspect the model's folder."""
        folder = self._place(spec)
        manifest = read_manifest(folder)
        if manifest is None and not (folder / INDEX_FILE).is_file():
            return self._unfinished(spec, folder)
        changed, missing = _changed(folder, manifest, self._home.quarantine_of(spec.id))
        fault = Fault(changed) if changed else fault_of(folder)
        if fault is None:
            return ModelState(spec, Presence.AVAILABLE, folder, None, _size(folder), missing)
        presence = Presence.CORRUPTED if fault.supported else Presence.UNSUPPORTED
        return ModelState(spec, presence, folder, fault.reason, _size(folder), missing)

    def complete(self, spec: ModelSpec) -> bool:
        """Whether a download would have nothing to do: all files, right sizes, readable headers."""
        state = self.state(spec)
        manifest = read_manifest(state.folder)
        if manifest is None or not state.available:
            return state.available
        return all(finding.state is FileState.OK for finding in check_quick(state.folder, manifest))

    def verify(self, spec: ModelSpec, *, full: bool) -> Verification:
        """Compare the model's files with the record of its download; `full` reads every byte, else sizes and headers.

        A folder from elsewhere has no record: its files can only be missing.
        """
        state = self.state(spec)
        manifest = read_manifest(state.folder)
        if manifest is None:
            words = ("unknown", "All files are present; there is no record of their contents to compare with")
            status, message = words if state.available else ("not_available", state.reason or "It is not installed")
            return Verification(state.available, status, message, "nothing")
        findings = tuple(check_full(state.folder, manifest) if full else check_quick(state.folder, manifest))
        wrong = sum(one.state is not FileState.OK for one in findings)
        message = (
            f"{wrong} of {len(findings)} files are damaged" if wrong else f"All {len(findings)} files are as they were"
        )
        status, checked = "corrupted" if wrong else "valid", "contents" if full else "sizes"
        if not wrong and state.presence is Presence.UNSUPPORTED:
            status, message = "unsupported", f"Its form is not supported: {state.reason}"
        return Verification(status == "valid", status, message, checked, findings)

    def _place(self, spec: ModelSpec) -> Path:
        """Return where the model's files belong."""
        if spec.folder is not None:
            return self._home.root / spec.folder  # an absolute folder stays as it is
        return self._embedded / spec.id if spec.embedded else self._home.model_of(spec.id)

    def _unfinished(self, spec: ModelSpec, folder: Path) -> ModelState:
        """Describe a model that has no finished folder."""
        partial = None if spec.embedded else self._home.partial_model_of(spec.id)
        if partial is None or not partial.is_dir():
            return ModelState(spec, Presence.MISSING, folder, _missing_reason(spec))
        size, status = _size(partial), read_status(partial)
        missing = None if status is None or status.total_bytes is None else max(0, status.total_bytes - size)
        if not _is_held(self._home.model_lock_of(spec.id)):
            return ModelState(spec, Presence.PARTIAL, folder, "its download is not finished", size, missing)
        if status is not None and status.phase is DownloadPhase.VERIFYING:
            return ModelState(spec, Presence.VERIFYING, folder, "its files are being verified", size, missing)
        return ModelState(spec, Presence.DOWNLOADING, folder, "it is being downloaded", size, missing)

    def packed(self, spec: ModelSpec) -> PackedMatrices | None:
        """Return what of each expert stays quantised in memory, judged by headers; None when nothing does."""
        return packed_experts(self._place(spec), spec)

    def unknown_words(self, spec: ModelSpec, text: str) -> str | None:
        """Say which words of a prompt a model with a small world does not know; None when none, or it reads any."""
        return unknown_words(self._place(spec), spec.id, text)

    def unread(self, spec: ModelSpec, field: str, text: str, tokens: int) -> str | None:
        """Say what a model that reads so many tokens cuts off a prompt; None when nothing, or unknown."""
        length = None if surely_read(text, tokens) else self.prompt_length(spec, text, tokens)
        return None if length is None else length.note(field)

    def prompt_length(self, spec: ModelSpec, text: str, tokens: int) -> PromptLength | None:
        """Count a prompt in the model's tokens, of which it reads so many; None without its tokenizer."""
        return measure_prompt(self._place(spec), text, tokens)

    def states(self) -> list[ModelState]:
        """Inspect every model of the table."""
        return [self.state(spec) for spec in models_in_force().specs]

    def folder(self, spec: ModelSpec) -> Path:
        """Return where the model's files are. Raises like `folder_of`."""
        return self.folder_of(self.state(spec))

    def folder_of(self, state: ModelState) -> Path:
        """Return the folder of an inspected model.

        Raises:
            ModelUnavailable: its files are missing.
            ModelUnsupported: its files are in a form that is not supported.
            ModelDamaged: some of its files are missing or have changed.
        """
        spec = state.spec
        if state.presence is Presence.UNSUPPORTED:
            raise ModelUnsupported(f"{spec.id} is not supported: {state.reason}")
        if state.presence is Presence.CORRUPTED:
            mending = f"Run `wan22 models verify {spec.id} --repair`: only the damaged files are downloaded again."
            managed = read_manifest(state.folder) is not None
            raise ModelDamaged(
                f"{spec.id} is damaged: {state.reason}",
                suggestions=(mending,) if managed else None,
                actions=(download(spec.id),) if managed and spec.repo_id is not None else (),
            )
        if not state.available:
            here = [other.spec.id for other in self.states() if other.available]
            suggestions = tuple(f"Use `{name}`, which is installed." for name in here)
            if state.presence in {Presence.MISSING, Presence.PARTIAL} and not spec.embedded:
                suggestions += (_how_to_get(state),)
            raise ModelUnavailable(
                f"{spec.id} is not installed: {state.reason}",
                suggestions=suggestions,
                details={"model": spec.id, "repository": spec.repo_id, "weights_gb": spec.weights_gb},
                actions=(
                    *((download(spec.id),) if spec.repo_id is not None and not spec.embedded else ()),
                    *(resubmit(model_type=name) for name in here),
                ),
            )
        return state.folder

    def fitting(self, *, image: bool = False, end_image: bool = False) -> list[ModelSpec]:
        """List the installed models that can serve a request with these images, the best one for this machine first.

        Larger models come first. Without a GPU the tiny ones do, even if a large one is installed: nobody wants to wait
        for hours by default. Models of one size keep the table's order, so that a user's own model never replaces the
        built-in one that it is based on.
        """
        able = [
            state.spec
            for state in self.states()
            if state.available
            and (state.spec.takes_image if image else not state.spec.needs_image)
            and (state.spec.takes_end_image or not end_image)
        ]
        has_gpu = self._has_gpu() if callable(self._has_gpu) else self._has_gpu
        return sorted(able, key=lambda spec: (spec.miniature is not has_gpu, spec.weights_gb), reverse=True)

    def default(self) -> ModelSpec:
        """Return the model for requests that name none and have no image.

        Raises:
            ModelUnavailable: no installed model makes video from text.
        """
        fitting = self.fitting()
        if not fitting:
            raise ModelUnavailable(
                "No installed model generates video from text.", suggestions=("Run `wan22 doctor`.",)
            )
        return fitting[0]


def _missing_reason(spec: ModelSpec) -> str:
    if spec.embedded:
        return "its weights are not part of this release"
    if spec.repo_id is None:
        return "it has no files yet" if spec.folder is None else "its folder does not exist"
    return f"it needs the files of {spec.repo_id} ({spec.weights_gb:g} GB of weights in 16 bit)"


def _how_to_get(state: ModelState) -> str:
    """Explain how to install a missing model."""
    spec = state.spec
    if spec.folder is not None:
        return f"Restore its folder, or remove {spec.id} with `wan22 models remove` and add it again."
    if spec.repo_id is None:
        return f"Put its files in the folder {folder_hint(state)} of the server."
    adopting = "use what ComfyUI, Wan2GP or the Hugging Face cache have of it with `wan22 models adopt`, "
    return (
        f"Download it with `wan22 models download {spec.id}`, {adopting if spec.base is None else ''}"
        f"or put a copy of {spec.repo_id} in the folder {folder_hint(state)} of the server."
    )


def folder_hint(state: ModelState) -> str:
    """Name the model's folder without its location: no answer shows a path of the server."""
    return f"models/{state.spec.id}" if state.spec.folder is None else state.folder.name


def _size(folder: Path) -> int:
    """Add up the file sizes of a folder, which may change meanwhile."""
    total = 0
    # Asked for at every submit: a Path for each file would take three times as long.
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found = os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _is_held(lock: Path) -> bool:
    """Whether another process or thread holds the lock."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True


def _changed(folder: Path, manifest: Manifest | None, quarantine: Path) -> tuple[str | None, int | None]:
    """Find files whose size has changed since their download; contents are not read.

    Returns the first one in words, and the bytes of all of them; None when there are none.
    """
    first, size = None, 0
    for name, record in sorted(manifest.files.items()) if manifest is not None else ():
        state = size_state(folder / name, record.size)
        if state is not FileState.OK:
            gone = state is FileState.MISSING and (quarantine / name).is_file()
            words = "has changed, and it is in quarantine"
            first = first or (f"the content of the file {name} {words}" if gone else f"the file {name} is {state}")
            size += record.size
    return first, None if first is None else size
