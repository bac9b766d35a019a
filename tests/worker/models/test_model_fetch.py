"""Tasks that need a missing model: the worker downloads it once, whatever happens. Real processes.

The hub is a stand-in that speaks the real protocol; the repository has the layout of T2V-A14B in miniature.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from backend.core.catalogue.table import MODELS
from backend.core.files import PART_SUFFIX
from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import MANIFEST_FILE
from tests.support.hub import StandIn, repository_files, stand_in
from tests.support.repository import needed_files, sharded_repository
from tests.support.server import QUICK, LiveServer, wait_for

pytestmark = pytest.mark.timeout(900)  # several process starts in one test, on a busy machine
T2V = "T2V-A14B"
#: Forced, because the real model, whose name the miniature has, does not fit a small machine.
WANTED = {"model_type": T2V, "resolution": "128x128", "num_frames": 5, "steps": 2, "force": True}
ESTIMATE = "/api/v1/generation/estimate"
SUBMIT = "/api/v1/generation/submit"
MANAGE = "/api/v1/models/download/manage"
PROGRESS = f"/api/v1/models/download/progress/{T2V}"
DEADLINE = 240.0
Serve = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    return sharded_repository()


@pytest.fixture
def needed(published: dict[str, bytes]) -> dict[str, bytes]:
    return needed_files(published)


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[StandIn]:
    with stand_in(dict(published)) as running:
        yield running


@pytest.fixture
def serve(live_server: Serve, hub: StandIn) -> Serve:
    """Start servers that use the stand-in as their hub."""
    return lambda **env: live_server(HF_ENDPOINT=hub.endpoint, WAN22_RESTART_BACKOFF_SECONDS="0.05", **env)


class Follower:
    """A WebSocket client that keeps every message of two topics."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        for topic in ("generation_progress", "download_progress"):
            socket.send(json.dumps({"type": "subscribe", "data": {"topic": topic}}))
        self.heard: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        with suppress(ConnectionClosed):  # the server was stopped, or died
            for text in self._socket:
                self.heard.append(json.loads(text))

    def of(self, kind: str, **data: Any) -> list[dict[str, Any]]:
        """The data of all messages so far that have this type and these values."""
        found = [message["data"] for message in list(self.heard) if message["type"] == kind]
        return [one for one in found if data.items() <= one.items()]


@contextmanager
def following(server: LiveServer) -> Iterator[Follower]:
    """Follow within the block; the messages can be read afterwards."""
    with connect(server.url.replace("http", "ws", 1) + "/ws", open_timeout=30, max_queue=None) as socket:
        follower = Follower(socket)
        wait_for(lambda: len(follower.of("subscription_response")) == 2, what="the subscriptions")
        yield follower
    follower.thread.join()


def presence(home: Path) -> Presence:
    return ModelManager(Home(home), has_gpu=False).state(MODELS[T2V]).presence


def at_hub(hub: StandIn, server: LiveServer) -> str:
    """Queue a task whose download stalls midway."""
    hub.hold(sum(map(len, hub.files.values())) // 3)
    task = server.submit(**WANTED)
    assert hub.held.wait(DEADLINE)
    return task


def listings(hub: StandIn) -> int:
    return sum(request.path.startswith("/api/models/") for request in hub.requests)


def test_a_task_downloads_its_model_reports_exact_bytes_and_completes(
    serve: Serve, hub: StandIn, needed: dict[str, bytes]
) -> None:
    total = sum(map(len, needed.values()))
    server = serve()
    assert hub.requests == [], "a worker that starts fetches nothing"
    weighed = server.client.post(ESTIMATE, json=WANTED | {"prompt": "a red circle"}).json()
    assert (weighed["available"], weighed["download"]["status"]) == (False, "missing")
    assert "bytes" not in weighed["download"], "nobody has asked the hub"

    with following(server) as follower:
        hub.hold(total // 3)
        answer = server.client.post(SUBMIT, json=WANTED | {"prompt": "a red circle", "seed": 7}).json()
        assert answer["download"]["repository"] == "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
        assert "fetched first" in answer["message"]
        task = answer["task_id"]
        assert hub.held.wait(DEADLINE)

        def shown() -> list[int]:
            told = follower.of("detailed_generation_progress", stage="downloading_model", task_id=task)
            return [one["download"]["done_bytes"] for one in told if "download" in one]

        first = wait_for(lambda: max(shown(), default=0), what="bytes over the WebSocket")
        seen = wait_for(lambda: server.client.get(PROGRESS).json(), what="the worker's download in the web process")
        assert (seen["status"], seen["can_cancel"], seen["model_id"]) == ("downloading", False, T2V)
        assert server.task(task)["stage"] == "downloading_model"
        known = server.client.post(ESTIMATE, json=WANTED | {"prompt": "a red circle"}).json()["download"]
        assert known["status"] == "downloading"
        assert 0 < known["bytes"] < total
        hub.go_on()
        hub.hold(total // 3)
        assert hub.held.wait(DEADLINE)
        assert wait_for(lambda: max(shown()) > first, what="more bytes over the WebSocket")
        hub.go_on()
        done = server.wait(task, "completed", seconds=DEADLINE)
        wait_for(lambda: follower.of("detailed_generation_progress", stage="completed"), what="the end")

    assert shown() == sorted(shown())
    assert shown()[-1] == total
    percents = [one["progress"] for one in follower.of("generation_progress", task_id=task)]
    assert all(before <= after for before, after in pairwise(percents))
    assert percents[len(percents) // 2] > 0
    stages = list(dict.fromkeys(one["stage"] for one in follower.of("generation_stage", task_id=task)))
    assert stages[:4] == ["generation_started", "initializing", "downloading_model", "loading_model"]
    news = follower.of("download_progress_update", model_id=T2V)
    assert [one["downloaded_mb"] for one in news] == sorted(one["downloaded_mb"] for one in news)
    assert {one["total_mb"] for one in news} == {round(total / 1e6, 3)}
    changes = [one["new_status"] for one in follower.of("download_status_change", model_id=T2V)]
    assert changes[-1] == "completed"
    assert "downloading" in changes

    files = repository_files(server.home / "models" / T2V)
    assert len(json.loads(files.pop(MANIFEST_FILE))["files"]) == len(needed)
    assert files == needed
    video = server.client.get(done["output_path"])
    assert (video.status_code, video.content[4:8]) == (200, b"ftyp")
    record = server.client.get(f"/api/v1/outputs/{task}").json()["metadata"]["result"]
    assert record["seconds"]["download"] > 0
    assert "download" not in server.client.post(ESTIMATE, json=WANTED | {"prompt": "a red circle"}).json()

    # A truncated file is detected before the next task is queued, and only it is downloaded again.
    victim = "text_encoder/model.safetensors"
    (server.home / "models" / T2V / victim).write_bytes(needed[victim][:-100])
    hub.requests.clear()
    damaged = server.client.post(SUBMIT, json=WANTED | {"prompt": "a blue ring"}).json()
    assert (damaged["download"]["status"], damaged["download"]["bytes"]) == ("corrupted", len(needed[victim]))
    server.wait(damaged["task_id"], "completed", seconds=DEADLINE)
    assert hub.fetched() == Counter({victim: 1})
    assert (server.home / "models" / T2V / victim).read_bytes() == needed[victim]


def test_fifty_submits_and_two_workers_cause_one_download(serve: Serve, hub: StandIn, needed: dict[str, bytes]) -> None:
    server = serve()
    second = subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "worker", "--worker-id", "second"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"WAN22_HOME": str(server.home), "HF_ENDPOINT": hub.endpoint, "WAN22_THREADS": "1"},
    )
    try:
        hub.hold(sum(map(len, needed.values())) // 2)

        def submit(number: int) -> str:
            with httpx2.Client(base_url=server.url, timeout=120.0) as client:
                wanted = WANTED | {"steps": 1, "prompt": "a red circle", "seed": number}
                answer = client.post(SUBMIT, json=wanted, headers={"Idempotency-Key": f"k-{number}"})
                assert answer.status_code == 200, answer.text
                return str(answer.json()["task_id"])

        with ThreadPoolExecutor(50) as pool:
            tasks = list(pool.map(submit, range(50)))
        assert len(set(tasks)) == 50
        assert server.client.get("/api/v1/queue").json()["total_tasks"] == 50
        assert hub.held.wait(DEADLINE)

        def messages() -> list[str]:
            shown = server.client.get("/api/v1/queue").json()["tasks"]
            return [str(one.get("message")) for one in shown if one.get("stage") == "downloading_model"]

        wait_for(lambda: any(one.startswith("Waiting for") for one in messages()), seconds=DEADLINE, what="a waiter")
        wait_for(lambda: any(one.startswith("Downloading") for one in messages()), seconds=DEADLINE, what="a fetcher")
        # Four videos are enough to see that nothing is downloaded again.
        waiting = [task for task in tasks if server.task(task)["status"] == "pending"]
        assert len(waiting) == 48, "each of the two workers has one"
        for task in waiting[2:]:
            server.client.post(f"/api/v1/queue/{task}/cancel")
        hub.go_on()
        for task in set(tasks) - set(waiting[2:]):
            server.wait(task, "completed", seconds=DEADLINE)
    finally:
        second.kill()
        second.communicate()
    assert listings(hub) == 1
    counts = hub.fetched()
    assert set(counts) == set(needed)
    assert sorted(counts.values())[-2:] == [1, 2], "the file at which the line stood still was continued"
    assert server.client.get("/api/v1/outputs").json()["total_count"] == 4
    for task in tasks:
        events = server.client.get(f"/api/v1/queue/{task}/events").json()["events"]
        assert [event["type"] for event in events].count("submitted") == 1


def test_a_download_resumes_at_its_last_byte_after_a_kill_or_stop(
    serve: Serve, hub: StandIn, needed: dict[str, bytes]
) -> None:
    server = serve()
    task = at_hub(hub, server)
    partial = server.home / "models" / f"{T2V}.partial"
    (worker,) = server.worker_pids
    os.kill(worker, signal.SIGKILL)
    hub.go_on()
    hub.requests.clear()
    finished = {name for name in needed if (partial / name).exists()}
    assert finished
    hub.hold(sum(map(len, needed.values())) // 3)
    assert hub.held.wait(DEADLINE), "the next attempt goes on"
    wait_for(lambda: server.task(task)["attempt"] == 2, what="the second attempt")
    assert not set(hub.fetched()) & finished, "a finished file was asked for again"
    continued = [request.range for request in hub.requests if request.range]
    assert continued, "the file at which the worker died is continued"

    assert server.stop() == 0  # the connection stalls, and the stop does not wait for it
    assert presence(server.home) is Presence.PARTIAL
    assert not (server.home / "models" / T2V).exists()
    hub.go_on()
    server.start()
    done = server.wait(task, "completed", seconds=DEADLINE)
    assert done["attempt"] == 2, "a stop by the operator uses up no attempt"
    files = repository_files(server.home / "models" / T2V)
    assert files.pop(MANIFEST_FILE)
    assert files == needed


def test_a_cancel_takes_effect_while_the_connection_stalls_and_the_data_stays(
    serve: Serve, hub: StandIn, needed: dict[str, bytes]
) -> None:
    server = serve()
    task = at_hub(hub, server)
    wait_for(lambda: server.task(task).get("stage") == "downloading_model", what="the stage")
    server.client.post(f"/api/v1/queue/{task}/cancel")
    server.wait(task, "cancelled")  # the connection is still stalled
    served = sum(hub.served.values())
    hub.go_on()
    wait_for(lambda: presence(server.home) is Presence.PARTIAL, what="the end of the download")
    hub.requests.clear()
    server.wait(server.submit(**WANTED), "completed", seconds=DEADLINE)
    total = sum(map(len, needed.values()))
    assert sum(hub.served.values()) - served <= total - served + 2**20, "what had arrived was used"


def manage(server: LiveServer, action: str, **values: float) -> dict[str, Any]:
    answer = server.client.post(MANAGE, json={"model_id": T2V, "action": action} | values)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def handed_back(server: LiveServer, task: str) -> None:
    """Wait until a task is waiting and reports why."""
    wait_for(lambda: server.task(task)["status"] == "pending", what="the task back in the queue")
    seen = server.task(task)
    assert seen["message"] == f"Somebody paused the download of {T2V}: this task waits until it is resumed"
    assert (seen["attempt"], seen["progress"], "queue_position" in seen) == (0, 0, False)


def let_go(server: LiveServer) -> tuple[Path, int]:
    """Wait until the folder is unlocked; return the partial files and how much of them has arrived."""
    wait_for(lambda: presence(server.home) is Presence.PARTIAL, what="the folder to be let go")
    (part,) = (server.home / "models" / f"{T2V}.partial").rglob(f"*{PART_SUFFIX}")
    return part, part.stat().st_size


def test_a_paused_download_holds_up_only_its_own_tasks_and_resumes_at_its_last_byte(
    serve: Serve, hub: StandIn, needed: dict[str, bytes]
) -> None:
    """Paused ten times, with one attempt per task: while the connection stalls, and while it is slow."""
    server = serve(WAN22_MAX_ATTEMPTS="1")
    with following(server) as follower:
        task = at_hub(hub, server)
        wait_for(lambda: follower.of("download_status_change", model_id=T2V), what="news of the download")
        assert manage(server, "pause")["current_status"] == "paused"
        handed_back(server, task)
        same = server.client.post(SUBMIT, json=WANTED | {"prompt": "a blue ring"}).json()
        assert "this task waits until it is resumed" in same["message"]
        assert "queue_position" not in same
        other = server.client.post(SUBMIT, json=QUICK).json()
        assert other["queue_position"] == 1, "those that wait for the download are not counted"
        server.wait(other["task_id"], "completed", seconds=DEADLINE)  # the connection is still stalled
        for waiting in (task, same["task_id"]):
            handed_back(server, waiting)
        seen = server.client.get(PROGRESS).json()
        assert (seen["status"], seen["can_resume"], seen["can_cancel"]) == ("paused", True, False)
        assert server.client.post(MANAGE, json={"model_id": T2V, "action": "cancel"}).status_code == 409
        hub.go_on()
        part, here = let_go(server)
        asked = len(hub.requests)

        # Slower than the test's deadline, so the following happens midway through the files.
        manage(server, "bandwidth", bandwidth_limit_mbps=0.1)
        manage(server, "resume")
        wait_for(lambda: part.stat().st_size > here, what="the next bytes")
        continued = next(request for request in hub.requests[asked:] if request.place == "cdn")
        assert continued.range == f"bytes={here}-"
        for _ in range(9):
            wait_for(lambda: server.task(task).get("stage") == "downloading_model", what="the task at its download")
            manage(server, "pause")
            handed_back(server, task)
            part, here = let_go(server)
            asked = len(hub.requests)
            manage(server, "resume")
        manage(server, "bandwidth")  # no limit from here on
        done = server.wait(task, "completed", seconds=DEADLINE)
        first = next(request for request in hub.requests[asked:] if request.place == "cdn")
        assert first.range == f"bytes={here}-"
        assert done["attempt"] == 1
        later = server.wait(same["task_id"], "completed", seconds=DEADLINE)
        assert done["started_at"] < later["started_at"], "each keeps its place in the queue"
        wait_for(lambda: follower.of("task_update", task_id=same["task_id"], status="completed"), what="the end")

    events = server.client.get(f"/api/v1/queue/{task}/events").json()["events"]
    kinds = Counter(event["type"] for event in events)
    assert (kinds["started"], kinds["held_up"], kinds["completed"]) == (11, 10, 1)
    told = [one for one in follower.of("task_update", task_id=task, status="pending") if "paused" in one["message"]]
    assert len(told) == 10
    changes = [one["new_status"] for one in follower.of("download_status_change", model_id=T2V)]
    assert changes[:2] == ["downloading", "paused"]
    assert changes[-1] == "completed"
    files = repository_files(server.home / "models" / T2V)
    assert files.pop(MANIFEST_FILE)
    assert files == needed


def test_a_pause_survives_a_restart_and_ignores_models_obtained_otherwise(serve: Serve, hub: StandIn) -> None:
    server = serve()
    task = at_hub(hub, server)
    manage(server, "pause")
    handed_back(server, task)
    hub.go_on()
    let_go(server)
    asked = len(hub.requests)
    assert server.stop() == 0
    server.start()
    cancelled = server.submit(**WANTED)
    server.wait(server.submit(), "completed", seconds=DEADLINE)
    for waiting in (task, cancelled):
        handed_back(server, waiting)
    answer = server.client.post(f"/api/v1/queue/{cancelled}/cancel").json()
    assert answer["status"] == "cancelled", "at once, as any task that waits"
    assert len(hub.requests) == asked, "a byte moved"
    assert server.client.get(PROGRESS).json()["status"] == "paused"
    # As a command run beside the server does.
    home = Home(server.home)
    ModelDownloader(home, ModelManager(home, has_gpu=False), Hub(hub.endpoint)).download(MODELS[T2V])
    server.wait(task, "completed", seconds=DEADLINE)


def test_a_refusal_by_the_hub_fails_the_task_with_advice(serve: Serve, hub: StandIn) -> None:
    hub.required_token = "the right one"
    server = serve()
    with following(server) as follower:
        failed = server.wait(server.submit(**WANTED), "failed")
        wait_for(lambda: follower.of("detailed_generation_progress", stage="failed"), what="the failure")
    assert failed["error_code"] == "model_gated"
    assert any("HF_TOKEN" in step for step in failed["suggestions"])
    assert presence(server.home) is Presence.MISSING
    stages = {one["stage"] for one in follower.of("generation_stage")}
    assert stages == {"generation_started", "initializing", "downloading_model", "failed"}
    hub.required_token = None
    server.wait(server.submit(**WANTED), "completed", seconds=DEADLINE)
