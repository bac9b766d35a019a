"""Downloads of many processes: killed at any byte they go on, and however many ask, one fetches."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backend.core.catalogue.table import MODELS
from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import MANIFEST_FILE
from tests.support.hub import StandIn, repository_files

T2V = MODELS["T2V-A14B"]
KILLS = 10
DEADLINE = 60.0
#: What was handed to the network and had not been written when a process was killed: the buffers of one connection.
IN_FLIGHT = 2**20


def _child(hub: StandIn, home: Home, threads: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.models.download.process", str(home.root), str(threads)],
        env=os.environ | {"HF_ENDPOINT": hub.endpoint},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _parts(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix().removesuffix(".part"): path.stat().st_size
        for path in folder.rglob("*.part")
    }


def _ranges(hub: StandIn) -> dict[str, str]:
    """The first continuation of each file that was asked for."""
    asked = [r for r in hub.requests if r.place == "hub" and "/resolve/" in r.path and r.range]
    return {r.path.split("/resolve/")[1].split("/", 1)[1]: r.range or "" for r in asked}


def _expected(parts: dict[str, int], needed: dict[str, bytes]) -> dict[str, str]:
    """What must be asked for when these bytes lie on the disk; a complete part needs no request at all."""
    return {name: f"bytes={size}-" for name, size in parts.items() if 0 < size < len(needed[name])}


def test_a_download_that_is_killed_ten_times_ends_with_the_same_bytes(
    hub: StandIn, home: Home, needed: dict[str, bytes]
) -> None:
    total = sum(map(len, needed.values()))
    chance = random.Random(20)
    partial = home.models / "T2V-A14B.partial"
    finished: set[str] = set()
    parts: dict[str, int] = {}
    for _ in range(KILLS):
        hub.hold(chance.randrange(1, total // (KILLS + 2)))
        child = _child(hub, home)
        try:
            assert hub.held.wait(DEADLINE), child.communicate(timeout=1)
        finally:
            child.kill()
            child.communicate()
            hub.go_on()
        assert not (home.models / "T2V-A14B").exists()
        assert ModelManager(home, has_gpu=False).state(T2V).presence is Presence.PARTIAL
        assert not set(hub.fetched()) & finished, "a finished file was asked for again"
        assert _ranges(hub) == _expected(parts, needed)
        finished = {name for name in needed if (partial / name).exists()}
        parts = _parts(partial)
        hub.requests.clear()
    child = _child(hub, home)
    assert child.communicate(timeout=DEADLINE)[1] == ""
    assert child.returncode == 0
    assert set(hub.fetched()) == set(needed) - finished
    assert _ranges(hub) == _expected(parts, needed)
    files = repository_files(home.models / "T2V-A14B")
    assert files.pop(MANIFEST_FILE)
    assert files == needed
    assert sum(hub.served.values()) <= total + KILLS * IN_FLIGHT
    assert not partial.exists()


def test_fifty_askers_in_six_processes_cause_one_download(hub: StandIn, home: Home, needed: dict[str, bytes]) -> None:
    processes = [_child(hub, home, threads=5) for _ in range(5)]

    def ask() -> Path:
        return ModelDownloader(home, ModelManager(home, has_gpu=False), Hub(hub.endpoint)).download(T2V)

    with ThreadPoolExecutor(25) as pool:
        folders = {future.result(DEADLINE) for future in [pool.submit(ask) for _ in range(25)]}
    for process in processes:
        said, failed = process.communicate(timeout=DEADLINE)
        assert (process.returncode, said.split(), failed) == (0, [str(home.models / "T2V-A14B")], "")
    assert folders == {home.models / "T2V-A14B"}
    assert hub.fetched() == Counter(dict.fromkeys(needed, 1))
    assert sum(request.path.startswith("/api/") for request in hub.requests) == 1
    assert sum(hub.served.values()) == sum(map(len, needed.values()))
