"""The LoRAs on this machine: lists, finds, adds, links and deletes them, and plans their use on a model.

Clients name ids, never paths; `catalogue` groups files into LoRAs. Decides on headers alone, so a wrong base model is
rejected before anything is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import unicodedata
from pathlib import Path
from typing import IO, Any

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.lookups import LoraExists, StateConflict
from backend.core.errors.requests import InvalidRequest, LoraIncompatible, LoraNotFound
from backend.core.paths import Home
from backend.core.plain_words import nearest
from backend.core.requests.forms import LoraFileRef, LoraUse, OnLoraFailure
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.catalogue import Lora, catalogue
from backend.models.lora.files import DigestCache, LoraFile, LoraFileReader, ModelShapes
from backend.models.lora.links import LoraLinks
from backend.models.lora.routing import check_fit, route
from backend.models.lora.upload import SUFFIX, Received, check_content, place_of, receive, target_name
from backend.store.access.ownership import OwnedFiles

EMBEDDED_LORAS = EMBEDDED_MODELS / "loras"
#: Beyond this a LoRA produces noise; negative strengths invert it.
MAX_STRENGTH = 4.0


class LoraLibrary:
    """The LoRAs of one home folder and those that ship with the package."""

    def __init__(
        self,
        home: Home,
        *,
        embedded: Path = EMBEDDED_LORAS,
        models: Path = EMBEDDED_MODELS,
        owned: OwnedFiles | None = None,
    ) -> None:
        """`owned` knows which files belong to some keys alone; without it all belong to everybody."""
        self._folder = home.loras
        self._embedded = embedded
        self._shapes = ModelShapes(models)
        self._reader = LoraFileReader(self._shapes)
        self._links = LoraLinks(home)
        self._owned = owned
        self._digests = DigestCache(home.loras / ".digests.json")

    def all(self) -> list[Lora]:
        """Return every LoRA by id; files that cannot be used are listed with their problem."""
        return sorted(catalogue(self._files())[0], key=lambda lora: lora.id.lower())

    def find(self, lora_id: str) -> Lora | None:
        """Return a LoRA, or one half of a pair, by its id or its title; None if there is none."""
        name = unicodedata.normalize("NFC", lora_id).removesuffix(SUFFIX)
        by_id = catalogue(self._files())[1]
        return by_id.get(name) or next((lora for lora in by_id.values() if lora.title == name), None)

    def get(self, lora_id: str) -> Lora:
        """Return a LoRA.

        Raises:
            LoraNotFound: there is none with this id.
        """
        lora = self.find(lora_id)
        if lora is None:
            close = nearest(lora_id, [one.id for one in self.all()])
            steps = (f"Did you mean {close}?",) if close else None
            details = {"field": "loras"} | ({"nearest": close} if close else {})
            raise LoraNotFound("There is no LoRA with this name", suggestions=steps, details=details)
        return lora

    def preset(self, lora_id: str) -> dict[str, Any] | None:
        """Return the settings that a LoRA needs, by request field; None if it has none."""
        lora = self.find(lora_id)
        return None if lora is None or lora.preset is None else lora.preset.values()

    def add(self, stream: IO[bytes], filename: str, name: str | None = None) -> Lora:
        """Add a file and return the LoRA that it is or completes. Adding the same file twice is not an error.

        Raises:
            LoraInvalid: it is not a usable LoRA; nothing was stored.
            LoraExists: another LoRA has this name.
            BodyTooLarge: it is larger than 500 MiB.
            StorageFull: the disk is full.
            InvalidRequest: the requested name is invalid.
        """
        kept_as = target_name(filename, name)
        if (self._embedded / kept_as).exists():
            raise LoraExists(f"A LoRA file {kept_as} ships with the package; choose another name")
        if self._owned is None:
            return self._taken_in(receive(stream, self._folder, kept_as, self._reader))
        new = not place_of(self._folder, kept_as).exists()
        if new:  # before anybody can see it
            self._owned.forget({kept_as})
            self._owned.take(kept_as)
        try:
            received = receive(stream, self._folder, kept_as, self._reader)
        except Exception:
            if new:
                self._owned.release(kept_as)
            raise
        self._owned.take(kept_as, new=new)  # whoever has the same file may use it
        return self._taken_in(received)

    def inspect(self, path: Path) -> LoraFile | None:
        """Describe any file on this machine by its header; None if it no longer exists."""
        file = self._reader.read(path)
        self._reader.forget(path)
        return file

    def has(self, path: Path) -> bool:
        """Whether a file is installed, under any name."""
        try:
            return any(file.path.samefile(path) for _, file in self._files())
        except OSError:  # one of the two was just deleted
            return False

    def adopt(self, path: Path, name: str | None = None) -> Lora:
        """Link a file that another program keeps: it is neither copied nor moved nor changed.

        It is checked like an added file. Without `name` it keeps its own name, prefixed with that of its folder if the
        name is taken. Adopting the same file twice is not an error.

        Raises:
            LoraInvalid: it is not a usable LoRA.
            LoraExists: other LoRAs have these names.
            LoraNotFound: it cannot be read.
            StorageFull: the disk is full.
            BadSettings: config.json cannot be written.
            InvalidRequest: the requested name is invalid.
        """
        names = [target_name(path.name, name)]
        if name is None:
            names.append(target_name(f"{path.parent.name}-{path.name}", None))
        try:
            check_content(path, self._reader)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LoraNotFound(f"The file {path.name} cannot be read") from error
        finally:
            self._reader.forget(path)
        free = [name for name in names if not (self._embedded / name).exists()]
        for name in free[:-1]:
            with contextlib.suppress(LoraExists):
                return self._taken_in(self._links.take(path, name, sha256))
        if not free:
            raise LoraExists(f"LoRA files {' and '.join(names)} ship with the package")
        return self._taken_in(self._links.take(path, free[-1], sha256))

    def _taken_in(self, received: Received) -> Lora:
        stat = received.path.stat()
        self._digests.remember(received.path, (stat.st_size, stat.st_mtime_ns), received.sha256)
        for lora in catalogue(self._files())[0]:
            if any(file.path == received.path for file in lora.files):
                return lora
        raise LoraNotFound(f"The file {received.path.name} was deleted while it was being added")

    def delete(self, lora_id: str) -> None:
        """Delete a LoRA's files; of an adopted one only the link is removed, the other program's file stays.

        A running task keeps what it has read; a waiting one continues without the LoRA or fails.

        Raises:
            LoraNotFound: there is none with this id.
            StateConflict: it ships with the package.
        """
        lora = self.get(lora_id)
        if lora.embedded:
            raise StateConflict(
                "This LoRA ships with the package and cannot be deleted", suggestions=("Leave it unused.",)
            )
        for file in lora.files:
            if self._owned is None or self._owned.release(_recorded(file.path)):
                self._links.remove(file.path)

    def open_file(self, ref: LoraFileRef) -> Path:
        """Return the file that a request pinned by its digest, whatever its current name.

        Raises:
            LoraNotFound: no installed file has this content any more.
        """
        files = [file for _, file in self._files()]
        for file in sorted(files, key=lambda one: one.name != ref.name):
            if self._digests.of(file.path) == ref.sha256:
                return file.path
        raise LoraNotFound(f"The file {ref.name} is no longer there, or was changed after the request was made")

    def plan_use(
        self,
        spec: ModelSpec,
        lora_id: str,
        *,
        strength: float = 1.0,
        strength_2: float | None = None,
        expert: str | None = None,
        on_failure: OnLoraFailure = OnLoraFailure.SKIP,
    ) -> tuple[LoraUse, tuple[str, ...]]:
        """Assign a LoRA's files to the experts of a model, with a sentence for each decision.

        Args:
            spec: the model.
            lora_id: the LoRA, or one half of a pair.
            strength: on the high-noise expert, or the only one.
            strength_2: on the low-noise expert; None = the same.
            expert: "high", "low" or "both" to set it by hand; None = as the files say.
            on_failure: with FAIL, a LoRA that fits only in part is rejected.

        Raises:
            LoraNotFound: there is none with this id.
            LoraInvalid: its file cannot be used.
            LoraIncompatible: it was made for another model, or (with FAIL) fits only in part.
            InvalidRequest: a strength is out of range, or the model has no such expert.
        """
        lora = self.get(lora_id)
        for unusable in lora.files:
            if unusable.problem is not None:
                raise unusable.error(f"The LoRA {lora.id} cannot be used. {unusable.problem}")
        second = strength if strength_2 is None else strength_2
        for field, value in (("strength", strength), ("strength_2", second)):
            if not math.isfinite(value) or abs(value) > MAX_STRENGTH:
                raise InvalidRequest(
                    f"{field} of a LoRA must be between {-MAX_STRENGTH} and {MAX_STRENGTH}", details={"field": field}
                )
        shape = self._shapes.of(spec)
        if shape is None:
            raise LoraIncompatible(f"The structure of {spec.id} is not known, because the model is not installed")
        routed, notes = route(lora, spec, expert)
        for file, place in routed:
            notes += check_fit(lora.id, file, place, spec, shape, on_failure)
        refs = tuple(LoraFileRef(self._digests.of(file.path), file.name, place) for file, place in routed)
        return LoraUse(lora.id, strength, second, refs), tuple(notes)

    def _files(self) -> list[tuple[bool, LoraFile]]:
        """Return (ships with the package, file) for every file; links out of the folder are skipped unless ours."""
        found: list[tuple[bool, LoraFile]] = []
        hidden = set() if self._owned is None else self._owned.of_others()
        for folder, embedded in ((self._embedded, True), (self._folder, False)):
            inside = folder.resolve()
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                if path.name.startswith(".") or not path.is_file():
                    continue
                if not embedded and _recorded(path) in hidden:
                    continue
                if path.resolve().parent != inside and (embedded or not self._links.followed(path)):
                    continue
                file = self._reader.read(path)
                if file is not None:
                    found.append((embedded, file))
        return found


def _recorded(path: Path) -> str:
    """Return the name under which the owner of a file is recorded."""
    return unicodedata.normalize("NFC", path.name)
