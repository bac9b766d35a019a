"""Servers for the tests of the commands: one that generates, and one whose tasks wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.core.paths import Home
from tests.support.random_model import build_random_i2v
from tests.support.server import LiveServer


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A real server with a worker, for the whole session: its videos are told apart by their ids."""
    home = Home(tmp_path_factory.mktemp("maker") / "home").create()
    build_random_i2v(home.models / "I2V-A14B")
    server = LiveServer(home.root)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server without a worker, so that its tasks wait."""
    server = LiveServer(tmp_path_factory.mktemp("idle") / "home", WAN22_WORKER="false")
    yield server
    server.stop()
