"""Weights whose bytes changed on disk after they were verified: said, put away and downloaded again. Real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import StandIn, stand_in
from tests.support.repository import sharded_repository
from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(900)
T2V = "T2V-A14B"
WANTED = {"model_type": T2V, "resolution": "128x128", "num_frames": 5, "steps": 2, "seed": 7, "force": True}
DEADLINE = 240.0


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with stand_in(dict(sharded_repository())) as running:
        yield running


def _weights(server: LiveServer, component: str) -> Path:
    return max((server.home / "models" / T2V / component).glob("*.safetensors"))


def _overwrite(path: Path, change: Callable[[int], int], count: int) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + count] = bytes(map(change, content[middle : middle + count]))
    path.write_bytes(content)


def _video(server: LiveServer) -> dict[str, Any]:
    task = server.submit(**WANTED)
    server.wait(task, "completed", seconds=DEADLINE)
    result: dict[str, Any] = server.client.get(f"/api/v1/outputs/{task}").json()["metadata"]["result"]
    return result


def _fetched(hub: StandIn) -> set[str]:
    return {Path(request.path).name for request in hub.requests if request.path.endswith(".safetensors")}


def test_changed_weights_are_named_put_away_and_downloaded_again(
    live_server: Callable[..., LiveServer], hub: StandIn
) -> None:
    server = live_server(HF_ENDPOINT=hub.endpoint)
    before = _video(server)
    assert before["warnings"] == []

    flipped = _weights(server, "transformer_2")
    _overwrite(flipped, lambda byte: byte ^ 1, 1)
    (warning,) = _video(server)["warnings"]
    assert warning.startswith(f"transformer_2/{flipped.name} of {T2V} has changed since it was verified")
    assert (server.home / "models" / "quarantine" / T2V / "transformer_2" / flipped.name).is_file()
    assert not flipped.exists()
    hub.requests.clear()
    after = _video(server)
    assert (after["warnings"], after["frames_sha256"]) == ([], before["frames_sha256"])
    assert _fetched(hub) == {flipped.name}

    broken = _weights(server, "transformer")
    _overwrite(broken, lambda _: 0xFF, 64)  # not numbers
    failed = server.wait(server.submit(**WANTED), "failed", seconds=DEADLINE)
    assert failed["error_code"] == "model_damaged"
    assert f"transformer/{broken.name}" in failed["error_message"]
    assert _video(server)["frames_sha256"] == before["frames_sha256"]
