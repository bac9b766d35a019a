"""Optimization settings count at once in every estimate and submit, survive a restart, and are advised with numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.core.planning.constraints import PRESETS
from tests.api.planning.test_estimate import ESTIMATE, install, profile
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error

SETTINGS = "/api/v1/system/optimization"
DEFAULTS = {"quantization": "auto", "enable_offload": True, "vae_tile_size": 256, "max_vram_usage_gb": None}
BIG = GOOD | {"model_type": "T2V-A14B"}


def plan_of(served: Served, wanted: dict[str, Any] = BIG) -> dict[str, Any]:
    answer = served.client.post(ESTIMATE, json=wanted)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()["plan"]
    return plan


@pytest.fixture
def big(serve: Callable[..., Served]) -> Served:
    """A server whose worker has a card of 80 GiB and 256 GiB of memory, and the files of one large model."""
    served = serve(workers_on=profile(80, 256, "NVIDIA H100"))
    install(served, "T2V-A14B")
    return served


def test_a_limit_counts_at_once_and_after_a_restart(big: Served) -> None:
    assert big.client.get(SETTINGS).json() == DEFAULTS
    before = plan_of(big)
    assert before["vram"]["value"] > 20
    changed = big.client.post(SETTINGS, json={"max_vram_usage_gb": 20})
    assert changed.status_code == 200, changed.text
    after = plan_of(big)
    assert after["vram"]["value"] <= 20
    assert "20.0 GiB allowed" in after["reason"]
    saved = changed.json()["estimated_vram_savings_gb"]
    assert saved == pytest.approx(before["vram"]["value"] - after["vram"]["value"], abs=0.01)
    assert "current_vram_usage_gb" not in changed.json()  # the card is imagined: nobody can say
    again = Served(big.services.home.root, workers_on=profile(80, 256, "NVIDIA H100"))
    try:
        assert again.client.get(SETTINGS).json() == DEFAULTS | {"max_vram_usage_gb": 20.0}
        assert plan_of(again) == after
    finally:
        again.client.__exit__(None, None, None)


def test_submit_refuses_what_the_settings_do_not_allow(big: Served) -> None:
    big.client.post(SETTINGS, json={"enable_offload": False, "quantization": "bf16", "max_vram_usage_gb": 40})
    body = assert_error(big.client.post(SUBMIT, json=BIG), 422, "does_not_fit")
    assert "40.0 GiB that the optimization settings allow" in body["detail"]
    assert big.count() == 0
    assert big.client.post(SUBMIT, json=GOOD).status_code == 200  # the embedded models run anywhere
    big.client.post(SETTINGS, json=DEFAULTS)
    assert big.client.post(SUBMIT, json=BIG).status_code == 200


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"quantization": "bf16"}, lambda plan: plan["storage"] == "bf16"),
        ({"quantization": "fp16"}, lambda plan: plan["storage"] == "bf16"),
        ({"quantization": "fp8"}, lambda plan: plan["storage"] == "fp8"),
        ({"quantization": "int8"}, lambda plan: plan["storage"] == "fp8"),
        ({"enable_offload": False}, lambda plan: plan["placement"] == "resident" and not plan["text_encoder_on_cpu"]),
        ({"vae_tile_size": 192}, lambda plan: not plan["tiled_decode"] or plan["tile_size"] == 192),
    ],
)
def test_every_option_that_fits_keeps_to_the_settings(
    big: Served, values: dict[str, Any], allowed: Callable[[dict[str, Any]], bool]
) -> None:
    changed = big.client.post(SETTINGS, json=values).json()
    options = big.client.post(ESTIMATE, json=BIG).json()["options"]
    fitting = [option for option in options if option["fits"]]
    assert fitting
    assert all(allowed(option) for option in fitting)
    word = values.get("quantization")
    if word in ("fp16", "int8"):
        assert f"{word} is stored as {changed['quantization']}" in changed["message"]


@pytest.mark.parametrize(
    "values",
    [
        {"vae_tile_size": 127},
        {"vae_tile_size": 513},
        {"max_vram_usage_gb": 81},
        {"max_vram_usage_gb": 0.5},
        {"quantization": "int4"},
        {"quantization": None},
        {"enable_offload": "perhaps"},
        {"something": 1},
    ],
)
def test_what_is_out_of_range_changes_nothing(big: Served, values: dict[str, Any]) -> None:
    body = assert_error(big.client.post(SETTINGS, json={"vae_tile_size": 128} | values), 422)
    assert big.client.get(SETTINGS).json() == DEFAULTS
    if "max_vram_usage_gb" in values:
        assert "between 1 and 80" in body["detail"]


def test_a_machine_without_a_card_has_no_vram_to_limit(serve: Callable[..., Served]) -> None:
    served = serve(device="cpu")
    body = assert_error(served.client.post(SETTINGS, json={"max_vram_usage_gb": 12}), 422)
    assert body["details"] == {"field": "max_vram_usage_gb"}
    changed = served.client.post(SETTINGS, json=DEFAULTS | {"quantization": "fp8"}).json()
    assert "estimated_vram_savings_gb" not in changed
    plan = plan_of(served, GOOD)
    assert (plan["fits"], plan["storage"]) == (True, "fp32")  # the processor computes in its own precision


def test_a_broken_configuration_is_not_written_over(big: Served) -> None:
    big.services.home.config_file.write_text("{")
    assert_error(big.client.post(SETTINGS, json={"vae_tile_size": 128}), 500, "bad_settings")
    assert big.services.home.config_file.read_text() == "{"
    assert plan_of(big)["fits"]


def test_presets_say_what_they_do_here_and_can_be_applied(big: Served) -> None:
    answer = big.client.get("/api/v1/optimization/presets").json()
    presets = answer["presets"]
    assert list(presets) == list(PRESETS)
    assert len(presets) == 6
    assert answer["system_info"]["total_vram_gb"] == 80
    for name, preset in presets.items():
        assert preset["compatible"] is preset["effects"][0]["fits"], name
        assert preset["compatibility_reason"].startswith("T2V-A14B: ")
    small, whole = presets["ultra_efficient"], presets["quality_focused"]
    assert small["settings"]["max_vram_usage_gb"] == 28.0
    assert small["effects"][0]["vram_gb"] <= 28 < whole["effects"][0]["vram_gb"]
    assert small["vram_savings_gb"] > 0
    assert (small["quality_impact"], whole["quality_impact"].split(":")[0]) == ("weights rounded to 8 bits", "none")
    assert small["estimated_time_multiplier"] >= 1
    applied = big.client.post("/api/v1/optimization/apply-preset/ultra_efficient")
    assert applied.status_code == 200, applied.text
    assert big.client.get(SETTINGS).json() == applied.json()["settings"] == small["settings"]
    plan = plan_of(big)
    assert (plan["storage"], plan["vram"]["value"] <= 28) == ("fp8", True)
    assert plan["vram"]["value"] == small["effects"][0]["vram_gb"]


def test_a_preset_that_no_model_fits_is_refused(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(24, 128))
    install(served, "T2V-A14B")
    preset = served.client.get("/api/v1/optimization/presets").json()["presets"]["high_performance"]
    assert preset["compatible"] is False
    assert preset["min_vram_gb"] > 24
    refused = served.client.post("/api/v1/optimization/apply-preset/high_performance")
    body = assert_error(refused, 409, "preset_does_not_fit")
    assert body["detail"] == preset["compatibility_reason"]
    assert_error(served.client.post("/api/v1/optimization/apply-preset/turbo"), 404, "preset_not_found")
    assert served.client.get(SETTINGS).json() == DEFAULTS


def test_nothing_is_recommended_where_all_is_well(big: Served) -> None:
    assert settings_advice(big) == []


def test_settings_that_keep_a_model_away_are_named_with_what_helps(big: Served) -> None:
    big.client.post(SETTINGS, json={"enable_offload": False, "max_vram_usage_gb": 30})
    (advice,) = settings_advice(big)
    assert "T2V-A14B" in advice["message"]
    assert "30.0 GiB" in advice["reason"]
    assert big.client.post(SETTINGS, json=advice["settings"]).status_code == 200
    assert settings_advice(big) == []
    assert plan_of(big)["fits"]


def test_settings_that_make_videos_slower_are_named_with_the_seconds(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(80, 256, "NVIDIA H100"))
    install(served, "TI2V-5B")
    wanted = GOOD | {"model_type": "TI2V-5B"}
    free = plan_of(served, wanted)["seconds"]["value"]
    changed = served.client.post(SETTINGS, json={"max_vram_usage_gb": 16}).json()
    bound = plan_of(served, wanted)["seconds"]["value"]
    assert bound > 1.1 * free
    (advice,) = settings_advice(served)
    assert f"{bound:.0f} s" in advice["reason"]
    assert f"{free:.0f} s" in advice["reason"]
    assert changed["recommendations"] == [f"{advice['message']} ({advice['reason']})"]


def test_tasks_that_ran_out_of_memory_are_noticed(served: Served) -> None:
    for seed in (1, 2):
        served.submit(seed=seed)
        steps = [{"at": "step 3", "from": "resident-bf16", "to": "expert-swap-bf16", "reason": "no room"}]
        result = {"quality": "ok", "fallbacks": steps if seed == 1 else []}
        served.complete(served.claim(), result=result)
    found = served.client.get("/api/v1/optimization/recommendations").json()["recommendations"]
    (advice,) = (one for one in found if one["kind"] == "memory")
    assert "1 of the last 2 videos" in advice["reason"]
    assert "expert-swap-bf16" in advice["reason"]


def test_the_analysis_says_plans_reasons_and_where_the_seconds_went(served: Served) -> None:
    served.submit()
    seconds = {"denoise_high": 3.0, "denoise_low": 1.0, "decode": 0.5}
    served.complete(served.claim(), device="cpu", result={"quality": "ok", "loras": [], "seconds": seconds})
    body = served.client.get("/api/v1/optimization/analysis").json()
    assert body["mean_seconds_by_phase"] == {TINY: seconds}
    assert body["effects"]
    assert all(effect["reason"] for effect in body["effects"])
    assert 0 <= body["current_usage"]["ram_percent"] <= 100
    assert body["machine"]["kind"] in ("cpu", "cuda")


def settings_advice(served: Served) -> list[dict[str, Any]]:
    """What is recommended, without what depends on how busy this machine is."""
    found = served.client.get("/api/v1/optimization/recommendations").json()["recommendations"]
    return [one for one in found if one["kind"] != "resources"]
