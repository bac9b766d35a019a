"""The home folder and the names inside it. Clients never name paths: they name ids, and this file maps them."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backend.core.errors import BadSettings, NotFound

_SAFE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")


@dataclass(frozen=True, slots=True)
class Home:
    """`WAN22_HOME`: everything the product keeps on disk."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file that is used when no other database is configured."""
        return self.root / "wan22.db"

    @property
    def models(self) -> Path:
        """Model folders, one for each model id."""
        return self.root / "models"

    def model_of(self, model_id: str) -> Path:
        """The folder of a model of the table that does not ship with the package; users may put a link there."""
        return self.models / model_id

    def partial_model_of(self, model_id: str) -> Path:
        """What has arrived of a model whose download is not finished."""
        return self.models / f"{model_id}.partial"

    def model_lock_of(self, model_id: str) -> Path:
        """The lock that whoever changes a model's folder holds."""
        return self.models / f"{model_id}.lock"

    def removal_lock_of(self, model_id: str) -> Path:
        """The lock that whoever queues a task for a model, or removes it, holds for a moment."""
        return self.models / f".{model_id}.need.lock"

    def quarantine_of(self, model_id: str) -> Path:
        """Files of a model whose content was wrong."""
        return self.models / "quarantine" / model_id

    @property
    def outputs(self) -> Path:
        """Finished videos and their thumbnails. A file that is here is complete."""
        return self.root / "outputs"

    @property
    def inputs(self) -> Path:
        """Images that requests start from, named by the SHA-256 of their content."""
        return self.root / "inputs"

    @property
    def loras(self) -> Path:
        """LoRA files that the user added."""
        return self.root / "loras"

    @property
    def work(self) -> Path:
        """What an unfinished task keeps: preview, job state. Without it tasks start again from the first step."""
        return self.root / "work"

    @property
    def logs(self) -> Path:
        """The servers' log files."""
        return self.root / "logs"

    @property
    def server_file(self) -> Path:
        """Where the running server says its address (JSON)."""
        return self.root / "server.json"

    @property
    def server_lock(self) -> Path:
        """The lock that keeps a second server out."""
        return self.root / "server.lock"

    @property
    def config_file(self) -> Path:
        """What the user or a program configured, section by section (JSON)."""
        return self.root / "config.json"

    @property
    def hardware_file(self) -> Path:
        """The machine as the last start found it."""
        return self.root / "hardware.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that belongs into the home."""
        return self.models, self.loras, self.inputs, self.outputs, self.work, self.logs

    @property
    def abilities_file(self) -> Path:
        """What the worker's device was found able to do."""
        return self.root / "abilities.json"

    def create(self) -> Home:
        """Make the folders that are missing and return self.

        One inside the home that cannot be made is left to `faults` and to those who need it, so that a broken folder
        of LoRAs keeps nobody from making a video.

        Raises:
            BadSettings: the home itself cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = ("Set WAN22_HOME to a folder that can be made or written.",)
            raise BadSettings(f"The home folder {self.root} cannot be made: {reason}", suggestions=advice) from None
        for folder in self.folders:
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
        return self

    def faults(self) -> list[str]:
        """Say which folders are not there or cannot be written, by their names inside the home."""
        if not _usable(self.root):
            return ["The home folder is no folder that can be written"]
        broken = [folder.name for folder in self.folders if not _usable(folder)]
        return [f"`{name}` in the home folder is no folder that can be written" for name in broken]

    def announced_server(self) -> tuple[str, int] | None:
        """Return the address and process id of this home's server, if one has announced itself."""
        try:
            value = json.loads(self.server_file.read_text())
            return str(value["url"]), int(value["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def work_of(self, task_id: str) -> Path:
        """The folder for what one task keeps while it runs."""
        return resolve_under(self.work, task_id)

    def preview_of(self, task_id: str) -> Path:
        """The newest preview picture of a running task."""
        return self.work_of(task_id) / "preview.jpg"

    def state_of(self, task_id: str) -> Path:
        """The folder for what an unfinished task needs to go on where it stopped."""
        return self.work_of(task_id) / "state"

    def input_of(self, image_id: str) -> Path:
        """A stored image."""
        return resolve_under(self.inputs, f"{image_id}.png")

    def latents_of(self, task_id: str) -> Path:
        """The kept latents of a finished video."""
        return resolve_under(self.outputs, f"{task_id}.latents.safetensors")

    def video_of(self, task_id: str) -> Path:
        """The finished video of a task."""
        return resolve_under(self.outputs, f"{task_id}.mp4")

    def thumbnail_of(self, task_id: str) -> Path:
        """The still picture of a finished video."""
        return resolve_under(self.outputs, f"{task_id}_thumb.jpg")


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def resolve_under(root: Path, name: str) -> Path:
    """Join a plain file name to a folder.

    Raises:
        NotFound: the name is not plain, or it leads out of the folder through a link.
    """
    if not _SAFE_NAME.fullmatch(name) or name.endswith("."):
        raise NotFound
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise NotFound
    return path
