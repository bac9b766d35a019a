"""The plan that a run starts with: the planner's, lowered by lessons that still hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.errors.surroundings import StoreUnavailable
from backend.core.paths import Home
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine
from backend.core.planning.memory_ladder import Fallback, MemoryUse
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import native_request, resolve_request
from backend.core.settings import load_settings
from backend.models.lora.library import LoraLibrary
from backend.services.planning.forecast import Forecast
from backend.services.run.start_plans import StartPlan, StartPlans
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore

RESIDENT = PLANS[0]
SWAP = MemoryPlan(Placement.EXPERT_SWAP, Storage.BF16)
STREAM_TILED = MemoryPlan(Placement.BLOCK_STREAM, Storage.BF16, tiled_decode=True, tile_size=128)
FILES = "as they are"


def request(width: int, height: int, frames: int, model: str = "tiny-t2v-a14b") -> GenerationRequest:
    draft = RequestDraft("a red circle", width=width, height=height, num_frames=frames)
    return resolve_request(MODELS[model], draft)[0]


SMALL, MIDDLE, LONG = request(96, 64, 9), request(128, 96, 9), request(96, 64, 33)


def rung(use: MemoryUse) -> list[Fallback]:
    return [Fallback(use, f"some {use}", RESIDENT.words, SWAP.words, "no memory")]


class Device:
    """Memory that other programs allocate and free."""

    def __init__(self, free: int | None) -> None:
        self.bytes = free

    def free(self) -> int | None:
        return self.bytes


@pytest.mark.parametrize("use", list(MemoryUse))
def test_a_lesson_holds_for_clips_that_are_at_least_as_large(use: MemoryUse) -> None:
    plans = StartPlans()
    plans.learn(MIDDLE, FILES, SWAP, rung(use))
    assert plans.choose(MIDDLE, FILES).plan == SWAP
    assert f"memory ran out at some {use} before" in plans.choose(MIDDLE, FILES).reason
    fixed = use in (MemoryUse.LOAD, MemoryUse.TEXT)
    assert plans.choose(SMALL, FILES).plan == (SWAP if fixed else RESIDENT)
    assert plans.choose(LONG, FILES).plan == (SWAP if fixed else RESIDENT), "its picture is smaller"
    assert plans.choose(replace(MIDDLE, num_frames=17), FILES).plan == SWAP
    shorter = plans.choose(replace(MIDDLE, num_frames=5), FILES).plan
    assert shorter == (SWAP if fixed else RESIDENT), "its picture is as large, and its clip is not"
    assert plans.choose(request(128, 96, 9, "tiny-ti2v-5b"), FILES).plan == RESIDENT, "another model"


def test_lessons_lower_the_plan_and_add_up() -> None:
    planned = StartPlan(replace(SWAP, text_encoder_on_cpu=True), "as planned")
    plans = StartPlans(lambda _: planned)
    assert plans.choose(SMALL, FILES) is planned
    plans.learn(SMALL, FILES, SWAP, rung(MemoryUse.STEP))
    assert plans.choose(SMALL, FILES) is planned, "it is as low as that already"
    plans.learn(MIDDLE, FILES, STREAM_TILED, rung(MemoryUse.DECODE))
    assert plans.choose(SMALL, FILES) is planned
    assert plans.choose(MIDDLE, FILES).plan == replace(STREAM_TILED, text_encoder_on_cpu=True)


def test_a_run_with_enough_memory_teaches_nothing() -> None:
    plans = StartPlans()
    plans.learn(SMALL, FILES, SWAP, [])
    assert plans.choose(SMALL, FILES).plan == RESIDENT


def test_other_files_are_another_model() -> None:
    plans = StartPlans()
    plans.learn(SMALL, FILES, SWAP, rung(MemoryUse.LOAD))
    assert plans.choose(SMALL, "others").plan == RESIDENT
    assert plans.choose(SMALL, FILES).plan == RESIDENT, "what was forgotten does not come back"


def test_memory_freed_by_others_ends_a_lesson() -> None:
    device = Device(10 * GIB)
    plans = StartPlans(free=device.free)
    plans.learn(SMALL, FILES, SWAP, rung(MemoryUse.STEP))
    for free in (9 * GIB, 10 * GIB + GIB // 2, None):
        device.bytes = free
        assert plans.choose(SMALL, FILES).plan == SWAP, "a little more or less comes and goes by itself"
    device.bytes = 12 * GIB
    assert plans.choose(SMALL, FILES).plan == RESIDENT


def card(gib: float) -> Machine:
    return Machine("NVIDIA H100", cuda=True, vram=int(gib * GIB), ram=128 * GIB, compute_capability=(9, 0), cores=16)


def forecast_on(machine: Machine, home: Home) -> Forecast:
    database = Database(load_settings(home=home.root).database)
    database.migrate()
    database.close()
    return Forecast(machine, OutputStore(database, home), LoraLibrary(home), binding=True)


def test_a_worker_starts_with_the_estimated_plan_for_the_free_memory(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    forecast = forecast_on(card(141), home)
    wanted = native_request(MODELS["T2V-A14B"])
    device = Device(None)
    plans = StartPlans.of(forecast, device.free)
    estimate = forecast.decide(wanted)
    assert estimate.chosen is not None
    assert plans.choose(wanted, FILES) == StartPlan(estimate.chosen.plan, estimate.reason, estimate.chosen.seconds)
    assert estimate.chosen.plan == RESIDENT
    device.bytes = 24 * GIB
    others = plans.choose(wanted, FILES)
    assert others.plan == forecast_on(card(24), home).decide(wanted).start.plan
    assert others.plan.placement is Placement.BLOCK_STREAM
    assert "24.0 GiB VRAM" in others.reason
    device.bytes = 4 * GIB
    nothing = plans.choose(wanted, FILES)
    assert nothing.plan.placement is Placement.BLOCK_STREAM, "it begins as low as it can"
    assert "does not fit" in nothing.reason
    device.bytes = 200 * GIB
    assert plans.choose(wanted, FILES).plan == RESIDENT


def test_without_the_database_published_rates_apply(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    forecast = forecast_on(card(141), home)
    for path in home.database.parent.glob(f"{home.database.name}*"):
        path.write_bytes(b"not a database at all" * 400)
    wanted = native_request(MODELS["T2V-A14B"])
    with pytest.raises(StoreUnavailable):
        forecast.decide(wanted)
    plans = StartPlans.of(forecast, Device(None).free)
    assert plans.choose(wanted, FILES).plan == RESIDENT
