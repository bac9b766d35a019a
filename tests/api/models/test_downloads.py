"""Models fetched, looked after and removed over the API, from a stand-in hub; news of it over WebSocket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from filelock import FileLock
from huggingface_hub import constants

from backend.core.config.download_limit import BANDWIDTH
from backend.core.config.file import ConfigFile
from backend.core.domain import Progress, Stage, Task
from backend.core.files import PART_SUFFIX
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.store.workers import WorkerState
from tests.api.live.test_websocket import Listener, listening
from tests.api.models.test_auto_download import begin
from tests.api.support import SUBMIT, TINY, Served, assert_error
from tests.support.hub import StandIn, repository_files, stand_in
from tests.support.server import wait_for

T2V = "T2V-A14B"
DOWNLOAD = "/api/v1/models/download"
PROGRESS = f"{DOWNLOAD}/progress/{T2V}"
HALF = 4_000_000  # bytes: somewhere in the middle of the stand-in's repository


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in(repository_files(EMBEDDED_MODELS / TINY)) as running:
        # What HF_ENDPOINT sets when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = f"{running.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


@pytest.fixture
def listener(served: Served) -> Iterator[Listener]:
    with listening(served) as listener:
        listener.subscribe("download_progress")
        yield listener


def ask(served: Served) -> None:
    answer = served.client.post(DOWNLOAD, json={"model_type": "t2v-A14B"})
    assert (answer.status_code, answer.json()["status"]) == (200, "download_started"), answer.text


def manage(served: Served, action: str, **values: object) -> dict[str, object]:
    answer = served.client.post(f"{DOWNLOAD}/manage", json={"model_id": T2V, "action": action} | values)
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def downloading(served: Served) -> int:
    """How many models the totals count as being downloaded."""
    totals = served.client.get("/api/v1/models/status/detailed").json()["system_statistics"]
    return int(totals["downloading_models"])


def status(served: Served) -> str:
    return str(served.client.get(f"/api/v1/models/status/{T2V}").json()["status"])


def finished(served: Served) -> None:
    wait_for(lambda: (served.client.get(PROGRESS).json() or {}).get("status") == "completed", what="the last byte")


def held(hub: StandIn, served: Served) -> None:
    """Start a download that stands still in its middle."""
    hub.hold(HALF)
    ask(served)
    assert hub.held.wait(60)


def test_a_model_is_fetched_once_and_its_progress_is_told(hub: StandIn, served: Served, listener: Listener) -> None:
    assert served.client.get(f"{DOWNLOAD}/progress").json() == {}
    assert served.client.get(PROGRESS).json() is None
    askers = [threading.Thread(target=ask, args=(served,)) for _ in range(20)]
    hub.hold(HALF)
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert hub.held.wait(60)
    update = listener.until("download_progress_update", status="downloading")["data"]
    assert (update["model_id"], update["can_pause"]) == (T2V, True)
    assert update["timestamp"].endswith("Z")
    assert downloading(served) == 1
    assert update["total_mb"] > 0
    seen = served.client.get(PROGRESS).json()
    assert (seen["status"], seen["total_mb"]) == ("downloading", update["total_mb"])
    assert status(served) == "downloading"
    hub.go_on()
    listener.until("download_status_change", new_status="completed")
    done = served.client.get(PROGRESS).json()
    assert (done["status"], done["progress"], done["can_pause"]) == ("completed", 100.0, False)
    assert downloading(served) == 0
    assert (status(served), max(hub.fetched().values())) == (
        "available",
        2,
    )  # one was continued
    again = served.client.post(DOWNLOAD, json={"model_type": T2V}).json()
    assert (again["status"], again["download_required"]) == ("already_available", False)
    percents = [m["data"]["progress_percent"] for m in listener.seen if "progress_percent" in m["data"]]
    assert percents == sorted(percents)
    assert served.client.post(SUBMIT, json={"model_type": T2V, "prompt": "a red circle"}).status_code == 200


def test_a_paused_download_goes_on_where_it_was(hub: StandIn, served: Served, listener: Listener) -> None:
    held(hub, served)
    assert manage(served, "pause")["current_status"] == "paused"
    hub.go_on()
    deadline = time.monotonic() + 60
    while status(served) != "partial":  # its thread is still letting go of the files
        assert time.monotonic() < deadline
    (part,) = served.services.home.partial_model_of(T2V).rglob(f"*{PART_SUFFIX}")
    here, asked = part.stat().st_size, len(hub.requests)
    kept = served.client.get(PROGRESS).json()
    assert (kept["status"], kept["can_resume"]) == ("paused", True)
    assert manage(served, "resume")["current_status"] in ("queued", "downloading", "verifying")
    listener.until("download_status_change", new_status="completed")
    continued = [request.range for request in hub.requests[asked:] if request.place == "cdn" and request.range]
    assert continued == [f"bytes={here}-"]


def test_a_cancelled_download_leaves_nothing(hub: StandIn, served: Served, listener: Listener) -> None:
    held(hub, served)
    assert manage(served, "cancel")["current_status"] == "cancelled"
    hub.go_on()
    served.services.downloads.stop()  # its thread has let go of the files when this returns
    assert status(served) == "missing"
    assert not served.services.home.partial_model_of(T2V).exists()
    body = {"model_id": T2V, "action": "pause"}
    assert_error(served.client.post(f"{DOWNLOAD}/manage", json=body), 409, "state_conflict")


def test_a_paused_download_that_is_cancelled_leaves_nothing(hub: StandIn, served: Served, listener: Listener) -> None:
    held(hub, served)
    manage(served, "pause")
    hub.go_on()
    served.services.downloads.stop()
    assert status(served) == "partial"
    manage(served, "cancel")
    assert status(served) == "missing"


def test_a_limit_and_a_priority_are_taken(hub: StandIn, served: Served, listener: Listener) -> None:
    held(hub, served)
    assert manage(served, "priority", priority="critical")["success"] is True
    assert served.client.get(PROGRESS).json()["priority"] == "critical"
    assert manage(served, "bandwidth", bandwidth_limit_mbps=500)["current_status"] == "downloading"
    hub.go_on()
    listener.until("download_status_change", new_status="completed")
    assert len(hub.requests) == len(set(hub.requests)), "no file was asked for twice for the limit"


def test_a_limit_is_kept_and_counts_within_a_moment_for_what_runs(
    hub: StandIn, served: Served, listener: Listener
) -> None:
    assert manage(served, "bandwidth", bandwidth_limit_mbps=0.05)["current_status"] is None
    assert ConfigFile(served.services.home.config_file).section("downloads") == {BANDWIDTH: 0.05}
    ask(served)
    listener.until("download_progress_update", status="downloading")
    # With this limit the rest would take minutes.
    assert manage(served, "bandwidth")["current_status"] == "downloading"
    listener.until("download_status_change", new_status="completed")
    assert sum(hub.served.values()) < sum(map(len, hub.files.values())) * 1.01, "it was not begun again for that"


@pytest.fixture
def restarted(serve: Callable[..., Served]) -> Iterator[Callable[[Served], Served]]:
    """Stop a server and start another one on its home."""
    started: list[Served] = []

    def restart(before: Served) -> Served:
        before.client.__exit__(None, None, None)
        started.append(Served(before.services.home.root))
        return started[-1]

    yield restart
    for one in started:
        one.client.__exit__(None, None, None)


def test_what_is_paused_stays_paused_over_a_restart_and_what_waits_goes_on(
    hub: StandIn, serve: Callable[..., Served], restarted: Callable[[Served], Served]
) -> None:
    served = serve()
    held(hub, served)
    manage(served, "pause")
    hub.go_on()
    again = restarted(served)
    asked = len(hub.requests)
    (part,) = again.services.home.partial_model_of(T2V).rglob(f"*{PART_SUFFIX}")
    here = part.stat().st_size
    kept = again.client.get(PROGRESS).json()
    assert (kept["status"], kept["can_resume"], kept["can_cancel"]) == ("paused", True, True)
    assert again.services.system.snapshot()["downloads"].sentence == "1 paused"
    third = restarted(again)
    assert len(hub.requests) == asked, "nobody asked the hub while it was paused"
    manage(third, "resume")
    finished(third)
    continued = [request.range for request in hub.requests[asked:] if request.place == "cdn" and request.range]
    assert continued == [f"bytes={here}-"]
    assert third.services.orders.list() == []
    assert restarted(third).client.get(PROGRESS).json() is None, "what has ended is gone"


def test_orders_go_on_in_their_order_and_what_failed_is_not_tried_again(
    hub: StandIn, serve: Callable[..., Served], restarted: Callable[[Served], Served]
) -> None:
    served = serve()
    hub.required_token = "the right one"
    ask(served)
    wait_for(lambda: served.client.get(PROGRESS).json()["status"] == "failed", what="the refusal")
    again = restarted(served)
    asked = len(hub.requests)
    assert again.client.get(f"{DOWNLOAD}/progress").json() == {}
    hub.required_token = None
    # As a server leaves them that is killed: the stand-in has one of the two models, and that comes second.
    again.services.orders.want("TI2V-5B")
    again.services.orders.want(T2V)
    last = restarted(again)
    finished(last)
    failed = last.client.get(f"{DOWNLOAD}/progress/TI2V-5B").json()
    assert (failed["status"], failed["can_cancel"]) == ("failed", False)
    models = [request.path for request in hub.requests[asked:] if request.path.startswith("/api/models/")]
    assert "TI2V-5B" in models[0]
    assert all("T2V-A14B" in path for path in models[1:])
    assert last.services.orders.list() == []


def test_an_order_for_a_model_that_is_not_in_the_table_waits_for_it(
    served: Served, restarted: Callable[[Served], Served]
) -> None:
    served.services.orders.want("mine")
    again = restarted(served)
    assert again.client.get(f"{DOWNLOAD}/progress").json() == {}
    assert [order.model for order in again.services.orders.list()] == ["mine"]


def at_its_model(served: Served) -> Task:
    """Queue a task and come to its download as a worker would."""
    served.submit(model_type=T2V)
    task = served.claim()
    served.services.tasks.report(task.id, str(task.lease_token), Progress(Stage.DOWNLOADING_MODEL, 0.1, "Asking"))
    return task


def test_what_a_worker_fetches_is_paused_and_resumed_but_not_given_up(served: Served) -> None:
    task, orders = at_its_model(served), served.services.orders
    running = served.client.get(PROGRESS).json()
    assert (running["status"], running["can_pause"], running["can_cancel"]) == ("downloading", True, False)
    for _ in range(2):
        assert manage(served, "pause")["current_status"] == "paused"
    assert orders.is_paused(T2V)
    paused = served.client.get(PROGRESS).json()
    assert (paused["can_pause"], paused["can_resume"], paused["can_cancel"]) == (False, True, False)
    assert list(served.client.get(f"{DOWNLOAD}/progress").json()) == [T2V]
    for action, advice in (("cancel", "Cancel these tasks"), ("priority", "order of the tasks")):
        wish = {"model_id": T2V, "action": action, "priority": "high"}
        refused = assert_error(served.client.post(f"{DOWNLOAD}/manage", json=wish), 409, "download_in_use")
        assert any(advice in step for step in refused["suggestions"])
    for _ in range(2):
        assert manage(served, "resume")["current_status"] == "downloading"
    assert orders.list() == []
    manage(served, "pause")
    served.client.post(f"/api/v1/queue/{task.id}/cancel")
    served.services.tasks.acknowledge_cancel(task.id, str(task.lease_token))
    left = served.client.get(PROGRESS).json()
    assert (left["status"], left["can_resume"], left["can_cancel"]) == ("paused", True, True)
    assert manage(served, "cancel")["current_status"] == "cancelled"
    assert served.client.get(PROGRESS).json() is None
    at_its_model(served)
    manage(served, "pause")
    ask(served)  # whoever asks for the model itself lets it go on for the task too
    assert not orders.is_paused(T2V)


def test_what_waits_for_a_paused_download_says_so_and_stands_in_nobodys_way(served: Served) -> None:
    task, tasks = at_its_model(served), served.services.tasks
    manage(served, "pause")
    idle = "No worker is connected: tasks wait until one is started with `wan22 worker`"
    words = f"Somebody paused the download of {T2V}: this task waits until it is resumed"
    tasks.release(task.id, str(task.lease_token), words)
    second = served.client.post(SUBMIT, json={"model_type": T2V, "prompt": "a red circle"}).json()
    assert second["message"] == f"Generation task queued. {words}"
    assert not {"queue_position", "estimated_time"} & set(second)
    other = served.client.post(SUBMIT, json={"model_type": TINY, "prompt": "a red circle"}).json()
    assert other["queue_position"] == 1
    waiting = [task.id, second["task_id"]]

    def shown(task_id: str) -> tuple[object, object]:
        seen = served.client.get(f"/api/v1/queue/{task_id}").json()
        listed = {one["id"]: one for one in served.client.get("/api/v1/queue").json()["tasks"]}
        older = served.client.get(f"/api/v1/generate/{task_id}").json()
        assert seen.get("message") == listed[task_id].get("message") == older.get("message")
        return seen.get("message"), seen.get("queue_position")

    assert [shown(task_id) for task_id in (*waiting, other["task_id"])] == [(words, None), (words, None), (idle, 1)]
    with FileLock(served.services.home.model_lock_of(T2V), thread_local=False):  # the worker is still letting go
        paused = served.client.get(PROGRESS).json()
        assert (paused["status"], paused["can_resume"]) == ("paused", True)
    assert manage(served, "resume").get("current_status") is None, "nobody has come to it yet"
    assert [shown(task_id) for task_id in (*waiting, other["task_id"])] == [(idle, 1), (idle, 2), (idle, 3)]
    # Before a worker has come to it again.
    assert manage(served, "pause")["current_status"] == "paused"
    assert shown(task.id) == (words, None)
    assert served.claim().id == other["task_id"]


def test_a_pause_of_ones_own_order_holds_tasks_too_and_a_task_keeps_it_from_being_given_up(
    hub: StandIn, served: Served
) -> None:
    held(hub, served)
    task = at_its_model(served)
    assert served.client.get(PROGRESS).json()["can_cancel"] is False
    refused = served.client.post(f"{DOWNLOAD}/manage", json={"model_id": T2V, "action": "cancel"})
    assert_error(refused, 409, "download_in_use")
    manage(served, "priority", priority="low")
    manage(served, "pause")
    assert served.services.orders.is_paused(T2V)
    hub.go_on()
    served.client.post(f"/api/v1/queue/{task.id}/cancel")
    served.services.tasks.acknowledge_cancel(task.id, str(task.lease_token))
    assert manage(served, "cancel")["current_status"] == "cancelled"
    assert served.services.orders.list() == []


def test_what_a_command_fetches_can_be_watched_and_nothing_more(served: Served) -> None:
    begin(served, 5_000_000)
    with FileLock(served.services.home.model_lock_of(T2V), thread_local=False):
        seen = served.client.get(PROGRESS).json()
        assert seen["status"] == "downloading"
        assert (seen["can_pause"], seen["can_resume"], seen["can_cancel"]) == (False, False, False)
        for action in ("pause", "resume", "cancel", "priority"):
            wish = {"model_id": T2V, "action": action, "priority": "high"}
            refused = assert_error(served.client.post(f"{DOWNLOAD}/manage", json=wish), 409, "download_in_use")
            assert any("Ctrl-C" in step for step in refused["suggestions"])


def test_what_the_hub_refuses_is_told(hub: StandIn, served: Served, listener: Listener) -> None:
    hub.required_token = "the right one"
    ask(served)
    failed = listener.until("download_status_change", new_status="failed")["data"]
    assert "refuses" in failed["error"]
    assert any("HF_TOKEN" in step for step in failed["suggestions"])
    hub.required_token = None
    ask(served)  # a failed download can be asked for again
    listener.until("download_status_change", new_status="completed")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model_id": "nonsense", "action": "pause"}, 422, "unknown_model"),
        ({"model_id": T2V, "action": "explode"}, 422, None),
        ({"model_id": T2V, "action": "pause"}, 404, "download_not_found"),
        ({"model_id": T2V, "action": "priority"}, 422, "invalid_request"),
        ({"model_id": T2V, "action": "bandwidth", "bandwidth_limit_mbps": -1}, 422, None),
    ],
)
def test_wrong_wishes_are_refused(shared: Served, body: dict[str, object], status: int, code: str | None) -> None:
    assert_error(shared.client.post(f"{DOWNLOAD}/manage", json=body), status, code)


def test_models_that_ship_with_the_package_are_neither_fetched_nor_removed(shared: Served) -> None:
    assert shared.client.post(DOWNLOAD, json={"model_type": TINY}).json()["status"] == "already_available"
    assert_error(shared.client.delete(f"/api/v1/models/{TINY}"), 409, "model_not_available")
    assert_error(shared.client.post(DOWNLOAD, json={"model_type": "gpt"}), 422, "unknown_model")
    assert_error(shared.client.post(DOWNLOAD, json={}), 422)


def test_files_are_checked_and_only_an_idle_model_is_removed(hub: StandIn, served: Served, listener: Listener) -> None:
    verify = f"/api/v1/models/verify/{T2V}"
    assert served.client.post(verify).json()["integrity_status"] == "not_available"
    ask(served)
    listener.until("download_status_change", new_status="completed")
    whole = served.client.post(verify, params={"full": True}).json()
    assert (whole["is_valid"], whole["integrity_status"], whole["checked"]) == (True, "valid", "contents")
    victim = served.services.home.model_of(T2V) / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(victim.read_bytes())
    content[-5] ^= 1
    victim.write_bytes(content)
    assert served.client.post(verify).json()["is_valid"] is True  # of the right length: sizes do not tell
    found = served.client.post(verify.replace("verify", "validate"), params={"full": True}).json()
    assert (found["is_valid"], found["integrity_status"]) == (False, "corrupted")
    assert found["details"] == [{"name": "vae/diffusion_pytorch_model.safetensors", "state": "corrupted"}]

    hub.requests.clear()
    names = ["vae/diffusion_pytorch_model.safetensors", "vae/config.json", "../../config.json"]
    repaired = served.client.post(f"/api/v1/models/repair/{T2V}", json={"files": names}).json()
    assert (repaired["status"], repaired["put_aside"]) == ("download_started", names[:1])
    listener.until("download_status_change", new_status="completed")
    assert set(hub.fetched()) == set(names[:1]), "only what was damaged is fetched again"
    assert served.client.post(verify, params={"full": True}).json()["is_valid"] is True

    task = served.client.post(SUBMIT, json={"model_type": T2V, "prompt": "a red circle"}).json()["task_id"]
    assert "needed" in assert_error(served.client.delete(f"/api/v1/models/{T2V}"), 409, "state_conflict")["detail"]
    served.client.post(f"/api/v1/queue/{task}/cancel")
    served.services.workers.beat("w1", device="cpu", state=WorkerState.IDLE, model=T2V)
    assert "loaded" in assert_error(served.client.delete(f"/api/v1/models/{T2V}"), 409, "state_conflict")["detail"]
    served.services.workers.remove("w1")
    removed = served.client.delete(f"/api/v1/models/{T2V}").json()
    assert removed["freed_mb"] > 1
    assert status(served) == "missing"
