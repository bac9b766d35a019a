"""The app in this process, with real stores and no worker: what it queues stays queued until a test plays worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient

from tests.api.support import Served


@pytest.fixture(scope="session", autouse=True)
def _brief_log() -> Iterator[None]:
    """Only warnings, without the pictures of tracebacks that structlog draws unasked."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[renderer], wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start apps; keyword arguments become settings. All are stopped at the end."""
    started: list[TestClient] = []

    def start(**settings: object) -> Served:
        served = Served(tmp_path / f"home-{len(started)}", **settings)
        started.append(served.client)
        return served

    yield start
    for client in started:
        client.__exit__(None, None, None)


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """One app with default settings."""
    return serve()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One app for all tests of a module that leave nothing behind, such as tables of refused requests."""
    served = Served(tmp_path_factory.mktemp("shared") / "home")
    yield served
    served.client.__exit__(None, None, None)
