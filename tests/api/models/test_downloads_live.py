"""Orders of a server that is killed: the next one goes on at the byte, without anybody asking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from backend.core.files import PART_SUFFIX
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.folder.manifest import MANIFEST_FILE
from tests.support.hub import StandIn, repository_files, stand_in
from tests.support.repository import needed_files
from tests.support.server import LiveServer, wait_for

pytestmark = pytest.mark.timeout(400)
T2V = "T2V-A14B"
DOWNLOAD = "/api/v1/models/download"
PROGRESS = f"{DOWNLOAD}/progress/{T2V}"


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with stand_in(repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b")) as running:
        yield running


def cut_the_power(server: LiveServer) -> None:
    server.kill()
    server.client.close()


def test_a_night_of_downloads_survives_a_power_cut(live_server: Callable[..., LiveServer], hub: StandIn) -> None:
    server = live_server(HF_ENDPOINT=hub.endpoint, WAN22_WORKER="false")
    hub.hold(5_000_000)
    assert server.client.post(DOWNLOAD, json={"model_type": T2V}).status_code == 200
    assert hub.held.wait(60)
    cut_the_power(server)
    partial = server.home / "models" / f"{T2V}.partial"
    (part,) = partial.rglob(f"*{PART_SUFFIX}")
    here, needed = part.stat().st_size, needed_files(hub.files)
    whole = {name for name in needed if (partial / name).exists()}
    assert whole, "some files had come before the power went"
    hub.go_on()
    hub.requests.clear()

    server.start()
    done = wait_for(
        lambda: (seen := server.client.get(PROGRESS).json()) and seen["status"] == "completed" and seen, what="the end"
    )
    assert done["progress"] == 100.0
    counts = hub.fetched()
    assert not set(counts) & whole, "a finished file was asked for again"
    assert counts == Counter(set(needed) - whole)
    continued = [request.range for request in hub.requests if request.place == "cdn" and request.range]
    assert continued == [f"bytes={here}-"]
    files = repository_files(server.home / "models" / T2V)
    assert files.pop(MANIFEST_FILE)
    assert files == needed

    cut_the_power(server)
    server.start()
    assert server.client.get(PROGRESS).json() is None, "what has ended is gone"
