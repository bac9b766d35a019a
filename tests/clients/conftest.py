"""A real server with its worker, keys of every kind, and a network that loses answers; shared by all clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.proxy import LosingProxy
from tests.support.server import LiveServer

ADMIN_KEY = "the-key-of-the-operator-of-these-tests"


@dataclass(frozen=True)
class Clients:
    """What clients are given."""

    server: LiveServer
    proxy: LosingProxy
    keys: dict[str, str]

    def count(self, seed: int) -> int:
        """Return how many tasks have this seed."""
        tasks = self.server.client.get("/api/v1/queue", params={"limit": 1000}).json()["tasks"]
        return sum(task["seed"] == seed for task in tasks)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Start the server and make the keys."""
    server = LiveServer(tmp_path_factory.mktemp("clients") / "home", WAN22_API_KEY=ADMIN_KEY)
    server.client.headers["Authorization"] = f"Bearer {ADMIN_KEY}"
    proxy = LosingProxy(server.url)
    try:
        keys = {"maker": ADMIN_KEY}
        slow = {"scopes": ["read"], "requests_per_minute": 1}
        for name, more in {"reader": {"scopes": ["read"]}, "slow_js": slow, "slow_python": slow}.items():
            made = server.client.post("/api/v1/keys", json={"name": name} | more)
            assert made.status_code == 200, made.text
            keys[name] = made.json()["key"]
        yield Clients(server, proxy, keys)
    finally:
        proxy.stop()
        server.stop()
