"""What of a model folder's JSON files reaches diffusers and transformers: known keys of known classes, nothing else.

A configuration is data, but both libraries have keys that select code: a module to import, a kernel to fetch, a
quantiser to run. Such a key is refused by name. A key that a class does not know is left out, as the library would do.
Knows no weights.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import diffusers
from transformers import CLIPVisionConfig, UMT5Config

from backend.core.files import decode_json, parse_json

MODEL_INDEX = "model_index.json"
#: The classes that each component may have, as `model_index.json` names them.
CLASSES: Final[Mapping[str, frozenset[str]]] = {
    "text_encoder": frozenset({"UMT5EncoderModel"}),
    "image_encoder": frozenset({"CLIPVisionModel"}),
    "vae": frozenset({"AutoencoderKLWan"}),
    "transformer": frozenset({"WanTransformer3DModel"}),
    "transformer_2": frozenset({"WanTransformer3DModel"}),
    "tokenizer": frozenset({"T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}),
    "scheduler": frozenset({"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"}),
    "image_processor": frozenset({"CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"}),
}
#: The files of the components without weights; nothing else in their folders is read.
_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "tokenizer": (
        "tokenizer_config.json",
        "tokenizer.json",
        "spiece.model",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    "scheduler": ("scheduler_config.json",),
    "image_processor": ("preprocessor_config.json",),
}
#: Keys that name code to import or to fetch, or another class to build; the first five by their whole name.
_SELECTS_CODE: Final = ("auto_map", "trust_remote_code", "custom_pipelines", "quantization_config", "use_kernels")
_SELECTS_CODE_BEGINNINGS: Final = ("_attn_implementation", "attn_implementation", "_experts_implementation")
_CLASS_NAME: Final = "_class_name"
#: What the pipelines take beside their components.
_INDEX_VALUES: Final = frozenset({_CLASS_NAME, "_diffusers_version", "boundary_ratio", "expand_timesteps"})
_TOKENIZER_KEYS: Final = frozenset(
    [
        "added_tokens_decoder",
        "additional_special_tokens",
        "backend",
        "bos_token",
        "clean_up_tokenization_spaces",
        "eos_token",
        "extra_ids",
        "extra_special_tokens",
        "legacy",
        "model_input_names",
        "model_max_length",
        "pad_token",
        "padding_side",
        "tokenizer_class",
        "truncation_side",
        "unk_token",
    ]
)
_IMAGE_PROCESSOR_KEYS: Final = frozenset(
    [
        "crop_size",
        "do_center_crop",
        "do_convert_rgb",
        "do_normalize",
        "do_rescale",
        "do_resize",
        "feature_extractor_type",
        "image_mean",
        "image_processor_type",
        "image_std",
        "resample",
        "rescale_factor",
        "size",
    ]
)


class RefusedConfiguration(ValueError):
    """A configuration asks for code or is not JSON; the message completes "The model is damaged: ..." with the file."""


def clean_config(component: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a component's `config.json` that its class knows.

    Raises:
        RefusedConfiguration: a key selects code, or the file is that of another class.
    """
    return _cleaned(f"{component}/config.json", config, _keys_of(component), CLASSES[component])


@contextmanager
def clean_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder with the cleaned index, tokenizer, scheduler and image processor of a model.

    The libraries read this one, never the model's own: its files are in UTF-8 without a byte order mark, whatever
    editors and shells of Windows made of the originals.

    Raises:
        OSError: a file cannot be read.
        RefusedConfiguration: a key selects code, or a file is not JSON or that of another class.
    """
    with TemporaryDirectory(prefix="wan22-") as made:
        copy = Path(made)
        index = _object(folder, MODEL_INDEX)
        _write(copy / MODEL_INDEX, _cleaned(MODEL_INDEX, index, _INDEX_VALUES | CLASSES.keys()))
        for component, names in _FILES.items():
            if index.get(component) in (None, [None, None]):
                continue
            for file in names:
                source, target, name = folder / component / file, copy / component / file, f"{component}/{file}"
                if not source.is_file():
                    continue
                target.parent.mkdir(exist_ok=True)
                if file.endswith("_config.json"):
                    keys = _keys_of(component, _class_in(index, component))
                    _write(target, _cleaned(name, _object(folder, name), keys, CLASSES[component]))
                elif file.endswith(".json"):
                    target.write_text(_text(folder, name), encoding="utf-8")
                else:
                    target.write_bytes(source.read_bytes())
        yield copy


@contextmanager
def config_folder(config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder with this `config.json`, for a library that only reads folders."""
    with TemporaryDirectory(prefix="wan22-") as name:
        _write(Path(name) / "config.json", config)
        yield Path(name)


def _cleaned(
    file: str, config: Mapping[str, Any], keys: frozenset[str], classes: frozenset[str] | None = None
) -> dict[str, Any]:
    for key in config:
        if key in _SELECTS_CODE or key.startswith(_SELECTS_CODE_BEGINNINGS):
            raise RefusedConfiguration(f"{file} has the key {key}, which selects code to run")
    if classes is not None and config.get(_CLASS_NAME, min(classes)) not in classes:
        raise RefusedConfiguration(f"{file} is not that of a {' or '.join(sorted(classes))}")
    return {key: value for key, value in config.items() if key in keys}


@lru_cache(maxsize=64)
def _keys_of(component: str, class_name: str = "") -> frozenset[str]:
    """Return the keys that a component's class knows; from the class itself, so that they follow its version."""
    if component == "tokenizer":
        return _TOKENIZER_KEYS
    if component == "image_processor":
        return _IMAGE_PROCESSOR_KEYS
    if component in ("text_encoder", "image_encoder"):
        return frozenset((UMT5Config if component == "text_encoder" else CLIPVisionConfig)().to_dict())
    (only,) = CLASSES[component] if len(CLASSES[component]) == 1 else (class_name,)
    parameters = inspect.signature(getattr(diffusers, only).__init__).parameters
    return frozenset(parameters) - {"self"} | {_CLASS_NAME, "_diffusers_version"}


def _class_in(index: Mapping[str, Any], component: str) -> str:
    """Return the class that the index names for a component.

    Raises:
        RefusedConfiguration: it is none of those that the component may have.
    """
    entry = index.get(component)
    name = entry[-1] if isinstance(entry, list) and entry else None
    if name not in CLASSES[component]:
        raise RefusedConfiguration(f"{MODEL_INDEX} has no {' or '.join(sorted(CLASSES[component]))} as its {component}")
    return str(name)


def _object(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = parse_json((folder / name).read_bytes(), finite=False)
    except ValueError as error:
        raise RefusedConfiguration(f"{name} {error}") from error
    if not isinstance(value, dict):
        raise RefusedConfiguration(f"{name} is not a JSON object")
    return value


def _text(folder: Path, name: str) -> str:
    try:
        return decode_json((folder / name).read_bytes())
    except ValueError as error:
        raise RefusedConfiguration(f"{name} {error}") from error


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
