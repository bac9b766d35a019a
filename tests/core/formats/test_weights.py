"""Both weight formats report the same: weights, their scales, and what is ignored."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from backend.core.formats.tensors import TensorInfo, UnreadableWeights
from backend.core.formats.weights import (
    WEIGHT_SUFFIXES,
    Container,
    WeightHeader,
    read_weights,
    scaled_weight,
    shard_names,
)
from tests.support.weight_files import sparse, sparse_gguf

MATRIX = {"a.weight": (512, 256)}
WORDS = {"spiece_model": (40,)}
#: Marks that weights were scaled, without being a scale.
MARKS: dict[str, tuple[int, ...]] = {
    "a.scale_input": (),
    "a.input_scale": (),
    "a.comfy_quant": (8,),
    "scaled_fp8": (2,),
}


@pytest.mark.parametrize("word", ["scale_weight", "weight_scale"])
def test_weights_are_separated_from_scales_and_ignored_tensors(tmp_path: Path, word: str) -> None:
    path = sparse(tmp_path / "a.safetensors", MATRIX | {f"a.{word}": ()} | MARKS | WORDS, "F8_E4M3", {"by": "somebody"})
    header = read_weights(path)
    assert (header.container, header.files, header.metadata) == (Container.SAFETENSORS, (path,), {"by": "somebody"})
    assert header.tensors == {"a.weight": TensorInfo("F8_E4M3", (512, 256))}
    assert header.scales == {f"a.{word}": TensorInfo("F32", ())}
    assert scaled_weight(f"a.{word}") == "a.weight"
    assert (header.precision, header.size) == (("fp8_e4m3fn scaled",), path.stat().st_size)


@pytest.mark.parametrize(("beside", "scaled"), [({}, False), (WORDS, False), (MARKS, True)])
def test_a_tokenizer_stored_with_the_weights_is_ignored(
    tmp_path: Path, beside: dict[str, tuple[int, ...]], scaled: bool
) -> None:
    header = read_weights(sparse(tmp_path / "a.safetensors", MATRIX | beside, "F8_E4M3"))
    assert (header.scaled, header.scales, list(header.tensors)) == (scaled, {}, ["a.weight"])
    assert header.precision == ("fp8_e4m3fn scaled" if scaled else "fp8_e4m3fn",)


def test_a_gguf_file_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = sparse_gguf(tmp_path / "a.safetensors", MATRIX | {"b.weight": (256,)}, gguf.GGMLQuantizationType.Q4_K)
    header = read_weights(path)
    assert header.container is Container.GGUF
    assert header.tensors == {"a.weight": TensorInfo("Q4_K", (512, 256)), "b.weight": TensorInfo("F32", (256,))}
    assert header.precision == ("Q4_K", "F32")
    assert header.metadata["general.architecture"] == "wan"
    assert [suffix for suffix in WEIGHT_SUFFIXES if suffix.endswith(header.container)] == [".gguf"]


def _sharded(folder: Path) -> WeightHeader:
    sparse(folder / "1.safetensors", MATRIX, "F8_E4M3")
    sparse(folder / "2.safetensors", {"a.scale_weight": (), "b.weight": (4, 4)}, "BF16")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "1.safetensors", "b.weight": "2.safetensors"}}))
    return read_weights(index)


def test_shards_form_one_header_and_a_scale_may_be_in_another_shard(tmp_path: Path) -> None:
    header = _sharded(tmp_path)
    assert [path.name for path in header.files] == ["model.safetensors.index.json", "1.safetensors", "2.safetensors"]
    assert (set(header.tensors), set(header.scales)) == ({"a.weight", "b.weight"}, {"a.scale_weight"})
    assert header.precision == ("fp8_e4m3fn scaled", "bf16")
    assert header.size == sum(path.stat().st_size for path in header.files)
    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(UnreadableWeights, match=r"shard 1\.safetensors is missing"):
        read_weights(header.files[0])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_an_invalid_index_is_refused(tmp_path: Path, content: str) -> None:
    index = tmp_path / "x.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(UnreadableWeights, match="index of the shards cannot be read"):
        shard_names(index)
