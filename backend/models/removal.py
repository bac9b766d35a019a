"""Deletes a model's files: finished, unfinished and quarantined ones; never those of the package or behind a link."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.errors import ModelUnavailable
from backend.core.paths import Home
from backend.models.disk_usage import usage_of


def remove_model(home: Home, spec: ModelSpec) -> int:
    """Delete a model's files, also unfinished and quarantined ones, and return how many bytes that frees.

    Files that were adopted stay where they came from, under the names that they have there.

    Raises:
        ModelUnavailable: the model ships with the package, lies in a folder of the user's, is not here, or is being
            downloaded just now.
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
                    f"{spec.id} is not here", suggestions=("`wan22 models list` shows what is here.",)
                )
            return _delete(folders)
    except Timeout:
        raise ModelUnavailable(
            f"{spec.id} is being downloaded by another process", suggestions=("Stop that download first.",)
        ) from None


def discard_unfinished(home: Home, spec: ModelSpec) -> None:
    """Throw away what has arrived of a model whose download is given up; does nothing while another one runs."""
    with suppress(Timeout), FileLock(home.model_lock_of(spec.id), timeout=0, thread_local=False):
        _delete([home.partial_model_of(spec.id)])


def _delete(folders: list[Path]) -> int:
    """Delete the folders that are there and return how many bytes that were."""
    freed = 0
    for folder in folders:
        if not (folder.exists() or folder.is_symlink()):
            continue
        if folder.is_symlink():
            folder.unlink()  # the files behind a link are not ours
            continue
        freed += usage_of(folder).own
        # Out of sight first: a model is never half there.
        going = folder.with_name(f"{folder.name}.removed")
        if going.exists():
            shutil.rmtree(going)
        folder.rename(going)
        shutil.rmtree(going)
    return freed
