"""The settings of the earlier application: what each stands for here, or why it has no counterpart.

One table for all generations of its config.json. `read_older` changes nothing: the file is read as if the settings had
their new names, and `with_new_names` returns it with these names. Values are judged by the sections that they come to.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from backend.core.config.places import Keys

#: Sections that only the earlier application had.
OLDER_SECTIONS: Final = (
    "system", "directories", "ui", "performance", "prompt_enhancement", "hardware", "websocket", "api", "database",
    "logging", "security",
)  # fmt: skip
#: What every config.json of the earlier application had to have.
REQUIRED: Final = ("system", "directories", "models", "optimization")
#: Values that the earlier application wrote into every file: nobody chose them, and the models here have their own.
_ITS_DEFAULTS: Final = {"default_steps": 50, "default_resolution": "1280x720", "default_fps": 24}
#: The models that the earlier application had.
_FAMILIES: Final = ("T2V-A14B", "I2V-A14B", "TI2V-5B")
_MEGABYTES: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*MB\s*", re.IGNORECASE)
_SIZE: Final = re.compile(r"(\d{2,5})\s*[xX]\s*(\d{2,5})")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Generation(StrEnum):
    """Which generation of the earlier application a file is of."""

    BASIC = "four sections"  # system, directories, models, optimization
    GRADIO = "full structure"  # with ui, performance, prompt_enhancement
    MODELS = "models.toml"
    SERVER = "server"  # with generation.mode, hardware, websocket, api, database


class Fate(StrEnum):
    """What becomes of an older setting."""

    MOVED = "moved"  # it is read under its new name
    SHADOWED = "shadowed"  # the new name is set, too, and wins
    UNSUPPORTED = "not supported"  # there is no counterpart; it is kept and has no effect


@dataclass(frozen=True, slots=True)
class OlderSetting:
    """One setting of the earlier application in a file."""

    keys: Keys
    fate: Fate
    target: Keys | None = None  #: its new name
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What becomes of it, without its value."""
        name, new = ".".join(self.keys), ".".join(self.target or ())
        if self.fate is Fate.MOVED:
            return f"`{name}` is read as `{new}`" + (f": {self.reason}" if self.reason else "")
        if self.fate is Fate.SHADOWED:
            return f"`{name}` has no effect: `{new}` is set, too"
        return f"`{name}` is not supported: {self.reason}"


@dataclass(frozen=True, slots=True)
class OlderFile:
    """A file read with the names of today."""

    values: dict[str, Any]  #: without the older settings, but with what they stand for
    settings: tuple[OlderSetting, ...]
    generation: Generation | None  #: None: the file is not of the earlier application
    missing: tuple[str, ...] = ()  #: sections that the earlier application required

    def origin(self, keys: Keys) -> Keys | None:
        """Return the older name under which a setting stands in the file; None if it has its own."""
        moved = (one for one in self.settings if one.fate is Fate.MOVED)
        return next((one.keys for one in moved if one.target == keys), None)


class _Refused(Exception):
    """The value of an older setting cannot be taken over; the message says why."""


@dataclass(frozen=True, slots=True)
class _Move:
    target: Keys
    convert: Callable[[Any], Any] = lambda value: value


def _percent(value: Any) -> Any:
    return round(value / 100, 4) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _words(yes: str, no: str) -> Callable[[Any], Any]:
    return lambda value: {True: yes, False: no}.get(value, value) if isinstance(value, bool) else value


def _megabytes(value: Any) -> Any:
    match = _MEGABYTES.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) if match else value


def _loopback(value: Any) -> Any:
    if value not in _LOOPBACK:
        raise _Refused("an address that others can reach needs an API key; set WAN22_API_KEY and `settings.host`")
    return value


def _other_folder(value: Any) -> Any:
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise _Refused("models are in `models` of the home folder; `settings.model_roots` lists other folders")
    return [value]


_QUANTIZATION: Final = ("optimization", "quantization")
_OFFLOAD: Final = ("optimization", "enable_offload")
_TILE: Final = ("optimization", "vae_tile_size")
_VRAM_WARNING: Final = ("constraints", "vram_warning_threshold")
#: Older settings with a counterpart; of several that are set, the first decides.
_MOVES: Final[dict[Keys, _Move]] = {
    ("optimization", "default_quantization"): _Move(_QUANTIZATION),
    ("optimization", "quantization_level"): _Move(_QUANTIZATION),
    ("models", "quantization_level"): _Move(_QUANTIZATION),
    ("system", "default_quantization"): _Move(_QUANTIZATION),
    ("models", "enable_offloading"): _Move(_OFFLOAD),
    ("system", "enable_offload"): _Move(_OFFLOAD),
    ("hardware", "vae_tile_size"): _Move(_TILE),
    ("system", "vae_tile_size"): _Move(_TILE),
    ("hardware", "vram_limit_gb"): _Move(("optimization", "max_vram_usage_gb")),
    ("hardware", "cpu_threads"): _Move(("settings", "threads")),
    ("system", "stats_refresh_interval"): _Move(("settings", "stats_seconds")),
    ("generation", "enable_real_models"): _Move(("generation", "mode"), _words("real", "mock")),
    ("generation", "fallback_to_mock"): _Move(("generation", "on_model_failure"), _words("mock", "fail")),
    ("generation", "auto_download_models"): _Move(("settings", "auto_download")),
    ("performance", "vram_warning_threshold"): _Move(_VRAM_WARNING),
    ("performance", "vram_warning_percent"): _Move(_VRAM_WARNING, _percent),
    ("performance", "cpu_warning_percent"): _Move(("constraints", "cpu_warning_threshold"), _percent),
    ("performance", "memory_warning_percent"): _Move(("constraints", "ram_warning_threshold"), _percent),
    ("directories", "models_directory"): _Move(("settings", "model_roots"), _other_folder),
    ("api", "host"): _Move(("settings", "host"), _loopback),
    ("api", "port"): _Move(("settings", "port")),
    ("api", "cors_origins"): _Move(("settings", "cors_origins")),
    ("logging", "max_file_size"): _Move(("settings", "log_max_mb"), _megabytes),
    ("logging", "backup_count"): _Move(("settings", "log_generations")),
}
_BY_MODEL: Final = "every model has its own; `models.ID.defaults` changes it"
_NAMED: Final = "a request names its model, and the names of the earlier application are understood"
_MEASURED: Final = "it is measured, and chosen by the planner"
_FIXED: Final = "it is fixed"
#: Older settings without a counterpart; `*` stands for the rest of a section that only the earlier application had.
_UNSUPPORTED: Final[dict[Keys, str]] = {
    ("system", "max_queue_size"): "the queue has no limit",
    ("directories", "output_directory"): "videos are in `outputs` of the home folder, WAN22_HOME",
    ("directories", "loras_directory"): "LoRAs are in `loras` of the home folder; `wan22 loras add` takes others in",
    ("generation", "default_duration"): "`models.ID.defaults.num_frames` is the length of a clip",
    ("generation", "max_prompt_length"): _FIXED,
    ("generation", "supported_resolutions"): "every model has its own sizes, and others are snapped to them",
    ("generation", "max_concurrent_generations"): "every worker makes one clip at a time; start one for each device",
    (
        "generation",
        "generation_timeout_minutes",
    ): "`settings.stall_seconds`: a worker that stops moving is replaced",
    ("generation", "enable_progress_tracking"): "progress is always reported",
    ("models", "t2v_model"): _NAMED,
    ("models", "i2v_model"): _NAMED,
    ("models", "ti2v_model"): _NAMED,
    ("models", "default_model"): "`auto` chooses the model that fits the request",
    ("models", "supported_types"): _NAMED,
    ("models", "base_path"): "models are in `models` of the home folder; `settings.model_roots` lists other folders",
    ("models", "auto_optimize"): _MEASURED,
    ("models", "vram_management"): _MEASURED,
    ("models", "quantization_enabled"): "`optimization.quantization` says how weights are stored",
    ("models", "preload_models"): "a model is loaded by the first task that needs it, and stays",
    ("models", "model_cache_size"): "a worker keeps one model",
    ("optimization", "quantization_levels"): _FIXED,
    ("optimization", "vae_tile_size_range"): _FIXED,
    ("optimization", "enable_sequential_offload"): _MEASURED,
    ("optimization", "attention_slice_size"): _MEASURED,
    ("optimization", "enable_xformers"): "`settings.attention` chooses the attention kernel",
    ("ui", "*"): "the limits of images and of thumbnails are fixed",
    ("performance", "enable_flash_attention"): "`settings.attention` chooses the attention kernel",
    ("performance", "*"): "speed is measured and reported, not set",
    ("prompt_enhancement", "*"): "prompts are changed only where a request asks for it",
    ("hardware", "*"): _MEASURED,
    ("websocket", "*"): "every change is sent as it happens",
    ("api", "max_request_size"): "the limits of requests are fixed",
    ("api", "workers"): "one process serves the API; `wan22 worker` starts more workers",
    ("api", "*"): "the server has no such setting",
    ("database", "*"): "the earlier tasks are not read; `settings.database_url` chooses another database",
    ("logging", "file"): "the log goes to stderr; `settings.log_file` puts it into a file",
    ("logging", "*"): "the form of the log is fixed; see `settings.log_json`",
    ("security", "*"): "keys are set in the environment, never in this file",
}
_GONE_SIZE: Final = "it must be a size such as 1280x720"


def read_older(content: dict[str, Any]) -> OlderFile:
    """Read the content of a config.json with the names of today; unknown settings stay where they are."""
    if not _has_older(content):
        return OlderFile(content, (), None)
    values, settings = copy.deepcopy(content), []
    for keys, move in _MOVES.items():
        if _is_older(content, keys):
            settings.append(_move(values, keys, move))
    settings += _defaults(content, values)
    settings += [
        OlderSetting(keys, Fate.UNSUPPORTED, reason=reason)
        for keys in _older_keys(content)
        if (reason := _reason(keys)) is not None and keys not in {one.keys for one in settings}
    ]
    for one in settings:
        del values[one.keys[0]][one.keys[1]]
        if not values[one.keys[0]] and one.keys[0] in OLDER_SECTIONS:
            del values[one.keys[0]]
    missing = tuple(name for name in REQUIRED if name not in content)
    return OlderFile(values, tuple(settings), _generation(content), missing)


def with_new_names(content: dict[str, Any]) -> dict[str, Any]:
    """Return a content with every setting under its name of today; what has no counterpart stays where it is."""
    older = read_older(content)
    result = copy.deepcopy(older.values)
    for one in older.settings:
        if one.fate is Fate.UNSUPPORTED:
            section, key = one.keys
            result.setdefault(section, {})[key] = content[section][key]
    return result


def _older_keys(content: dict[str, Any]) -> list[Keys]:
    """Return the settings of the file that this table knows."""
    return [
        (section, key)
        for section, inside in content.items()
        if isinstance(inside, dict)
        for key in inside
        if ((section, key) in _MOVES or _reason((section, key)) is not None) and _is_older(content, (section, key))
    ]


def _has_older(content: dict[str, Any]) -> bool:
    return bool(_older_keys(content)) or any(_is_older(content, ("generation", name)) for name in _ITS_DEFAULTS)


def _is_older(content: dict[str, Any], keys: Keys) -> bool:
    """Whether the setting is there; an object in `models` is a model of the user's that has such a name."""
    inside = content.get(keys[0])
    return (
        isinstance(inside, dict)
        and keys[1] in inside
        and not (keys[0] == "models" and isinstance(inside[keys[1]], dict))
    )


def _reason(keys: Keys) -> str | None:
    return _UNSUPPORTED.get(keys) or _UNSUPPORTED.get((keys[0], "*"))


def _move(values: dict[str, Any], keys: Keys, move: _Move) -> OlderSetting:
    try:
        value = move.convert(values[keys[0]][keys[1]])
    except _Refused as refusal:
        return OlderSetting(keys, Fate.UNSUPPORTED, reason=str(refusal))
    section, name = move.target
    inside = values.setdefault(section, {})
    if not isinstance(inside, dict):
        return OlderSetting(keys, Fate.UNSUPPORTED, reason=f"`{section}` is not an object")
    if name in inside:
        return OlderSetting(keys, Fate.SHADOWED, move.target)
    inside[name] = value
    return OlderSetting(keys, Fate.MOVED, move.target)


def _defaults(content: dict[str, Any], values: dict[str, Any]) -> list[OlderSetting]:
    """Turn the defaults of requests into the models' own, where somebody has chosen them."""
    found = []
    for name, its_default in _ITS_DEFAULTS.items():
        keys = ("generation", name)
        if not _is_older(content, keys):
            continue
        value = content["generation"][name]
        wanted = _wanted(name, value)
        models = values.get("models", {})
        if value == its_default:
            reason = f"it has the default of the earlier application, and {_BY_MODEL}"
        elif wanted is None or not isinstance(models, dict):
            reason = _GONE_SIZE
        else:
            values["models"] = models
            for family in _FAMILIES:
                entry = models.setdefault(family, {})
                if isinstance(entry, dict) and isinstance(defaults := entry.setdefault("defaults", {}), dict):
                    entry["defaults"] = wanted | defaults
            target = ("models", _FAMILIES[0], "defaults", next(iter(wanted)))
            found.append(OlderSetting(keys, Fate.MOVED, target, "and of the other two models, as far as they allow it"))
            continue
        found.append(OlderSetting(keys, Fate.UNSUPPORTED, reason=reason))
    return found


def _wanted(name: str, value: Any) -> dict[str, Any] | None:
    if name != "default_resolution":
        return {"steps" if name == "default_steps" else "fps": value}
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return {"width": int(match[1]), "height": int(match[2])} if match else None


def _generation(content: dict[str, Any]) -> Generation:
    if {"hardware", "websocket", "api", "database"} & set(content):
        return Generation.SERVER
    if {"ui", "performance", "prompt_enhancement"} & set(content):
        return Generation.GRADIO
    return Generation.BASIC
