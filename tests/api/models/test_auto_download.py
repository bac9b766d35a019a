"""What submit and estimate say of a model that is not here: fetched first, or refused with advice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from huggingface_hub import constants

from backend.core.catalogue.table import MODELS
from backend.core.domain import DownloadPhase, DownloadProgress, Progress, Stage
from backend.core.errors.models import HubUnreachable
from backend.models.folder.locks import removal_lock
from backend.models.folder.progress import STATUS_FILE
from backend.models.folder.storage import remove_model
from tests.api.live.test_websocket import Listener, listening
from tests.api.planning.test_estimate import ESTIMATE, install, profile
from tests.api.support import GOOD, SUBMIT, Served, assert_error

T2V = "T2V-A14B"
WANTED = GOOD | {"model_type": T2V}
PROGRESS = "/api/v1/models/download/progress"


def begin(served: Served, total: int, here: int = 1000) -> None:
    """Leave what a download of `total` bytes leaves that ended early."""
    partial = served.services.home.partial_model_of(T2V)
    partial.mkdir(parents=True)
    with (partial / "weights.part").open("wb") as part:
        part.truncate(here)
    status = DownloadProgress(DownloadPhase.DOWNLOADING, None, here, total, None, None)
    (partial / STATUS_FILE).write_text(json.dumps(asdict(status)))


def test_a_missing_model_is_taken_and_the_answer_says_that_it_is_fetched_first(served: Served) -> None:
    answer = served.client.post(SUBMIT, json=WANTED)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    weights = MODELS[T2V].weights_gb
    first = {"model_type": T2V, "repository": MODELS[T2V].repo_id, "status": "missing", "weights_gb": weights}
    assert body["download"] == first
    assert "fetched first" in body["message"]
    weighed = served.client.post(ESTIMATE, json=WANTED).json()
    assert (weighed["available"], weighed["download"]) == (False, first)
    here = served.client.post(SUBMIT, json=GOOD).json()
    assert "download" not in here
    assert "fetched" not in here["message"]
    assert served.count() == 2


def test_what_is_still_to_come_is_said_when_the_hub_has_told_it(served: Served) -> None:
    begin(served, 5_000_000)
    body = served.client.post(SUBMIT, json=WANTED).json()
    assert body["download"]["status"] == "partial"
    assert 4_990_000 < body["download"]["bytes"] < 5_000_000


def test_no_room_for_what_is_known_to_come_is_told_before_anything_is_queued(served: Served) -> None:
    begin(served, 2**60)
    body = assert_error(served.client.post(SUBMIT, json=WANTED), 507, "storage_full")
    details = body["details"]
    assert details["needed_bytes"] > details["free_bytes"]
    (action,) = body["actions"]
    assert action["action"] == "free_disk"
    assert action["bytes"] > details["needed_bytes"] - details["free_bytes"]
    assert served.count() == 0


def test_a_model_that_the_hub_said_to_be_of_full_size_is_weighed_before_it_is_queued(
    serve: Callable[..., Served],
) -> None:
    served = serve(workers_on=profile(8, 8))
    begin(served, 10_000_000)
    assert served.client.post(SUBMIT, json=WANTED).status_code == 200
    status = served.services.home.partial_model_of(T2V) / STATUS_FILE
    full = json.loads(status.read_text()) | {"total_bytes": int(MODELS[T2V].weights_gb * 1e9)}
    status.write_text(json.dumps(full))
    answer = served.client.post(SUBMIT, json=WANTED)
    assert answer.json()["error"] in ("does_not_fit", "storage_full"), answer.text  # whichever is too small here


def test_it_is_refused_where_nobody_may_ask_the_hub(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    body = assert_error(served.client.post(SUBMIT, json=WANTED), 409, "model_not_available")
    assert any("wan22 models download" in step for step in body["suggestions"])
    assert "download" not in served.client.post(ESTIMATE, json=WANTED).json()
    assert served.count() == 0


def test_a_damaged_model_is_mended_unless_it_lies_behind_a_link(serve: Callable[..., Served]) -> None:
    served = serve()
    install(served, T2V, share=0.001)
    folder = served.services.home.model_of(T2V)
    (folder / "transformer" / "model.safetensors").unlink()
    assert served.client.post(SUBMIT, json=WANTED).json()["download"]["status"] == "corrupted"
    elsewhere = served.services.home.root / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert_error(served.client.post(SUBMIT, json=WANTED), 500, "model_damaged")
    assert served.count() == 1


def test_a_model_is_not_removed_between_the_look_and_the_queue(serve: Callable[..., Served]) -> None:
    """Who removes a model keeps submits out, and they see what it did."""
    served = serve(auto_download=False)
    install(served, T2V, share=0.001)
    assert served.client.post(SUBMIT, json=WANTED | {"prompt": "a blue ring"}).status_code == 200
    answers: list[Any] = []
    submit = threading.Thread(target=lambda: answers.append(served.client.post(SUBMIT, json=WANTED)))
    with removal_lock(served.services.home, MODELS[T2V]):
        submit.start()
        remove_model(served.services.home, MODELS[T2V])
    submit.join()
    assert_error(answers[0], 409, "model_not_available")
    assert served.count() == 1


@pytest.fixture
def listener(served: Served) -> Any:
    with listening(served) as found:
        found.subscribe("download_progress")
        found.subscribe("generation_progress")
        yield found


def fetching(done: int, status: str = "downloading", total: int | None = 1000) -> Progress:
    news = DownloadProgress(DownloadPhase(status), None, done, total, 250.0, 3.0)
    return Progress(Stage.DOWNLOADING_MODEL, 0.1, f"{done} bytes", fetch=news)


def test_a_workers_download_is_news_of_the_task_and_of_the_model(served: Served, listener: Listener) -> None:
    served.client.post(SUBMIT, json=WANTED)
    task = served.claim()

    def tell(progress: Progress) -> None:
        served.services.tasks.report(task.id, str(task.lease_token), progress)

    tell(fetching(0, "waiting", None))
    tell(fetching(100, "verifying"))
    first = listener.until("download_status_change", new_status="verifying")["data"]
    assert (first["model_id"], first["can_pause"], first["can_cancel"]) == (T2V, True, False)
    assert first["progress_percent"] == 10.0
    assert "old_status" not in first
    tell(fetching(400))
    listener.until("download_status_change", old_status="verifying", new_status="downloading")
    tell(fetching(500))
    update = listener.until("download_progress_update")["data"]
    assert (update["progress_percent"], update["eta_seconds"], update["total_mb"]) == (50.0, 3.0, 0.001)
    figures = {"status": "downloading", "done_bytes": 500, "total_bytes": 1000}
    for kind in ("generation_progress", "detailed_generation_progress"):
        data = [message["data"] for message in listener.seen if message["type"] == kind][-1]
        assert data["download"] == figures | {"bytes_per_second": 250.0, "eta_seconds": 3.0}
    with listening(served) as newcomer:
        newcomer.subscribe("generation_progress")
        stage = newcomer.until("generation_stage", task_id=task.id)["data"]
        assert (stage["snapshot"], stage["stage_progress"]) == (True, 50.0)
    tell(Progress(Stage.LOADING_MODEL, 0.3, "Loading"))
    done = listener.until("download_status_change", old_status="downloading")["data"]
    assert done["new_status"] == "completed"
    loading = [m["data"] for m in listener.seen if m["data"].get("stage") == "loading_model"]
    assert loading
    assert all("download" not in data for data in loading)


def test_a_download_that_fails_with_its_task_says_why(served: Served, listener: Listener) -> None:
    served.client.post(SUBMIT, json=WANTED)
    task = served.claim()
    token = str(task.lease_token)
    served.services.tasks.report(task.id, token, fetching(100))
    listener.until("download_status_change", new_status="downloading")
    served.services.tasks.release(task.id, token)
    listener.until("download_status_change", new_status="queued")
    again = served.claim()
    served.services.tasks.report(again.id, str(again.lease_token), fetching(100))
    served.services.tasks.fail(again.id, str(again.lease_token), HubUnreachable())
    failed = listener.until("download_status_change", new_status="failed")["data"]
    assert failed["error"] == HubUnreachable().message
    assert failed["suggestions"] == list(HubUnreachable.suggestions)
