"""A table of popular LoRAs on the hub, and their download.

The table names files, never whole repositories. Downloads are verified against the hub's digest and are ordinary LoRAs
afterwards.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.config.download_limit import bandwidth_limit
from backend.core.config.file import ConfigFile
from backend.core.errors.actions import free_disk
from backend.core.errors.lookups import StateConflict
from backend.core.errors.models import RepositoryNotFound
from backend.core.errors.requests import LoraInvalid, LoraNotFound
from backend.core.errors.surroundings import StorageFull
from backend.core.paths import Home
from backend.models.download.hub import Hub, Listing, RemoteFile
from backend.models.download.retries import Retries, RetryPolicy, Transient
from backend.models.download.transfer import FileTransfer, WrongContent, discard_part
from backend.models.folder.integrity import digest_of
from backend.models.folder.progress import RateLimiter

#: Disk space left free by a download.
RESERVE_BYTES: Final = 512 * 2**20


@dataclass(frozen=True, slots=True)
class PublishedLora:
    """One LoRA for both experts of a model."""

    id: str  #: the name under which it is stored; `core.lora.presets.known_preset` recognises it by this
    title: str
    model: str  #: id of the model that it was made for
    repository: str
    files: Mapping[str, str]  #: expert -> name in the repository
    licence: str = "Apache-2.0"
    revision: str = "main"

    def kept_as(self, home: Home, expert: str) -> Path:
        """Return the path of one of its files in the home folder."""
        return home.loras / f"{self.id}_{expert}_noise.safetensors"


def _lightning(lora_id: str, model: str, folder: str) -> PublishedLora:
    files = {expert: f"{folder}/{expert}_noise_model.safetensors" for expert in (HIGH, LOW)}
    return PublishedLora(lora_id, f"Four steps for {model}", model, "lightx2v/Wan2.2-Lightning", files)


#: From ModelTC's LightX2V; the steps, guidance and shift they need are in `catalogue`.
PUBLISHED_LORAS: Final[Mapping[str, PublishedLora]] = {
    one.id: one
    for one in (
        _lightning("wan2.2-t2v-lightning-4steps", "T2V-A14B", "Wan2.2-T2V-A14B-4steps-lora-250928"),
        _lightning("wan2.2-i2v-lightning-4steps", "I2V-A14B", "Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1"),
    )
}

#: Called with the file name, the bytes present of all files, and their total; may raise to stop.
OnBytes = Callable[[str, int, int], None]


def published_lora(lora_id: str) -> PublishedLora:
    """Return an entry of the table.

    Raises:
        LoraNotFound: there is none with this id.
    """
    lora = PUBLISHED_LORAS.get(lora_id)
    if lora is None:
        raise LoraNotFound("No published LoRA has this name", suggestions=(f"Known are {', '.join(PUBLISHED_LORAS)}.",))
    return lora


class LoraFetcher:
    """Downloads published LoRAs into one home folder; partial downloads are kept and resumed."""

    def __init__(
        self,
        home: Home,
        hub: Hub,
        *,
        policy: RetryPolicy | None = None,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._home = home
        self._hub = hub
        self._policy = policy or RetryPolicy()
        self._free_bytes = free_bytes

    def fetch(self, lora: PublishedLora, on_bytes: OnBytes = lambda _name, _done, _total: None) -> list[Path]:
        """Download all files of a LoRA and return their paths; files already present and intact are kept.

        Raises:
            HubUnreachable, HubRateLimited, ModelGated, RepositoryNotFound, UnsafeRepository: the hub refused.
            StorageFull: there is not enough room.
            LoraInvalid: the hub delivered other bytes than it announced.
            StateConflict: another process is downloading LoRAs.
        """
        self._home.loras.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._home.loras / ".fetching.lock", timeout=0, thread_local=False):
                return self._fetch(lora, on_bytes)
        except Timeout:
            raise StateConflict(
                "Another process is downloading LoRAs", suggestions=("Wait until it ends, or stop it first.",)
            ) from None

    def _fetch(self, lora: PublishedLora, on_bytes: OnBytes) -> list[Path]:
        retries = Retries(self._policy, lambda: None)
        listing = self._listing(lora, retries)
        remote = {file.name: file for file in listing.files}
        wanted = {lora.kept_as(self._home, expert): remote[name] for expert, name in lora.files.items()}
        missing = {path: file for path, file in wanted.items() if not _is_here(path, file)}
        room = self._free_bytes(self._home.loras) - RESERVE_BYTES
        lacking = sum(file.size for file in missing.values()) - room
        if lacking > 0:
            raise StorageFull(f"There is not enough room for {lora.id}", actions=(free_disk(lacking),))
        done = listing.size_bytes - sum(file.size for file in missing.values())
        pace = RateLimiter(bandwidth_limit(ConfigFile(self._home.config_file)), time.sleep)
        transfer = FileTransfer(self._hub, retries, lambda: None, pace)
        try:
            for path, file in missing.items():

                def arrived(count: int, _network: bool, name: str = path.name) -> None:
                    nonlocal done
                    done += count
                    on_bytes(name, done, listing.size_bytes)

                try:
                    transfer.fetch(file, self._hub.address(listing, file), path, arrived)
                except WrongContent:
                    discard_part(path)
                    raise LoraInvalid(
                        f"{path.name} is not the file that the hub announced; download it again"
                    ) from None
        finally:
            transfer.close()
        return list(wanted)

    def _listing(self, lora: PublishedLora, retries: Retries) -> Listing:
        names = set(lora.files.values())
        while True:
            try:
                listing = self._hub.listing(lora.repository, lora.revision, wanted=names.__contains__)
            except Transient as error:
                retries.failed(error)
            else:
                break
        if {file.name for file in listing.files} != names:
            raise RepositoryNotFound(f"{lora.repository} does not have the files of {lora.id} any more")
        return listing


def _is_here(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and digest_of(path) == file.sha256
