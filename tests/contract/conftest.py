"""One real server without a worker; the tests play the worker on its database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from tests.store.samples import output_of
from tests.support.server import LiveServer


@dataclass(frozen=True)
class Earlier:
    """The server, with a finished, a running and a waiting task."""

    server: LiveServer
    finished: str
    running: str
    waiting: str


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Earlier]:
    """Start the server and give it something to show."""
    home = tmp_path_factory.mktemp("contract") / "home"
    server = LiveServer(home, WAN22_WORKER="false")
    database = Database(home / "wan22.db", checkpointer=False, creates=False)
    try:
        finished, running, waiting = (server.submit() for _ in range(3))
        store = TaskStore(database)
        task = store.claim("host:1:1:test", 600.0)
        assert task is not None
        video = Home(home).video_of(finished)
        video.write_bytes(b"0" * output_of(finished).size_bytes)
        Home(home).thumbnail_of(finished).write_bytes(b"\xff\xd8picture")
        store.complete(finished, str(task.lease_token), output_of(finished))
        assert store.claim("host:1:1:test", 600.0) is not None
        yield Earlier(server, finished, running, waiting)
    finally:
        database.close()
        server.stop()
