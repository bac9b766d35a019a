"""The files of one diffusers model folder: are they all there and readable, and what is in them.

Looks at names, sizes and headers before anything is opened as a model, so that a damaged folder is
reported by the name of its file. Does not know what the weights mean.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from backend.core.errors import ModelDamaged, ModelUnavailable
from backend.core.model_table import Mode, ModelSpec

MODEL_INDEX = "model_index.json"
#: Component folders that hold weights, with the usual name of the file inside.
_WEIGHTED = {
    "text_encoder": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "transformer_2": "diffusion_pytorch_model.safetensors",
}
#: Component folders without weights: one file of each row must be there.
_PLAIN = {
    "tokenizer": (("tokenizer_config.json",), ("tokenizer.json", "spiece.model")),
    "scheduler": (("scheduler_config.json",),),
}
#: The pipeline class of each mode, as `model_index.json` names it.
PIPELINES = {Mode.T2V: "WanPipeline", Mode.I2V: "WanImageToVideoPipeline", Mode.TI2V: "WanPipeline"}
#: Input channels of the transformer for latents of C channels: the latents alone, or beside them a mask (one
#: channel for each of the four frames in a latent frame) and the encoded image.
_INPUT_CHANNELS = {Mode.T2V: lambda c: c, Mode.I2V: lambda c: 2 * c + 4, Mode.TI2V: lambda c: c}
#: Channels of the latents that each mode's autoencoder makes.
_LATENT_CHANNELS = {Mode.T2V: 16, Mode.I2V: 16, Mode.TI2V: 48}
_FIRST_WEIGHT = "patch_embedding.weight"
#: Classes may only come from these libraries; anything else would be code from the model folder.
_LIBRARIES = frozenset({"diffusers", "transformers"})
_BOUNDARY_TOLERANCE = 1e-9
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A checked folder."""

    folder: Path
    weights: dict[str, tuple[Path, ...]]  #: component -> its safetensors files

    @property
    def fingerprint(self) -> str:
        """A cheap mark of this state of the folder, from names, sizes and times of all weight files."""
        lines = []
        for path in self._sorted():
            stat = path.stat()
            lines.append(f"{path.relative_to(self.folder)} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def digest(self, component: str | None = None) -> str:
        """SHA-256 over names and contents of all weight files, or of one component's; reads every byte."""
        total = hashlib.sha256()
        for path in self._sorted() if component is None else sorted(self.weights[component]):
            one = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    one.update(chunk)
            total.update(f"{path.relative_to(self.folder).as_posix()} {one.hexdigest()}\n".encode())
        return total.hexdigest()

    def tensor_names(self, component: str) -> frozenset[str]:
        """The names of all tensors in a component's files."""
        names: set[str] = set()
        for path in self.weights[component]:
            with safe_open(path, framework="pt") as file:
                names.update(file.keys())
        return frozenset(names)

    def shape_of(self, component: str, tensor: str) -> tuple[int, ...] | None:
        """The shape of a tensor in a component's files, or None when it is not there."""
        for path in self.weights[component]:
            with safe_open(path, framework="pt") as file:
                if tensor in file.keys():  # noqa: SIM118 - the file is no mapping
                    return tuple(file.get_slice(tensor).get_shape())
        return None

    def _sorted(self) -> list[Path]:
        return sorted(path for paths in self.weights.values() for path in paths)


def check_model_files(folder: Path, spec: ModelSpec) -> ModelFiles:
    """Check that every file the model needs is there, can be read, and fits the spec.

    Raises:
        ModelDamaged: a file is missing, cut off or contradicts the spec; the message names it.
        ModelUnavailable: the folder holds a kind of pipeline that this version cannot run.
    """
    index = _read_json(spec, folder, MODEL_INDEX)
    if index.get("_class_name") != PIPELINES[spec.mode]:
        raise ModelUnavailable(
            f"{spec.id} must be a {PIPELINES[spec.mode]}; its folder holds a {index.get('_class_name')}",
            suggestions=("Put the folder of this very model there.",),
        )
    _check_against_spec(index, spec)
    weights: dict[str, tuple[Path, ...]] = {}
    for component, usual_name in _WEIGHTED.items():
        if component == "transformer_2" and spec.experts == 1:
            continue
        _check_entry(spec, index, component)
        _read_json(spec, folder, f"{component}/config.json")
        names = _weight_names(spec, folder, f"{component}/{usual_name}")
        for name in names:
            _check_header(spec, folder, name)
        weights[component] = tuple(folder / name for name in names)
    for component, rows in _PLAIN.items():
        _check_entry(spec, index, component)
        for choices in rows:
            if not any((folder / component / choice).is_file() for choice in choices):
                raise damaged(spec, f"{component}/{choices[0]} is missing")
    files = ModelFiles(folder, weights)
    _check_channels(spec, files)
    return files


def damaged(spec: ModelSpec, reason: str) -> ModelDamaged:
    """Make the error; the reason names files relative to the model's folder, because clients may read it."""
    return ModelDamaged(f"{spec.id} is damaged: {reason}")


def _check_against_spec(index: dict[str, Any], spec: ModelSpec) -> None:
    has_second = (index.get("transformer_2") or [None])[0] is not None
    if has_second != (spec.experts == 2):
        raise damaged(spec, f"{MODEL_INDEX} has {'two experts' if has_second else 'one expert'}, not {spec.experts}")
    boundary = index.get("boundary_ratio")
    if spec.boundary_ratio is None:
        fits = boundary is None
    else:
        fits = isinstance(boundary, float) and abs(boundary - spec.boundary_ratio) < _BOUNDARY_TOLERANCE
    if not fits:
        raise damaged(spec, f"{MODEL_INDEX} has boundary_ratio {boundary}, not {spec.boundary_ratio}")
    expands = bool(index.get("expand_timesteps", False))
    if expands != (spec.mode is Mode.TI2V):
        raise damaged(spec, f"{MODEL_INDEX} has expand_timesteps {expands}, which is another kind of model")


def _check_channels(spec: ModelSpec, files: ModelFiles) -> None:
    """Refuse an autoencoder or a transformer that belongs to a model of another mode."""
    expected = _LATENT_CHANNELS[spec.mode]
    vae = _read_json(spec, files.folder, "vae/config.json")
    latent = vae.get("z_dim", 16)
    if latent != expected:
        raise damaged(spec, f"its vae makes latents of {latent} channels, and a {spec.mode} model has {expected}")
    pixels = 2 * vae.get("scale_factor_spatial", 8)
    if pixels != spec.size_multiple:
        raise damaged(spec, f"its vae and patches make tokens of {pixels} pixels a side, not {spec.size_multiple}")
    inputs = _INPUT_CHANNELS[spec.mode](latent)
    for component in files.weights:
        if not component.startswith("transformer"):
            continue
        configured = _read_json(spec, files.folder, f"{component}/config.json").get("in_channels")
        stored = files.shape_of(component, _FIRST_WEIGHT)
        for channels in (configured, stored[1] if stored is not None else configured):
            if channels != inputs:
                raise damaged(
                    spec, f"its {component} takes {channels} input channels, and a {spec.mode} model has {inputs}"
                )


def _check_entry(spec: ModelSpec, index: dict[str, Any], component: str) -> None:
    entry = index.get(component)
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES):
        raise damaged(spec, f"{MODEL_INDEX} has no usable entry for {component}")


def _weight_names(spec: ModelSpec, folder: Path, usual_name: str) -> tuple[str, ...]:
    """Return a component's weight files relative to the model's folder: one, or the shards that its index lists."""
    shard_index = f"{usual_name}.index.json"
    if not (folder / shard_index).is_file():
        return (usual_name,)
    shards = _read_json(spec, folder, shard_index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise damaged(spec, f"{shard_index} lists no files")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        # A name that leads out of the folder would make us open any file on this machine.
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise damaged(spec, f"{shard_index} lists something that is not a safetensors file beside it")
    component = usual_name.partition("/")[0]
    return tuple(f"{component}/{name}" for name in names)


def _check_header(spec: ModelSpec, folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise damaged(spec, f"{name} is missing")
    try:
        # Reads the header and compares it with the file's length; the tensors are only mapped.
        with safe_open(folder / name, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(spec, f"{name} is cut off or no safetensors file") from error


def _read_json(spec: ModelSpec, folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise damaged(spec, f"{name} is missing") from None
    except (OSError, ValueError) as error:
        raise damaged(spec, f"{name} cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise damaged(spec, f"{name} is not a JSON object")
    return content
