"""Operations match published counts to four digits; rates follow measured tasks; plans cost what they transfer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.core.catalogue.architecture import ARCHITECTURES
from backend.core.catalogue.table import MODELS, find_model
from backend.core.planning.calibration import Observation, refine
from backend.core.planning.cost_model import (
    CARDS,
    TERA,
    Basis,
    Workload,
    decode_flops,
    denoise_flops,
    experts_of_steps,
    forward_flops,
    forwards_of_steps,
    rates_of,
    seconds,
)
from backend.core.planning.memory_plan import MemoryPlan, Placement, Storage
from backend.core.requests.forms import ImageRef, RequestDraft
from backend.core.requests.rules import resolve_request

RESIDENT = MemoryPlan(Placement.RESIDENT, Storage.BF16)
#: model, width, height, frames -> TFLOP of one forward by part, then in total
FORWARD = {
    ("T2V-A14B", 832, 480, 81): (274.8, 879.2, 137.4, 2.15, 13.7, 371.0, 1678.4),
    ("T2V-A14B", 1280, 720, 81): (634.2, 4682.0, 317.1, 2.15, 31.7, 856.1, 6523.4),
    ("TI2V-5B", 1280, 704, 121): (61.8, 274.3, 30.9, 0.58, 5.1, 144.2, 517.0),
}
DECODE = {
    ("T2V-A14B", 832, 480, 81): (275.4, 163.7),
    ("T2V-A14B", 1280, 720, 81): (639.2, 381.7),
    ("TI2V-5B", 1280, 704, 121): (2011.0, 382.6),
}


def workload(model: str, **changes: object) -> Workload:
    spec = find_model(model)
    image = ImageRef("a" * 64, spec.width, spec.height) if spec.needs_image else None
    request, _ = resolve_request(spec, RequestDraft("a", image=image, **changes))  # type: ignore[arg-type]
    return Workload.of(request)


@pytest.mark.parametrize("case", FORWARD)
def test_a_forward_has_the_published_operations_by_part(case: tuple[str, int, int, int]) -> None:
    model, *size = case
    arch = ARCHITECTURES[model]
    one = forward_flops(arch, arch.tokens(*size), 512, per_token_time=False)
    parts = (
        one.projections,
        one.self_attention,
        one.cross_projections,
        one.text_projections,
        one.cross_attention,
        one.feed_forward,
        one.total,
    )
    for counted, known in zip(parts, FORWARD[case], strict=True):
        assert counted / TERA == pytest.approx(known, abs=0.051 if known > 3 else 0.0051)
    assert one.total / TERA == pytest.approx(FORWARD[case][-1], rel=1e-4)


def test_a_timestep_for_each_token_costs_its_share() -> None:
    arch = ARCHITECTURES["TI2V-5B"]
    one = forward_flops(arch, arch.tokens(1280, 704, 121), 512, per_token_time=True)
    assert one.total / TERA == pytest.approx(520.7, rel=1e-4)


@pytest.mark.parametrize("case", DECODE)
def test_the_vae_has_the_published_operations(case: tuple[str, int, int, int]) -> None:
    model, *size = case
    arch = ARCHITECTURES[model]
    latents = arch.latents(*size)
    for counted, known in zip((arch.vae.decode_flops, arch.vae.encode_flops), DECODE[case], strict=True):
        assert counted(*latents) / TERA == pytest.approx(known, abs=0.051 if known < 1000 else 0.51)


def test_the_text_encoder_has_the_published_operations() -> None:
    assert ARCHITECTURES["T2V-A14B"].text.flops(512) / TERA == pytest.approx(4.84, abs=0.01)


def test_only_guided_steps_take_two_passes() -> None:
    assert workload("T2V-A14B").passes == 80
    assert workload("T2V-A14B", guidance_scale=1.0, guidance_scale_2=1.0).passes == 40
    assert workload("T2V-A14B", guidance_end=0.5).passes == 60
    high = experts_of_steps(find_model("T2V-A14B"), resolve_request(find_model("T2V-A14B"), RequestDraft("a"))[0])
    assert workload("T2V-A14B", guidance_scale_2=1.0).passes == 40 + high.count("high")
    assert workload("tiny-ti2v-5b").passes == 40


def test_forwards_are_counted_for_the_expert_of_every_step() -> None:
    spec = find_model("tiny-t2v-a14b")
    draft = RequestDraft("a", steps=10, guidance_scale=4.0, guidance_scale_2=1.0, guidance_start=0.1)
    forwards = forwards_of_steps(spec, resolve_request(spec, draft)[0])
    high = sum(expert == "high" for expert, _ in forwards)
    assert 1 < high < 10
    assert forwards == [("high", 1)] + [("high", 2)] * (high - 1) + [("low", 1)] * (10 - high)


def test_work_grows_as_expected() -> None:
    short, long = workload("T2V-A14B", num_frames=81), workload("T2V-A14B", num_frames=161)
    assert denoise_flops(long) / denoise_flops(short) == pytest.approx(3.3, abs=0.05)
    assert denoise_flops(workload("T2V-A14B", steps=20)) * 2 == denoise_flops(workload("T2V-A14B", steps=40))
    assert decode_flops(short, tiled=True) > decode_flops(short)


@pytest.mark.parametrize(
    ("card", "model", "size", "published"),
    [
        ("NVIDIA H100 80GB HBM3", "T2V-A14B", "1280x720", 1041.5),
        ("NVIDIA H20", "T2V-A14B", "832x480", 1133.9),
        ("NVIDIA A100-SXM4-80GB", "T2V-A14B", "1280x720", 2735.7),
        ("NVIDIA GeForce RTX 4090", "TI2V-5B", "1280x704", 534.7),
    ],
)
def test_published_runs_are_predicted_within_a_fifth(card: str, model: str, size: str, published: float) -> None:
    width, height = map(int, size.split("x"))
    work = workload(model, width=width, height=height)
    predicted = seconds(work, RESIDENT, rates_of(card, 8))
    assert predicted.basis is Basis.ESTIMATED
    assert predicted.warm == pytest.approx(published, rel=0.2)


def test_streaming_is_nearly_free_for_long_clips_and_not_for_short_ones() -> None:
    rates = rates_of("NVIDIA H100 80GB HBM3", 8)
    stream = replace(RESIDENT, placement=Placement.BLOCK_STREAM)
    long, short = workload("T2V-A14B", width=832, height=480), workload("T2V-A14B", width=832, height=480, num_frames=5)
    assert seconds(long, stream, rates).denoise == pytest.approx(1.05 * seconds(long, RESIDENT, rates).denoise)
    assert seconds(short, stream, rates).denoise > 2 * seconds(short, RESIDENT, rates).denoise


def test_an_unlisted_card_has_no_known_rate_until_measured() -> None:
    rates = rates_of("NVIDIA Imaginary 9000", 8)
    assert not rates.known
    work = workload("TI2V-5B")
    one = Observation(work, denoise_seconds=100.0, decode_seconds=10.0)
    better = refine(rates, [one, one, replace(one, denoise_seconds=900.0)])
    assert better.known
    found = seconds(work, RESIDENT, better)
    assert found.basis is Basis.MEASURED
    assert found.denoise == pytest.approx(100.0, rel=0.01)
    assert found.decode == pytest.approx(10.0, rel=0.01)


def test_published_runs_do_not_apply_in_float32_and_moving_weights_takes_longer() -> None:
    card = "NVIDIA H100 80GB HBM3"
    usual, wide = rates_of(card, 8), rates_of(card, 8, float32=True)
    assert (usual.known, wide.known, rates_of(None, 8, float32=True)) == (True, False, rates_of(None, 8))
    work = workload("T2V-A14B", width=832, height=480, num_frames=5)
    for plan in (MemoryPlan(Placement.BLOCK_STREAM, Storage.BF16), MemoryPlan(Placement.EXPERT_SWAP, Storage.BF16)):
        less, more = (seconds(work, plan, usual, float32=float32) for float32 in (False, True))
        moved = [one.denoise if plan.placement is Placement.BLOCK_STREAM else one.transfer for one in (less, more)]
        assert moved[1] == pytest.approx(2 * moved[0], rel=0.01)
    rounded = MemoryPlan(Placement.RESIDENT, Storage.FP8)
    extra = [
        seconds(work, rounded, usual, float32=float32).denoise - seconds(work, RESIDENT, usual).denoise
        for float32 in (False, True)
    ]
    assert extra[1] == pytest.approx(extra[0] * 5 / 3)


def test_without_observations_the_rates_stay() -> None:
    for _, rates in CARDS:
        assert refine(rates, []) == rates
    work = workload("tiny-t2v-a14b")
    only = refine(rates_of(None, 2), [Observation(work, None, 2.0)])
    assert only.measured == {"decode"}
    assert seconds(work, RESIDENT, only, cpu=True).basis is Basis.ESTIMATED


def test_every_model_has_a_workload() -> None:
    for name in MODELS:
        assert denoise_flops(workload(name)) > 0
