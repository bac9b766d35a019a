"""`POST /models/cleanup`: suggests by default, deletes when told to, and never what is needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.folder.manifest import MANIFEST_FILE, FileRecord, Manifest
from backend.store.workers import WorkerState
from tests.api.support import TINY, Served, assert_error

CLEANUP = "/api/v1/models/cleanup"


@pytest.fixture
def old(served: Served) -> Path:
    """A model that arrived long ago and made nothing."""
    folder = served.services.home.models / "T2V-A14B"
    shutil.copytree(EMBEDDED_MODELS / TINY, folder)
    Manifest("T2V-A14B", "x/y", "c", {"model_index.json": FileRecord(530, "0" * 64, "")}).write(folder)
    os.utime(folder / MANIFEST_FILE, (1e9, 1e9))
    return folder


def test_nothing_is_deleted_by_default(served: Served, old: Path) -> None:
    body = served.client.post(CLEANUP, json={}).json()
    assert body["dry_run"] is True
    (action,) = body["recommendations"]["cleanup_actions"]
    assert (action["action"], action["model_id"]) == ("delete_model", "T2V-A14B")
    assert action["space_gb"] == pytest.approx(0.015, abs=0.002)
    assert body["recommendations"]["space_to_free_gb"] == action["space_gb"]
    assert (body["executed_actions"], body["total_space_freed_gb"]) == ([], 0)
    assert old.is_dir()


def test_it_is_deleted_when_told_to(served: Served, old: Path) -> None:
    body = served.client.post(CLEANUP, json={"dry_run": False}).json()
    assert [action["model_id"] for action in body["executed_actions"]] == ["T2V-A14B"]
    assert body["total_space_freed_gb"] > 0.01
    assert not old.exists()


def test_a_target_that_is_met_asks_for_nothing(served: Served, old: Path) -> None:
    body = served.client.post(CLEANUP, json={"target_space_gb": 0, "dry_run": False}).json()
    assert body["recommendations"]["cleanup_actions"] == []
    assert body["recommendations"]["space_to_free_gb"] == 0
    assert old.is_dir()


def test_a_model_that_a_task_or_a_worker_needs_stays(served: Served, old: Path) -> None:
    task = served.submit(model_type="T2V-A14B")
    assert served.client.post(CLEANUP, json={"dry_run": False}).json()["executed_actions"] == []
    served.client.post(f"/api/v1/queue/{task}/cancel")
    served.services.workers.beat("w1", device="cpu", state=WorkerState.IDLE, model="T2V-A14B")
    assert served.client.post(CLEANUP, json={"dry_run": False}).json()["executed_actions"] == []
    assert old.is_dir()


@pytest.mark.parametrize("body", [{"target_space_gb": -1}, {"keep_recent_days": -1}, {"dry_run": "perhaps"}, []])
def test_what_makes_no_sense_is_refused(served: Served, body: object) -> None:
    assert_error(served.client.post(CLEANUP, json=body), 422)


def test_what_has_come_of_a_download_that_is_paused_stays(served: Served) -> None:
    partial = served.services.home.partial_model_of("T2V-A14B")
    partial.mkdir(parents=True)
    (partial / "weights.part").write_bytes(bytes(5_000_000))
    served.services.orders.pause("T2V-A14B", wished=True)
    assert served.client.post(CLEANUP, json={"dry_run": False}).json()["executed_actions"] == []
    served.services.orders.remove("T2V-A14B")
    (action,) = served.client.post(CLEANUP, json={"dry_run": False}).json()["executed_actions"]
    assert action["action"] == "delete_unfinished"
    assert not partial.exists()
