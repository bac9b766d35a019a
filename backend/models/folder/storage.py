"""Disk space of the models: reports it, suggests what to delete (leftovers, unused models), and deletes.

Suggests whole folders only, and never files that a user put there or that other programs share. Never deletes files of
the package or behind a link. Knows neither tasks nor videos: callers say when a model was last used and which are in
use.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.errors.models import ModelUnavailable
from backend.core.paths import Home
from backend.models.folder.disk import DiskUsage, usage_of
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import MANIFEST_FILE

_BUSY = frozenset({Presence.DOWNLOADING, Presence.VERIFYING})


class Leaving(StrEnum):
    """What can be deleted."""

    UNFINISHED = "unfinished"  # the bytes of a download or an adoption that did not finish
    QUARANTINE = "quarantine"  # files whose content was wrong
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class ModelStorage:
    """One model on the disk."""

    spec: ModelSpec
    presence: Presence
    usage: DiskUsage
    unfinished: int  #: bytes
    quarantine: int  #: bytes
    managed: bool  #: whether wan22 downloaded it; files that a user put there are never suggested
    last_used: datetime | None  #: when its last video was made
    arrived: datetime | None


@dataclass(frozen=True, slots=True)
class StorageReport:
    """All models, and the disk that holds them."""

    models: tuple[ModelStorage, ...]
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One thing that could be deleted."""

    spec: ModelSpec
    what: Leaving
    frees: int  #: bytes
    reason: str


def storage_report(home: Home, manager: ModelManager, last_used: Mapping[str, datetime]) -> StorageReport:
    """Measure every model that does not ship with the package."""
    found = []
    for spec in models_in_force().specs:
        if spec.embedded:
            continue
        folder = home.model_of(spec.id)
        leftovers = [home.partial_model_of(spec.id), *_remains(home, spec)]
        found.append(
            ModelStorage(
                spec=spec,
                presence=manager.state(spec).presence,
                usage=DiskUsage() if folder.is_symlink() else usage_of(folder),
                unfinished=sum(usage_of(path).own for path in leftovers),
                quarantine=usage_of(home.quarantine_of(spec.id)).own,
                managed=spec.base is None and not folder.is_symlink() and (folder / MANIFEST_FILE).is_file(),
                last_used=last_used.get(spec.id),
                arrived=_moment(folder / MANIFEST_FILE),
            )
        )
    return StorageReport(tuple(found), shutil.disk_usage(home.root).free)


def suggest(
    report: StorageReport,
    *,
    now: datetime,
    keep_days: int,
    target_free: int | None = None,
    needed: Collection[str] = (),
) -> list[Suggestion]:
    """Suggest what to delete, least valuable first: leftovers, then models that made no video for `keep_days` days.

    `needed` are the ids of models that a task or a download waits for, or a worker holds. With `target_free`, only as
    much is suggested as brings the free space to that many bytes.
    """
    found: list[Suggestion] = []
    for one in report.models:
        if one.presence in _BUSY:
            continue
        if one.unfinished and one.spec.id not in needed:
            reason = "what is left of a download that was not finished"
            found.append(Suggestion(one.spec, Leaving.UNFINISHED, one.unfinished, reason))
        if one.quarantine:
            reason = "files with wrong content; intact copies replaced them or can be downloaded"
            found.append(Suggestion(one.spec, Leaving.QUARANTINE, one.quarantine, reason))
    unused = [one for one in report.models if _unused(one, now, keep_days) and one.spec.id not in needed]
    for one in sorted(unused, key=_last_need):
        words = "it was never used" if one.last_used is None else f"its last video is from {one.last_used:%Y-%m-%d}"
        found.append(Suggestion(one.spec, Leaving.MODEL, one.usage.own, words))
    if target_free is None:
        return found
    enough: list[Suggestion] = []
    for one_suggestion in found:
        if report.free_bytes + sum(chosen.frees for chosen in enough) >= target_free:
            break
        enough.append(one_suggestion)
    return enough


def clear(home: Home, suggestion: Suggestion) -> int:
    """Carry out a suggestion and return the bytes that it freed; does nothing while another process uses the folder.

    Raises:
        ModelUnavailable: the model is gone, or another process is changing its folder.
    """
    spec = suggestion.spec
    if suggestion.what is Leaving.MODEL:
        remove_model(home, spec)
        return suggestion.frees
    freed = 0
    with suppress(Timeout), FileLock(home.model_lock_of(spec.id), timeout=0, thread_local=False):
        if suggestion.what is Leaving.QUARANTINE:
            folders = [home.quarantine_of(spec.id)]
        else:
            folders = [home.partial_model_of(spec.id), *_remains(home, spec)]
        for folder in folders:
            if folder.is_dir() and not folder.is_symlink():
                freed += usage_of(folder).own
                shutil.rmtree(folder)
    return freed


def _remains(home: Home, spec: ModelSpec) -> list[Path]:
    """Return what killed processes may leave of a folder that was being assembled or deleted."""
    model = home.models / spec.id
    quarantine = home.quarantine_of(spec.id)
    return [model.with_name(f"{spec.id}.assembling")] + [
        path.with_name(f"{path.name}.removed") for path in (model, home.partial_model_of(spec.id), quarantine)
    ]


def _unused(one: ModelStorage, now: datetime, keep_days: int) -> bool:
    if one.presence in _BUSY or not one.managed:
        return False
    if one.usage.own <= one.usage.shared + one.usage.elsewhere:  # adopted: its files belong to other programs too
        return False
    return _last_need(one) <= now - timedelta(days=keep_days)


def _last_need(one: ModelStorage) -> datetime:
    moments = [moment for moment in (one.last_used, one.arrived) if moment is not None]
    return max(moments, default=datetime.min.replace(tzinfo=UTC))


def _moment(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def remove_model(home: Home, spec: ModelSpec) -> int:
    """Delete a model's files, unfinished and quarantined ones included, and return the bytes that this frees.

    Adopted files stay where they came from, under the names that they have there.

    Raises:
        ModelUnavailable: the model ships with the package, is in a folder of the user's, is not installed, or is
            being downloaded.
    """
    if spec.embedded:
        raise ModelUnavailable(f"{spec.id} ships with wan22 and is not removed", suggestions=("Nothing to do.",))
    if spec.folder is not None:
        raise ModelUnavailable(
            f"The files of {spec.id} are the user's own and are not removed",
            suggestions=(f"`wan22 models remove {spec.id}` takes it out of the table.",),
        )
    home.models.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home.model_lock_of(spec.id), timeout=0, thread_local=False):
            folders = [home.model_of(spec.id), home.partial_model_of(spec.id), home.quarantine_of(spec.id)]
            if not any(folder.exists() or folder.is_symlink() for folder in folders):
                raise ModelUnavailable(
                    f"{spec.id} is not installed", suggestions=("`wan22 models list` shows what is installed.",)
                )
            return _delete(folders)
    except Timeout:
        raise ModelUnavailable(
            f"{spec.id} is being downloaded by another process", suggestions=("Stop that download first.",)
        ) from None


def discard_unfinished(home: Home, spec: ModelSpec) -> None:
    """Delete the unfinished files of a model whose download is given up; does nothing while a download uses them."""
    with suppress(Timeout), FileLock(home.model_lock_of(spec.id), timeout=0, thread_local=False):
        _delete([home.partial_model_of(spec.id)])


def _delete(folders: list[Path]) -> int:
    """Delete the folders that exist and return how many bytes they had."""
    freed = 0
    for folder in folders:
        if not (folder.exists() or folder.is_symlink()):
            continue
        if folder.is_symlink():
            folder.unlink()  # the files behind a link are not ours
            continue
        freed += usage_of(folder).own
        # Renamed first: a model is never half deleted under its own name.
        going = folder.with_name(f"{folder.name}.removed")
        if going.exists():
            shutil.rmtree(going)
        folder.rename(going)
        shutil.rmtree(going)
    return freed
