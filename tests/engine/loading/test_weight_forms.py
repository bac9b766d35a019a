"""Weights in every common form give the same clip as the same values in a diffusers folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType as Gguf
from gguf import GGUFReader, GGUFWriter
from safetensors.torch import load_file, save_file
from torch import nn

from backend.core.catalogue.transformer import WanShape
from backend.core.errors.models import ModelDamaged, ModelUnsupported
from backend.core.formats.tensors import UnreadableWeights
from backend.core.formats.weights import Container
from backend.core.lora.keys import BOTH
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.requests.forms import LoraFileRef, LoraUse
from backend.engine.frames.decode import stream_frames
from backend.engine.loading import pipeline_loader, weight_files
from backend.engine.loading.component_loader import Fitting, fill
from backend.engine.loading.model_files import check_model_files
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.loading.weight_files import GgufFile, OpenWeights, StoredTensor
from backend.engine.lora.stack import LoraStack, build_stack
from backend.engine.memory.offload import RESIDENT, settle
from backend.engine.sampling.denoise import DenoiseJob
from backend.models.folder.condition import fault_of
from tests.engine.conftest import EMBEDDED
from tests.engine.samples import Sample, finish, sample, stored_bytes
from tests.support.lora_files import lightx2v_file, random_adapter, write_lora
from tests.support.weight_forms import (
    FP8,
    Tensors,
    originally_named,
    replace_weights,
    weights_of,
    write_gguf,
    write_original,
    write_scaled_fp8,
)

SMALL = {"num_frames": 5, "steps": 2}
EXPERTS = ("transformer", "transformer_2")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the libraries from looking anything up."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something wanted to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A copy of the embedded model, whose matrices have rows of whole GGUF blocks."""
    return shutil.copytree(EMBEDDED, tmp_path / "trained")


@pytest.fixture
def plain(request: pytest.FixtureRequest, embedded_components: WanComponents) -> Sample:
    return replace(sample(request, "t2v", **SMALL), components=embedded_components)


def opened(one: Sample, folder: Path, device: str, plan: MemoryPlan = RESIDENT) -> Sample:
    return replace(one, components=WanPipelineLoader(device).load(folder, one.components.spec, plan))


def frames_of(one: Sample, loras: LoraStack | None = None) -> np.ndarray:
    job = DenoiseJob.start(one.components, one.request, image=one.image, end_image=one.end_image, loras=loras)
    return np.concatenate(list(stream_frames(one.components, finish(job))))


def with_numbers(folder: Path, component: str, tensors: Tensors) -> Path:
    """A diffusers folder with these values in a component."""
    other = folder.with_name(f"{folder.name}-expected")
    if not other.exists():
        shutil.copytree(EMBEDDED, other)
    replace_weights(other, component, tensors)
    return other


@pytest.mark.parametrize("mode", ["t2v", "i2v", "ti2v_image"])
def test_single_files_with_wans_own_names_give_the_same_clip_to_the_bit(
    request: pytest.FixtureRequest, tmp_path: Path, device: str, mode: str
) -> None:
    one = sample(request, mode, **SMALL)
    folder = shutil.copytree(one.components.folder, tmp_path / "model")
    for component in ("text_encoder", "vae", *EXPERTS):
        if (folder / component).is_dir():
            write_original(folder, component, prefix="model.diffusion_model." if component in EXPERTS else "")
    ours = opened(one, folder, device)
    assert np.array_equal(frames_of(ours), frames_of(one))
    assert ours.components.plan is RESIDENT
    assert ours.components.weights_digest != one.components.weights_digest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, FP8], ids=str)
def test_other_precisions_keep_their_values(plain: Sample, trained: Path, device: str, dtype: torch.dtype) -> None:
    for component in EXPERTS:
        expected = write_original(trained, component, lambda value: value.to(dtype))
        other = with_numbers(trained, component, expected)
    assert np.array_equal(frames_of(opened(plain, trained, device)), frames_of(opened(plain, other, device)))


@pytest.mark.parametrize("word", ["scale_weight", "weight_scale"])
def test_scaled_eight_bit_floats_are_multiplied_by_their_scale(
    plain: Sample, trained: Path, device: str, word: str
) -> None:
    for component in ("text_encoder", *EXPERTS):
        expected = write_scaled_fp8(trained, component, original=component in EXPERTS, word=word)
        other = with_numbers(trained, component, expected)
    ours = frames_of(opened(plain, trained, device))
    assert np.array_equal(ours, frames_of(opened(plain, other, device)))
    assert np.abs(ours.astype(int) - frames_of(plain).astype(int)).mean() < 8


def test_a_scale_may_be_one_value_per_row(plain: Sample, trained: Path, device: str) -> None:
    tensors = weights_of(trained, "transformer")
    name = "blocks.0.ffn.net.2.weight"
    rows = torch.linspace(0.5, 2.0, tensors[name].shape[0])
    module = name.removesuffix(".weight")
    expected = tensors[name] * rows[:, None]
    for scale in (rows, rows[:, None]):
        replace_weights(trained, "transformer", tensors | {f"{module}.scale_weight": scale})
        assert torch.equal(opened(plain, trained, "cpu").components.transformer.get_parameter(name), expected)
    for wrong in (rows[:-1], torch.zeros(0)):
        replace_weights(trained, "transformer", tensors | {f"{module}.scale_weight": wrong})
        with pytest.raises(ModelDamaged, match="a scale that belongs to no weight"):
            opened(plain, trained, device)


@pytest.mark.parametrize("kind", [Gguf.F32, Gguf.F16, Gguf.BF16])
def test_unquantised_gguf_keeps_its_values(plain: Sample, trained: Path, device: str, kind: Gguf) -> None:
    for component in EXPERTS:
        other = with_numbers(trained, component, write_gguf(trained, component, kind))
    ours = opened(plain, trained, device)
    assert ours.components.plan is RESIDENT, "nothing is quantised, so any plan can be carried out"
    assert np.array_equal(frames_of(ours), frames_of(opened(plain, other, device)))


def unpacked(folder: Path, component: str) -> Tensors:
    """The values of a quantised component as diffusers unpacks them, in half precision, by their names in the file."""
    (path,) = (folder / component).glob("*.gguf")
    packed = {one.name: (one.data, one.tensor_type) for one in GGUFReader(path).tensors}
    return {
        name: dequantize_gguf_tensor(GGUFParameter(torch.from_numpy(np.array(data)), quant_type=kind)).float()
        for name, (data, kind) in packed.items()
        if kind not in (Gguf.F32, Gguf.F16)
    }


@pytest.mark.parametrize(("kind", "distance"), [(Gguf.Q8_0, 4.0), (Gguf.Q5_1, 16.0), (Gguf.Q4_0, 32.0)])
def test_quantised_weights_are_used_unchanged(
    plain: Sample, trained: Path, device: str, kind: Gguf, distance: float
) -> None:
    for component in EXPERTS:
        exact = write_gguf(trained, component, kind)
        halves = unpacked(trained, component)
        names = originally_named(trained, component, exact)
        own = dict(zip(names, exact, strict=True))
        expected = dict(exact)
        for name, value in halves.items():
            # diffusers multiplies out in half precision; the numbers of the `gguf` package are exact.
            assert torch.allclose(value, exact[own[name]], rtol=2**-9, atol=5e-4)
            if "time_embedder" not in own[name]:  # computes in float32, so it is unpacked when it is read
                expected[own[name]] = value
        other = with_numbers(trained, component, expected)
    ours = opened(plain, trained, device)
    assert ours.components.plan.name == "resident-gguf"
    frames = frames_of(ours)
    assert np.array_equal(frames, frames_of(opened(plain, other, device)))
    difference = np.abs(frames.astype(int) - frames_of(plain).astype(int)).mean()
    assert 0 < difference < distance


def test_the_matrices_stay_packed_in_memory(plain: Sample, trained: Path, device: str) -> None:
    whole = stored_bytes(plain.components.transformer)
    for component in EXPERTS:
        write_gguf(trained, component, Gguf.Q4_0)
    assert stored_bytes(opened(plain, trained, device).components.transformer) < whole / 3


@pytest.fixture
def lora(tmp_path: Path) -> Callable[[WanComponents], LoraStack]:
    def build(components: WanComponents) -> LoraStack:
        shape = WanShape.from_config(components.transformer.config)
        path = write_lora(tmp_path / "lora.safetensors", lightx2v_file(random_adapter(shape, full=True)))
        ref = LoraFileRef(hashlib.sha256(path.read_bytes()).hexdigest(), path.name, BOTH)
        stack = build_stack(components, [LoraUse("full", 0.7, 0.4, (ref,))], lambda ref: tmp_path / ref.name)
        assert all(receipt.applied for receipt in stack.receipts)
        return stack

    return build


def test_quantised_weights_work_with_every_placement_and_with_loras(
    plain: Sample, trained: Path, device: str, lora: Callable[[WanComponents], LoraStack]
) -> None:
    for component in EXPERTS:
        write_gguf(trained, component, Gguf.Q8_0)
    first = opened(plain, trained, device)
    without = frames_of(first)
    expected = frames_of(first, lora(first.components))
    assert not np.array_equal(without, expected)
    for plan in PLANS[1:]:
        moved = opened(plain, trained, device, plan)
        assert moved.components.plan == replace(plan, storage=Storage.GGUF)
        assert np.array_equal(frames_of(moved, lora(moved.components)), expected)
    first.components.layout.change(MemoryPlan(Placement.EXPERT_SWAP, Storage.BF16))
    assert np.array_equal(frames_of(first), without)
    assert first.components.plan.name == "expert-swap-gguf"
    first.components.layout.change(MemoryPlan(Placement.RESIDENT, Storage.FP8))
    assert first.components.plan.name == "resident-gguf", "what the file holds is no plan's choice"
    assert np.array_equal(frames_of(first), without)
    with pytest.raises(ValueError, match="cannot turn weights into GGUF"):
        plain.components.layout.change(first.components.plan)


LLAMA = 2  # the table of llama.cpp's names


def encoded(components: WanComponents) -> torch.Tensor:
    """The encoder's output for the first words of a prompt."""
    words = torch.arange(1, 13, device=components.device).reshape(1, 12)
    with torch.no_grad():
        return components.text_encoder(words, torch.ones_like(words)).last_hidden_state.cpu()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [Gguf.F32, Gguf.F16, Gguf.BF16, Gguf.Q8_0, Gguf.Q5_1, Gguf.Q5_0, Gguf.Q4_0])
def test_a_text_encoder_with_llama_names_keeps_its_values(
    plain: Sample, trained: Path, device: str, kind: Gguf, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "_AT_ONCE", 1000)  # groups of fifteen rows, and a smaller last one
    held = write_gguf(trained, "text_encoder", kind, table=LLAMA)
    other = with_numbers(trained, "text_encoder", held)
    loader = WanPipelineLoader(device, precision=precision)
    ours, expected = (loader.load(folder, plain.components.spec) for folder in (trained, other))
    assert torch.equal(encoded(ours), encoded(expected))
    state = ours.text_encoder.state_dict()
    for name, value in held.items():
        assert torch.equal(state[name].cpu(), value.to(getattr(torch, precision)))
    change = (encoded(ours).float() - encoded(plain.components)).abs().max()
    assert (change == 0) == (kind is Gguf.F32 and precision == "float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda named: {key: value for key, value in named.items() if key != "enc.blk.1.attn_rel_b.weight"},
            r"have no tensor enc\.blk\.1\.attn_rel_b\.weight",
        ),
        (
            lambda named: named | {"enc.blk.0.attn_rel_b.weight": named["enc.blk.0.attn_rel_b.weight"].T.contiguous()},
            r"enc\.blk\.0\.attn_rel_b\.weight of text_encoder has the shape \[4, 32\]",
        ),
        (
            lambda named: named | {"dec.blk.0.attn_q.weight": torch.zeros(64, 64)},
            r"1 tensors of text_encoder have no place in it; the first one is dec\.blk\.0\.attn_q\.weight",
        ),
    ],
    ids=["missing", "turned around", "with a decoder"],
)
def test_a_text_encoder_with_llama_names_is_checked_against_its_structure(
    plain: Sample, trained: Path, device: str, change: Callable[[Tensors], Tensors], message: str
) -> None:
    write_gguf(trained, "text_encoder", Gguf.Q8_0, table=LLAMA, change=change)
    with pytest.raises(ModelDamaged, match=message):
        opened(plain, trained, device)


# A group of rows is a quarter of all of them; `gguf` has it twice while it joins what it unpacked.
@pytest.mark.parametrize(("kind", "part"), [(Gguf.Q8_0, 0.55), (Gguf.F16, 0.15)])
def test_an_embedding_table_is_unpacked_without_being_in_memory_twice(tmp_path: Path, kind: Gguf, part: float) -> None:
    numbers = np.random.default_rng(5).standard_normal((32768, 512), dtype=np.float32)
    packed = gguf.quantize(numbers, kind)
    writer = GGUFWriter(tmp_path / "words.gguf", arch="t5encoder")
    writer.add_tensor("token_embd.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = StoredTensor(tmp_path / "words.gguf", "token_embd.weight", kind.name, numbers.shape, Container.GGUF)
    target = torch.empty(numbers.shape, dtype=torch.bfloat16)
    with OpenWeights() as weights:
        tracemalloc.start()
        weights.copy(stored, target)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert torch.equal(target, weights.numbers(stored).bfloat16())
    assert peak < part * numbers.nbytes


def test_a_text_encoder_in_gguf_is_unpacked(plain: Sample, trained: Path, device: str) -> None:
    other = with_numbers(trained, "text_encoder", write_gguf(trained, "text_encoder", Gguf.Q8_0, table=LLAMA))
    ours = opened(plain, trained, device)
    assert ours.components.plan is RESIDENT
    assert np.array_equal(frames_of(ours), frames_of(opened(plain, other, device)))


def test_fingerprint_and_digest_cover_every_form(plain: Sample, trained: Path) -> None:
    spec = plain.components.spec
    write_original(trained, "vae")
    write_gguf(trained, "transformer", Gguf.Q8_0)
    before = check_model_files(trained, spec)
    marks = {before.fingerprint, before.digest(), before.digest("transformer")}
    (path,) = (trained / "transformer").glob("*.gguf")
    content = path.read_bytes()
    path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    after = check_model_files(trained, spec)
    assert marks.isdisjoint({after.fingerprint, after.digest(), after.digest("transformer")})
    assert after.digest("vae") == before.digest("vae")


def test_the_files_may_be_deleted_once_the_model_is_loaded(plain: Sample, trained: Path, device: str) -> None:
    ours = opened(plain, trained, device)
    digest = ours.components.weights_digest  # reads the files
    shutil.rmtree(trained)
    assert np.array_equal(frames_of(ours), frames_of(plain))
    assert digest == plain.components.weights_digest


@pytest.mark.parametrize("plan", [RESIDENT, MemoryPlan(Placement.RESIDENT, Storage.FP8)], ids=lambda plan: plan.name)
def test_a_component_is_in_place_before_the_next_one_is_read(
    plain: Sample, device: str, plan: MemoryPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []

    def note_read(fitting: Fitting, *args: Any) -> nn.Module:
        done.append(("read", fitting.component))
        return fill(fitting, *args)

    def note_place(name: str, module: nn.Module, *args: Any) -> None:
        settle(name, module, *args)
        kinds = {parameter.dtype for parameter in module.parameters()}
        assert (FP8 in kinds) == (plan.storage is Storage.FP8 and name in EXPERTS)
        assert {parameter.device.type for parameter in module.parameters()} == {device}
        done.append(("placed", name))

    monkeypatch.setattr(pipeline_loader, "fill", note_read)
    monkeypatch.setattr(pipeline_loader, "settle", note_place)
    opened(plain, EMBEDDED, device, plan)
    assert done == [(what, name) for name in ("text_encoder", "vae", *EXPERTS) for what in ("read", "placed")]


def test_a_file_with_an_unusual_name_must_be_the_only_one(plain: Sample, trained: Path, device: str) -> None:
    write_original(trained, "transformer")
    (path,) = (trained / "transformer").glob("*.safetensors")
    shutil.copy(path, path.with_name("another.safetensors"))
    with pytest.raises(ModelDamaged, match=r"keep only one: another\.safetensors, wan_transformer\.safetensors"):
        opened(plain, trained, device)


def _change(folder: Path, component: str, change: Callable[[Tensors], Tensors]) -> None:
    (path,) = (folder / component).glob("*.safetensors")
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("component", ["text_encoder", "vae", "transformer"])
def test_missing_misshapen_and_unexpected_tensors_are_named(
    plain: Sample, trained: Path, device: str, component: str
) -> None:
    write_original(trained, component)
    name = {"text_encoder": "norm.weight", "vae": "decoder.head.2.bias", "transformer": "head.modulation"}[component]
    pristine = {key: value.clone() for key, value in weights_of(trained, component).items()}
    for change, message in (
        ({key: value for key, value in pristine.items() if key != name}, f"have no tensor {name}"),
        (pristine | {name: torch.zeros(7)}, rf"{name} of {component} has the shape \[7\]"),
        (pristine | {"vace_blocks.0.weight": torch.zeros(7)}, r"1 tensors .* no place .* vace_blocks\.0\.weight"),
        (
            pristine | {name: torch.zeros(pristine[name].shape, dtype=torch.int8)},
            r"stored as int8 \(I8\), which is not supported",
        ),
    ):
        replace_weights(trained, component, change)
        error = ModelUnsupported if "not supported" in message else ModelDamaged
        with pytest.raises(error, match=message):
            opened(plain, trained, device)


def test_an_image_encoder_inside_an_expert_with_diffusers_names_means_another_model(
    plain: Sample, trained: Path, device: str
) -> None:
    extra = {"condition_embedder.image_embedder.norm1.weight": torch.zeros(4)}
    _change(trained, "transformer", lambda tensors: tensors | extra)
    with pytest.raises(ModelDamaged, match="image_embedder"):
        opened(plain, trained, device)


def test_weights_of_another_model_are_refused_before_they_are_read(
    plain: Sample, trained: Path, device: str, random_ti2v_folder: Path, random_i2v_folder: Path, tmp_path: Path
) -> None:
    ti2v = shutil.copytree(random_ti2v_folder, tmp_path / "ti2v")
    i2v = shutil.copytree(random_i2v_folder, tmp_path / "i2v")
    for folder, component, message in (
        (ti2v, "vae", "its vae makes latents of 48 channels; a t2v model has 16"),
        (i2v, "transformer", "its transformer takes 36 input channels; a t2v model has 16"),
    ):
        write_original(folder, component)
        target = shutil.copytree(trained, tmp_path / f"mixed-{component}")
        (old,) = (target / component).glob("*.safetensors")
        old.unlink()
        shutil.copy(folder / component / f"wan_{component}.safetensors", target / component)
        with pytest.raises(ModelDamaged, match=message):
            check_model_files(target, plain.components.spec)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 28577062936\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "only git's pointer to the file"),
        (b"PK\x03\x04" + bytes(200), "a zip archive, as PyTorch's pickle files are"),
        (b"\x80\x02ccollections", "a pickle file"),
        (b"<!doctype html><title>404</title>", "a web page"),
        (b"", "empty or cut off"),
        (b"GGUF", "The file is cut off inside its header"),
        (b"GGUF" + b"\x03\0\0\0" + b"\xff" * 16, "header is damaged: it claims more tensors than any model has"),
    ],
    ids=["lfs pointer", "zip", "pickle", "page", "empty", "gguf without header", "gguf with absurd counts"],
)
@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
def test_a_file_of_another_kind_is_identified(
    plain: Sample, trained: Path, content: bytes, message: str, suffix: str
) -> None:
    (path,) = (trained / "transformer_2").glob("*.safetensors")
    path.unlink()
    path.with_name(f"low_noise.{suffix}").write_bytes(content)
    error = ModelUnsupported if "pickle" in message else ModelDamaged
    with pytest.raises(error, match=rf"transformer_2/low_noise\.{suffix} cannot be used.*{message}"):
        check_model_files(trained, plain.components.spec)


def test_a_truncated_gguf_file_is_named(plain: Sample, trained: Path) -> None:
    write_gguf(trained, "transformer", Gguf.Q8_0)
    (path,) = (trained / "transformer").glob("*.gguf")
    content = path.read_bytes()
    for length in (len(content) - 1000, len(content) // 2, 5000, 100):
        path.write_bytes(content[:length])
        with pytest.raises(ModelDamaged, match=r"transformer/wan-Q8_0\.gguf cannot be used"):
            check_model_files(trained, plain.components.spec)
    path.write_bytes(b"no gguf")
    with pytest.raises(UnreadableWeights, match="not a GGUF file"):
        GgufFile(path)


def test_gguf_types_that_diffusers_cannot_unpack_are_refused(plain: Sample, trained: Path, device: str) -> None:
    write_gguf(trained, "transformer", Gguf.MXFP4)
    with pytest.raises(ModelUnsupported, match="stored as MXFP4, which is not supported"):
        opened(plain, trained, device)


def test_shapes_that_a_converter_flattened_are_restored(plain: Sample, trained: Path, device: str) -> None:
    tensors = weights_of(trained, "transformer")
    named = originally_named(trained, "transformer", tensors)
    (old,) = (trained / "transformer").glob("*.safetensors")
    old.unlink()
    writer = GGUFWriter(old.with_name("flat.gguf"), arch="wan")
    kernel = named["patch_embedding.weight"]
    writer.add_array("comfy.gguf.orig_shape.patch_embedding.weight", list(kernel.shape))
    for name, value in named.items():
        flat = value.flatten(1) if value.ndim > 2 and name == "patch_embedding.weight" else value.squeeze()
        writer.add_tensor(name, flat.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = opened(plain, trained, device).components.transformer
    for name, value in ours.state_dict().items():
        assert torch.equal(value.cpu(), tensors[name].to(value.dtype)), name


@pytest.mark.parametrize("fold", [lambda kernel: kernel.flatten(0, 1), lambda kernel: kernel.flatten(1)])
def test_folded_kernels_and_lost_sides_in_safetensors_are_restored(
    plain: Sample, trained: Path, device: str, fold: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    tensors = weights_of(trained, "transformer")
    named = originally_named(trained, "transformer", tensors)
    folded = {name: value.squeeze(0) if name.endswith("modulation") else value for name, value in named.items()}
    folded["patch_embedding.weight"] = fold(named["patch_embedding.weight"])
    replace_weights(trained, "transformer", {name: value.contiguous() for name, value in folded.items()})
    assert fault_of(trained, contents=True) is None
    ours = opened(plain, trained, device).components.transformer
    for name, value in ours.state_dict().items():
        assert torch.equal(value.cpu(), tensors[name].to(value.dtype)), name


def test_shards_may_have_any_name(plain: Sample, trained: Path, device: str) -> None:
    tensors = weights_of(trained, "vae")
    (old,) = (trained / "vae").glob("*.safetensors")
    old.unlink()
    halves = {f"part-{i}.safetensors": sorted(tensors)[i::2] for i in (0, 1)}
    for name, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, trained / "vae" / name)
    index = {"weight_map": {key: name for name, keys in halves.items() for key in keys}}
    (trained / "vae" / "any.safetensors.index.json").write_text(json.dumps(index))
    assert np.array_equal(frames_of(opened(plain, trained, device)), frames_of(plain))
