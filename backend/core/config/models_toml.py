"""`config/models.toml` of the earlier application: what its defaults of models stand for here.

Files, digests, sources and sizes of that list are not taken over: they come from the hub and are verified there.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from backend.core.config.older_keys import Fate, Generation, OlderFile, OlderSetting
from backend.core.errors.surroundings import BadSettings

#: Keys of `defaults` with a counterpart.
_DEFAULTS: Final = {
    "fps": "fps",
    "frames": "num_frames",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance_scale",
}
_FAMILIES: Final = {"t2v-a14b": "T2V-A14B", "i2v-a14b": "I2V-A14B", "ti2v-5b": "TI2V-5B"}
_REASONS: Final = {
    "scheduler": "a request chooses its sampler",
    "precision": "`optimization.quantization` says how weights are stored",
    "image_guidance_scale": "these models have no such guidance",
    "text_guidance_scale": "`guidance_scale` is the one for text",
    "files": "the hub's own list is used, and every file is verified against it",
    "sources": "files come from the hub, or from folders in `settings.model_roots`",
    "vram_estimation": "memory is planned from the models' own sizes",
}
_MOST_BYTES: Final = 1024**2


def read_models_toml(path: Path) -> OlderFile:
    """Read the file as a configuration of today.

    Raises:
        BadSettings: it cannot be read, or is not TOML; the message names the line and the column.
    """
    try:
        content = path.read_bytes()[: _MOST_BYTES + 1].decode("utf-8-sig").replace("\r\n", "\n")
        if len(content) > _MOST_BYTES:
            raise BadSettings(f"{path.name} is larger than 1 MiB", suggestions=("Choose another file.",))
        values = tomllib.loads(content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadSettings(f"{path.name} cannot be read: {reason}", suggestions=("Correct the path.",)) from None
    except UnicodeDecodeError:
        raise BadSettings(f"{path.name} is not UTF-8 text", suggestions=("Save it as UTF-8.",)) from None
    except tomllib.TOMLDecodeError as error:
        place = str(error).rpartition("(at ")[2].rstrip(")") or "some line"
        raise BadSettings(f"{path.name} is not valid TOML at {place}", suggestions=(f"Correct {path}.",)) from None
    models = values.get("models")
    if not isinstance(models, dict):
        raise BadSettings(f"{path.name} has no table `models`", suggestions=("Choose another file.",))
    return _read(models)


def _read(models: dict[str, Any]) -> OlderFile:
    settings: list[OlderSetting] = []
    entries: dict[str, Any] = {}
    for name, model in models.items():
        family = _FAMILIES.get(name.partition("@")[0].lower())
        if family is None or not isinstance(model, dict):
            settings.append(_unsupported((name,), "no model of this name is built in"))
            continue
        for key, value in model.items():
            if key != "defaults" or not isinstance(value, dict):
                settings.append(_unsupported((name, key), _REASONS.get(key, "the model table has it")))
                continue
            for inner, one in value.items():
                counterpart = _DEFAULTS.get(inner)
                keys = ("models", name, "defaults", inner)
                if counterpart is None:
                    settings.append(_unsupported(keys[1:], _REASONS.get(inner, "a request has no such field")))
                    continue
                entries.setdefault(family, {"defaults": {}})["defaults"][counterpart] = one
                target = ("models", family, "defaults", counterpart)
                settings.append(OlderSetting(keys, Fate.MOVED, target))
    return OlderFile({"models": entries} if entries else {}, tuple(settings), Generation.MODELS)


def _unsupported(keys: tuple[str, ...], reason: str) -> OlderSetting:
    return OlderSetting(("models", *keys), Fate.UNSUPPORTED, reason=reason)
