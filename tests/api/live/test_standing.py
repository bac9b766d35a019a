"""What stands rather than happens: models, health, use and cards, told to those who subscribe, when it changes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from backend.api.live import manager
from backend.api.live.download_feed import publish_download
from backend.api.live.standing import card_messages
from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.core.catalogue.table import find_model
from backend.core.domain import DownloadPhase, DownloadProgress, Stage, utcnow
from backend.core.errors.models import HubUnreachable
from backend.core.planning.hardware import Gpu
from backend.services.downloads.state import Download, DownloadState
from backend.store.download_orders import Urgency
from tests.api.live.test_websocket import TOPICS, listening
from tests.api.support import TINY, Served

MODEL = "T2V-A14B"


@pytest.fixture
def watching(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> Served:
    """An app that looks often."""
    monkeypatch.setattr(manager, "WATCH_SECONDS", 0.05)
    return serve()


def break_model(served: Served) -> None:
    """Leave of a model what an interrupted copy leaves: its index alone."""
    folder = served.services.home.model_of(MODEL)
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"]})
    )


def test_every_topic_speaks(watching: Served) -> None:
    """No topic is offered on which nothing ever comes."""
    with listening(watching) as listener:
        for topic in TOPICS:
            listener.subscribe(topic)
        listener.settle()
        assert {message["type"] for message in listener.seen} >= {
            "queue_update",
            "batch_model_status_update",
            "system_health_report",
            "usage_statistics_update",
            "analytics_update",
        }
        listener.until("system_stats_update")
        watching.submit()
        task = watching.claim()
        listener.until("generation_progress", task_id=task.id, status="processing")
        alert = {"alert_type": "other_model", "message": "another one made it", "alternative_model": "tiny-i2v-a14b"}
        watching.services.tasks.alert(task.id, str(task.lease_token), alert)
        listener.until("alert", task_id=task.id)
        fallback = listener.until("fallback_strategy")["data"]
        assert fallback.pop("timestamp").endswith("Z")
        assert fallback.pop("recommended_action")
        assert fallback == {
            "task_id": task.id,
            "original_model": TINY,
            "alternative_model": "tiny-i2v-a14b",
            "strategy_type": "alternative_model",
            "user_message": "another one made it",
            "can_queue_request": True,
            "user_interaction_required": False,
        }
        publish_download(watching.services.sockets, None, _download(DownloadState.DOWNLOADING))
        listener.until("download_status_change", model_id=MODEL, new_status="downloading", total_size_mb=100.0)


def test_models_are_told_in_full_at_first_and_then_one_by_one(watching: Served) -> None:
    with listening(watching) as listener:
        listener.subscribe("model_status")
        batch = listener.until("batch_model_status_update")["data"]
        models = {model["model_id"]: model for model in batch["models"]}
        assert batch["count"] == len(models)
        detailed = watching.client.get("/api/v1/models/status/detailed").json()["models"]
        assert models == detailed
        break_model(watching)
        update = listener.until("model_status_update")["data"]
        assert (update["model_id"], update["availability_status"], update["is_available"]) == (
            MODEL,
            "corrupted",
            False,
        )
        change = listener.until("model_availability_change")["data"]
        assert (change["model_id"], change["old_availability"], change["new_availability"]) == (
            MODEL,
            "missing",
            "corrupted",
        )
        assert change["reason"]


def test_damage_is_told_with_what_to_do(watching: Served) -> None:
    with listening(watching) as listener:
        listener.subscribe("health_monitoring")
        report = listener.until("system_health_report")["data"]
        assert report["overall_status"] in ("healthy", "degraded", "critical")
        break_model(watching)
        alert = listener.until("health_monitoring_alert")["data"]
        assert (alert["model_id"], alert["health_status"], alert["is_healthy"]) == (MODEL, "corrupted", False)
        damage = listener.until("corruption_detection")["data"]
        assert damage["model_id"] == MODEL
        assert damage["repair_action"] in alert["repair_suggestions"]
        assert damage["requires_user_action"] is False


def test_a_health_report_follows_what_the_monitor_finds(watching: Served) -> None:
    with listening(watching) as listener:
        listener.subscribe("health_monitoring")
        first = listener.until("system_health_report")["data"]
        watching.submit()
        fails = watching.claim()
        watching.services.tasks.fail(fails.id, str(fails.lease_token), HubUnreachable("the hub is away"))
        watching.services.monitor.look()
        now = watching.client.get("/api/v1/recovery/health").json()
        if now["issues"] != first["issues"]:
            assert listener.until("system_health_report")["data"]["issues"] == now["issues"]


def test_figures_of_use_follow_each_end_and_show_a_key_its_own_tasks(watching: Served) -> None:
    keys = {}
    for name in ("ann", "ben"):
        drawn = draw_key()
        watching.services.key_store.create(drawn, name, [Scope.GENERATE], KeyLimits())
        keys[name] = {"Authorization": f"Bearer {drawn.text}"}
    watching.services.keys.refresh()
    watching.client.headers.update(keys["ann"])
    with listening(watching) as ann:
        ann.subscribe("analytics_updates")
        ann.until("analytics_update", snapshot=True)
        watching.client.headers.update(keys["ben"])
        with listening(watching) as ben:
            ben.subscribe("analytics_updates")
            ben.until("analytics_update", snapshot=True)
            watching.complete_one()
            use = ben.until("usage_statistics_update")["data"]
            assert use["model_analytics"][TINY]["completed"] == 1
            assert ben.until("analytics_update")["data"]["performance_summary"]["total_operations_24h"] == 1
            assert "analytics_update" not in [message["type"] for message in ann.settle()]


def test_loading_a_model_is_told_with_its_end(watching: Served) -> None:
    with listening(watching) as listener:
        listener.subscribe("generation_progress")
        for ends_well in (True, False):
            watching.submit()
            task = watching.claim()
            watching.report(task, 0.1, stage=Stage.LOADING_MODEL)
            loading = listener.until("model_loading_progress", task_id=task.id)["data"]
            assert (loading["model_type"], loading["progress"], loading["status"]) == (TINY, 0.0, "loading")
            if ends_well:
                watching.report(task, 0.2)
            else:
                watching.services.tasks.fail(task.id, str(task.lease_token), HubUnreachable("the hub is away"))
            end = listener.until("model_loading_progress", task_id=task.id)["data"]
            assert (end["progress"], end["status"]) == ((100.0, "loaded") if ends_well else (0.0, "failed"))


def _download(state: DownloadState, error: HubUnreachable | None = None) -> Download:
    progress = DownloadProgress(DownloadPhase.DOWNLOADING, None, 100_000_000, 100_000_000, None, None)
    return Download(find_model(MODEL), state, Urgency.MEDIUM, 1, utcnow(), progress, error)


def test_the_end_of_a_download_is_told_to_everybody(watching: Served) -> None:
    with listening(watching) as listener:
        publish_download(
            watching.services.sockets, _download(DownloadState.VERIFYING), _download(DownloadState.COMPLETED)
        )
        end = listener.until("model_download_complete")
        assert (end["model_type"], end["status"], end["message"]) == (MODEL, "success", f"{MODEL} was downloaded")
        assert end["data"]["model_type"] == MODEL
        listener.subscribe("download_progress")
        failed = _download(DownloadState.FAILED, HubUnreachable("the hub is away"))
        publish_download(watching.services.sockets, _download(DownloadState.DOWNLOADING), failed)
        change = listener.until("download_status_change")["data"]
        assert (change["new_status"], change["error_message"]) == ("failed", "the hub is away")
        assert listener.until("model_download_complete")["status"] == "failed"
        publish_download(watching.services.sockets, failed, failed)
        assert [message["type"] for message in listener.settle()] == ["download_progress_update"]


@pytest.mark.parametrize(("used", "level"), [(10, "normal"), (76, "warning"), (91, "critical")])
def test_the_memory_of_a_card_is_told_with_a_word(used: int, level: str) -> None:
    mib = 1024**2
    card = Gpu(1, "a card", 100 * mib, used * mib, 50.0)
    ((kind, data),) = card_messages([card, Gpu(2, "a silent one", None, None, None)])
    assert (kind, data["device_id"], data["device_name"], data["warning_level"]) == (
        "vram_monitoring",
        1,
        "a card",
        level,
    )
    assert (data["allocated_mb"], data["free_mb"], data["total_mb"]) == (used, 100 - used, 100)
    assert data["allocated_percent"] == used
