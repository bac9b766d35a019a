"""A model repository in the T2V-A14B layout, and the stand-in hub that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub
from backend.models.download.retries import RetryPolicy
from backend.models.folder.manager import ModelManager
from tests.support.hub import StandIn, stand_in
from tests.support.repository import needed_files, sharded_repository


@pytest.fixture(scope="session")
def published() -> dict[str, bytes]:
    """The embedded tiny T2V model with its experts in shards, and beside it what must never be fetched."""
    return sharded_repository()


@pytest.fixture(scope="session")
def needed(published: dict[str, bytes]) -> dict[str, bytes]:
    """The files of it that the loader needs."""
    return needed_files(published)


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[StandIn]:
    with stand_in(dict(published)) as running:
        yield running


@pytest.fixture
def home(tmp_path: object) -> Home:
    return Home(tmp_path).create()  # type: ignore[arg-type]


@pytest.fixture
def make_downloader(hub: StandIn, home: Home) -> Callable[..., ModelDownloader]:
    """Downloaders of this home, that lose no time between tries."""

    def make(token: str | None = None, **options: object) -> ModelDownloader:
        chosen = {"policy": RetryPolicy(attempts=4, first_seconds=0.001)} | options
        return ModelDownloader(home, ModelManager(home, has_gpu=False), Hub(hub.endpoint, token), **chosen)  # type: ignore[arg-type]

    return make
