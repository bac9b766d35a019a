"""Checks one model folder in diffusers' layout: every file present, readable, and fitting the spec.

Inspects names, sizes and headers before anything is opened as a model, so that an error names the damaged file.
Independent of the form of a component's weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from backend.core.catalogue.spec import DMD_PIPELINE, PIPELINES, Mode, ModelSpec
from backend.core.errors.models import ModelUnavailable
from backend.core.files import read_json
from backend.core.formats.tensors import UnreadableWeights
from backend.core.formats.weights import USUAL_NAMES, component_files
from backend.engine.loading.configurations import CLASSES, MODEL_INDEX, RefusedConfiguration, clean_config
from backend.engine.loading.weight_files import ComponentFiles, damaged, read_headers

#: Component folders without weights: one file of each row must exist.
_PLAIN = {
    "tokenizer": (("tokenizer_config.json",), ("tokenizer.json", "spiece.model")),
    "scheduler": (("scheduler_config.json",),),
    "image_processor": (("preprocessor_config.json",),),
}
#: Components that exist only in models that also read the start image as tokens.
_OF_IMAGE_TOKENS = frozenset({"image_encoder", "image_processor"})
#: Input channels of the transformer for latents of C channels: the latents alone, or together with a mask (one
#: channel for each of the four frames in a latent frame) and the encoded image.
_INPUT_CHANNELS = {Mode.T2V: lambda c: c, Mode.I2V: lambda c: 2 * c + 4, Mode.TI2V: lambda c: c}
#: Latent channels of each mode's autoencoder.
_LATENT_CHANNELS = {Mode.T2V: 16, Mode.I2V: 16, Mode.TI2V: 48}
#: Tensors that identify the model, by diffusers' and by Wan's own names.
_FIRST_WEIGHT = "patch_embedding.weight"
_LATENT_WEIGHTS = ("post_quant_conv.weight", "conv2.weight")
#: The only libraries that classes may come from; anything else would be code from the model folder.
_LIBRARIES = frozenset({"diffusers", "transformers"})
_BOUNDARY_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder that passed the checks."""

    folder: Path
    components: dict[str, ComponentFiles]  #: the components with weights
    configs: dict[str, dict[str, Any]]  #: the content of each one's `config.json`

    @property
    def fingerprint(self) -> str:
        """A cheap identifier of the folder's state, from names, sizes and times of all weight files."""
        lines = []
        for path in self._sorted():
            stat = path.stat()
            lines.append(f"{path.relative_to(self.folder)} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def digest(self, component: str | None = None) -> str:
        """Return the SHA-256 over names and contents of all weight files, or of one component's; reads every byte."""
        return over_all(self.digests(component))

    def digests(self, component: str | None = None, known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        """Return the SHA-256 of each weight file by its name, sorted; reads every byte of those that are not known."""
        paths = self._sorted() if component is None else sorted(self.components[component].paths)
        named = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: known.get(name) or _digest(path) for name, path in named.items()}

    def shape_of(self, component: str, *names: str) -> tuple[int, ...] | None:
        """Return the shape of the first of these tensors in a component's files; None if it has none of them."""
        tensors = self.components[component].tensors
        return next((tensors[name].shape for name in names if name in tensors), None)

    def _sorted(self) -> list[Path]:
        return sorted(path for files in self.components.values() for path in files.paths)


def over_all(digests: Mapping[str, str]) -> str:
    """Return one SHA-256 over the names and digests of files, in their order."""
    return hashlib.sha256("".join(f"{name} {one}\n" for name, one in digests.items()).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_model_files(folder: Path, spec: ModelSpec) -> ModelFiles:
    """Check that every file the model needs exists, is readable, and fits the spec.

    Raises:
        ModelDamaged: a file is missing, truncated, or contradicts the spec; the message names it.
        ModelUnavailable: the folder holds a kind of pipeline that this version cannot run.
    """
    configs = read_structure(folder, spec)
    components = {
        component: read_headers(spec, folder, _weight_names(spec, folder, component)) for component in configs
    }
    for component, rows in _PLAIN.items():
        for choices in rows if _has(spec, component) else ():
            if not any((folder / component / choice).is_file() for choice in choices):
                raise damaged(spec, f"{component}/{choices[0]} is missing")
    files = ModelFiles(folder, components, configs)
    _check_stored_channels(spec, files)
    return files


def read_structure(folder: Path, spec: ModelSpec) -> dict[str, dict[str, Any]]:
    """Read the configuration of every component with weights, and check all of them against the spec.

    Raises:
        ModelDamaged: a configuration is missing, or belongs to another model.
        ModelUnavailable: the folder holds a kind of pipeline that this version cannot run.
    """
    index = _read_json(spec, folder, MODEL_INDEX)
    expected = DMD_PIPELINE if spec.renoise_at else PIPELINES[spec.mode]
    if index.get("_class_name") != expected:
        raise ModelUnavailable(
            f"{spec.id} must be a {expected}; its folder holds a {index.get('_class_name')}",
            suggestions=("Replace it with the folder of this model.",),
        )
    _check_against_spec(index, spec)
    for component in (*USUAL_NAMES, *_PLAIN):
        if _has(spec, component):
            _check_entry(spec, index, component)
    configs = {component: _read_config(spec, folder, component) for component in USUAL_NAMES if _has(spec, component)}
    _check_channels(spec, configs)
    _check_image_tokens(spec, configs)
    return configs


def _has(spec: ModelSpec, component: str) -> bool:
    """Whether models of this spec have a component."""
    if component == "transformer_2":
        return spec.experts == 2
    return spec.image_tokens or component not in _OF_IMAGE_TOKENS


def _check_against_spec(index: dict[str, Any], spec: ModelSpec) -> None:
    second = index.get("transformer_2")
    has_second = isinstance(second, list) and second[:1] not in ([], [None])
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


def _check_channels(spec: ModelSpec, configs: dict[str, dict[str, Any]]) -> None:
    """Reject an autoencoder or a transformer configured for another mode."""
    vae = configs["vae"]
    latent = vae.get("z_dim", 16)
    _check_latent_channels(spec, latent)
    scale = vae.get("scale_factor_spatial", 8)
    pixels = 2 * scale if isinstance(scale, int) else scale
    if pixels != spec.size_multiple:
        raise damaged(spec, f"its vae and patches make tokens of {pixels} pixels a side, not {spec.size_multiple}")
    for component, config in configs.items():
        if component.startswith("transformer"):
            _check_input_channels(spec, component, config.get("in_channels"))


def _check_image_tokens(spec: ModelSpec, configs: dict[str, dict[str, Any]]) -> None:
    """Reject a transformer whose image tokens are not those of the model's image encoder."""
    expected = configs["image_encoder"].get("hidden_size") if spec.image_tokens else None
    for component, config in configs.items():
        if not component.startswith("transformer"):
            continue
        width = config.get("image_dim")
        if width != expected:
            raise damaged(spec, f"its {component} reads image tokens of width {width}; the model has width {expected}")
        if config.get("pos_embed_seq_len") is not None:
            raise damaged(spec, f"its {component} takes a first and a last frame, which is another model")


def _check_stored_channels(spec: ModelSpec, files: ModelFiles) -> None:
    """Reject weights of another mode, whatever the configuration says."""
    latent = files.shape_of("vae", *_LATENT_WEIGHTS)
    if latent:
        _check_latent_channels(spec, latent[0])
    for component in files.components:
        first = files.shape_of(component, _FIRST_WEIGHT)
        if component.startswith("transformer") and first is not None and len(first) == 5:  # not folded
            _check_input_channels(spec, component, first[1])


def _check_latent_channels(spec: ModelSpec, channels: int) -> None:
    expected = _LATENT_CHANNELS[spec.mode]
    if channels != expected:
        raise damaged(spec, f"its vae makes latents of {channels} channels; a {spec.mode} model has {expected}")


def _check_input_channels(spec: ModelSpec, component: str, channels: object) -> None:
    expected = _INPUT_CHANNELS[spec.mode](_LATENT_CHANNELS[spec.mode])
    if channels != expected:
        raise damaged(spec, f"its {component} takes {channels} input channels; a {spec.mode} model has {expected}")


def _check_entry(spec: ModelSpec, index: dict[str, Any], component: str) -> None:
    entry = index.get(component)
    if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in _LIBRARIES):
        raise damaged(spec, f"{MODEL_INDEX} has no usable entry for {component}")
    if entry[1] not in CLASSES[component]:
        expected = " or ".join(sorted(CLASSES[component]))
        raise damaged(spec, f"{MODEL_INDEX} has a {entry[1]} as its {component}, not a {expected}")


def _weight_names(spec: ModelSpec, folder: Path, component: str) -> tuple[str, ...]:
    """Return a component's weight files relative to the model's folder."""
    usual_name = USUAL_NAMES[component]
    try:
        names = component_files(folder / component, usual_name) or [usual_name]
    except UnreadableWeights as error:
        raise damaged(spec, f"{component} cannot be used. {error}") from error
    return tuple(f"{component}/{name}" for name in names)


def _read_config(spec: ModelSpec, folder: Path, component: str) -> dict[str, Any]:
    try:
        return clean_config(component, _read_json(spec, folder, f"{component}/config.json"))
    except RefusedConfiguration as error:
        raise damaged(spec, str(error)) from error


def _read_json(spec: ModelSpec, folder: Path, name: str) -> dict[str, Any]:
    try:
        content = read_json(folder / name)
    except FileNotFoundError:
        raise damaged(spec, f"{name} is missing") from None
    except OSError as error:
        raise damaged(spec, f"{name} cannot be read") from error
    except ValueError as error:
        raise damaged(spec, f"{name} {error}") from error
    if not isinstance(content, dict):
        raise damaged(spec, f"{name} is not a JSON object")
    return content
