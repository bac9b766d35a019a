"""The contents of a weight file in either format: names, shapes, types and scales.

The one place that knows containers, suffixes, shard indexes and what accompanies weights in a file. Decides by
content, never by suffix, and names the kind of a file it rejects. Reads no values and knows no models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from pathlib import Path
from typing import Final

from backend.core.files import read_json
from backend.core.formats.compatibility import Fault, form_fault
from backend.core.formats.gguf import MAGIC, read_gguf_header
from backend.core.formats.safetensors import read_header
from backend.core.formats.tensors import TensorInfo, UnreadableWeights


class Container(StrEnum):
    """The two supported formats; neither can contain code."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"


#: Suffixes of weight files.
SAFETENSORS_SUFFIX: Final = f".{Container.SAFETENSORS}"
WEIGHT_SUFFIXES: Final = tuple(f".{container}" for container in Container)
#: Suffix of a shard index.
SHARD_INDEX: Final = f"{SAFETENSORS_SUFFIX}.index.json"
#: Components with weights, and the usual name of the file; a single file may have another name.
USUAL_NAMES: Final = {
    "text_encoder": "model.safetensors",
    "image_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "transformer_2": "diffusion_pytorch_model.safetensors",
}
_MAX_INDEX_BYTES = 32 * 2**20

#: Suffixes of a scale that a module's weight must be multiplied by: ComfyUI's and diffusers'.
_SCALES: Final = (".scale_weight", ".weight_scale")
#: Scales of activations and format marks: they show that the file is scaled, but do not concern weights.
_MARKS: Final = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
#: A tokenizer embedded in an encoder's file; unused, because the model has its own.
_WORDS: Final = ("spiece_model",)

#: Common names of the safetensors types; GGUF types keep their own names.
_TYPES: Final = {
    "F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2",
}  # fmt: skip
_EIGHT_BITS: Final = "fp8"


@dataclass(frozen=True, slots=True)
class WeightHeader:
    """One file, or the shards of one."""

    container: Container
    files: tuple[Path, ...]  #: the file, or the index and the shards that it lists
    tensors: dict[str, TensorInfo]  #: the weights
    scales: dict[str, TensorInfo]  #: factors of weights; `scaled_weight` gives the weight of each
    scaled: bool  #: whether anything indicates that weights were scaled down
    metadata: dict[str, str]
    size: int  #: bytes of all files

    @property
    def precision(self) -> tuple[str, ...]:
        """The number formats, most frequent first: `bf16`, `fp8_e4m3fn scaled`, `Q4_K`."""
        numbers: dict[str, int] = {}
        for info in self.tensors.values():
            numbers[info.dtype] = numbers.get(info.dtype, 0) + prod(info.shape)
        ranked = sorted(numbers, key=lambda dtype: (-numbers[dtype], dtype))
        return tuple(self._in_words(dtype) for dtype in ranked)

    def fault(self, names: Collection[str] | None = None) -> Fault | None:
        """Describe the first weight or scale in an unsupported form; `names` are the needed weights, None = all."""
        return form_fault(self.tensors, {name: (scaled_weight(name), it) for name, it in self.scales.items()}, names)

    def _in_words(self, dtype: str) -> str:
        if self.container is Container.GGUF:
            return dtype
        word = _TYPES.get(dtype, dtype)
        return f"{word} scaled" if self.scaled and word.startswith(_EIGHT_BITS) else word


def scaled_weight(scale: str) -> str:
    """Return the name of the weight that a tensor of `WeightHeader.scales` belongs to."""
    return f"{scale.rpartition('.')[0]}.weight"


def read_weights(path: Path) -> WeightHeader:
    """Read the header of a file, or those of all shards that an index (`….safetensors.index.json`) lists.

    Raises:
        UnreadableWeights: it is something else: a pickle, a git pointer, a web page, a truncated file.
    """
    if path.name.endswith(SHARD_INDEX):
        return _read_shards(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
            size = file.seek(0, 2)
    except OSError as error:
        raise UnreadableWeights(f"The file cannot be read ({type(error).__name__})") from None
    if start == MAGIC:
        return _read_gguf(path, size)
    header = read_header(path)
    return _header(Container.SAFETENSORS, path, header.tensors, header.metadata, size)


def _read_gguf(path: Path, size: int) -> WeightHeader:
    header = read_gguf_header(path)
    texts = {name: value for name, value in header.fields.items() if isinstance(value, str)}
    return _header(Container.GGUF, path, header.tensors, texts, size)


def _header(
    container: Container, path: Path, stored: Mapping[str, TensorInfo], metadata: dict[str, str], size: int
) -> WeightHeader:
    """Separate the weights of one file from what accompanies them."""
    scales = {name: info for name, info in stored.items() if name.endswith(_SCALES)}
    beside = {name for name in stored if name.endswith((*_SCALES, *_MARKS, *_WORDS))}
    weights = {name: info for name, info in stored.items() if name not in beside}
    scaled = any(not name.endswith(_WORDS) for name in beside)
    return WeightHeader(container, (path,), weights, scales, scaled, metadata, size)


def _read_shards(index: Path) -> WeightHeader:
    tensors: dict[str, TensorInfo] = {}
    scales: dict[str, TensorInfo] = {}
    size = 0
    scaled = False
    shards = [index.parent / name for name in shard_names(index)]
    for shard in shards:
        if not shard.is_file():
            raise UnreadableWeights(f"The shard {shard.name} is missing")
        part = read_weights(shard)
        if part.container is not Container.SAFETENSORS or not part.tensors.keys().isdisjoint(tensors):
            raise UnreadableWeights(f"The shard {shard.name} does not belong to its index")
        tensors |= part.tensors
        scales |= part.scales
        scaled = scaled or part.scaled
        size += part.size
    files = (index, *shards)
    return WeightHeader(Container.SAFETENSORS, files, tensors, scales, scaled, {}, size + index.stat().st_size)


def component_files(place: Path, usual_name: str) -> list[str]:
    """Return the names of a component's weight files in its folder, which may be missing; empty when it has none.

    These are the shards of an index, else the file with the usual name, else the only weight file.

    Raises:
        UnreadableWeights: the index cannot be used, or several files could be meant.
    """
    if not place.is_dir():
        return []
    indices = [f"{usual_name}.index.json"]
    indices += sorted(path.name for path in place.glob(f"*{SHARD_INDEX}") if path.name not in indices)
    index = next((name for name in indices if (place / name).is_file()), None)
    if index is not None:
        try:
            return shard_names(place / index)
        except UnreadableWeights as error:
            raise UnreadableWeights(f"{index}: {error}") from error
    if (place / usual_name).is_file():
        return [usual_name]
    others = sorted(path.name for path in place.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    if len(others) > 1:
        raise UnreadableWeights(f"It has several weight files; keep only one: {', '.join(others)}")
    return others


def shard_names(index: Path) -> list[str]:
    """Return the file names that an index lists; all are plain names in its folder.

    Raises:
        UnreadableWeights: it cannot be read, or lists anything else.
    """
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise UnreadableWeights("The index of the shards is too large to be one")
        names = sorted({str(name) for name in read_json(index)["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UnreadableWeights("The index of the shards cannot be read") from None
    # A name that leads out of the folder would make us open any file on this machine.
    if not names or any(Path(name).name != name or not name.endswith(SAFETENSORS_SUFFIX) for name in names):
        raise UnreadableWeights("The index of the shards lists something that is not a safetensors file beside it")
    return names
