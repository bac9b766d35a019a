"""The operator's constraints: kept across restarts, refused out of range, and obeyed by every decision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.config.file import ConfigFile
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.planning.constraints import OptimizationSettings, Quantization, stored_optimization
from backend.core.planning.cost_model import Workload
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine
from backend.core.planning.memory_plan import Placement, Storage
from backend.core.planning.optimizer import WAN22SystemOptimizer
from tests.core.planning.test_cost_model import workload
from tests.core.planning.test_optimizer import MACHINES, machine, works

CARD = 24 * GIB - 100


def test_stored_settings_are_read_by_the_next_process_and_other_sections_stay(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"mine": {"a": 1}}))
    wanted = OptimizationSettings(Quantization.FP8, False, 192, 12.5)
    stored_optimization(ConfigFile(path)).change(wanted.to_json())
    assert stored_optimization(ConfigFile(path)).read() == wanted
    assert json.loads(path.read_text())["mine"] == {"a": 1}


def test_without_stored_settings_nothing_is_constrained(tmp_path: Path) -> None:
    assert stored_optimization(ConfigFile(tmp_path / "config.json")).read() == OptimizationSettings()


@pytest.mark.parametrize("content", ["{", "[]", '{"optimization": 3}', '{"optimization": {"vae_tile_size": 9}}'])
def test_a_broken_section_is_reported_and_the_defaults_apply(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    kept = stored_optimization(ConfigFile(path))
    with pytest.raises(BadSettings, match=r"config\.json"):
        kept.read()
    assert kept.current() == OptimizationSettings()
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vae_tile_size": 127}, "between 128 and 512"),
        ({"vae_tile_size": 513}, "between 128 and 512"),
        ({"vae_tile_size": True}, "between 128 and 512"),
        ({"vae_tile_size": 200.5}, "between 128 and 512"),
        ({"max_vram_usage_gb": 24.1}, "between 1 and 24"),
        ({"max_vram_usage_gb": 0.5}, "between 1 and 24"),
        ({"max_vram_usage_gb": float("nan")}, "between 1 and 24"),
        ({"max_vram_usage_gb": "12"}, "between 1 and 24"),
        ({"quantization": "int4"}, "auto, bf16, fp8"),
        ({"enable_offload": "yes"}, "true or false"),
        ({"tile": 256}, "vae_tile_size"),
    ],
)
def test_an_out_of_range_value_is_refused_with_the_range(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        OptimizationSettings.from_json(values, vram=CARD)


def test_the_limit_may_be_the_nominal_size_of_the_card_and_anything_if_unknown() -> None:
    assert OptimizationSettings.from_json({"max_vram_usage_gb": 24}, vram=CARD).max_vram == 24 * GIB
    assert OptimizationSettings.from_json({"max_vram_usage_gb": 141}).max_vram == 141 * GIB


@pytest.mark.parametrize(("word", "meaning"), [("fp16", "bf16"), ("int8", "fp8"), ("BF16", "bf16"), ("auto", "auto")])
def test_values_from_older_clients_are_accepted(word: str, meaning: str) -> None:
    assert OptimizationSettings.from_json({"quantization": word}).quantization == meaning


BOUNDS = st.builds(
    OptimizationSettings,
    st.sampled_from(Quantization),
    st.booleans(),
    st.integers(128, 512),
    st.none() | st.floats(1, 200),
)


@settings(max_examples=150, deadline=None)
@given(work=works(), on=MACHINES, bounds=BOUNDS)
def test_no_chosen_plan_violates_a_constraint(work: Workload, on: Machine, bounds: OptimizationSettings) -> None:
    decision = WAN22SystemOptimizer(on, constraints=bounds).decide(work)
    can_fp8 = on.compute_capability is None or on.compute_capability >= (8, 0)
    for option in decision.options:
        assert option.reason
        if not option.fits:
            continue
        if bounds.quantization is Quantization.BF16:
            assert option.plan.storage is Storage.BF16
        if bounds.quantization is Quantization.FP8 and can_fp8:
            assert option.plan.storage is Storage.FP8
        if not bounds.enable_offload:
            assert (option.plan.placement, option.plan.text_encoder_on_cpu) == (Placement.RESIDENT, False)
        if bounds.max_vram is not None:
            assert option.needs.vram <= bounds.max_vram
        assert option.plan.tile_size == (bounds.vae_tile_size if option.plan.tiled_decode else 256)
    if decision.instead is not None:
        assert WAN22SystemOptimizer(on, constraints=bounds).decide(decision.instead).fits


@settings(max_examples=60, deadline=None)
@given(work=works(), on=MACHINES, bounds=BOUNDS)
def test_a_constraint_only_removes_plans(work: Workload, on: Machine, bounds: OptimizationSettings) -> None:
    bounds = replace(bounds, vae_tile_size=256)
    free = WAN22SystemOptimizer(on).decide(work)
    bound = WAN22SystemOptimizer(on, constraints=bounds).decide(work)
    possible = {option.plan for option in free.options if option.fits}
    assert {option.plan for option in bound.options if option.fits} <= possible
    assert free.fits or not bound.fits


def test_a_limit_changes_the_plan_and_is_named_as_the_reason() -> None:
    on, work = machine(80, 256), workload("T2V-A14B")
    free = WAN22SystemOptimizer(on).decide(work)
    bound = WAN22SystemOptimizer(on, constraints=OptimizationSettings(max_vram_usage_gb=20)).decide(work)
    assert free.chosen is not None
    assert bound.chosen is not None
    assert bound.chosen.needs.vram <= 20 * GIB < free.chosen.needs.vram
    assert "20.0 GiB allowed" in bound.reason
    assert any("20.0 GiB that the optimization settings allow" in option.reason for option in bound.options)


def test_smaller_tiles_need_less_memory() -> None:
    on, work = machine(24, 128), workload("TI2V-5B")
    needs = {}
    for tile in (128, 256, 512):
        options = WAN22SystemOptimizer(on, constraints=OptimizationSettings(vae_tile_size=tile)).decide(work).options
        tiled = (one for one in options if one.plan.tiled_decode and one.plan.placement is Placement.BLOCK_STREAM)
        needs[tile] = next(tiled).needs.vram
    assert needs[128] <= needs[256] < needs[512]


def test_a_card_without_fp8_continues_in_bf16() -> None:
    old = replace(machine(48, 256), compute_capability=(7, 5))
    decision = WAN22SystemOptimizer(old, constraints=OptimizationSettings(Quantization.FP8)).decide(workload("TI2V-5B"))
    assert decision.chosen is not None
    assert decision.chosen.plan.storage is Storage.BF16
