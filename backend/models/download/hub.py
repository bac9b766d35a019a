"""The model hub: which files a repository has at which commit, and how to request one.

Metadata, addresses, endpoint and token come from huggingface_hub; its errors become ours here. Transfers no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import NoReturn

import httpx2
from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from backend.core.errors.models import HubRateLimited, HubUnreachable, ModelGated, RepositoryNotFound, UnsafeRepository
from backend.models.download.retries import Transient, retry_after
from backend.models.folder.manifest import is_inside

METADATA_SECONDS = 15.0
REACH_SECONDS = 3.0
MODEL_INDEX = "model_index.json"
#: Folders of a diffusers model that the loader opens.
COMPONENTS = frozenset(
    {
        "image_encoder",
        "image_processor",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "transformer",
        "transformer_2",
        "vae",
    }
)
#: File types that are downloaded from them. Formats that can run code when opened (.bin, .pt, .ckpt, .py) are not.
SUFFIXES = frozenset({".safetensors", ".json", ".model", ".txt"})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository."""

    name: str  #: relative to the model's folder, with forward slashes
    size: int  #: bytes
    sha256: str | None  #: of large files (LFS)
    blob_id: str  #: of small ones: git's SHA-1 over a header and the content

    @property
    def etag(self) -> str:
        """The hub's name for this content."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit that the loader needs."""

    repository: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class Reach(StrEnum):
    """Whether the hub can be reached from this machine."""

    REACHABLE = "reachable"
    OFFLINE = "offline"  #: there is no route to it, or HF_HUB_OFFLINE is set
    BLOCKED = "blocked"  #: a proxy or the hub itself refuses


def hub_is_forbidden() -> bool:
    """Whether the operator forbids every request to the hub (`HF_HUB_OFFLINE`)."""
    return bool(constants.HF_HUB_OFFLINE)


class Hub:
    """A hub at one address, with one token or none."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        """The defaults are `HF_ENDPOINT` and `HF_TOKEN`, as huggingface_hub resolves them."""
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._token = token or get_token()

    @property
    def host(self) -> str:
        """The host name, for display: an address may contain more, such as credentials."""
        return httpx2.URL(self.endpoint).host

    def listing(
        self, repository: str, revision: str = "main", *, wanted: Callable[[str], bool] | None = None
    ) -> Listing:
        """List the files of a repository that the loader opens, or those whose names are `wanted`.

        Raises:
            Transient: the hub is busy or unreachable; a retry may succeed.
            HubUnreachable: offline mode forbids the request.
            ModelGated, RepositoryNotFound: a retry would not help.
            UnsafeRepository: it lists a name that leads out of the folder, or files that cannot be verified.
        """
        api = HfApi(endpoint=self.endpoint, token=self._token or False)
        try:
            info = api.model_info(repository, revision=revision, files_metadata=True, timeout=METADATA_SECONDS)
        except HfHubHTTPError as error:
            self.refuse(error.response.status_code, error.response.headers, repository, error)
        except OfflineModeIsEnabled as error:
            raise HubUnreachable(
                "The model hub is not asked: HF_HUB_OFFLINE is set",
                suggestions=("Unset HF_HUB_OFFLINE, or put the model's files in their place by hand.",),
            ) from error
        except httpx2.TransportError as error:
            raise unreachable(error) from error
        except HFValidationError as error:
            raise RepositoryNotFound(f"{repository} is not a repository name") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnsafeRepository(f"The answer of the hub about {repository} cannot be read") from error
        files: list[RemoteFile] = []
        for sibling in info.siblings or ():
            if not is_inside(sibling.rfilename):
                raise UnsafeRepository(f"{repository} lists a file whose name leads out of the model's folder")
            if not (wanted or is_needed)(sibling.rfilename):
                continue
            sha256 = None if sibling.lfs is None else sibling.lfs.sha256
            size = sibling.size if sibling.lfs is None else sibling.lfs.size
            if type(size) is not int or size < 0 or not (sha256 or sibling.blob_id):
                raise UnsafeRepository(f"{repository} lists {sibling.rfilename} without a size or a digest")
            files.append(RemoteFile(sibling.rfilename, size, sha256, sibling.blob_id or ""))
        names = [file.name for file in files]
        if len({name.casefold() for name in names}) != len(names):
            raise UnsafeRepository(f"{repository} lists a file twice")
        if wanted is None and MODEL_INDEX not in names:
            raise UnsafeRepository(f"{repository} has no {MODEL_INDEX}: it is not in diffusers' layout")
        return Listing(repository, str(info.sha), tuple(sorted(files, key=lambda file: (file.size, file.name))))

    def reach(self, seconds: float = REACH_SECONDS) -> tuple[Reach, str]:
        """Probe the hub once; return whether it can be reached, and the evidence in words. Sends no token."""
        if constants.HF_HUB_OFFLINE:
            return Reach.OFFLINE, "HF_HUB_OFFLINE is set, so it is not asked"
        try:
            status = httpx2.head(self.endpoint, timeout=seconds).status_code
        except (httpx2.ProxyError, httpx2.TimeoutException) as error:
            return Reach.BLOCKED, f"no answer within {seconds:g} s or a proxy that refuses ({type(error).__name__})"
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            return Reach.OFFLINE, f"it cannot be reached ({type(error).__name__})"
        refuses = status >= 400 and status not in (404, 405)  # a hub may simply lack this page
        return (Reach.BLOCKED if refuses else Reach.REACHABLE), f"it answers {status}"

    def address(self, listing: Listing, file: RemoteFile) -> str:
        """The address of a file at the commit of the listing."""
        return hf_hub_url(listing.repository, file.name, revision=listing.commit, endpoint=self.endpoint)

    def owns(self, url: httpx2.URL) -> bool:
        """Whether an address has the hub's own origin."""
        home = httpx2.URL(self.endpoint)
        return (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)

    def authorization(self, url: httpx2.URL) -> dict[str, str]:
        """The header with the token: for the hub's own origin only, never for where it redirects to."""
        return {"Authorization": f"Bearer {self._token}"} if self._token is not None and self.owns(url) else {}

    def refuse(self, status: int, headers: httpx2.Headers, subject: str, cause: Exception | None = None) -> NoReturn:
        """Raise the error for an error status; the message never repeats what was sent."""
        if status == 429:
            raise Transient(HubRateLimited(), retry_after(headers)) from cause
        if status in _BUSY:
            final = HubUnreachable(f"The model hub answers {status} and did not recover")
            raise Transient(final, retry_after(headers)) from cause
        if status in {401, 403}:
            raise ModelGated(f"The model hub refuses {subject} (status {status})") from cause
        if status == 404:
            raise RepositoryNotFound(f"The model hub has no {subject}, or not in this revision") from cause
        raise HubUnreachable(f"The model hub answers {status} for {subject}") from cause


def is_offline() -> bool:
    """Whether the operator forbids requests to the hub (`HF_HUB_OFFLINE`)."""
    return bool(constants.HF_HUB_OFFLINE)


def is_needed(name: str) -> bool:
    """Whether the loader opens a file of this name."""
    path = PurePosixPath(name)
    if len(path.parts) == 1:
        return path.suffix == ".json"
    return len(path.parts) == 2 and path.parts[0] in COMPONENTS and path.suffix in SUFFIXES


def unreachable(error: Exception) -> Transient:
    """Return the error for a failed connection; names only the type of the cause: its text may contain an address."""
    return Transient(HubUnreachable(f"The model hub cannot be reached ({type(error).__name__})"))
