"""Takes files of users: says what settings are in them, and puts clips into the gallery.

A clip is written under a new name, read by a confined process, recorded, and only then renamed into its place. What a
killed import leaves is either completed, when the clip was recorded, or removed. Decodes nothing itself.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import structlog

from backend.core.catalogue.spec import AUTO
from backend.core.catalogue.table import find_model
from backend.core.domain import Output, new_task_id
from backend.core.errors.lookups import InputMissing
from backend.core.errors.requests import BodyTooLarge, UnknownModel
from backend.core.faults import fault_point
from backend.core.files import PART_SUFFIX, storage_errors, sync_folder
from backend.core.paths import Home
from backend.core.record import RunRecord
from backend.models.lora.library import LoraLibrary
from backend.services.foreign.inspection import ClipInspector, Inspected
from backend.services.foreign.settings import FoundSettings, Origin, read_settings
from backend.services.media.images import InputStore
from backend.store.gallery.outputs import OutputStore
from backend.store.upkeep.adoption import VideoRegister

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CLIP_BYTES: Final = 500 * 2**20
_CHUNK_BYTES: Final = 2**20
#: Of the files of an import that is under way, or was killed.
_SUFFIX: Final = f".import{PART_SUFFIX}"
_ID_LENGTH: Final = 36
#: The column of the gallery has so many characters.
_MODEL_CHARS: Final = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that the settings need and this server does not have."""

    field: str
    id: str
    message: str


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What a file holds."""

    about: Inspected
    found: FoundSettings
    missing: tuple[Missing, ...]
    video_id: str | None  #: of the video of the caller that has the same content


class ClipImport:
    """Reads and imports files for the current caller."""

    def __init__(
        self,
        home: Home,
        register: VideoRegister,
        outputs: OutputStore,
        inputs: InputStore,
        loras: LoraLibrary,
        inspector: ClipInspector | None = None,
    ) -> None:
        self._home = home
        self._register = register
        self._outputs = outputs
        self._inputs = inputs
        self._loras = loras
        self._inspector = inspector or ClipInspector()

    def read(self, stream: IO[bytes]) -> ReadFile:
        """Say what settings a clip or picture carries; nothing is kept.

        Raises:
            ClipRefused: it is neither, or is damaged.
            BodyTooLarge: it is too large.
            RateLimited: too many others are being read.
            StorageFull: the disk is full.
        """
        part = self._home.work / f"{secrets.token_hex(8)}{_SUFFIX}"
        with _written(stream, part) as (sha256, _):
            return self._read(self._inspector.texts(part), sha256)

    def add(self, stream: IO[bytes]) -> tuple[str, ReadFile]:
        """Put a clip into the gallery; return its id, and what it holds. One that is there already stays as it is.

        Raises like `read`.
        """
        task_id = new_task_id()
        video, still = self._home.video_of(task_id), self._home.thumbnail_of(task_id)
        part, still_part = _part_of(video), _part_of(still)
        with _written(stream, part) as (sha256, size):
            known = self._outputs.with_content(sha256)
            if known is not None:
                return known.task_id, self._read(self._inspector.texts(part), sha256)
            about, pixels = self._inspector.clip(part)
            held = self._read(about, sha256)
            try:
                output = self._output(task_id, held, sha256, size, _draw(about, pixels, still_part))
                fault_point("import.before_commit")
                self._register.add_imported(output, prompt=held.found.prompt)
                fault_point("import.after_commit")
                self._put_in_place(task_id)
            finally:
                still_part.unlink(missing_ok=True)
        log.info("clip.imported", task_id=task_id, origin=held.found.origin, bytes=size)
        return task_id, held

    def tidy(self, older_than: float = 0.0) -> int:
        """Complete or remove what killed imports left; return the number of files. For a server that imports nothing.

        Args:
            older_than: seconds; younger files belong to imports that are under way.
        """
        count = 0
        for path in sorted(self._home.outputs.glob(f"*{_SUFFIX}")):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime < older_than:
                    continue
                count += 1
                if self._register.is_imported(path.name[:_ID_LENGTH]):
                    path.replace(path.with_name(path.name.removesuffix(_SUFFIX)))
                else:
                    path.unlink()
        return count

    def _read(self, about: Inspected, sha256: str) -> ReadFile:
        found = read_settings(about.texts)
        found.notes += about.notes
        if about.manifest:
            found.notes.append("the file has a C2PA manifest of its origin; nobody verified it here")
        known = self._outputs.with_content(sha256)
        return ReadFile(about, found, tuple(self._missing(found.body or {})), None if known is None else known.task_id)

    def _missing(self, body: Mapping[str, Any]) -> Iterator[Missing]:
        """Yield what the settings need and the caller cannot use here."""
        model = str(body.get("model_type", AUTO))
        if model != AUTO:
            try:
                find_model(model)
            except UnknownModel:
                yield Missing("model_type", model[:_MODEL_CHARS], "There is no model of this name here")
        for name in ("image_id", "end_image_id"):
            if (image := body.get(name)) is not None:
                try:
                    self._inputs.find(str(image))
                except InputMissing:
                    yield Missing(name, str(image)[:_MODEL_CHARS], "The picture is not in the file, and not here")
        for lora in body.get("loras", ()):
            if self._loras.find(str(lora["id"])) is None:
                yield Missing("loras", str(lora["id"])[:200], "There is no LoRA of this name here")

    def _output(self, task_id: str, held: ReadFile, sha256: str, size: int, placeholder: bytes | None) -> Output:
        about, found = held.about, held.found
        record = None if found.record is None else RunRecord.from_json(found.record)
        result = None if record is None else record.result
        body = found.body or {}
        model = body.get("model_type") if body.get("model_type") != AUTO else None
        return Output(
            task_id=task_id,
            filename=self._home.video_of(task_id).name,
            size_bytes=size,
            sha256=sha256,
            width=about.width,
            height=about.height,
            num_frames=about.frames,
            fps=about.fps,
            generation_seconds=sum((result.seconds or {}).values()) if result is not None else 0.0,
            warnings=result.warnings if result is not None else (),
            metadata=_metadata(found, record),
            model=None if model is None else str(model)[:_MODEL_CHARS],
            mock=result.mock if result is not None else None,
            imported=True,
            placeholder=placeholder,
        )

    def _put_in_place(self, task_id: str) -> None:
        """Rename the files to their final names.

        Raises:
            OSError: that failed, and the clip is no longer recorded.
        """
        try:
            for target in (self._home.thumbnail_of(task_id), self._home.video_of(task_id)):
                _part_of(target).replace(target)
                fault_point("import.renamed")
            sync_folder(self._home.outputs)
        except OSError:
            self._register.forget_imported(task_id)
            self._home.thumbnail_of(task_id).unlink(missing_ok=True)
            raise


def _metadata(found: FoundSettings, record: RunRecord | None) -> dict[str, Any]:
    """Return what the row keeps: our own record as far as it can be read, or what was found of others."""
    note = {"imported": {"origin": found.origin.value, "notes": found.notes}}
    body = found.body or {}
    if found.origin is Origin.WAN22 and record is not None:
        request = record.requested
        return record.to_json() | {"request": {"prompt": found.prompt} if request is None else request.to_json()} | note
    model = {} if body.get("model_type", AUTO) == AUTO else {"model": body["model_type"]}
    values = {name: value for name, value in body.items() if name not in ("model_type", "loras")}
    return {"request": values | model} | note


def _draw(about: Inspected, pixels: bytes, path: Path) -> bytes | None:
    """Write the still picture of the pixels that the process sent; return its placeholder."""
    import numpy as np  # with Pillow, loaded with the first picture

    from backend.services.media.placeholder import placeholder_of
    from backend.services.media.poster import thumbnail

    width, height = about.picture or (1, 1)
    picture = thumbnail(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
    path.write_bytes(picture)
    return placeholder_of(picture)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_SUFFIX}")


@contextmanager
def _written(stream: IO[bytes], part: Path) -> Iterator[tuple[str, int]]:
    """Write an upload to a file, and yield its SHA-256 and size; the file is gone afterwards, if it is still there.

    Raises:
        BodyTooLarge: it is too large.
        StorageFull: the disk is full.
    """
    digest, total = hashlib.sha256(), 0
    with storage_errors():
        try:
            with part.open("xb") as file:
                while chunk := stream.read(_CHUNK_BYTES):
                    total += len(chunk)
                    if total > MAX_CLIP_BYTES:
                        raise BodyTooLarge(f"A clip may have at most {MAX_CLIP_BYTES // 2**20} MiB")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            yield digest.hexdigest(), total
        finally:
            part.unlink(missing_ok=True)
