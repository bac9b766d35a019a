"""Every memory plan gives the same clip, to the bit, with the weights really where the plan says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.catalogue.table import MODELS
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.generation import OutOfMemory, StateMismatch
from backend.core.faults import DeviceFull
from backend.core.lora.keys import BOTH
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.requests.forms import LoraFileRef, LoraUse, Scheduler
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.lora.stack import LoraStack, build_stack
from backend.engine.memory.offload import EXPERTS, RESIDENT
from backend.engine.memory.parked_weights import ParkedWeights
from backend.engine.sampling.denoise import DenoiseJob
from backend.engine.state.job import restore_state, write_state
from backend.engine.state.tensor_file import read_tensors
from tests.engine.samples import SAMPLERS, Sample, finish, on_device, sample, stored_bytes, weight_addresses
from tests.support.lora_files import lightx2v_file, random_adapter, write_lora

FP8 = MemoryPlan(Placement.RESIDENT, Storage.FP8)
EXACT = [plan for plan in PLANS if plan.storage is Storage.BF16]
SMALL = {"num_frames": 5, "steps": 4}


def by_name(plan: MemoryPlan) -> str:
    return plan.name


def under(plan: MemoryPlan, one: Sample, device: str) -> Sample:
    """The same sample on a model that was loaded as the plan says."""
    folder, spec = one.components.folder, one.components.spec
    return replace(one, components=WanPipelineLoader(device).load(folder, spec, plan))


def frames_of(one: Sample, latents: torch.Tensor) -> np.ndarray:
    return np.concatenate(list(stream_frames(one.components, latents)))


def start(one: Sample, loras: LoraStack | None) -> DenoiseJob:
    return DenoiseJob.start(one.components, one.request, image=one.image, end_image=one.end_image, loras=loras)


@pytest.fixture
def lora(tmp_path: Path) -> Callable[[WanComponents], LoraStack]:
    """A LoRA for every kind of parameter: linear layers by hooks, norms and tables by changed copies."""

    def build(components: WanComponents) -> LoraStack:
        shape = WanShape.from_config(components.transformer.config)
        path = write_lora(tmp_path / "lora.safetensors", lightx2v_file(random_adapter(shape, full=True)))
        ref = LoraFileRef(hashlib.sha256(path.read_bytes()).hexdigest(), path.name, BOTH)
        uses = [LoraUse("full", 0.7, 0.4, (ref,))]
        stack = build_stack(components, uses, lambda ref: tmp_path / ref.name)
        assert all(receipt.applied for receipt in stack.receipts)
        return stack

    return build


@pytest.mark.parametrize("plan", EXACT[1:], ids=by_name)
@pytest.mark.parametrize(
    ("mode", "with_lora"),
    [("t2v", False), ("t2v", True), ("i2v_end", True), ("ti2v_text", False), ("ti2v_image", True)],
)
def test_every_placement_gives_the_resident_clip_to_the_bit_even_if_restored_midway(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    device: str,
    lora: Callable[[WanComponents], LoraStack],
    mode: str,
    plan: MemoryPlan,
    with_lora: bool,
) -> None:
    plain = sample(request, mode, **SMALL)
    moved = under(plan, plain, device)
    job = start(plain, lora(plain.components) if with_lora else None)
    try:
        latents = finish(job)
        frames = frames_of(plain, latents)
    finally:
        for expert in (plain.components.transformer, plain.components.transformer_2):
            if expert is not None:
                LoraStack.deactivate(expert)
    stack = lora(moved.components) if with_lora else None
    first = start(moved, stack)
    first.step()
    first.step()
    write_state(first, tmp_path / "state")
    again = start(moved, stack)
    restore_state(again, tmp_path / "state")
    assert torch.equal(finish(again), latents)
    assert torch.equal(finish(first), latents)
    assert np.array_equal(frames_of(moved, latents), frames)
    assert moved.components.plan is plan


@contextmanager
def watched(components: WanComponents, seen: set[tuple[str, ...]]) -> Iterator[None]:
    """Record what is on the device whenever a module of the model computes."""
    parked = weight_addresses(components)

    def note(*_: Any) -> None:
        seen.add(on_device(components, parked))

    parts = [getattr(components, name) for name in ("text_encoder", *EXPERTS)]
    handles = [part.register_forward_pre_hook(note) for part in parts if part is not None]
    handles.append(components.vae.decoder.register_forward_pre_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("placement", [Placement.EXPERT_SWAP, Placement.BLOCK_STREAM])
def test_only_what_computes_is_on_the_device(request: pytest.FixtureRequest, device: str, placement: Placement) -> None:
    one = under(MemoryPlan(placement, Storage.BF16), sample(request, "t2v", **SMALL), device)
    seen: set[tuple[str, ...]] = set()
    parked = weight_addresses(one.components)
    with watched(one.components, seen):
        frames_of(one, one.run())
    assert seen == {("text_encoder",), ("transformer",), ("transformer_2",), ("vae",)}
    assert on_device(one.components, parked) == ()


def test_the_experts_are_swapped_once(
    request: pytest.FixtureRequest, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = under(MemoryPlan(Placement.EXPERT_SWAP, Storage.BF16), sample(request, "t2v", **SMALL), device)
    job = one.start()
    brought: list[int] = []
    bring = ParkedWeights.bring

    def count(parked: ParkedWeights, *args: Any) -> None:
        if not parked.here:
            brought.append(job.index)
        bring(parked, *args)

    monkeypatch.setattr(ParkedWeights, "bring", count)
    finish(job)
    assert brought == [0, job.plan.index("low")]


def test_blocks_are_copied_to_the_device_one_by_one(request: pytest.FixtureRequest, device: str) -> None:
    one = under(MemoryPlan(Placement.BLOCK_STREAM, Storage.BF16), sample(request, "t2v", **SMALL), device)
    blocks = one.components.transformer.blocks
    masters = {parameter.data_ptr() for parameter in blocks.parameters()}
    away: list[int] = []

    def note(block: torch.nn.Module, *_: Any) -> None:
        assert masters.isdisjoint(parameter.data_ptr() for parameter in block.parameters())
        away.append(sum(parameter.data_ptr() not in masters for parameter in blocks.parameters()))

    for block in blocks:
        block.register_forward_hook(note, prepend=True)
    one.start().step()
    each = len(list(blocks[0].parameters()))
    # On a GPU the next block is copied while one computes.
    assert set(away) <= ({each} if device == "cpu" else {each, 2 * each})
    assert len(away) == 4, "two blocks, with and without the prompt"
    assert {parameter.data_ptr() for parameter in blocks.parameters()} == masters


def test_a_block_that_fails_leaves_nothing_on_the_device(request: pytest.FixtureRequest, device: str) -> None:
    one = under(MemoryPlan(Placement.BLOCK_STREAM, Storage.BF16), sample(request, "t2v", **SMALL), device)
    expected = one.run()
    blocks = one.components.transformer.blocks
    masters = {parameter.data_ptr() for parameter in blocks.parameters()}

    def fail(*_: Any) -> None:
        raise RuntimeError("as a device would")

    handle = blocks[1].attn1.register_forward_pre_hook(fail)
    job = one.start()
    with pytest.raises(RuntimeError, match="as a device would"):
        job.step()
    handle.remove()
    assert {parameter.data_ptr() for parameter in blocks.parameters()} == masters
    assert torch.equal(finish(job), expected), "the job goes on as if nothing had happened"


@pytest.mark.parametrize(
    ("mode", "placement"),
    [("t2v", Placement.BLOCK_STREAM), ("i2v", Placement.RESIDENT), ("ti2v_image", Placement.EXPERT_SWAP)],
)
def test_fp8_equals_weights_that_were_rounded_to_fp8_beforehand(
    request: pytest.FixtureRequest, device: str, mode: str, placement: Placement
) -> None:
    plain = sample(request, mode, **SMALL)
    small = under(MemoryPlan(placement, Storage.FP8), plain, device)
    rounded = under(RESIDENT, plain, device)
    cast = 0
    for name in EXPERTS:
        ours, theirs = getattr(small.components, name), getattr(rounded.components, name)
        if ours is None:
            continue
        for (label, stored), (_, whole) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            if stored.dtype == torch.float8_e4m3fn:
                whole.data = whole.data.to(torch.float8_e4m3fn).to(whole.dtype)
                cast += 1
            else:
                assert torch.equal(stored.data.cpu(), whole.data.cpu()), label
    assert cast > 0
    latents = small.run()
    assert torch.equal(latents, rounded.run())
    assert not torch.equal(latents, plain.run())
    assert np.array_equal(frames_of(small, latents), frames_of(rounded, latents))


def test_fp8_shrinks_the_layers_and_leaves_norms_and_embeddings(request: pytest.FixtureRequest, device: str) -> None:
    plain = sample(request, "t2v", **SMALL)
    small = under(FP8, plain, device)
    finish(small.start())
    expert, whole = small.components.transformer, plain.components.transformer
    blocks, before = expert.blocks[0], whole.blocks[0]
    assert blocks.ffn.net[2].weight.nbytes * whole.dtype.itemsize == before.ffn.net[2].weight.nbytes
    assert blocks.attn1.norm_q.weight.dtype == whole.dtype
    assert expert.patch_embedding.weight.dtype == whole.dtype
    assert expert.dtype == whole.dtype, "it computes as before"
    assert stored_bytes(expert) < 0.75 * stored_bytes(whole)


def test_a_lora_on_fp8_weights_is_the_lora_on_rounded_ones(
    request: pytest.FixtureRequest, device: str, lora: Callable[[WanComponents], LoraStack]
) -> None:
    plain = sample(request, "t2v", **SMALL)
    results = []
    for placement in Placement:
        small = under(MemoryPlan(placement, Storage.FP8), plain, device)
        results.append(finish(start(small, lora(small.components))))
        assert not torch.equal(results[-1], small.run()), "the LoRA changes something"
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_state_of_other_weights_is_refused_and_one_of_another_placement_is_not(
    request: pytest.FixtureRequest, tmp_path: Path, device: str
) -> None:
    plain = sample(request, "t2v", **SMALL)
    job = plain.start()
    job.step()
    write_state(job, tmp_path / "state")
    with pytest.raises(StateMismatch, match="precision"):
        restore_state(under(FP8, plain, device).start(), tmp_path / "state")
    moved = under(MemoryPlan(Placement.BLOCK_STREAM, Storage.BF16), plain, device).start()
    restore_state(moved, tmp_path / "state")
    assert torch.equal(finish(moved), finish(job))


def test_changing_the_plan_between_two_steps_changes_no_bit(
    request: pytest.FixtureRequest, device: str, lora: Callable[[WanComponents], LoraStack]
) -> None:
    one = under(RESIDENT, sample(request, "t2v", **SMALL), device)
    stack = lora(one.components)
    expected = finish(start(one, stack))
    job = start(one, stack)
    for plan in (EXACT[1], EXACT[2], EXACT[0], EXACT[2]):
        one.components.layout.change(plan)
        job.step()
    assert torch.equal(job.latents, expected)
    assert np.array_equal(frames_of(one, job.latents), frames_of(one, expected))


def test_rounded_weights_are_not_restored_and_gguf_is_not_a_plan(request: pytest.FixtureRequest, device: str) -> None:
    one = under(FP8, sample(request, "t2v", **SMALL), device)
    one.components.layout.change(MemoryPlan(Placement.BLOCK_STREAM, Storage.FP8))
    with pytest.raises(ValueError, match="rounded"):
        one.components.layout.change(RESIDENT)
    with pytest.raises(ValueError, match="GGUF"):
        WanPipelineLoader(device).load(
            one.components.folder, MODELS["tiny-t2v-a14b"], MemoryPlan(Placement.RESIDENT, Storage.GGUF)
        )


@pytest.mark.parametrize("plan", EXACT, ids=by_name)
def test_a_text_encoder_in_host_memory_stays_there(
    request: pytest.FixtureRequest, device: str, plan: MemoryPlan
) -> None:
    plain = sample(request, "t2v", **SMALL)
    one = under(replace(plan, text_encoder_on_cpu=True), plain, device)
    places = {parameter.data_ptr() for parameter in one.components.text_encoder.parameters()}
    job = one.start()
    assert {parameter.data_ptr() for parameter in one.components.text_encoder.parameters()} == places
    assert next(one.components.text_encoder.parameters()).device.type == "cpu"
    assert job.text.prompt.device.type == one.components.device.type
    if device == "cpu":
        assert torch.equal(finish(job), plain.run())


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("broken", ["second pass", "scheduler", "after"])
def test_a_step_that_runs_out_of_memory_leaves_the_job_unchanged(
    request: pytest.FixtureRequest, tmp_path: Path, device: str, scheduler: Scheduler, broken: str
) -> None:
    plain = sample(request, "t2v", **SMALL, scheduler=scheduler)
    expected = plain.run()
    one = under(RESIDENT, plain, device)
    job = one.start()
    for plan in (EXACT[1], EXACT[2], EXACT[1], EXACT[2]):
        latents, estimate = job.latents.clone(), job.estimate.clone()
        write_state(job, tmp_path / "before")
        with fails_at(job, broken), pytest.raises(OutOfMemory) as caught:
            job.step()
        assert caught.value.use == "step"
        write_state(job, tmp_path / "after")
        before, after = (read_tensors(tmp_path / name) for name in ("before", "after"))
        assert before[0].keys() == after[0].keys()
        assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
        assert before[1] | {"weights": None} == after[1] | {"weights": None}, "a digest may have become known"
        assert torch.equal(job.latents, latents)
        assert torch.equal(job.estimate, estimate)
        one.components.arrange(plan)
        job.step()
    assert job.done
    assert torch.equal(job.latents, expected)


@contextmanager
def fails_at(job: DenoiseJob, place: str) -> Iterator[None]:
    """Make memory run out during a step: between its passes, or when the scheduler has written half of it."""
    with pytest.MonkeyPatch.context() as patch:
        if place == "second pass":
            passes: list[None] = []
            expert: Any = job.components.transformer if job.expert == "high" else job.components.transformer_2
            forward = expert.forward

            def counted(*args: Any, **values: Any) -> Any:
                passes.append(None)
                if len(passes) == 2:
                    raise DeviceFull
                return forward(*args, **values)

            patch.setattr(expert, "forward", counted)
        else:
            step = job.scheduler.step

            def broken(*args: Any, **values: Any) -> Any:
                step(*args, **values)
                raise DeviceFull

            def full(*_: Any, **__: Any) -> Any:
                raise DeviceFull

            halfway = "multistep_uni_p_bh_update" if hasattr(job.scheduler, "multistep_uni_p_bh_update") else None
            if place == "scheduler" and halfway:
                patch.setattr(job.scheduler, halfway, full)
            else:
                patch.setattr(job.scheduler, "step", broken)
        yield


@pytest.mark.parametrize("mode", ["i2v_end", "ti2v_image"])
def test_an_image_is_encoded_in_the_plans_tiles_and_a_state_records_it(
    request: pytest.FixtureRequest, tmp_path: Path, device: str, mode: str
) -> None:
    plain = sample(request, mode, **SMALL | {"width": 160, "height": 96})
    tiled = under(replace(RESIDENT, tiled_decode=True, tile_size=128), plain, device)
    whole, parts = plain.start(), tiled.start()
    assert whole.given.image is not None
    assert parts.given.image is not None
    assert torch.equal(parts.given.noise, whole.given.noise)
    assert parts.given.image.shape == whole.given.image.shape
    assert not torch.equal(parts.given.image, whole.given.image)
    # Columns further from a seam than the encoder's receptive field are equal: the tile's first ones.
    assert torch.allclose(parts.given.image[..., :1], whole.given.image[..., :1], atol=0.2)
    assert (whole.encoded_as, parts.encoded_as) == (None, "image in tiles of 128")
    assert not tiled.components.vae.use_tiling
    parts.step()
    write_state(parts, tmp_path / "state")
    with pytest.raises(StateMismatch, match="another way: image in tiles of 128"):
        restore_state(plain.start(), tmp_path / "state")
    restore_state(tiled.start(), tmp_path / "state")
    fits = under(replace(RESIDENT, tiled_decode=True, tile_size=256), plain, device).start()
    assert torch.equal(fits.given.image, whole.given.image), "a picture that fits one tile is encoded in one piece"


def test_the_vae_runs_where_its_plan_says(request: pytest.FixtureRequest, device: str) -> None:
    plain = sample(request, "ti2v_image", **SMALL)
    one = under(replace(EXACT[1], vae_on_cpu=True), plain, device)
    frames = frames_of(one, finish(one.start()))
    assert next(one.components.vae.parameters()).device.type == "cpu"
    if device == "cpu":
        assert np.array_equal(frames, frames_of(plain, plain.run()))


def test_without_pinned_memory_weights_wait_in_pageable_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    layer = torch.nn.Linear(3, 2)
    weights = layer.weight.detach().clone()
    monkeypatch.setattr(torch.Tensor, "pin_memory", full)
    parked = ParkedWeights(layer, torch.device("cuda"))
    assert not parked.here
    assert torch.equal(layer.weight, weights)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: (_ for _ in ()).throw(RuntimeError("no such driver")))
    with pytest.raises(RuntimeError, match="driver"):
        ParkedWeights(layer, torch.device("cuda"))
