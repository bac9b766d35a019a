"""Plans are never over budget, more memory never makes one slower, and a refusal always names what would fit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.catalogue.table import MODELS
from backend.core.planning.cost_model import CARDS, Basis, Workload
from backend.core.planning.hardware import GIB, Gpu, detect_hardware
from backend.core.planning.machine import Machine
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.planning.optimizer import DEVIATION_GAIN, Decision, WAN22SystemOptimizer
from backend.core.requests.frame_size import snap_frames, snap_size
from tests.core.planning.test_cost_model import workload

CARD_NAMES = [f"NVIDIA {word}" for word, _ in CARDS] + ["NVIDIA Something Else"]


def machine(vram: float | None, ram: float | None, *, name: str = "NVIDIA H100") -> Machine:
    """A machine with a card; memory in GiB."""
    return Machine(
        name,
        cuda=True,
        vram=None if vram is None else int(vram * GIB),
        ram=None if ram is None else int(ram * GIB),
        compute_capability=(9, 0),
        cores=8,
    )


def decide(on: Machine, work: Workload, policy: OomPolicy = OomPolicy.QUALITY) -> Decision:
    return WAN22SystemOptimizer(on).decide(work, policy)


@st.composite
def works(draw: st.DrawFn) -> Workload:
    """Any legal request of any model."""
    spec = MODELS[draw(st.sampled_from(list(MODELS)))]
    step = spec.size_multiple
    width = draw(st.integers(-(-spec.min_side // step), 1920 // step)) * step
    highest = max(-(-spec.min_side // step), min(1920, spec.max_pixels // width) // step)
    height = draw(st.integers(-(-spec.min_side // step), highest)) * step
    frames = draw(st.integers(0, (spec.max_frames - 1) // 4)) * 4 + 1
    if width * height > spec.max_pixels:
        width, height = spec.width, spec.height
    steps = draw(st.integers(1, 100))
    lora = draw(st.integers(0, 2 * GIB))
    work = workload(spec.id, steps=steps)
    return replace(work.resized(width, height, frames), lora_bytes=lora)


MACHINES = st.builds(
    lambda name, vram, ram, capability, float32: replace(
        machine(vram, ram, name=name), compute_capability=capability, float32=float32
    ),
    st.sampled_from(CARD_NAMES),
    st.floats(4, 200),
    st.floats(8, 512),
    st.sampled_from([None, (7, 5), (8, 0), (9, 0)]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(work=works(), on=MACHINES, policy=st.sampled_from(OomPolicy))
def test_the_chosen_plan_is_never_over_budget(work: Workload, on: Machine, policy: OomPolicy) -> None:
    decision = decide(on, work, policy)
    assert len(decision.options) == 4 * len(PLANS)
    for option in decision.options:
        assert option.reason
        if option.fits:
            assert on.usable_vram is not None
            assert on.usable_ram is not None
            assert option.needs.vram <= on.usable_vram < (on.vram or 0)
            assert option.needs.ram <= on.usable_ram < (on.ram or 0)
    if decision.chosen is not None:
        assert decision.chosen.fits
        assert decision.chosen in decision.options
        fastest = min(option.seconds.warm for option in decision.options if option.fits)
        assert decision.chosen.seconds.warm <= fastest * (1 if policy is OomPolicy.SPEED else DEVIATION_GAIN)
        assert decision.instead is None
    assert decision.start.possible
    assert decision.start is decision.chosen or not decision.fits


@settings(max_examples=100, deadline=None)
@given(
    work=works(),
    on=MACHINES,
    vram=st.floats(0, 100),
    ram=st.floats(0, 256),
    policy=st.sampled_from(OomPolicy),
)
def test_more_memory_never_gives_a_slower_plan_except_to_keep_the_pixels(
    work: Workload, on: Machine, vram: float, ram: float, policy: OomPolicy
) -> None:
    larger = replace(on, vram=(on.vram or 0) + int(vram * GIB), ram=(on.ram or 0) + int(ram * GIB))
    before, after = decide(on, work, policy).chosen, decide(larger, work, policy).chosen
    if before is None:
        return
    assert after is not None
    assert after.seconds.warm <= before.seconds.warm * (1 if policy is OomPolicy.SPEED else DEVIATION_GAIN)


def test_weights_are_rounded_under_speed_and_otherwise_only_for_a_large_gain() -> None:
    card = machine(24, 128, name="NVIDIA GeForce RTX 4090")
    rounded_for: dict[OomPolicy, int] = dict.fromkeys(OomPolicy, 0)
    reasons: set[str] = set()
    for work in (workload(model, width=832, height=480) for model in ("T2V-A14B", "I2V-A14B")):
        for vram in range(12, 81, 2):
            on = replace(card, vram=vram * GIB)
            for policy in OomPolicy:
                decision = decide(on, work, policy)
                exact = [one for one in decision.options if one.fits and one.plan.storage is Storage.BF16]
                if decision.chosen is None or decision.chosen.plan.storage is Storage.BF16:
                    reasons |= {one.reason for one in decision.options}
                    continue
                rounded_for[policy] += 1
                if policy is not OomPolicy.SPEED:
                    gain = DEVIATION_GAIN * decision.chosen.seconds.warm
                    assert all(one.seconds.warm > gain for one in exact)
    assert rounded_for[OomPolicy.SPEED] > rounded_for[OomPolicy.QUALITY] == rounded_for[OomPolicy.NONE]
    assert any("not by enough to justify rounding the weights" in reason for reason in reasons)
    assert any("not by enough to justify decoding in tiles" in reason for reason in reasons)
    assert any("changes no pixel" in reason for reason in reasons)


@settings(max_examples=100, deadline=None)
@given(work=works(), on=MACHINES, policy=st.sampled_from(OomPolicy))
def test_float32_never_needs_less_memory(work: Workload, on: Machine, policy: OomPolicy) -> None:
    usual, wide = (decide(replace(on, float32=float32), work, policy) for float32 in (False, True))
    for less, more in zip(usual.options, wide.options, strict=True):
        assert more.needs.vram > less.needs.vram or less.plan.placement is not Placement.RESIDENT
        assert (more.needs.vram, more.needs.ram) >= (less.needs.vram, less.needs.ram)
        assert more.needs.ram >= less.needs.ram
        assert more.needs.pinned >= less.needs.pinned
        assert more.seconds.warm >= less.seconds.warm
        assert usual.fits or not more.fits
    assert not wide.seconds_known, "published runs are in 16 bits"


def test_a_card_that_computes_in_float32_holds_half_as_much() -> None:
    on, work = machine(80, 256, name="NVIDIA H100"), workload("TI2V-5B")
    wide = replace(on, float32=True)
    usual = {option.plan: option.needs for option in decide(on, work).options}
    twice = {option.plan: option.needs for option in decide(wide, work).options}
    arch, plan = work.architecture, PLANS[0]
    # Text encoder and experts, but not their norms and the VAE, which are float32 everywhere.
    more = twice[plan].vram - usual[plan].vram
    weights = 2 * (arch.expert_parameters + arch.text.parameters)
    assert more >= 0.99 * weights
    assert decide(replace(wide, vram=usual[plan].vram + 4 * GIB), work).start.plan != plan
    assert decide(replace(on, vram=usual[plan].vram + 4 * GIB), work).start.plan == plan


@settings(max_examples=100, deadline=None)
@given(work=works(), on=MACHINES)
def test_every_refusal_names_a_legal_request_that_is_accepted(work: Workload, on: Machine) -> None:
    decision = decide(on, work)
    if decision.fits:
        return
    assert decision.instead is not None
    assert "does not fit" in decision.reason
    spec = decision.instead.spec
    assert snap_size(spec, decision.instead.width, decision.instead.height)[2] == ()
    assert snap_frames(spec, decision.instead.num_frames)[1] == ()
    assert decide(on, decision.instead).fits
    if work.encoded_frames:
        assert spec.takes_image


@pytest.mark.parametrize("model", ["T2V-A14B", "I2V-A14B", "TI2V-5B"])
def test_a_large_card_holds_everything_unchanged(model: str) -> None:
    decision = decide(machine(141, 128, name="NVIDIA H200"), workload(model))
    assert decision.chosen is not None
    plan = decision.chosen.plan
    assert (plan.placement, plan.storage, plan.tiled_decode) == (Placement.RESIDENT, Storage.BF16, False)
    assert "fastest of" in decision.reason
    assert decision.chosen.seconds.basis is Basis.ESTIMATED


def test_a_24_gb_card_streams_a14b_if_host_memory_suffices() -> None:
    card = machine(24, 128, name="NVIDIA GeForce RTX 4090")
    decision = decide(card, workload("T2V-A14B", width=832, height=480))
    assert decision.chosen is not None
    assert decision.chosen.plan.placement in (Placement.BLOCK_STREAM, Placement.EXPERT_SWAP)
    little = decide(replace(card, ram=16 * GIB), workload("T2V-A14B", width=832, height=480))
    assert not little.fits
    assert "RAM of 16.0 GiB" in little.reason
    assert little.instead is not None
    assert little.instead.model != "T2V-A14B"


def test_a_single_expert_is_never_swapped_and_old_cards_have_no_fp8() -> None:
    decision = decide(replace(machine(80, 128), compute_capability=(7, 5)), workload("TI2V-5B"))
    for option in decision.options:
        if option.plan.placement is Placement.EXPERT_SWAP:
            assert "one expert" in option.reason
        elif option.plan.storage is Storage.FP8:
            assert "8.0" in option.reason
            assert "7.5" in option.reason


def test_a_processor_computes_in_float32_in_place() -> None:
    on = Machine("x86_64", cuda=False, vram=None, ram=8 * GIB, cores=2)
    decision = decide(on, workload("tiny-t2v-a14b"))
    assert decision.chosen is not None
    assert decision.chosen.plan.placement is Placement.RESIDENT
    assert decision.chosen.needs.vram == decision.chosen.needs.pinned == 0
    large = decide(on, workload("T2V-A14B"))
    assert not large.fits
    assert large.instead is not None
    assert large.instead.spec.embedded
    assert large.start.plan == MemoryPlan(Placement.RESIDENT, Storage.BF16, tiled_decode=True), "where it begins anyway"


def test_unknown_memory_refuses_nothing() -> None:
    for model in MODELS:
        decision = decide(machine(None, None), workload(model))
        assert decision.chosen is not None
        assert decision.chosen.plan.placement is Placement.RESIDENT
        assert "unknown" in decision.reason


def test_an_unknown_card_is_compared_but_has_no_seconds() -> None:
    decision = decide(machine(24, 64, name="NVIDIA Something Else"), workload("TI2V-5B"))
    assert decision.fits
    assert not decision.seconds_known
    assert not any(" s more" in option.reason for option in decision.options)


def test_the_configured_device_decides() -> None:
    gpus = (Gpu(0, "NVIDIA H100", 80 * GIB, 0, None, (9, 0)), Gpu(1, "NVIDIA A100", 40 * GIB, 0, None, (8, 0)))
    profile = replace(detect_hardware(), gpus=gpus)
    assert Machine.of(profile).name == "NVIDIA H100"
    assert Machine.of(profile, "cuda:1").vram == 40 * GIB
    assert Machine.of(profile, "cuda:5").vram is None
    assert not Machine.of(profile, "cpu").cuda
    assert not Machine.of(replace(profile, gpus=())).cuda
    assert Machine.of(profile, "cuda:0", "float32").float32
    assert not Machine.of(profile, "cuda:0", "bfloat16").float32


def test_a_machine_round_trips_through_its_record() -> None:
    for one in (machine(24, 64), replace(machine(None, None), compute_capability=None, float32=True, vram_limit=1)):
        assert Machine.from_json(json.loads(json.dumps(asdict(one)))) == one
