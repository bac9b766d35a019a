"""The folder in which a model grows until it is complete: opens it, keeps file names inside it, tidies it up."""

from __future__ import annotations

import shutil
from pathlib import Path

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.models import ModelDamaged, UnsafeRepository
from backend.core.files import PART_SUFFIX
from backend.core.paths import Home
from backend.models.download.hub import RemoteFile
from backend.models.download.transfer import NOTE_SUFFIX
from backend.models.folder.integrity import FileState, quick_state
from backend.models.folder.manifest import Manifest
from backend.models.folder.progress import STATUS_FILE


def open_partial(home: Home, spec: ModelSpec) -> Path:
    """Return the folder in which the model grows; a damaged model continues there with the files that it has.

    Raises:
        ModelDamaged: one of the folders is a link; files behind a link are never changed.
    """
    target, folder = home.model_of(spec.id), home.partial_model_of(spec.id)
    if target.is_symlink() or folder.is_symlink():
        raise ModelDamaged(
            f"{spec.id} is incomplete, and its folder is a link, behind which nothing is changed",
            suggestions=("Remove the link, or complete the folder that it leads to.",),
        )
    if target.exists():
        if folder.exists():
            _add_missing(folder, target)
        target.rename(folder)
    folder.mkdir(exist_ok=True)
    return folder


def inside(folder: Path, file: RemoteFile) -> Path:
    """Join a listed name to the folder.

    Raises:
        UnsafeRepository: a link on the disk leads out of it.
    """
    path = folder / file.name
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UnsafeRepository(f"The folder of {file.name} is a link that leads out of the model's folder")
    return path


def whole_adopted(folder: Path, manifest: Manifest) -> list[str]:
    """Return the adopted components whose files are all still there; the other components' files are deleted.

    A component that lost a file is downloaded as published: its remaining files would not match the hub's.
    """
    whole = []
    for component in manifest.adopted:
        files = manifest.files_of(component)
        if files and all(quick_state(folder / name, record.size) is FileState.OK for name, record in files.items()):
            whole.append(component)
            continue
        for name in files:
            (folder / name).unlink(missing_ok=True)
            del manifest.files[name]
    return whole


def tidy(folder: Path) -> None:
    """Delete the status file, and what killed processes left beside the finished files."""
    for pattern in (STATUS_FILE, f"*{PART_SUFFIX}", f"*{NOTE_SUFFIX}"):
        for path in folder.rglob(pattern):
            path.unlink()


def _add_missing(source: Path, target: Path) -> None:
    """Move the files that `target` lacks into it, and drop the rest of `source`."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    shutil.rmtree(source)
