"""Attention kernels and the precision are tested before use: correct, wrong, slow and crashing ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from backend.core.catalogue.table import ModelSpec
from backend.core.planning.abilities import (
    Abilities,
    AttentionSetting,
    KernelVerdict,
    PrecisionVerdict,
    Verdict,
    choose_kernel,
)
from backend.core.requests.forms import GenerationRequest
from backend.engine.device.attention import (
    Attend,
    Kernel,
    diffusers_kernel,
    head_widths,
    judge,
    names_for,
    tolerance,
    try_by_name,
)
from backend.engine.device.facts import Card
from backend.engine.device.precision import choose_precision, compare_precisions
from backend.engine.loading.pipeline_loader import WanPipelineLoader
from backend.engine.sampling.denoise import DenoiseJob
from backend.engine.self_test import report_abilities

CPU = torch.device("cpu")
NATIVE_COST = 1.0
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def right(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    heads_first = [one.transpose(1, 2) for one in (query, key, value)]
    return scaled_dot_product_attention(heads_first[0], heads_first[1], heads_first[2]).transpose(1, 2)


@dataclass
class Work:
    """A clock that advances with the work done, and kernels that do the work."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def kernel(self, name: str, attend: Attend = right, *, cost: float = 0.5, exact: bool = True) -> Kernel:
        def counted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            self.calls.append(name)
            self.now += cost
            return attend(query, key, value)

        return Kernel(name, counted, exact)

    def judge(self, kernel: Kernel, dtype: torch.dtype = torch.float32) -> KernelVerdict:
        return judge(kernel, CPU, dtype, native_seconds=NATIVE_COST, clock=self.clock)


def without_scale(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return right(query * query.shape[-1] ** 0.5, key, value)


def one_bad_number(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    result = right(query, key, value).clone()
    result[0, -1, -1, -1] = float("nan")
    return result


def wrong_across(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Correct in self-attention; zero where queries and keys differ in number."""
    return right(query, key, value) * (query.shape[1] == key.shape[1])


def of_another_shape(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return right(query, key, value).transpose(1, 2)


def refuses_wide_heads(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if query.shape[-1] > 64:
        raise RuntimeError("head width 128 is not supported\nin line 3")
    return right(query, key, value)


def of_another_version(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    raise TypeError("unexpected keyword argument")


def coarse(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Round queries and keys to eight bits, as quantised kernels do."""
    rounded = [(one / one.abs().max() * 127).round() * one.abs().max() / 127 for one in (query, key)]
    return right(rounded[0], rounded[1], value)


@pytest.mark.parametrize(
    ("attend", "verdict", "reason"),
    [
        (without_scale, Verdict.WRONG, "differs from float32 by"),
        (wrong_across, Verdict.WRONG, "differs from float32 by 1"),
        (of_another_shape, Verdict.WRONG, "shape"),
        (one_bad_number, Verdict.NOT_FINITE, "heads of width 128"),
        (refuses_wide_heads, Verdict.FAILED, "RuntimeError: head width 128 is not supported"),
        (of_another_version, Verdict.FAILED, "TypeError: unexpected keyword argument"),
        (coarse, Verdict.WRONG, "differs from float32"),
    ],
)
def test_an_incorrect_kernel_gets_its_verdict(attend: Attend, verdict: Verdict, reason: str) -> None:
    found = Work().judge(Work().kernel("flash", attend))
    assert (found.verdict, found.right, found.seconds) == (verdict, False, None)
    assert reason in found.reason


@pytest.mark.parametrize(("cost", "verdict"), [(0.5, Verdict.OK), (0.97, Verdict.SLOWER), (3.0, Verdict.SLOWER)])
def test_a_correct_kernel_is_judged_by_its_speed(cost: float, verdict: Verdict) -> None:
    work = Work()
    found = work.judge(work.kernel("flash", cost=cost))
    assert (found.verdict, found.right) == (verdict, True)
    assert found.seconds == pytest.approx(cost)
    assert f"{cost:.2f} times as long" in found.reason
    assert found.error is not None
    assert found.error < 1e-6


def test_a_kernel_that_rounds_its_inputs_is_correct_only_as_such() -> None:
    work = Work()
    assert not work.judge(work.kernel("sage", coarse, exact=True)).right
    assert work.judge(work.kernel("sage", coarse, exact=False)).right
    assert not work.judge(work.kernel("sage", without_scale, exact=False)).right


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_tolerance_is_above_torchs_rounding_and_below_an_error(dtype: torch.dtype) -> None:
    work = Work()
    found = work.judge(work.kernel("native"), dtype)
    assert found.right
    assert found.error is not None
    assert found.error < tolerance(dtype, exact=True) < 0.02
    assert not work.judge(work.kernel("native", wrong_across), dtype).right


def test_the_head_widths_of_all_models_are_tested() -> None:
    assert head_widths()[0] == 128
    assert len(head_widths()) == 2


VERDICTS = (
    KernelVerdict("native", Verdict.OK, "torch's own", 1.0, 0.0),
    KernelVerdict("cudnn", Verdict.OK, "", 0.6, 0.0),
    KernelVerdict("flash", Verdict.OK, "", 0.5, 0.0),
    KernelVerdict("efficient", Verdict.SLOWER, "takes 2.00 times as long", 2.0, 0.0),
    KernelVerdict("flash3", Verdict.WRONG, "differs from float32 by 0.3", error=0.3),
    KernelVerdict("sage", Verdict.NOT_ALLOWED, ""),
)


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [("auto", "flash"), ("speed", "flash"), ("native", "native"), ("cudnn", "cudnn"), ("efficient", "efficient")],
)
def test_the_fastest_correct_kernel_or_the_named_one_is_chosen(wish: str, chosen: str) -> None:
    assert choose_kernel(AttentionSetting(wish), VERDICTS) == (chosen, ())


@pytest.mark.parametrize("wish", ["flash3", "sage", "math"])
def test_an_incorrect_named_kernel_is_replaced_with_a_warning(wish: str) -> None:
    chosen, (warning,) = choose_kernel(AttentionSetting(wish), VERDICTS)
    assert chosen == "native"
    assert f"WAN22_ATTENTION asks for {wish}" in warning


def test_without_a_faster_kernel_torchs_own_stays() -> None:
    assert choose_kernel(AttentionSetting.AUTO, VERDICTS[:1] + VERDICTS[3:]) == ("native", ())
    assert choose_kernel(AttentionSetting.AUTO, ()) == ("native", ())


def test_missing_or_rounding_kernels_are_not_tested() -> None:
    """These packages are not dependencies, so they are absent here."""
    for name in ("flash", "flash3", "xformers"):
        found = try_by_name(name, AttentionSetting.AUTO, CPU, torch.float32, NATIVE_COST)
        assert (found.verdict, found.right) == (Verdict.NOT_INSTALLED, False), name
    assert try_by_name("sage", AttentionSetting.SPEED, CPU, torch.float32, NATIVE_COST).verdict is Verdict.NOT_INSTALLED


def test_kernels_tested_on_each_device() -> None:
    assert names_for(AttentionSetting.AUTO, "cpu") == ["native"]
    assert names_for(AttentionSetting.MATH, "cpu") == ["native", "math"]
    on_a_card = names_for(AttentionSetting.SPEED, "cuda")
    assert on_a_card[0] == "native"
    assert {"cudnn", "flash", "sage"} < set(on_a_card)
    assert "math" not in on_a_card
    assert names_for(AttentionSetting.NATIVE, "cuda") == ["native"]


def test_real_kernels_are_judged(device: str) -> None:
    there = torch.device(device)
    native = judge(diffusers_kernel("native"), there, torch.float32, native_seconds=None)
    assert native.verdict is Verdict.OK
    math = judge(diffusers_kernel("math"), there, torch.float32, native_seconds=native.seconds)
    assert math.right


def test_a_kernel_reaches_both_experts_and_no_other_model(
    random_folder: Path, spec: ModelSpec, make_request: Callable[..., GenerationRequest]
) -> None:
    def latents(kernel: str) -> torch.Tensor:
        components = WanPipelineLoader("cpu", attention=kernel).load(random_folder, spec)
        assert (components.attention, components.precision) == (kernel, "float32")
        backends = {
            str(module.processor._attention_backend.value)
            for expert in (components.transformer, components.transformer_2)
            for module in expert.modules()
            if hasattr(getattr(module, "processor", None), "_attention_backend")
        }
        assert backends == {{"native": "native", "math": "_native_math"}[kernel]}
        job = DenoiseJob.start(components, make_request(steps=2))
        while not job.done:
            job.step()
        return job.latents

    first, other, again = latents("native"), latents("math"), latents("native")
    assert torch.equal(first, again), "a model's kernel does not leak into another model"
    assert torch.allclose(first, other, atol=1e-3)
    assert not torch.equal(first, other), "it is another kernel"


def test_the_precision_can_be_overridden(random_folder: Path, spec: ModelSpec) -> None:
    components = WanPipelineLoader("cpu", precision="bfloat16").load(random_folder, spec)
    assert components.precision == "bfloat16"
    assert components.transformer.dtype is torch.bfloat16
    assert components.vae.dtype is torch.float32


Square = Callable[[torch.Tensor], torch.Tensor]


def squares(cost_of_bfloat16: float, spoil: Square = lambda one: one) -> PrecisionVerdict:
    """Compare the two precisions, with float32 costing 1."""
    now = 0.0

    def square(one: torch.Tensor) -> torch.Tensor:
        nonlocal now
        rounded = one.dtype is torch.bfloat16
        now += cost_of_bfloat16 if rounded else 1.0
        result = (one.float() @ one.float()).to(one.dtype)
        return spoil(result) if rounded else result

    return compare_precisions(CPU, square=square, clock=lambda: now)


def test_bfloat16_is_used_where_it_is_correct_and_faster() -> None:
    assert squares(0.3) == PrecisionVerdict("bfloat16", "correct, and takes 0.30 times as long as float32")
    assert squares(2.0) == PrecisionVerdict("float32", "bfloat16 takes 2.00 times as long as float32")
    assert "not finite" in squares(0.3, lambda one: one / 0).reason
    assert "differs" in squares(0.3, lambda one: one * 1.1).reason


def test_a_device_without_bfloat16_computes_in_float32() -> None:
    def fails(one: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not implemented for 'BFloat16'")

    found = compare_precisions(CPU, square=fails, clock=lambda: 0.0)
    assert found.precision == "float32"
    assert "not implemented" in found.reason
    assert choose_precision(CPU).precision == "float32"


def test_the_result_round_trips_through_json() -> None:
    found = Abilities(PrecisionVerdict("bfloat16", "right"), VERDICTS, "flash", ("a warning",))
    assert Abilities.from_json(found.to_json()) == found


class NoCards:
    """A torch that was built without CUDA."""

    build, cuda = "2.13.0+cpu", None

    def available(self) -> bool:
        return False

    def start(self) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    def cards(self) -> list[Card]:
        return []

    def architectures(self) -> list[str]:
        raise RuntimeError("no CUDA")

    def compute(self, device: str) -> None:
        raise AssertionError(device)


def test_results_are_written_line_by_line_and_a_kernel_is_named_before_its_test() -> None:
    lines: list[dict[str, object]] = []
    report_abilities("auto", AttentionSetting.MATH, lines.append, facts=NoCards())
    assert [next(iter(line)) for line in lines] == [
        "torch", "device", "precision", "trying", "kernel", "trying", "kernel", "done",
    ]  # fmt: skip
    lines.clear()
    report_abilities("cpu", AttentionSetting.MATH, lines.append, facts=NoCards(), skip=["math"])
    assert [line["trying"] for line in lines if "trying" in line] == ["native"]
    lines.clear()
    report_abilities("cuda", AttentionSetting.AUTO, lines.append, facts=NoCards())
    assert "unusable" in lines[-1]
