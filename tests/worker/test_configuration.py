"""A setting that is changed over HTTP reaches the next task, outlives a broken file, and survives a restart."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(600)
CONFIG = "/api/v1/config"


def _makes_mocks(server: LiveServer) -> bool:
    task = server.wait(server.submit(), "completed")
    return bool(server.client.get(f"/api/v1/outputs/{task['id']}").json().get("mock"))


def test_a_change_reaches_the_next_task_and_stays(live_server: Callable[..., LiveServer]) -> None:
    server = live_server()
    assert not _makes_mocks(server)
    changed = server.client.patch(CONFIG, json={"generation.mode": "mock", "generation.mock_seconds": 0})
    assert changed.status_code == 200, changed.text
    assert _makes_mocks(server)

    file = server.home / "config.json"
    good = file.read_text()
    file.write_text(good.replace('"mock",', '"mock",,'))
    assert server.client.get(f"{CONFIG}/configuration-status").json()["in_force"] == "last readable"
    assert _makes_mocks(server)
    undone = server.client.post(f"{CONFIG}/undo", json={})
    assert undone.status_code == 200, undone.text
    assert json.loads(file.read_text()) == json.loads(good)

    server.stop()
    server.start()
    assert _makes_mocks(server)
    back = server.client.post(f"{CONFIG}/reset-to-defaults", params={"section": "generation"})
    assert set(back.json()["changed"]) == {"generation.mode", "generation.mock_seconds"}
    assert not _makes_mocks(server)
