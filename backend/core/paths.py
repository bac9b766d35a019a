"""The home folder and the paths inside it. Clients never send paths: they send ids, which this file maps."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from backend.core.errors.lookups import NotFound
from backend.core.errors.surroundings import BadSettings, HomeInUse
from backend.core.files import read_json, storage_errors

_SAFE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a server said that it listens."""

    url: str
    pid: int
    instance: str  #: what its `/live` answers, so that another program on the same port is recognised


@dataclass(frozen=True, slots=True)
class Home:
    """`WAN22_HOME`: everything the product keeps on disk."""

    root: Path

    @property
    def mark(self) -> str:
        """A text that no two homes share, on whichever machines they are."""
        return hashlib.sha256(f"{socket.gethostname()}:{self.root}".encode()).hexdigest()[:32]

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
        """The files of an unfinished download."""
        return self.models / f"{model_id}.partial"

    def model_lock_of(self, model_id: str) -> Path:
        """Held while a model's folder is changed."""
        return self.models / f"{model_id}.lock"

    def removal_lock_of(self, model_id: str) -> Path:
        """Held briefly while a task for a model is queued, or while the model is removed."""
        return self.models / f".{model_id}.need.lock"

    def quarantine_of(self, model_id: str) -> Path:
        """Files of a model whose content failed verification."""
        return self.models / "quarantine" / model_id

    @property
    def outputs(self) -> Path:
        """Finished videos and their thumbnails. Files in it are always complete."""
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
        """Files of unfinished tasks: preview, job state. Without them a task restarts from its first step."""
        return self.root / "work"

    @property
    def logs(self) -> Path:
        """The servers' log files."""
        return self.root / "logs"

    @property
    def backups(self) -> Path:
        """Copies of the database, and the note of the last restoration."""
        return self.root / "backups"

    @property
    def restoration_file(self) -> Path:
        """What the last restoration of the database did (JSON)."""
        return self.backups / "restoration.json"

    @property
    def server_file(self) -> Path:
        """Where the running server publishes its address (JSON)."""
        return self.root / "server.json"

    @property
    def server_lock(self) -> Path:
        """The lock that prevents a second server."""
        return self.root / "server.lock"

    @property
    def secret_file(self) -> Path:
        """What sessions and links are derived from; readable by its owner alone."""
        return self.root / "secret"

    @property
    def config_file(self) -> Path:
        """The configuration of the user and of programs, one section per subject (JSON)."""
        return self.root / "config.json"

    @property
    def webhook_secret_file(self) -> Path:
        """The secret that signs messages to webhooks, where no setting has one."""
        return self.root / "webhook.secret"

    @property
    def hardware_file(self) -> Path:
        """The hardware as detected at the last start."""
        return self.root / "hardware.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that belongs in the home."""
        return self.models, self.loras, self.inputs, self.outputs, self.work, self.logs

    @property
    def abilities_file(self) -> Path:
        """What the worker's device was found to support."""
        return self.root / "abilities.json"

    def create(self) -> Home:
        """Create the missing folders and return self.

        A subfolder that cannot be created is reported by `faults` and by the code that needs it, so that a broken
        folder of LoRAs does not prevent anyone from making a video.

        Raises:
            BadSettings: the home itself cannot be created.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = ("Set WAN22_HOME to a folder that can be created or written to.",)
            raise BadSettings(f"The home folder {self.root} cannot be created: {reason}", suggestions=advice) from None
        for folder in self.folders:
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
        return self

    def faults(self) -> list[str]:
        """Return a sentence about each folder that is missing or not writable, by its name inside the home."""
        if not _usable(self.root):
            return ["The home folder is not a writable folder"]
        broken = [folder.name for folder in self.folders if not _usable(folder)]
        return [f"`{name}` in the home folder is not a writable folder" for name in broken]

    def announced_server(self) -> Announcement | None:
        """Return what this home's server announced, which may have ended since; None without an announcement."""
        try:
            value = read_json(self.server_file)
            return Announcement(str(value["url"]), int(value["pid"]), str(value["instance"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the home's lock, as the one server or the one command that replaces the database.

        The operating system releases it however this process ends.

        Raises:
            HomeInUse: another process holds it.
            StorageFull, BadSettings: the home cannot be written.
        """
        lock = FileLock(self.server_lock)
        try:
            with storage_errors(f"The disk of the home folder {self.root} is full"):
                lock.acquire(timeout=0)
        except Timeout:
            owner = self.announced_server()
            whom = f" (process {owner.pid}, {owner.url})" if owner else ""
            raise HomeInUse(f"Another server{whom} uses {self.root}") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = ("Make its disk and folder writable, or set WAN22_HOME to another folder.",)
            raise BadSettings(f"The home folder {self.root} cannot be written: {reason}", suggestions=advice) from error
        try:
            yield
        finally:
            lock.release()

    def work_of(self, task_id: str) -> Path:
        """The working folder of one unfinished task."""
        return resolve_under(self.work, task_id)

    def preview_of(self, task_id: str) -> Path:
        """The newest preview picture of a running task."""
        return self.work_of(task_id) / "preview.jpg"

    def state_of(self, task_id: str) -> Path:
        """The folder for what an unfinished task needs to resume where it stopped."""
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

    def mock_of(self, task_id: str) -> Path:
        """The clip of a task that no model made."""
        return resolve_under(self.outputs, f"{task_id}-MOCK.mp4")

    def thumbnail_of(self, task_id: str) -> Path:
        """The still picture of a finished video."""
        return resolve_under(self.outputs, f"{task_id}_thumb.jpg")

    def spritesheet_of(self, task_id: str) -> Path:
        """The frames of a finished video in one picture, once somebody asked for it."""
        return resolve_under(self.outputs, f"{task_id}_sheet.jpg")


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)


def resolve_under(root: Path, name: str) -> Path:
    """Join a plain file name to a folder.

    Raises:
        NotFound: the name is not plain, or a link leads out of the folder.
    """
    if not _SAFE_NAME.fullmatch(name) or name.endswith("."):
        raise NotFound
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise NotFound
    return path
