"""The predicted bytes of a run are those that the real modules have alive, counted tensor by tensor.

The modules are built on torch's meta device: shapes and lifetimes are real, numbers are not computed.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter, dequantize_gguf_tensor
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Gguf
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backend.core.catalogue.architecture import ARCHITECTURES, VaeShape, is_unfolded
from backend.core.catalogue.table import MODELS
from backend.core.formats.packed_matrices import UNPACKING
from backend.core.planning.footprint import BFLOAT16, decode_bytes, encode_bytes, expert_bytes, forward_bytes
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.planning.processor_memory import FLOAT32, Layer, decoder_layers, encoder_layers, unfolded_bytes
from backend.engine.loading.pipeline_loader import WanPipelineLoader
from backend.engine.loading.weight_files import PACKED_TYPES
from backend.engine.memory.offload import EXPERTS
from backend.models.folder.manager import EMBEDDED_MODELS, packed_experts
from tests.engine.samples import stored_bytes
from tests.support.weight_forms import write_gguf

TOLERANCE = 0.05
T2V = "tiny-t2v-a14b"


class Alive(TorchDispatchMode):
    """Adds up the tensors that are alive; views of others count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                size = leaf.untyped_storage().nbytes()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(leaf, self._gone, size)
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def count(call: Callable[[], object]) -> int:
    with torch.no_grad(), torch.device("meta"), Alive() as alive:
        call()
    return alive.peak


@pytest.mark.parametrize(
    ("model", "size", "dtype"),
    [
        ("T2V-A14B", (832, 480, 81), torch.bfloat16),
        ("T2V-A14B", (1280, 720, 81), torch.bfloat16),
        ("I2V-A14B", (1280, 720, 33), torch.bfloat16),
        ("T2V-A14B", (832, 480, 81), torch.float32),
        ("TI2V-5B", (1280, 704, 121), torch.bfloat16),
        ("TI2V-5B", (832, 480, 49), torch.bfloat16),
        ("tiny-t2v-a14b", (256, 256, 65), torch.float32),
        ("tiny-ti2v-5b", (256, 256, 65), torch.float32),
    ],
)
def test_a_forward_needs_the_predicted_memory(
    model: str, size: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = ARCHITECTURES[model]
    shape = arch.transformer
    # Fused attention keeps nothing but its result; on the meta device torch would write the scores out.
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda query, key, value, **_: torch.empty_like(query)
    )
    tokens, text = arch.tokens(*size), 512 if shape.text_dim > 64 else 64
    with torch.device("meta"):
        module = WanTransformer3DModel(
            num_attention_heads=arch.heads,
            attention_head_dim=arch.head_dim,
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            text_dim=shape.text_dim,
            freq_dim=shape.freq_dim,
            ffn_dim=shape.ffn_dim,
            num_layers=2,
        )
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
        latents = torch.empty(1, shape.in_channels, *arch.latents(*size), dtype=dtype)
        prompt = torch.empty(1, text, shape.text_dim, dtype=dtype)
        time = torch.empty(1, tokens) if arch.per_token_time else torch.empty(1)
    counted = count(lambda: module(latents, time, prompt, return_dict=False))
    precision = 2 if dtype is torch.bfloat16 else 4
    assert forward_bytes(arch, tokens, text, precision) == pytest.approx(counted, rel=TOLERANCE)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("storage", [Storage.BF16, Storage.FP8])
@pytest.mark.parametrize("model", ["tiny-t2v-a14b", "tiny-i2v-a14b", "tiny-ti2v-5b"])
def test_weights_need_the_predicted_memory_in_every_precision(model: str, storage: Storage, precision: str) -> None:
    arch, float32 = ARCHITECTURES[model], precision == "float32"
    plan = MemoryPlan(Placement.RESIDENT, storage)
    loaded = WanPipelineLoader("cpu", precision=precision).load(EMBEDDED_MODELS / model, MODELS[model], plan)
    said = sum(expert_bytes(arch.transformer, storage, float32=float32))
    for name in EXPERTS[: arch.experts]:
        stored = stored_bytes(getattr(loaded, name))
        # Rounding includes the biases of the matrices, which are a larger share of small matrices.
        assert stored == said if storage is Storage.BF16 else stored <= said <= 1.05 * stored
    assert stored_bytes(loaded.text_encoder) == (FLOAT32 if float32 else BFLOAT16) * arch.text.parameters
    assert stored_bytes(loaded.vae) == FLOAT32 * arch.vae.parameters


@pytest.fixture
def packed_model(tmp_path: Path) -> Callable[[Gguf, int], Path]:
    """Copy a model with its experts in GGUF files, under diffusers' names (table 0) or Wan's (table 1)."""

    def make(kind: Gguf, table: int) -> Path:
        folder = shutil.copytree(EMBEDDED_MODELS / T2V, tmp_path / f"{kind.name}-{table}")
        for name in EXPERTS:
            write_gguf(folder, name, kind, table=table)
        return folder

    return make


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("table", [0, 1], ids=["diffusers", "wan"])
@pytest.mark.parametrize("kind", [Gguf.Q8_0, Gguf.Q5_1, Gguf.Q4_0])
def test_quantised_weights_need_the_memory_their_header_implies(
    packed_model: Callable[[Gguf, int], Path], kind: Gguf, table: int, precision: str
) -> None:
    folder, spec, arch = packed_model(kind, table), MODELS[T2V], ARCHITECTURES[T2V]
    packed = packed_experts(folder, spec)
    assert packed is not None
    said = expert_bytes(arch.transformer, Storage.BF16, float32=precision == "float32", packed=packed)
    loaded = WanPipelineLoader("cpu", precision=precision).load(folder, spec, PLANS[1])
    for name in EXPERTS:
        expert = getattr(loaded, name)
        stored = {part: one.numel() * one.element_size() for part, one in expert.named_parameters()}
        in_blocks = sum(size for part, size in stored.items() if part.startswith("blocks."))
        assert (in_blocks, sum(stored.values()) - in_blocks) == said
        assert stored_bytes(expert) == sum(said)
    assert said[0] < 0.6 * expert_bytes(arch.transformer, Storage.BF16, float32=precision == "float32")[0]


@pytest.mark.parametrize("kind", [Gguf.Q8_0, Gguf.Q5_0, Gguf.Q4_0])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_forward_with_quantised_weights_needs_the_predicted_memory(
    packed_model: Callable[[Gguf, int], Path], kind: Gguf, precision: str
) -> None:
    folder, spec, arch = packed_model(kind, 1), MODELS[T2V], ARCHITECTURES[T2V]
    packed, size, text, dtype = packed_experts(folder, spec), (64, 64, 5), 64, getattr(torch, precision)
    assert packed is not None
    expert = WanPipelineLoader("cpu", precision=precision).load(folder, spec).transformer
    latents = torch.zeros(1, arch.transformer.in_channels, *arch.latents(*size), dtype=dtype)
    prompt = torch.zeros(1, text, arch.transformer.text_dim, dtype=dtype)
    with torch.no_grad(), Alive() as alive:
        expert(latents, torch.zeros(1), prompt, return_dict=False)
    forward = forward_bytes(arch, arch.tokens(*size), text, dtype.itemsize)
    assert forward < alive.peak <= forward + packed.unpacking
    assert packed.unpacking < 2 * alive.peak


@pytest.mark.parametrize("kind", SUPPORTED_GGUF_QUANT_TYPES, ids=lambda kind: kind.name)
def test_unpacking_a_matrix_needs_the_predicted_memory(kind: Gguf) -> None:
    if kind is Gguf.BF16:
        assert kind.name not in UNPACKING, "it is no quantisation"
        return
    block, size = GGML_QUANT_SIZES[kind]
    rows, columns = 64, 1024
    matrix = GGUFParameter(torch.zeros(rows, columns // block * size, dtype=torch.uint8), quant_type=kind)
    with Alive() as alive:
        dequantize_gguf_tensor(matrix).to(torch.float32)
    assert 0.9 * UNPACKING[kind.name] * rows * columns <= alive.peak <= UNPACKING[kind.name] * rows * columns


def test_exactly_the_expected_matrices_stay_packed() -> None:
    assert set(UNPACKING) == PACKED_TYPES


def _vae(shape: VaeShape) -> Any:
    with torch.device("meta"):
        return AutoencoderKLWan(
            base_dim=shape.encoder_width,
            decoder_base_dim=shape.decoder_width,
            z_dim=shape.channels,
            num_res_blocks=shape.res_blocks,
            is_residual=shape.residual,
            in_channels=3 * shape.patch**2,
            out_channels=3 * shape.patch**2,
            patch_size=shape.patch if shape.patch > 1 else None,
            scale_factor_spatial=shape.spatial_stride,
            latents_mean=[0.0] * shape.channels,
            latents_std=[1.0] * shape.channels,
        )


VAES = [
    ("T2V-A14B", 832, 480),
    ("T2V-A14B", 1280, 720),
    ("TI2V-5B", 1280, 704),
    ("tiny-t2v-a14b", 256, 256),
    ("tiny-ti2v-5b", 256, 256),
]


@pytest.mark.parametrize(("model", "width", "height"), VAES)
def test_decoding_needs_the_predicted_memory(model: str, width: int, height: int) -> None:
    shape = ARCHITECTURES[model].vae
    vae = _vae(shape)
    stride = shape.spatial_stride
    memory: list[object] = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    with torch.device("meta"):
        latents = torch.empty(1, shape.channels, 4, height // stride, width // stride)

    def decode() -> None:
        for index in range(latents.shape[2]):
            vae.decoder(latents[:, :, index : index + 1], feat_cache=memory, feat_idx=[0], first_chunk=index == 0)

    expected = decode_bytes(shape, width, height, tiled=False)
    assert expected == pytest.approx(count(decode), rel=TOLERANCE)


@pytest.mark.parametrize(("model", "width", "height"), VAES)
def test_encoding_needs_the_predicted_memory(model: str, width: int, height: int) -> None:
    shape = ARCHITECTURES[model].vae
    vae = _vae(shape)
    counted = count(lambda: vae.encode(torch.empty(1, 3, 17, height, width)))
    assert encode_bytes(shape, width, height, 17, tiled=False) == pytest.approx(counted, rel=TOLERANCE)


def test_unfolded_convolutions_are_predicted_as_torch_decides() -> None:
    found = set()
    for channels in (3, 12, 16, 32, 64, 96, 192):
        weight = torch.empty(8, channels, 3, 3, 3)
        for frames in (3, 4, 6):
            for rows in (10, 34, 53, 54, 72, 107, 114, 130, 213, 214, 258, 427):
                whole = torch.empty(1, channels, frames, rows, 18)
                kernel = torch._C._select_conv_backend(
                    whole, weight, None, [1, 1, 1], [0, 0, 0], [1, 1, 1], False, [0, 0, 0], 1
                )
                found.add(kernel)
                assert (kernel == torch._C._ConvBackend.Slow3d) == is_unfolded(channels, frames, rows)
    assert found == {torch._C._ConvBackend.Slow3d, torch._C._ConvBackend.Mkldnn}


def _largest_unfolding(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the bytes of the largest input that torch unfolds for a 3 x 3 x 3 convolution on a processor."""
    seen = [0]
    original = torch.nn.functional.conv3d

    def conv3d(whole: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        made = original(whole, weight, *rest)
        if tuple(weight.shape[2:]) == (3, 3, 3) and is_unfolded(*whole.shape[1:4]):
            seen.append(4 * 27 * whole.shape[1] * prod(made.shape[2:]))
        return made

    with torch.no_grad(), torch.device("meta"), monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv3d", conv3d)
        call()
    return max(seen)


@pytest.mark.parametrize("model", ["tiny-t2v-a14b", "tiny-ti2v-5b", "TI2V-5B"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (192, 224), (224, 192), (256, 128), (128, 256), (256, 256)])
def test_unfolded_bytes_match_the_real_layers(
    model: str, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ARCHITECTURES[model].vae
    vae = _vae(shape)
    stride, picture = shape.spatial_stride, (width // shape.patch, height // shape.patch)
    memory: list[object] = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    with torch.device("meta"):
        latents = torch.empty(1, shape.channels, 3, height // stride, width // stride)
        clip = torch.empty(1, 3, 9, height, width)

    def decode() -> None:
        for index in range(latents.shape[2]):
            vae.decoder(latents[:, :, index : index + 1], feat_cache=memory, feat_idx=[0], first_chunk=index == 0)

    # The first chunk, of one frame, may unfold where the others do not; but a quarter of their tensors is alive.
    said = _most(decoder_layers(shape), picture)
    first = _most([replace(layer, frames=1) for layer in decoder_layers(shape)], picture)
    assert max(said, first) == _largest_unfolding(decode, monkeypatch)
    assert 4 * (first - said) < 3 * decode_bytes(shape, width, height, tiled=False)
    said, first = (_most(encoder_layers(shape, frames), picture) for frames in (9, 1))
    assert max(said, first) == _largest_unfolding(lambda: vae.encode(clip), monkeypatch)


def _most(layers: list[Layer], picture: tuple[int, int]) -> int:
    return max(layer.unfolded(*picture) for layer in layers)


def test_unfolding_next_to_small_tensors_does_not_raise_the_peak() -> None:
    layers = decoder_layers(ARCHITECTURES["tiny-t2v-a14b"].vae)
    assert unfolded_bytes(layers, 10**8, 192, 192) == _most(layers, (192, 192))  # at the largest level
    assert 0 < _most(layers, (256, 256)) < 10**8  # at a level of an eighth of the tensors
    assert unfolded_bytes(layers, 10**8, 256, 256) == 0
    assert unfolded_bytes(layers, 0, 256, 256) == _most(layers, (256, 256))
