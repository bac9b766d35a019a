"""LoRAs on a loaded model: the clip of the merged weights, nothing left behind, and an accurate receipt."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.catalogue.table import MODELS, ModelSpec
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.generation import LoraNotApplied
from backend.core.errors.requests import LoraNotFound
from backend.core.requests.forms import GenerationRequest, LoraFileRef, LoraUse, OnLoraFailure
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.lora.stack import LoraStack, build_stack
from backend.engine.sampling.denoise import DenoiseJob
from tests.engine.reference import StockPipeline
from tests.support.lora_files import (
    FORMATS,
    LINEARS,
    Adapter,
    comfyui_file,
    diffusers_file,
    kohya_file,
    lightx2v_file,
    random_adapter,
    write_lora,
)

MakeRequest = Callable[..., GenerationRequest]
#: Latents of the hooked and of the merged model: the same sums in another order, in float32.
TOLERANCE = 1e-5
HIGH_FIRST = {"steps": 4, "num_frames": 5}


@pytest.fixture(scope="module")
def on_cpu(random_folder: Path, spec: ModelSpec) -> WanComponents:
    """The model in float32, whatever device the other tests use, so that clips can be compared to the last digits."""
    return WanPipelineLoader("cpu").load(random_folder, spec)


@pytest.fixture
def components(on_cpu: WanComponents) -> Iterator[WanComponents]:
    """The shared model, restored afterwards."""
    yield on_cpu
    for expert in (on_cpu.transformer, on_cpu.transformer_2):
        LoraStack.deactivate(expert)


@pytest.fixture(scope="module")
def shape(on_cpu: WanComponents) -> WanShape:
    return WanShape.from_config(on_cpu.transformer.config)


@pytest.fixture(scope="module")
def yardstick() -> dict[str, torch.Tensor]:
    """The latents with one adapter merged by hand, and without it; computed once for all formats."""
    return {}


@pytest.fixture
def merged(random_folder: Path, spec: ModelSpec) -> Callable[..., WanComponents]:
    """The same model with adapters merged into its weights by hand."""

    def merge(high: dict[Adapter, float] | None = None, low: dict[Adapter, float] | None = None) -> WanComponents:
        fresh = WanPipelineLoader("cpu").load(random_folder, spec)
        for transformer, adapters in ((fresh.transformer, high or {}), (fresh.transformer_2, low or {})):
            for adapter, strength in adapters.items():
                adapter.merged_into(transformer, strength)
        return fresh

    return merge


def use(*files: tuple[Path, str], strength: float = 1.0, strength_2: float | None = None, name: str = "x") -> LoraUse:
    refs = tuple(
        LoraFileRef(hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64, path.name, expert)
        for path, expert in files
    )
    return LoraUse(name, strength, strength if strength_2 is None else strength_2, refs)


def opener(folder: Path) -> Callable[[LoraFileRef], Path]:
    def open_file(ref: LoraFileRef) -> Path:
        path = folder / ref.name
        if not path.exists():
            raise LoraNotFound("The file is not here any more")
        return path

    return open_file


def run(components: WanComponents, request: GenerationRequest, loras: LoraStack | None = None) -> torch.Tensor:
    job = DenoiseJob.start(components, request, loras=loras)
    while not job.done:
        job.step()
    return job.latents


def bits(module: torch.nn.Module) -> dict[str, bytes]:
    return {
        name: p.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for name, p in module.named_parameters()
    }


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_gives_the_clip_of_the_merged_weights(
    format_name: str,
    yardstick: dict[str, torch.Tensor],
    components: WanComponents,
    merged: Callable[..., WanComponents],
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    adapter = random_adapter(shape)
    path = write_lora(tmp_path / "a.safetensors", FORMATS[format_name](adapter))
    request = make_request(**HIGH_FIRST)
    stack = build_stack(components, [use((path, "both"), strength=0.8)], opener(tmp_path))
    hooked = run(components, request, stack)
    if not yardstick:
        yardstick["merged"] = run(merged({adapter: 0.8}, {adapter: 0.8}), request)
        yardstick["plain"] = run(components, request, build_stack(components, [], opener(tmp_path)))
    expected, plain = yardstick["merged"], yardstick["plain"]
    assert far(hooked, expected) < TOLERANCE < 0.05 < far(plain, expected)
    frames = [np.concatenate(list(stream_frames(components, latents))).astype(int) for latents in (hooked, expected)]
    assert np.abs(frames[0] - frames[1]).max() <= 1
    receipt = stack.receipts[0]
    assert receipt.applied
    assert [(file.keys["high"].unmatched, file.keys["low"].unmatched) for file in receipt.files] == [(0, 0)]
    matched = receipt.files[0].keys["high"].matched
    assert matched == len(FORMATS[format_name](adapter)[0])


@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_norms_modulation_biases_and_the_patch_embedding_are_really_changed(
    strength: float,
    components: WanComponents,
    merged: Callable[..., WanComponents],
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    adapter = random_adapter(shape, full=True)
    path = write_lora(tmp_path / "a.safetensors", lightx2v_file(adapter))
    request = make_request(**HIGH_FIRST)
    stack = build_stack(components, [use((path, "both"), strength=strength)], opener(tmp_path))
    expected = run(merged({adapter: strength}, {adapter: strength}), request)
    assert far(run(components, request, stack), expected) < TOLERANCE
    without = random_adapter(shape)
    assert far(run(merged({without: strength}, {without: strength}), request), expected) > 0.05
    assert stack.receipts[0].files[0].format == "lightx2v"


def test_a_low_rank_patch_embedding_is_applied(
    components: WanComponents, merged: Callable[..., WanComponents], make_request: MakeRequest, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = components.transformer.patch_embedding.weight
    down = torch.randn(4, *weight.shape[1:], generator=generator) * 0.1
    up = torch.randn(weight.shape[0], 4, 1, 1, 1, generator=generator) * 0.1
    tensors = {
        "diffusion_model.patch_embedding.lora_down.weight": down,
        "diffusion_model.patch_embedding.lora_up.weight": up,
    }
    path = write_lora(tmp_path / "a.safetensors", (tensors, {}))
    change = torch.einsum("or,rixyz->oixyz", up[:, :, 0, 0, 0], down)
    adapter = Adapter({}, {"patch_embedding.weight": change})
    stack = build_stack(components, [use((path, "both"))], opener(tmp_path))
    request = make_request(**HIGH_FIRST)
    assert far(run(components, request, stack), run(merged({adapter: 1.0}, {adapter: 1.0}), request)) < TOLERANCE


def test_a_scaled_bias_of_the_second_factor_is_applied(
    components: WanComponents,
    merged: Callable[..., WanComponents],
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    adapter = random_adapter(shape, modules=("attn1.to_q",))
    tensors, metadata = diffusers_file(adapter)
    bias = {f"{module}.bias": torch.full((shape.dim,), 0.3) for module in adapter.low_rank}
    tensors |= {f"transformer.{name.removesuffix('.bias')}.lora_B.bias": value for name, value in bias.items()}
    path = write_lora(tmp_path / "a.safetensors", (tensors, metadata))
    # alpha / rank scales the bias too, as peft does it
    with_bias = replace(adapter, full={name: value * (adapter.alpha / 4) for name, value in bias.items()})
    stack = build_stack(components, [use((path, "both"))], opener(tmp_path))
    request = make_request(**HIGH_FIRST)
    assert far(run(components, request, stack), run(merged({with_bias: 1.0}, {with_bias: 1.0}), request)) < TOLERANCE


def test_afterwards_the_model_is_the_one_from_its_files(
    components: WanComponents, make_request: MakeRequest, shape: WanShape, tmp_path: Path
) -> None:
    request = make_request(**HIGH_FIRST)
    before = [bits(components.transformer), bits(components.transformer_2)]
    identities = [[id(p) for p in expert.parameters()] for expert in (components.transformer, components.transformer_2)]
    plain = run(components, request)
    path = write_lora(tmp_path / "a.safetensors", lightx2v_file(random_adapter(shape, full=True)))
    stack = build_stack(components, [use((path, "both"))], opener(tmp_path))
    changed = run(components, request, stack)
    empty = build_stack(components, [], opener(tmp_path))
    assert empty.empty
    assert torch.equal(run(components, request, empty), plain)
    assert not torch.equal(changed, plain)
    assert [bits(components.transformer), bits(components.transformer_2)] == before
    assert identities == [
        [id(p) for p in expert.parameters()] for expert in (components.transformer, components.transformer_2)
    ]
    for expert in (components.transformer, components.transformer_2):
        assert not any(module._forward_hooks for module in expert.modules())


def test_interleaved_jobs_never_see_each_others_loras(
    components: WanComponents, make_request: MakeRequest, shape: WanShape, tmp_path: Path
) -> None:
    request = make_request(**HIGH_FIRST)
    stacks = [build_stack(components, [], opener(tmp_path))]
    for seed in (1, 2):
        path = write_lora(tmp_path / f"{seed}.safetensors", lightx2v_file(random_adapter(shape, seed=seed, full=True)))
        stacks.append(build_stack(components, [use((path, "both"))], opener(tmp_path)))
    alone = [run(components, request, stack) for stack in stacks]
    jobs = [DenoiseJob.start(components, request, loras=stack) for stack in stacks]
    while not jobs[0].done:
        for job in jobs:
            job.step()
    for job, expected in zip(jobs, alone, strict=True):
        assert torch.equal(job.latents, expected)
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[1], alone[2])


def test_several_loras_with_different_strengths_add_up(
    components: WanComponents,
    merged: Callable[..., WanComponents],
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    first, second = random_adapter(shape, seed=1), random_adapter(shape, seed=2, full=True)
    one = write_lora(tmp_path / "one.safetensors", kohya_file(first))
    two = write_lora(tmp_path / "two.safetensors", lightx2v_file(second))
    uses = [
        use((one, "both"), strength=0.5, strength_2=1.5, name="one"),
        use((two, "both"), strength=1.0, strength_2=0.0, name="two"),
    ]
    stack = build_stack(components, uses, opener(tmp_path))
    request = make_request(**HIGH_FIRST)
    expected = run(merged({first: 0.5, second: 1.0}, {first: 1.5}), request)
    assert far(run(components, request, stack), expected) < TOLERANCE
    assert [receipt.strength for receipt in stack.receipts] == [{"high": 0.5, "low": 1.5}, {"high": 1.0, "low": 0.0}]


def test_each_half_of_a_pair_changes_its_own_expert_only(
    components: WanComponents,
    merged: Callable[..., WanComponents],
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    for_high, for_low = random_adapter(shape, seed=1), random_adapter(shape, seed=2)
    high = write_lora(tmp_path / "a_high_noise.safetensors", comfyui_file(for_high))
    low = write_lora(tmp_path / "a_low_noise.safetensors", comfyui_file(for_low))
    request = make_request(**HIGH_FIRST)
    pair = build_stack(components, [use((high, "high"), (low, "low"))], opener(tmp_path))
    assert far(run(components, request, pair), run(merged({for_high: 1.0}, {for_low: 1.0}), request)) < TOLERANCE
    half = build_stack(components, [use((low, "low"))], opener(tmp_path))
    assert far(run(components, request, half), run(merged({}, {for_low: 1.0}), request)) < TOLERANCE
    assert half.receipts[0].strength == {"low": 1.0}


def test_a_file_for_both_experts_is_split_by_its_own_names(
    components: WanComponents,
    merged: Callable[..., WanComponents],
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    for_high, for_low = random_adapter(shape, seed=1), replace(random_adapter(shape, seed=2), alpha=8.0)
    first, header = diffusers_file(for_high)
    second, header_2 = diffusers_file(for_low, "transformer_2.")
    both = {"lora_adapter_metadata": header["lora_adapter_metadata"][:-1] + "," + header_2["lora_adapter_metadata"][1:]}
    path = write_lora(tmp_path / "a.safetensors", (first | second, both))
    request = make_request(**HIGH_FIRST)
    stack = build_stack(components, [use((path, "both"))], opener(tmp_path))
    assert far(run(components, request, stack), run(merged({for_high: 1.0}, {for_low: 1.0}), request)) < TOLERANCE
    counts = stack.receipts[0].files[0].keys
    assert (counts["high"].matched, counts["low"].matched) == (len(first), len(second))


def test_in_half_precision_a_lora_is_as_exact_as_merging(
    random_folder: Path,
    components: WanComponents,
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
    device: str,
) -> None:
    adapter = random_adapter(shape, full=True)
    path = write_lora(tmp_path / "a.safetensors", lightx2v_file(adapter))
    request = make_request(**HIGH_FIRST)

    def in_bfloat16() -> WanComponents:
        stock = StockPipeline(random_folder, torch.bfloat16, device=device)
        return replace(components, pipeline=stock.pipe, device=torch.device(device))

    exact = WanPipelineLoader("cpu").load(random_folder, components.spec)
    by_hand = in_bfloat16()
    for one in (exact, by_hand):
        adapter.merged_into(one.transformer, 1.0)
        adapter.merged_into(one.transformer_2, 1.0)
    hooked = in_bfloat16()
    stack = build_stack(hooked, [use((path, "both"))], opener(tmp_path))
    reference = run(exact, request)

    def error(latents: torch.Tensor) -> float:
        return float((latents.cpu() - reference).square().mean().sqrt())

    error_of_hooks = error(run(hooked, request, stack))
    assert error_of_hooks < 1.5 * error(run(by_hand, request))
    assert error(run(in_bfloat16(), request)) > 4 * error_of_hooks


def test_a_model_with_one_expert(random_ti2v_folder: Path, make_request: MakeRequest, tmp_path: Path) -> None:
    random_ti2v = WanPipelineLoader("cpu").load(random_ti2v_folder, MODELS["tiny-ti2v-5b"])
    shape = WanShape.from_config(random_ti2v.transformer.config)
    adapter = random_adapter(shape, full=True)
    path = write_lora(tmp_path / "a.safetensors", lightx2v_file(adapter))
    request = replace(make_request(steps=2, num_frames=5), guidance_scale_2=None, model=random_ti2v.spec.id)
    fresh = WanPipelineLoader("cpu").load(random_ti2v_folder, random_ti2v.spec)
    adapter.merged_into(fresh.transformer, 1.0)
    stack = build_stack(random_ti2v, [use((path, "both"))], opener(tmp_path))
    try:
        assert far(run(random_ti2v, request, stack), run(fresh, request)) < TOLERANCE
    finally:
        LoraStack.deactivate(random_ti2v.transformer)
    assert set(stack.receipts[0].files[0].keys) == {"high"}


def _whole(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    write_lora(path, content)


def _truncated(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    write_lora(path, content)
    path.write_bytes(path.read_bytes()[:-100])


def _with_nan(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    tensors = dict(content[0])
    name = next(reversed(tensors))
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    write_lora(path, (tensors, content[1]))


def _with_infinite_alpha(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    tensors = {name: t if not name.endswith("alpha") else torch.tensor(float("inf")) for name, t in content[0].items()}
    write_lora(path, (tensors, content[1]))


def _half_a_pair(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    tensors = dict(content[0])
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    write_lora(path, (tensors, content[1]))


def _unknown_extra(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    write_lora(path, (content[0] | {"diffusion_model.blocks.0.self_attn.q.dora_scale": torch.ones(4)}, content[1]))


def _absent(path: Path, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_truncated, "cut off"),
        (_with_nan, "not numbers"),
        (_with_infinite_alpha, "not numbers"),
        (_half_a_pair, "no place"),
        (_unknown_extra, "dora_scale"),
        (_absent, "not here"),
    ],
)
def test_a_lora_that_cannot_be_applied_in_full_is_skipped_and_reported(
    spoil: Callable[..., None],
    reason: str,
    components: WanComponents,
    make_request: MakeRequest,
    shape: WanShape,
    tmp_path: Path,
) -> None:
    good = write_lora(tmp_path / "good.safetensors", comfyui_file(random_adapter(shape, seed=5)))
    bad = tmp_path / "bad.safetensors"
    spoil(bad, comfyui_file(random_adapter(shape)))
    uses = [use((bad, "both"), name="bad"), use((good, "both"), name="good")]
    request = make_request(**HIGH_FIRST)
    stack = build_stack(components, uses, opener(tmp_path), OnLoraFailure.SKIP)
    assert [(one.id, one.outcome) for one in stack.receipts] == [("bad", "skipped"), ("good", "applied")]
    assert reason in (stack.receipts[0].reason or "")
    alone = build_stack(components, uses[1:], opener(tmp_path))
    assert torch.equal(run(components, request, stack), run(components, request, alone))
    with pytest.raises(LoraNotApplied, match=reason):
        build_stack(components, uses, opener(tmp_path), OnLoraFailure.FAIL)


@pytest.mark.parametrize("failure", OnLoraFailure)
def test_parts_that_the_model_lacks_are_named_and_the_rest_is_applied(
    failure: OnLoraFailure, components: WanComponents, make_request: MakeRequest, shape: WanShape, tmp_path: Path
) -> None:
    tensors, metadata = comfyui_file(random_adapter(shape))
    plain = write_lora(tmp_path / "plain.safetensors", (tensors, metadata))
    more = {
        f"diffusion_model.blocks.{index}.cross_attn.norm_k_img.diff": torch.ones(4) for index in range(shape.layers)
    }
    more["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight"] = torch.ones(2, 2)
    more["diffusion_model.patch_embedding.lora_A.weight"] = torch.ones(2, 48 * 4)
    more["diffusion_model.patch_embedding.lora_B.weight"] = torch.ones(shape.dim, 2)
    path = write_lora(tmp_path / "a.safetensors", (tensors | more, metadata))
    stack = build_stack(components, [use((path, "both"))], opener(tmp_path), failure, preset="a")
    request = make_request(**HIGH_FIRST)
    alone = build_stack(components, [use((plain, "both"))], opener(tmp_path))
    assert torch.equal(run(components, request, stack), run(components, request, alone))
    receipt = stack.receipts[0]
    assert (receipt.outcome, receipt.reason) == ("applied", None)
    assert f"{len(more)} of {len(more) + len(tensors)} tensors" in receipt.warnings[0]
    named = receipt.files[0].unmatched
    assert all(any(word in one for one in named) for word in ("norm_k_img", "lora_te_", "patch_embedding"))
    assert receipt.files[0].keys["high"].unmatched == len(more)


@pytest.mark.parametrize("everywhere", [True, False])
def test_an_alpha_of_zero_is_a_warning(
    everywhere: bool, components: WanComponents, shape: WanShape, tmp_path: Path
) -> None:
    tensors, metadata = comfyui_file(random_adapter(shape))
    alphas = [name for name in tensors if name.endswith(".alpha")]
    silent = alphas if everywhere else alphas[:3]
    tensors |= {name: torch.tensor(0.0) for name in silent}
    path = write_lora(tmp_path / "a.safetensors", (tensors, metadata))
    stack = build_stack(components, [use((path, "high"), name="a")], opener(tmp_path))
    assert stack.receipts[0].applied
    assert stack.receipts[0].warnings == (
        f"alpha is 0 in {len(silent)} of {len(alphas)} layers of a.safetensors: they change nothing",
    )
    assert stack.empty is everywhere
    if everywhere:
        with pytest.raises(LoraNotApplied, match=r"preset a needs its LoRA.*alpha is 0"):
            build_stack(components, [use((path, "high"), name="a")], opener(tmp_path), preset="a")


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_truncated, "cut off"), (_half_a_pair, "no place"), (_absent, "not here")]
)
def test_a_preset_never_goes_without_its_lora(
    spoil: Callable[..., None], reason: str, components: WanComponents, shape: WanShape, tmp_path: Path
) -> None:
    good = write_lora(tmp_path / "good.safetensors", comfyui_file(random_adapter(shape, seed=5)))
    bad = tmp_path / "bad.safetensors"
    spoil(bad, comfyui_file(random_adapter(shape)))
    uses = [use((bad, "both"), name="bad"), use((good, "both"), name="good")]
    with pytest.raises(LoraNotApplied, match=f"preset bad needs its LoRA.*{reason}"):
        build_stack(components, uses, opener(tmp_path), OnLoraFailure.SKIP, preset="bad")
    stack = build_stack(components, uses, opener(tmp_path), OnLoraFailure.SKIP, preset="good")
    assert [one.outcome for one in stack.receipts] == ["skipped", "applied"]


def test_half_a_pair_is_not_applied_if_the_other_half_is_damaged(
    components: WanComponents, shape: WanShape, tmp_path: Path
) -> None:
    high = write_lora(tmp_path / "high.safetensors", comfyui_file(random_adapter(shape)))
    low = tmp_path / "low.safetensors"
    _truncated(low, comfyui_file(random_adapter(shape)))
    stack = build_stack(components, [use((high, "high"), (low, "low"))], opener(tmp_path))
    assert stack.empty
    assert stack.receipts[0].outcome == "skipped"


@pytest.mark.parametrize("failure", OnLoraFailure)
def test_no_matching_key_is_always_an_error(failure: OnLoraFailure, components: WanComponents, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", ({"lora_unet_down_blocks_0_x.lora_up.weight": torch.ones(2, 2)}, {}))
    with pytest.raises(LoraNotApplied, match="not one"):
        build_stack(components, [use((path, "both"))], opener(tmp_path), failure)


def test_a_pickle_in_disguise_is_never_opened(components: WanComponents, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    pickle = b"cpathlib\nPath\n(V" + str(canary).encode() + b"\ntR(ctouch\n."  # loading it would be enough
    for name, content in (("raw", pickle), ("sized", struct.pack("<Q", len(pickle)) + pickle)):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        stack = build_stack(components, [use((path, "both"))], opener(tmp_path))
        assert stack.receipts[0].outcome == "skipped"
    assert not canary.exists()


def test_the_receipt_is_plain_json_and_describes_what_was_done(
    components: WanComponents, shape: WanShape, tmp_path: Path
) -> None:
    path = write_lora(
        tmp_path / "style.safetensors", kohya_file(random_adapter(shape)), modelspec__trigger_phrase="glowing shape"
    )
    asked = use((path, "high"), strength=0.7, name="style")
    receipt: dict[str, Any] = build_stack(components, [asked], opener(tmp_path)).receipts[0].to_json()
    count = 3 * shape.layers * len(LINEARS)
    assert receipt == {
        "id": "style",
        "outcome": "applied",
        "strength": {"high": 0.7},
        "files": [
            {
                "name": "style.safetensors",
                "sha256": asked.files[0].sha256,
                "expert": "high",
                "format": "kohya",
                "base": components.spec.id,
                "ranks": [4],
                "scales": [0.5, 0.5],
                "keys": {"high": {"matched": count, "unmatched": 0}},
                "unmatched": [],
            }
        ],
        "trigger_words": ["glowing shape"],
        "reason": None,
        "warnings": [],
    }


def test_the_model_may_be_moved_while_a_lora_is_active(
    random_folder: Path, components: WanComponents, shape: WanShape, tmp_path: Path
) -> None:
    moved = WanPipelineLoader("cpu").load(random_folder, components.spec).transformer
    path = write_lora(tmp_path / "a.safetensors", lightx2v_file(random_adapter(shape, full=True)))
    build_stack(components, [use((path, "both"))], opener(tmp_path)).activate("high", moved)
    moved.to("meta")
    LoraStack.deactivate(moved)
    assert {parameter.device.type for parameter in moved.parameters()} == {"meta"}
    assert not any(module._forward_hooks for module in moved.modules())
