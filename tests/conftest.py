"""Fixtures for every test: an isolated home and environment, and real servers on demand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.core.catalogue.table import BUILT_IN, put_in_force
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.server import LiveServer


def pytest_configure(config: pytest.Config) -> None:
    """Make each parallel test process behave like one that runs all tests."""
    if not hasattr(config, "workerinput"):
        return
    # pytest-xdist workers ignore Ctrl-C, which their child processes would inherit; each worker has one core.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate every test from the settings and the home of the developer."""
    for name in list(os.environ):
        if name.startswith("WAN22_") or name in {"HF_TOKEN", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("WAN22_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _own_table_of_models() -> Iterator[None]:
    """Reset the model table, so that no test sees the models that another one added."""
    yield
    put_in_force(BUILT_IN)


@pytest.fixture
def live_server(tmp_path: Path) -> Iterator[Callable[..., LiveServer]]:
    """Start real servers; keyword arguments become environment variables. All are stopped at the end."""
    started: list[LiveServer] = []

    def start(home: Path | None = None, **env: str) -> LiveServer:
        server = LiveServer(home or tmp_path / f"server-{len(started)}", **env)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A private PostgreSQL server on a Unix socket."""
    with postgres_server(tmp_path_factory.mktemp("runtime")) as server:
        yield server


@pytest.fixture
def new_postgres(postgres: PostgresServer) -> Callable[[], str]:
    """Empty the server's test database; return its URL."""
    return postgres.new_database
