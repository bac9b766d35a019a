"""Each endpoint of the contract over real HTTP: its status, and the fields that earlier clients read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.contract.conftest import Earlier
from tests.support.server import QUICK

STATS = "cpu_percent ram_used_gb ram_total_gb ram_percent timestamp"
COUNTS = "total_tasks pending_tasks processing_tasks completed_tasks failed_tasks cancelled_tasks"
VIDEO = (
    "id filename file_path thumbnail_path prompt model_type resolution duration_seconds file_size_mb created_at "
    "generation_time_minutes thumbnail_url download_url video_url output_path duration generation_params"
)
HEALTH = (
    "status message backend_online database_connected gpu_available memory_usage active_tasks uptime port timestamp "
    "api_version system service endpoints.health endpoints.docs endpoints.websocket endpoints.api_base version "
    "connectivity.cors_enabled connectivity.allowed_origins connectivity.websocket_available "
    "connectivity.request_origin connectivity.host_header health_status "
    "server_info.configured_port server_info.detected_port server_info.environment system_info.warnings "
    "system_info.issues system_info.recommendations"
)
DETAILS = (
    "model_id availability_status is_available is_loaded missing_files corruption_detected usage_frequency "
    "can_pause_download can_resume_download"
)
NOW = "timestamp cpu_usage_percent ram_usage_mb ram_available_mb disk_usage_percent active_tasks"


def _data(names: str) -> str:
    return " ".join(["success timestamp", *(f"data.{name}" for name in names.split())])


#: Method and path -> the fields of its answer; `{f}`, `{r}`, `{w}` are the finished, running and waiting task.
READING = {
    "/api/v1/system/health": HEALTH,
    "/system/health": HEALTH,
    "/api/v1/system/ports": "backend_port frontend_port status",
    "/api/v1/system/stats": STATS,
    "/system/stats": f"{STATS} gpu_percent vram_used_mb vram_total_mb vram_percent memory_percent disk_usage",
    "/api/v1/system/stats/history?hours=0.25": "stats total_count time_range.start time_range.end time_range.hours",
    "/api/v1/system/cors/validate": "cors_valid errors current_request configuration diagnostics",
    "/api/v1/generation/models/detect?prompt=a+cat&has_image=false": "detected_model_type confidence explanation "
    "requirements.requires_image requirements.supports_end_image requirements.max_resolution "
    "requirements.recommended_steps requirements.estimated_vram_gb alternatives",
    "/api/v1/generation/capabilities": "supported_models models_info supported_resolutions supported_formats max_steps "
    "min_steps default_steps max_prompt_length max_image_size_mb supported_image_formats features",
    "/api/v1/queue": f"{COUNTS} tasks queue",
    "/queue": f"{COUNTS} tasks queue current_task",
    "/queue?limit=1&status_filter=completed": f"{COUNTS} tasks queue",
    "/queue/poll?active_only=true": "timestamp pending_count processing_count active_tasks has_active_tasks",
    "/queue/{f}": "id model_type prompt resolution steps status progress created_at generation_time output_path",
    "/api/v1/queue/{r}": "id status progress created_at started_at lora_strength",
    "/api/v1/generate/{w}": "id model_type prompt resolution status progress created_at",
    "/outputs": "videos total_count total_size_mb",
    "/api/v1/outputs/{f}": VIDEO,
    "/outputs/{f}": VIDEO,
    "/api/v1/prompt/styles": "styles total_count",
    "/api/v1/lora": "loras total_count total_size_mb",
    "/api/v1/lora/list": "loras total_count total_size_mb",
    "/api/v1/lora/tiny_chalk/status": "name exists path size_mb is_loaded is_applied current_strength modified_time",
    "/api/v1/lora/nobody/status": "name exists is_loaded is_applied current_strength",
    "/api/v1/lora/tiny_chalk/memory-impact": "lora_name file_size_mb estimated_memory_mb vram_available_mb can_load "
    "memory_impact recommendation name estimated_vram_increase_mb compatible_with_current_setup",
    "/health": "status timestamp version",
    "/api/health": "status api_version",
    "/api/v1/health": "status timestamp",
    "/api/v1/models/status": "models timestamp total_models available_models",
    "/api/v1/models/status/t2v-A14B": "model_id model_type status is_available is_loaded is_valid model_path",
    "/api/v1/models/status/detailed": "models system_statistics.total_models system_statistics.available_models "
    "system_statistics.downloading_models system_statistics.corrupted_models system_statistics.total_size_gb "
    "system_statistics.last_updated timestamp " + " ".join(f"models.T2V-A14B.{name}" for name in DETAILS.split()),
    "/api/v1/models/download/progress": "",
    "/api/v1/models/integration/status": "status components",
    "/api/v1/models/summary": "models_summary.total_models models_summary.available_models "
    "models_summary.loaded_models models_summary.missing_models models_summary.total_size_gb models "
    "system_summary.integration_initialized system_summary.optimization_applied system_summary.hardware_detected "
    "timestamp",
    "/api/v1/models/health": "system_health.models_healthy system_health.models_degraded "
    "system_health.models_corrupted "
    "system_health.storage_usage_percent system_health.last_updated model_health recommendations timestamp",
    "/api/v1/models/analytics?time_period_days=7": "time_period.start_date time_period.end_date time_period.days "
    "system_analytics.total_uses system_analytics.average_uses_per_day system_analytics.active_models "
    "model_analytics timestamp",
    "/api/v1/system/optimization/status": "system_integration.initialized system_integration.components "
    "system_integration.initialization_errors optimization_settings.quantization optimization_settings.enable_offload "
    "hardware_profile.cpu_model hardware_profile.cpu_cores hardware_profile.total_memory_gb model_paths timestamp",
    "/api/v1/system/hardware/profile": "cpu_model cpu_cores total_memory_gb architecture_type "
    "optimization_recommendations",
    "/api/v1/system/optimization": "quantization enable_offload vae_tile_size max_vram_usage_gb",
    "/api/v1/system/constraints": "max_concurrent_generations vram_warning_threshold vram_critical_threshold "
    "cpu_warning_threshold ram_warning_threshold",
    "/api/v1/system/resource-check": "can_start_generation resource_status.ram_available "
    "resource_status.cpu_available current_usage blocking_issues message",
    "/api/v1/optimization/presets": "presets.balanced presets.memory_efficient presets.ultra_efficient "
    "presets.high_performance presets.quality_focused presets.speed_focused system_info.recommended_presets",
    "/api/v1/optimization/recommendations": "recommendations",
    "/api/v1/optimization/analysis": "recommendations",
    "/api/v1/performance/status": _data(NOW),
    "/api/v1/performance/resources/current": _data(NOW),
    "/api/v1/performance/resources/history?hours_back=1&sample_limit=5": _data("samples"),
    "/api/v1/performance/analysis?time_window_hours=24": _data(
        "analysis.average_generation_time analysis.success_rate analysis.bottleneck_analysis "
        "analysis.optimization_recommendations analysis.performance_trends"
    ),
    "/api/v1/performance/metrics?success_only=true": _data("time_window_hours total_metrics filters_applied metrics"),
    "/api/v1/performance/metrics/generation_time": _data("values"),
    "/api/v1/performance/recommendations": _data("recommendations"),
    "/api/v1/performance/benchmarks": _data("benchmarks.720p.target_seconds benchmarks.1080p.target_seconds"),
    "/api/v1/performance/dashboard?force_refresh=true": _data(
        "performance_summary.total_operations_24h performance_summary.success_rate "
        "performance_summary.average_duration performance_summary.p95_duration current_resources operations_by_type "
        "recent_activity bottlenecks recommendations resource_trends"
    ),
    "/api/v1/performance/report?hours_back=2": _data("figures models"),
    "/api/v1/performance/operations/active": _data("operations"),
    "/api/v1/recovery/status": "recovery_system_active health_monitoring_active mock_generation_enabled "
    "degraded_mode_active recovery_statistics.total_attempts recovery_statistics.success_rate "
    "recovery_statistics.average_recovery_time recovery_statistics.failure_types "
    "recovery_statistics.recovery_actions current_health_status timestamp",
    "/api/v1/recovery/health": "overall_status cpu_usage_percent memory_usage_percent vram_usage_percent "
    "gpu_available model_loading_functional generation_pipeline_functional issues recommendations last_check_timestamp",
    "/api/v1/recovery/actions": "failure_types recovery_actions failure_type_descriptions recovery_action_descriptions",
    "/api/v1/ws/stats": "active_connections subscription_counts available_topics",
}
CHARACTERS = "character_count.original character_count.difference"
#: Path, body, status, and the fields of the answer or, of a refusal, the sentence.
CHANGING: list[tuple[str, Any, int, str]] = [
    (
        "/api/v1/generation/submit",
        QUICK,
        200,
        "success task_id status message detected_model_type queue_position parameters.model_type parameters.prompt "
        "parameters.resolution parameters.steps parameters.lora_path parameters.lora_strength",
    ),
    ("/generation/submit", QUICK | {"steps": "4", "lora_strength": "0.0"}, 200, "task_id status message"),
    ("/api/v1/generate", QUICK, 200, "task_id status message"),
    ("/generation/submit", {"model_type": "auto"}, 422, "Prompt is required"),
    ("/generation/submit", QUICK | {"prompt": " "}, 422, "Prompt cannot be empty"),
    ("/generation/submit", QUICK | {"model_type": "x"}, 422, "Invalid model type. Must be one of:"),
    ("/generation/submit", QUICK | {"steps": 0}, 422, "Steps must be between 1 and 100"),
    ("/generation/submit", QUICK | {"steps": 101}, 422, "Steps must be between 1 and 100"),
    ("/generation/submit", QUICK | {"lora_strength": 2.5}, 422, "LoRA strength must be between 0.0 and 2.0"),
    ("/generation/submit", QUICK | {"model_type": "I2V-A14B"}, 422, "Start image is required for I2V-A14B model"),
    ("/generation/submit", QUICK | {"image": {}}, 422, "image must be a file"),
    ("/api/v1/generate", QUICK | {"prompt": "x" * 501}, 422, ""),
    ("/api/v1/generate", QUICK | {"prompt": " "}, 400, "Prompt cannot be empty"),
    ("/api/v1/generate", QUICK | {"resolution": "wide"}, 400, "Invalid resolution format"),
    ("/api/v1/generate", QUICK | {"resolution": "0x64"}, 400, "Invalid resolution values"),
    ("/api/v1/generate", QUICK | {"model_type": "I2V-A14B"}, 400, "Image is required for I2V mode"),
    ("/queue/{f}/cancel", {}, 409, "Cannot cancel task with status: completed"),
    ("/queue/nobody/cancel", {}, 404, "Task not found"),
    ("/api/v1/queue/reorder", {"task_ids": ["{w}"]}, 200, "message"),
    (
        "/prompt/enhance",
        {"prompt": "a cat", "options": {"apply_vace": True}},
        200,
        f"original_prompt enhanced_prompt enhancements_applied character_count.enhanced vace_detected {CHARACTERS}",
    ),
    ("/api/v1/prompt/enhance", {"prompt": {"prompt": "a cat", "options": {}}}, 200, "enhanced_prompt"),
    ("/api/v1/prompt/enhance", {"prompt": ""}, 422, "Prompt cannot be empty"),
    (
        "/api/v1/prompt/preview",
        {"prompt": "a cat", "options": {}},
        200,
        f"original_prompt preview_enhanced suggested_enhancements character_count.preview vace_detected {CHARACTERS}",
    ),
    ("/api/v1/prompt/validate", {"prompt": "a cat"}, 200, "is_valid message character_count suggestions"),
    (
        "/api/v1/lora/tiny_chalk/preview",
        {"prompt": "a cat"},
        200,
        "lora_name base_prompt enhanced_prompt style_indicators preview_note",
    ),
    ("/api/v1/lora/nobody/preview", {"prompt": "a cat"}, 404, ""),
    ("/api/v1/lora/tiny_chalk/preview", {"prompt": ""}, 422, ""),
    ("/api/v1/models/download", {"model_type": "tiny-t2v-a14b"}, 200, "message model_type status download_required"),
    ("/api/v1/models/download", {}, 422, "Model type is required"),
    ("/api/v1/models/download/manage", {"model_id": "t2v-A14B", "action": "x"}, 422, ""),
    ("/api/v1/models/verify/tiny-t2v-a14b", {}, 200, "model_type is_valid details"),
    ("/api/v1/models/validate/t2v-A14B", {}, 200, "model_type integrity_status is_valid message missing_files"),
    (
        "/api/v1/models/cleanup",
        {},
        200,
        "dry_run recommendations.total_space_available_gb "
        "recommendations.target_space_gb recommendations.space_to_free_gb recommendations.cleanup_actions "
        "executed_actions total_space_freed_gb timestamp",
    ),
    (
        "/api/v1/models/fallback/suggest",
        {"requested_model": "t2v-A14B"},
        200,
        "requested_model "
        "alternative_suggestion.suggested_model alternative_suggestion.compatibility_score "
        "fallback_strategy.strategy_type fallback_strategy.recommended_action fallback_strategy.user_message "
        "fallback_strategy.can_queue_request timestamp",
    ),
    ("/api/v1/system/stats/save", {}, 200, "message"),
    ("/api/v1/system/cors/test", {}, 200, "message"),
    ("/api/v1/system/optimization", {"vae_tile_size": 64}, 422, ""),
    ("/api/v1/system/constraints", {"vram_warning_threshold": 2}, 422, ""),
    ("/api/v1/optimization/apply-preset/nobody", {}, 404, ""),
    ("/api/v1/performance/export?format=json", {}, 200, _data("metrics")),
    ("/api/v1/performance/optimize", [], 200, "success data timestamp"),
    ("/api/v1/analytics/errors", {"reports": [{"message": "x"}]}, 200, "status"),
    ("/api/v1/analytics/performance", {"name": "fcp", "value": 1}, 200, "status"),
    ("/api/v1/analytics/journey", {"id": "1", "type": "click"}, 200, "status"),
    ("/api/v1/recovery/trigger", {"failure_type": "x"}, 400, ""),
    ("/api/v1/recovery/trigger", {}, 400, ""),
    ("/api/v1/recovery/reset", {}, 200, "success message"),
]
MISSING = {
    "/outputs/nobody": "Video not found",
    "/queue/nobody": "Task not found",
    "/api/v1/generate/nobody": "Task not found",
    "/thumbnails/nobody_thumb.jpg": "",
    "/api/v1/outputs/nobody/download": "Video not found",
}


def _filled(earlier: Earlier, text: str) -> str:
    for mark, task_id in (("{f}", earlier.finished), ("{r}", earlier.running), ("{w}", earlier.waiting)):
        text = text.replace(mark, task_id)
    return text


def _has(answer: Any, names: str) -> list[str]:
    """Return the fields that an answer lacks."""
    lacking = []
    for name in names.split():
        value = answer
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                lacking.append(name)
                break
            value = value[part]
    return lacking


@pytest.mark.parametrize("path", READING)
def test_what_can_be_read(earlier: Earlier, path: str) -> None:
    response = earlier.server.client.get(_filled(earlier, path))
    assert response.status_code == 200, response.text
    assert _has(response.json(), READING[path]) == []
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(("path", "body", "status", "expected"), CHANGING)
def test_what_can_be_asked_for(earlier: Earlier, path: str, body: Any, status: int, expected: str) -> None:
    sent = json.loads(_filled(earlier, json.dumps(body)))
    response = earlier.server.client.post(_filled(earlier, path), json=sent)
    assert response.status_code == status, response.text
    if status == 200:
        assert _has(response.json(), expected) == []
        return
    assert _has(response.json(), "detail error message suggestions request_id") == []
    assert response.json()["detail"].startswith(expected)


@pytest.mark.parametrize("path", MISSING)
def test_what_is_not_there(earlier: Earlier, path: str) -> None:
    response = earlier.server.client.get(path)
    assert response.status_code == 404
    assert response.json()["detail"].startswith(MISSING[path])


def test_files_have_their_types_and_can_be_read_in_parts(earlier: Earlier) -> None:
    client, outputs = earlier.server.client, f"/api/v1/outputs/{earlier.finished}"
    whole = client.get(f"{outputs}/download")
    assert whole.headers["content-type"] == "video/mp4"
    assert f'attachment; filename="wan22_video_{earlier.finished}.mp4"' in whole.headers["content-disposition"]
    part = client.get(f"{outputs}/video", headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    for picture in (f"{outputs}/thumbnail", f"/thumbnails/{earlier.finished}_thumb.jpg"):
        assert client.get(picture).headers["content-type"] == "image/jpeg"


def test_a_task_is_cancelled_deleted_and_cleared_in_the_words_that_clients_compare(earlier: Earlier) -> None:
    client, task_id = earlier.server.client, earlier.server.submit()
    active = client.delete(f"/queue/{task_id}")
    assert (active.status_code, active.json()["detail"]) == (409, "Cannot delete active task. Cancel it first.")
    assert "cancelled successfully" in client.post(f"/queue/{task_id}/cancel", json={}).json()["message"]
    assert "deleted successfully" in client.delete(f"/queue/{task_id}").json()["message"]
    assert client.delete(f"/queue/{task_id}").status_code == 404
    cleared = client.post("/api/v1/queue/clear", json={}).json()
    assert cleared["message"].startswith("Cleared")
    assert client.get(f"/outputs/{earlier.finished}").status_code == 200


def test_the_lists_have_items_as_the_pages_read_them(earlier: Earlier) -> None:
    client = earlier.server.client
    queue = client.get("/queue").json()
    assert (
        _has(queue["tasks"][0], "id model_type prompt resolution steps lora_strength status progress created_at") == []
    )
    assert {item["model_type"] for item in queue["queue"]} <= {"t2v", "i2v", "ti2v"}
    assert not [name for item in queue["queue"] for name, value in item.items() if value is None]
    assert _has(client.get("/outputs").json()["videos"][0], VIDEO) == []
    lora = client.get("/api/v1/lora/list").json()["loras"][0]
    fields = "name filename path size_mb modified_time is_loaded is_applied current_strength created_at"
    assert _has(lora, f"{fields} compatible_models") == []
    assert _has(client.get("/api/v1/prompt/styles").json()["styles"][0], "name display_name description") == []


def test_topics_about_what_stands_begin_with_the_state_of_now(earlier: Earlier) -> None:
    first = {
        "model_status": ("batch_model_status_update", "models count timestamp"),
        "health_monitoring": ("system_health_report", "overall_status issues timestamp"),
        "analytics_updates": ("usage_statistics_update", "system_analytics.total_uses model_analytics timestamp"),
    }
    with connect(earlier.server.url.replace("http", "ws", 1) + "/ws", open_timeout=30) as socket:
        for topic, (kind, fields) in first.items():
            socket.send(json.dumps({"type": "subscribe", "data": {"topic": topic}}))
            message = next(one for one in map(json.loads, socket) if one["type"] == kind)
            assert _has(message["data"], fields) == []


@pytest.mark.parametrize("path", ["/ws", "/api/v1/ws"])
def test_the_control_messages_of_the_socket(earlier: Earlier, path: str) -> None:
    with connect(earlier.server.url.replace("http", "ws", 1) + path, open_timeout=30) as socket:

        def until(kind: str) -> dict[str, Any]:
            while True:
                message: dict[str, Any] = json.loads(socket.recv(30))
                if message["type"] == kind:
                    return message

        def ask(kind: str, **data: Any) -> None:
            socket.send(json.dumps({"type": kind, "data": data}))

        hello = until("connection_established")["data"]
        assert _has(hello, "connection_id available_topics message") == []
        ask("subscribe", topic="system_stats")
        assert until("subscription_response")["data"]["subscribed"] is True
        assert _has(until("system_stats_update")["data"], STATS) == []
        ask("get_status")
        status = until("status_response")["data"]
        assert _has(status, "connection_id active_connections subscriptions subscription_counts") == []
        ask("ping", timestamp=7)
        pong = until("pong")["data"]
        assert (pong["timestamp"], pong["message"]) == (7, "pong")
        ask("unsubscribe", topic="system_stats")
        assert _has(until("unsubscription_response")["data"], "topic unsubscribed message") == []
        ask("nonsense")
        assert _has(until("error")["data"], "message") == []
        task_id = earlier.server.submit()
        earlier.server.client.post(f"/queue/{task_id}/cancel", json={})
        while (update := until("task_update"))["data"]["task_id"] != task_id or update["status"] != "cancelled":
            continue
        assert update["data"]["status"] == "cancelled"
