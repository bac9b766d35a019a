"""I2V of Wan2.1, whose transformer also sees the image through CLIP, compared with diffusers' pipeline bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from backend.core.catalogue.table import MODELS, Mode
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.generation import StateMismatch
from backend.core.errors.models import ModelDamaged
from backend.core.errors.requests import ImageNotAccepted, ImageRequired, InvalidRequest
from backend.core.lora.keys import BOTH
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.requests.forms import GenerationRequest, LoraFileRef, LoraUse, RequestDraft, Scheduler
from backend.core.requests.rules import resolve_request
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.model_files import check_model_files
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.lora.stack import build_stack
from backend.engine.sampling.conditioning import prepare_latents
from backend.engine.sampling.denoise import DenoiseJob
from backend.engine.state.job import restore_state, write_state
from tests.engine.reference import StockPipeline
from tests.engine.samples import SAMPLERS, finish, on_device, picture_of, weight_addresses
from tests.support.lora_files import lightx2v_file, random_adapter, write_lora
from tests.support.random_model import build_random_wan21_i2v

SPEC = MODELS["Wan2.1-I2V-14B-480P"]
WIDTH, HEIGHT = 144, 128
PICTURE = picture_of(WIDTH, HEIGHT, 3)
FP8 = MemoryPlan(Placement.RESIDENT, Storage.FP8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_wan21_i2v(tmp_path_factory.mktemp("models") / "wan21-i2v")


@pytest.fixture(scope="module")
def components(folder: Path, device: str) -> WanComponents:
    return WanPipelineLoader(device).load(folder, SPEC)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return shutil.copytree(folder, tmp_path / "own")


def request_of(scheduler: Scheduler = Scheduler.UNIPC, **values: Any) -> GenerationRequest:
    draft = RequestDraft("a red circle", width=WIDTH, height=HEIGHT, num_frames=5, steps=4, seed=3, scheduler=scheduler)
    # The image is given to the engine directly, so the request is resolved as if there were none.
    request, _ = resolve_request(replace(SPEC, mode=Mode.T2V), draft)
    return replace(request, **values)


def run(components: WanComponents, request: GenerationRequest) -> torch.Tensor:
    return finish(DenoiseJob.start(components, request, image=PICTURE))


def frames_of(components: WanComponents, latents: torch.Tensor) -> np.ndarray:
    return np.concatenate(list(stream_frames(components, latents)))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_it_equals_the_stock_pipeline(components: WanComponents, scheduler: Scheduler, guidance: float) -> None:
    request = request_of(scheduler, guidance_scale=guidance)
    assert (request.flow_shift, request.max_sequence_length) == (3.0, 512)
    job = DenoiseJob.start(components, request, image=PICTURE)
    assert (set(job.plan), set(job.scales)) == ({"high"}, {guidance if guidance > 1 else None})
    latents = finish(job)
    stock = StockPipeline.like(components, image=PICTURE)
    assert torch.equal(latents, stock.latents(request))
    assert np.array_equal(frames_of(components, latents), stock.frames(request))


def test_half_precision_as_on_a_gpu_equals_the_stock_pipeline(folder: Path, device: str) -> None:
    ours = WanPipelineLoader(device, precision="bfloat16").load(folder, SPEC)
    assert ours.image_encoder is not None
    assert (ours.transformer.dtype, ours.image_encoder.dtype) == (torch.bfloat16, torch.float32)
    stock = StockPipeline.like(ours, image=PICTURE)
    stock.pipe.image_encoder = (
        WanPipelineLoader(device).load(folder, SPEC).image_encoder
    )  # as the models' cards load it
    assert torch.equal(run(ours, request_of()), stock.latents(request_of()))


def test_every_pass_of_a_step_sees_the_pipelines_image_tokens(components: WanComponents) -> None:
    seen: list[torch.Tensor] = []

    def look(_module: object, _args: object, inputs: dict[str, torch.Tensor]) -> None:
        seen.append(inputs["encoder_hidden_states_image"])

    job = DenoiseJob.start(components, request_of(), image=PICTURE)
    hook = components.transformer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        job.step()
    finally:
        hook.remove()
    with torch.no_grad():
        expected = components.pipeline.encode_image(Image.fromarray(PICTURE), components.device)
    assert expected.shape == (1, 5, 32)
    assert len(seen) == 2
    assert all(torch.equal(tokens, expected) for tokens in seen)
    other = prepare_latents(components, request_of(), picture_of(WIDTH, HEIGHT, 4)).tokens
    assert other is not None
    assert not torch.equal(other, expected)


@pytest.fixture(scope="module")
def expected(folder: Path, components: WanComponents, device: str) -> Callable[[MemoryPlan], torch.Tensor]:
    """The latents of a fully resident model with the plan's storage of weights."""
    rounded = WanPipelineLoader(device).load(folder, SPEC, FP8)
    latents = {Storage.BF16: run(components, request_of()), Storage.FP8: run(rounded, request_of())}
    assert not torch.equal(latents[Storage.BF16], latents[Storage.FP8])
    return lambda plan: latents[plan.storage]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_every_plan_gives_the_same_clip_even_if_restored_midway(
    folder: Path, device: str, tmp_path: Path, plan: MemoryPlan, expected: Callable[[MemoryPlan], torch.Tensor]
) -> None:
    moved = WanPipelineLoader(device).load(folder, SPEC, plan)
    seen: list[tuple[str, ...]] = []
    assert moved.image_encoder is not None
    parked = weight_addresses(moved)
    moved.image_encoder.register_forward_pre_hook(lambda *_: seen.append(on_device(moved, parked)))
    first = DenoiseJob.start(moved, request_of(), image=PICTURE)
    first.step()
    first.step()
    write_state(first, tmp_path / "state")
    again = DenoiseJob.start(moved, request_of(), image=PICTURE)
    restore_state(again, tmp_path / "state")
    assert torch.equal(finish(again), expected(plan))
    assert torch.equal(finish(first), expected(plan))
    if plan.placement is not Placement.RESIDENT:
        assert seen == [("image_encoder",)] * 2
        assert "image_encoder" not in on_device(moved, parked)


def test_switching_to_a_smaller_plan_changes_no_bit(
    folder: Path, device: str, expected: Callable[[MemoryPlan], torch.Tensor]
) -> None:
    ours = WanPipelineLoader(device).load(folder, SPEC)
    job = DenoiseJob.start(ours, request_of(), image=PICTURE)
    job.step()
    smaller = MemoryPlan(Placement.BLOCK_STREAM, Storage.BF16)
    ours.arrange(smaller)
    assert torch.equal(finish(job), expected(smaller))
    assert torch.equal(run(ours, request_of()), expected(smaller))


def test_a_lora_for_every_parameter_is_fully_applied_under_every_placement(
    folder: Path, device: str, tmp_path: Path, expected: Callable[[MemoryPlan], torch.Tensor]
) -> None:
    shape = WanShape.from_config(json.loads((folder / "transformer" / "config.json").read_text()))
    assert any("add_k_proj" in name for name in shape.parameters())
    path = write_lora(tmp_path / "lora.safetensors", lightx2v_file(random_adapter(shape, full=True)))
    ref = LoraFileRef(hashlib.sha256(path.read_bytes()).hexdigest(), path.name, BOTH)
    latents = []
    for plan in PLANS:
        if plan.storage is not Storage.BF16:
            continue
        ours = WanPipelineLoader(device).load(folder, SPEC, plan)
        stack = build_stack(ours, [LoraUse("full", 0.7, 0.7, (ref,))], lambda ref: tmp_path / ref.name)
        assert all(receipt.applied and not receipt.reason for receipt in stack.receipts)
        latents.append(finish(DenoiseJob.start(ours, request_of(), image=PICTURE, loras=stack)))
    assert not torch.equal(latents[0], expected(PLANS[0]))
    assert all(torch.equal(one, latents[0]) for one in latents[1:])


def test_a_state_of_another_image_encoder_is_refused(own: Path, folder: Path, device: str, tmp_path: Path) -> None:
    job = DenoiseJob.start(WanPipelineLoader(device).load(folder, SPEC), request_of(), image=PICTURE)
    job.step()
    write_state(job, tmp_path / "state")
    path = own / "image_encoder" / "model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(path).items()}, path)
    other = DenoiseJob.start(WanPipelineLoader(device).load(own, SPEC), request_of(), image=PICTURE)
    with pytest.raises(StateMismatch, match="other weights"):
        restore_state(other, tmp_path / "state")


def test_fingerprint_and_digest_cover_the_image_encoder(own: Path) -> None:
    before = check_model_files(own, SPEC)
    marks = {before.fingerprint, before.digest(), before.digest("image_encoder")}
    path = own / "image_encoder" / "model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(path).items()}, path)
    after = check_model_files(own, SPEC)
    assert marks.isdisjoint({after.fingerprint, after.digest(), after.digest("image_encoder")})


def test_published_names_of_the_image_encoder_are_read(
    own: Path, device: str, expected: Callable[[MemoryPlan], torch.Tensor]
) -> None:
    path = own / "image_encoder" / "model.safetensors"
    published = {f"vision_model.{name}": value for name, value in load_file(path).items()}
    published["vision_model.embeddings.position_ids"] = torch.arange(5)[None]  # written by older versions
    save_file(published, path)
    assert torch.equal(run(WanPipelineLoader(device).load(own, SPEC), request_of()), expected(PLANS[0]))


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder / "image_encoder")


def _no_weights(folder: Path) -> None:
    (folder / "image_encoder" / "model.safetensors").unlink()


def _no_tensor(folder: Path) -> None:
    path = folder / "image_encoder" / "model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if name != "pre_layrnorm.bias"}, path)


def _no_entry(folder: Path) -> None:
    change(folder / "model_index.json", image_encoder=[None, None])


def _no_processor(folder: Path) -> None:
    (folder / "image_processor" / "preprocessor_config.json").unlink()


def _no_tokens(folder: Path) -> None:
    change(folder / "transformer" / "config.json", image_dim=None, added_kv_proj_dim=None)


def _two_frames(folder: Path) -> None:
    change(folder / "transformer" / "config.json", pos_embed_seq_len=10)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_no_folder, "image_encoder/config.json is missing"),
        (_no_weights, r"image_encoder/model.safetensors"),
        (_no_tensor, "the weights of image_encoder have no tensor pre_layrnorm.bias"),
        (_no_entry, "no usable entry for image_encoder"),
        (_no_processor, "image_processor/preprocessor_config.json is missing"),
        (_no_tokens, "its transformer reads image tokens of width None; the model has width 32"),
        (_two_frames, "takes a first and a last frame"),
    ],
)
def test_missing_and_unexpected_tensors_are_reported(
    own: Path, device: str, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(own)
    with pytest.raises(ModelDamaged, match=sentence):
        WanPipelineLoader(device).load(own, SPEC)


def test_image_tokens_are_refused_for_a_model_that_produces_none(own: Path, device: str) -> None:
    one_expert = replace(MODELS["I2V-A14B"], boundary_ratio=None)
    with pytest.raises(ModelDamaged, match="reads image tokens of width 32; the model has width None"):
        WanPipelineLoader(device).load(own, one_expert)


def test_the_decoder_alone_leaves_the_image_encoder_out(
    folder: Path, device: str, components: WanComponents, expected: Callable[[MemoryPlan], torch.Tensor]
) -> None:
    decoder = WanPipelineLoader(device).load_decoder(folder, SPEC)
    assert decoder.image_encoder is None
    latents = expected(PLANS[0])
    assert np.array_equal(frames_of(decoder, latents), frames_of(components, latents))


def test_an_image_is_required_an_end_image_refused_and_the_prompt_length_fixed(components: WanComponents) -> None:
    with pytest.raises(ImageRequired):
        DenoiseJob.start(components, request_of())
    with pytest.raises(ImageNotAccepted, match="no end image"):
        DenoiseJob.start(components, request_of(), image=PICTURE, end_image=PICTURE)
    with pytest.raises(InvalidRequest, match=r"must be 512 for Wan2\.1-I2V-14B-480P"):
        resolve_request(replace(SPEC, mode=Mode.T2V), RequestDraft("a red circle", max_sequence_length=64))
