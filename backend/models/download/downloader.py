"""Downloads a model from the hub into the home folder: once for all callers, resumable, visible only when complete.

The files grow in `models/ID.partial`, under a lock; the folder is renamed to `models/ID` when every file is verified.
Transfers no bytes itself (`transfer`) and knows no hub protocol (`hub`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from backend.core.catalogue.table import ModelSpec
from backend.core.config.download_limit import Limit, bandwidth_limit, no_limit
from backend.core.config.file import ConfigFile
from backend.core.domain import DownloadPhase, DownloadProgress, OnProgress
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.files import storage_errors, sync_folder
from backend.core.paths import Home
from backend.models.download.hub import Hub, Listing, RemoteFile
from backend.models.download.linking import link_file
from backend.models.download.local_files import LocalFiles, hugging_face_cache
from backend.models.download.partial_folder import inside, open_partial, tidy, whole_adopted
from backend.models.download.retries import Retries, RetryPolicy, Transient, wait_checking
from backend.models.download.transfer import (
    STALL_SECONDS,
    FileTransfer,
    WrongContent,
    content_of,
    discard_part,
    part_size,
)
from backend.models.folder.disk import require_room
from backend.models.folder.integrity import FileFinding, FileState, check_quick, move_to_quarantine, quick_state
from backend.models.folder.locks import folder_lock
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import FileRecord, Manifest, read_manifest
from backend.models.folder.progress import ProgressMeter, RateLimiter, read_status

#: Number of downloads of one file whose content is wrong, before giving up.
CONTENT_ATTEMPTS = 3

Check = Callable[[], None]


#: Nothing is known of a download before the hub has listed its files.
_UNKNOWN: Final = DownloadProgress(DownloadPhase.DOWNLOADING, None, 0, None, None, None)


def _nothing() -> None:
    pass


class ModelDownloader:
    """Downloads and repairs models; any number of threads and processes may call at once."""

    def __init__(
        self,
        home: Home,
        manager: ModelManager,
        hub: Hub,
        *,
        policy: RetryPolicy | None = None,
        pause: Callable[[float, Check], None] = wait_checking,
        limit: Limit = no_limit,
        stall_seconds: float = STALL_SECONDS,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        local: LocalFiles | None = None,
    ) -> None:
        """Prepare.

        Args:
            home: where the models are.
            manager: judges what is complete.
            hub: where files are downloaded from.
            policy: number and length of the retries.
            pause: waits between retries.
            limit: called during a transfer; returns the allowed bytes per second.
            stall_seconds: a connection without a byte for this long is dropped, and the file resumed.
            free_bytes: free space on the disk of a folder.
            local: files of other programs, linked instead of downloaded where their content is the same.
        """
        self._home = home
        self._manager = manager
        self._hub = hub
        self._policy = policy or RetryPolicy()
        self._pause = pause
        self._limit = limit
        self._stall_seconds = stall_seconds
        self._free_bytes = free_bytes
        self._local = local or LocalFiles()

    def download(
        self,
        spec: ModelSpec,
        *,
        check: Check = _nothing,
        on_progress: OnProgress = lambda _progress: None,
        revision: str | None = None,
    ) -> Path:
        """Make the model available and return its folder; immediately when it is complete already.

        `revision` is a branch, tag or commit of the repository; None = the one in the table.

        `check` is called between chunks and while waiting; it raises to stop, and the bytes are kept. A damaged folder
        is completed: its good files stay, its bad ones go to the quarantine.

        Raises:
            HubUnreachable, HubRateLimited, ModelGated, RepositoryNotFound, UnsafeRepository: the hub does not serve it.
            StorageFull: there is not enough space; raised before the first byte when the sizes show it.
            ModelDamaged: the hub serves other bytes than it announced, or the folder is a link.
            ModelUnsupported: its weights are in a form that is not supported.
            ModelUnavailable: the model ships with the package, or is the user's own without a repository.
        """
        if spec.repo_id is None:
            why, step = (
                ("ships with wan22", "Install it again.") if spec.embedded else ("has no repository", "Add one.")
            )
            raise ModelUnavailable(f"{spec.id} {why} and cannot be downloaded", suggestions=(step,))
        self._home.models.mkdir(parents=True, exist_ok=True)
        with folder_lock(self._home, spec, check, on_progress), storage_errors():
            target = self._home.model_of(spec.id)
            if self._manager.complete(spec):
                return target
            self._refuse_unsupported(spec)
            retries = Retries(self._policy, check, self._pause)
            known = read_status(self._home.partial_model_of(spec.id)) or _UNKNOWN
            retries.on_failure = lambda retry: on_progress(replace(known, phase=DownloadPhase.DOWNLOADING, retry=retry))
            listing = self._listing(spec.repo_id, revision or spec.revision, retries)
            folder = open_partial(self._home, spec)
            meter = ProgressMeter(on_progress, folder, listing.size_bytes)
            retries.on_failure = meter.wait
            try:
                self._fill(spec, folder, listing, meter, check, retries)
            finally:
                meter.close()
            tidy(folder)
            folder.rename(target)
            sync_folder(target.parent)
            self._refuse_unsupported(spec)
            if not self._manager.complete(spec):
                raise ModelDamaged(f"{spec.id} lacks files: {self._manager.state(spec).reason}")
            return target

    def _refuse_unsupported(self, spec: ModelSpec) -> None:
        """Raise ModelUnsupported where another download would bring the same form again."""
        state = self._manager.state(spec)
        if state.presence is Presence.UNSUPPORTED:
            self._manager.folder_of(state)

    def repair(
        self,
        spec: ModelSpec,
        findings: list[FileFinding],
        *,
        check: Check = _nothing,
        on_progress: OnProgress = lambda _progress: None,
    ) -> Path:
        """Move the wrong files into the quarantine and download those files, and no others, again.

        They come from the commit that the folder was downloaded at, not from the newest one.

        Raises:
            WanError: as `download`.
        """
        folder = self._home.model_of(spec.id)
        manifest = read_manifest(folder)
        if manifest is not None:
            _keep_own(spec, manifest, [one.name for one in findings if one.state is not FileState.OK])
        if not folder.is_symlink():
            with folder_lock(self._home, spec, check, on_progress):
                for finding in findings:
                    if finding.state is not FileState.OK and (folder / finding.name).exists():
                        move_to_quarantine(folder, finding.name, self._home.quarantine_of(spec.id))
        return self.fetch(spec, check=check, on_progress=on_progress)

    def fetch(
        self,
        spec: ModelSpec,
        *,
        check: Check = _nothing,
        on_progress: OnProgress = lambda _progress: None,
    ) -> Path:
        """Make the model available whatever its state on the disk; damaged files are replaced from their own commit.

        Only sizes and headers are checked, so that a task can start within moments.

        Raises:
            WanError: as `download`.
        """
        folder = self._home.model_of(spec.id)
        manifest = read_manifest(folder)
        if manifest is not None:
            _keep_own(
                spec, manifest, [one.name for one in check_quick(folder, manifest) if one.state is not FileState.OK]
            )
        revision = None if manifest is None else manifest.commit or None
        return self.download(spec, check=check, on_progress=on_progress, revision=revision)

    def _listing(self, repository: str, revision: str, retries: Retries) -> Listing:
        while True:
            try:
                listing = self._hub.listing(repository, revision)
            except Transient as error:
                retries.failed(error)
            else:
                retries.progressed()
                return listing

    def _fill(
        self, spec: ModelSpec, folder: Path, listing: Listing, meter: ProgressMeter, check: Check, retries: Retries
    ) -> None:
        """Get every file of the listing into the folder, verified."""
        known = read_manifest(folder)
        manifest = Manifest(spec.id, listing.repository, listing.commit, dict(known.files) if known else {})
        if known is not None and spec.base is not None:
            lost = [n for n, it in known.files.items() if quick_state(folder / n, it.size) is not FileState.OK]
            _keep_own(spec, known, lost)
        manifest.adopted = [] if known is None else whole_adopted(folder, known)
        quarantine = self._home.quarantine_of(spec.id)
        missing = []
        ours = tuple(f"{component}/" for component in manifest.adopted)
        wanted = [file for file in listing.files if not file.name.startswith(ours)]
        if ours:
            meter.add(listing.size_bytes - sum(file.size for file in wanted), network=False)
        for file in wanted:
            meter.at(DownloadPhase.VERIFYING, file.name)
            record = self._kept(folder, file, manifest.files.pop(file.name, None), quarantine, meter, check)
            if record is None:
                missing.append(file)
            else:
                manifest.files[file.name] = record
        names = {file.name for file in wanted}
        manifest.files = {n: record for n, record in manifest.files.items() if n in names or n.startswith(ours)}
        manifest.write(folder)
        missing = [file for file in missing if not self._taken_over(folder, file, manifest, meter, check)]
        self._require_room(spec, folder, missing)
        pace = RateLimiter(self._limit, lambda seconds: wait_checking(seconds, check))
        transfer = FileTransfer(self._hub, retries, check, pace, self._stall_seconds)
        try:
            for file in missing:
                meter.at(DownloadPhase.DOWNLOADING, file.name)
                sha256 = self._fetched(transfer, listing, file, folder, quarantine, meter)
                manifest.files[file.name] = FileRecord(file.size, sha256, file.etag)
                manifest.write(folder)
        finally:
            transfer.close()

    def _taken_over(
        self, folder: Path, file: RemoteFile, manifest: Manifest, meter: ProgressMeter, check: Check
    ) -> bool:
        """Link a file of another program when it has exactly the bytes of this one."""
        target = inside(folder, file)
        for path in self._local.candidates(file):
            meter.at(DownloadPhase.VERIFYING, file.name)
            read = 0

            def on_read(count: int) -> None:
                nonlocal read
                check()
                read += count
                meter.add(count, network=False)

            with suppress(OSError):  # files of other programs may vanish while they are read
                if file.sha256 is None:
                    sha256 = content_of(path, file, check, on_read)
                else:
                    # Files of one model often have the same size: each is read once, whichever of them is wanted.
                    found = self._local.digest(path, on_read)
                    sha256 = found if found == file.sha256 else None
                if sha256 is not None:
                    link_file(path, target)
                    discard_part(target)
                    meter.add(file.size - read, network=False)
                    manifest.files[file.name] = FileRecord(file.size, sha256, file.etag)
                    manifest.write(folder)
                    return True
            meter.add(-read, network=False)
        return False

    def _kept(
        self,
        folder: Path,
        file: RemoteFile,
        record: FileRecord | None,
        quarantine: Path,
        meter: ProgressMeter,
        check: Check,
    ) -> FileRecord | None:
        """Return the record of a file that is present and correct; a wrong one goes to the quarantine."""
        path = inside(folder, file)
        state = quick_state(path, file.size)
        if state is FileState.MISSING and not path.is_symlink():
            return None
        if state is FileState.OK and record is not None and (record.etag, record.size) == (file.etag, file.size):
            meter.add(file.size, network=False)
            return record
        if state is FileState.OK:
            read = 0

            def on_read(count: int) -> None:
                nonlocal read
                read += count
                meter.add(count, network=False)

            sha256 = content_of(path, file, check, on_read)
            if sha256 is not None:
                return FileRecord(file.size, sha256, file.etag)
            meter.add(-read, network=False)
        move_to_quarantine(folder, file.name, quarantine)
        return None

    def _fetched(
        self,
        transfer: FileTransfer,
        listing: Listing,
        file: RemoteFile,
        folder: Path,
        quarantine: Path,
        meter: ProgressMeter,
    ) -> str:
        url, target = self._hub.address(listing, file), inside(folder, file)
        for _ in range(CONTENT_ATTEMPTS):
            try:
                return transfer.fetch(file, url, target, meter.add)
            except WrongContent:
                move_to_quarantine(folder, f"{file.name}.part", quarantine)
                discard_part(target)
                meter.add(-file.size, network=False)
        raise ModelDamaged(
            f"The hub served {file.name} of {listing.repository} with a wrong checksum {CONTENT_ATTEMPTS} times",
            suggestions=("Try again later, or check the proxy between this machine and the hub.",),
        )

    def _require_room(self, spec: ModelSpec, folder: Path, missing: list[RemoteFile]) -> None:
        needed = sum(file.size - part_size(folder / file.name, file) for file in missing)
        require_room(spec, needed, self._free_bytes(folder))


def downloader_into(
    home: Home,
    manager: ModelManager,
    roots: Iterable[Path] = (),
    *,
    bytes_per_second: float | None = None,
    policy: RetryPolicy | None = None,
) -> ModelDownloader:
    """Return a downloader that links files which the Hugging Face cache or the folders `roots` have already.

    It obeys the limit in the home's config.json, also when that changes during a download, and `bytes_per_second`.
    """
    local = LocalFiles(roots, hugging_face_cache())
    limit = bandwidth_limit(ConfigFile(home.config_file), bytes_per_second)
    return ModelDownloader(home, manager, Hub(), policy=policy, limit=limit, local=local)


def _keep_own(spec: ModelSpec, manifest: Manifest, lost: list[str]) -> None:
    """Refuse to replace files that the user gave for an own model with files of the base's repository.

    Raises:
        ModelDamaged: such a file is lost.
    """
    given = tuple(f"{component}/" for component in manifest.adopted)
    own = [name for name in lost if name.startswith(given)] if spec.base is not None and given else []
    if own:
        raise ModelDamaged(
            f"{spec.id} is damaged: {own[0]} is your own file, so it cannot be downloaded",
            suggestions=(
                f"Remove {spec.id} with `wan22 models remove {spec.id}` and add it again with an intact file.",
            ),
        )
