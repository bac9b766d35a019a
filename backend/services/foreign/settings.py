"""What the texts of a file say about how its clip was made, as a request that can be sent again.

Our own record word for word; of ComfyUI's graphs, WanGP's settings and Stable Diffusion's parameters what has a
counterpart here, and a sentence about the rest. Texts come from anybody: they are values, never instructions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from backend.core.catalogue.spec import AUTO
from backend.core.catalogue.table import find_model
from backend.core.errors.requests import UnknownModel
from backend.core.files import parse_json
from backend.core.record import METADATA_FORMAT, PRODUCT, RunRecord, body_of
from backend.core.requests.rules import MAX_SEED
from backend.services.foreign.comfyui import read_graph

_SHOWN_CHARS: Final = 2000
_MAX_LORAS: Final = 8


class Origin(StrEnum):
    """Who wrote what was found."""

    WAN22 = "wan22"
    COMFYUI = "comfyui"
    WANGP = "wangp"
    PARAMETERS = "parameters"  # the text that Stable Diffusion's web interface made a habit of
    NONE = "none"


@dataclass(slots=True)
class FoundSettings:
    """What a file says about its clip."""

    origin: Origin = Origin.NONE
    body: dict[str, Any] | None = None  #: of a submit; None = nothing can be said
    exact: bool = False  #: whether it makes the same clip again
    notes: list[str] = field(default_factory=list)
    record: dict[str, Any] | None = None  #: our own, as the file has it

    @property
    def prompt(self) -> str:
        """The prompt, as far as it is known."""
        return str((self.body or {}).get("prompt", ""))


def read_settings(texts: Mapping[str, str]) -> FoundSettings:
    """Interpret the texts of a file, the most certain source first."""
    by_name = {name.lower(): text for name, text in texts.items()}
    values = {name: value for name, text in by_name.items() if isinstance(value := _object(text), dict)}
    for read in _READERS:
        found = read(by_name, values)
        if found is not None:
            return found
    names = sorted(set(by_name) - {"encoder", "software", "major_brand"})
    found = FoundSettings()
    if names:
        shown = ", ".join(_plain(name) for name in names[:8])
        found.notes.append(f"the file has texts that say nothing about settings that are known here: {shown}")
    return found


def _object(text: str) -> Any:
    try:
        return parse_json(text, finite=False) if text.lstrip()[:1] == "{" else None
    except ValueError:
        return None


def _own(_texts: Mapping[str, str], values: Mapping[str, Any]) -> FoundSettings | None:
    record = next((one for one in values.values() if one.get("product") == PRODUCT), None)
    if record is None:
        return None
    found = FoundSettings(Origin.WAN22, record=record)
    run = RunRecord.from_json(record)
    if run.format > METADATA_FORMAT or (request := run.requested) is None:
        found.notes.append(f"this version cannot read the settings; {_plain(run.version or 'unknown')} wrote them")
        return found
    found.body, found.exact = body_of(request), True
    if run.result is not None and run.result.mock is not None:
        found.notes.append("no model made this clip: it is a mock")
        found.exact = False
    if run.result is not None and run.result.instead_of is not None:
        found.notes.append(f"{_plain(run.model or 'another model')} made this clip instead of the model of its request")
    if "enlarged" in record:
        found.notes.append("the clip was enlarged after it was made; the settings are those before")
    if request.latents_of is not None or request.extends is not None:
        found.notes.append("the clip was made from another one, which the settings do not name")
    return found


def _comfyui(_texts: Mapping[str, str], values: Mapping[str, Any]) -> FoundSettings | None:
    nested = values.get("comment", {})
    graphs = [nested.get("prompt"), nested.get("workflow"), values.get("prompt"), values.get("workflow")]
    for graph in graphs:
        plain = _object(graph) if isinstance(graph, str) else graph
        if not isinstance(plain, dict):
            continue
        read = read_graph(plain)
        if read is not None:
            found = FoundSettings(Origin.COMFYUI, notes=read.notes)
            found.body = _body(found, read.values)
            found.notes.append("ComfyUI draws its noise in another way: the same seed gives another clip here")
            return found
    return None


#: Names of WanGP's settings -> ours.
_WANGP: Final = {
    **{"prompt": "prompt", "negative_prompt": "negative_prompt", "resolution": "resolution", "seed": "seed"},
    **{"video_length": "num_frames", "num_inference_steps": "steps", "guidance_scale": "guidance_scale"},
    **{"guidance2_scale": "guidance_scale_2", "flow_shift": "flow_shift", "sample_solver": "scheduler"},
    **{"model_type": "model_type", "force_fps": "fps"},
}


def _wangp(_texts: Mapping[str, str], values: Mapping[str, Any]) -> FoundSettings | None:
    for settings in values.values():
        named = isinstance(settings.get("type"), str) and settings["type"].lower().startswith(("wangp", "wan2gp"))
        if not named and not {"video_length", "num_inference_steps", "prompt"} <= settings.keys():
            continue
        found = FoundSettings(Origin.WANGP)
        raw = {ours: settings[theirs] for theirs, ours in _WANGP.items() if settings.get(theirs) not in (None, "")}
        loras = settings.get("activated_loras")
        strengths = str(settings.get("loras_multipliers") or "").split()
        if isinstance(loras, list):
            raw["loras"] = [
                (str(name), _number(strengths[place].partition(";")[0]) if place < len(strengths) else None)
                for place, name in enumerate(loras)
            ]
        found.body = _body(found, raw)
        found.notes.append("WanGP made this clip: the same settings give a similar one, not the same")
        return found
    return None


_PARAMETER: Final = re.compile(r"([A-Z][A-Za-z ]{1,30}): ([^,]{1,200})(?:,|$)")
_PARAMETERS: Final = {
    **{"steps": "steps", "sampler": "scheduler", "cfg scale": "guidance_scale", "seed": "seed", "size": "resolution"},
    **{"model": "model_type", "frames": "num_frames", "fps": "fps", "shift": "flow_shift"},
}


def _parameters(texts: Mapping[str, str], _values: Mapping[str, Any]) -> FoundSettings | None:
    text = texts.get("parameters") or texts.get("comment") or ""
    if "Steps: " not in text:
        return None
    before, _, after = text[: _SHOWN_CHARS * 10].rpartition("Steps: ")
    prompt, _, negative = before.partition("Negative prompt:")
    raw: dict[str, Any] = {"prompt": prompt.strip()} | (
        {"negative_prompt": negative.strip()} if negative.strip() else {}
    )
    for name, value in _PARAMETER.findall("Steps: " + after):
        if name.strip().lower() in _PARAMETERS:
            raw[_PARAMETERS[name.strip().lower()]] = value.strip()
    found = FoundSettings(Origin.PARAMETERS)
    found.body = _body(found, raw)
    found.notes.append("another program made this: the same settings give something else here")
    return found


_READERS: Final[tuple[Callable[[Mapping[str, str], Mapping[str, Any]], FoundSettings | None], ...]] = (
    _own,
    _comfyui,
    _wangp,
    _parameters,
)


def _body(found: FoundSettings, raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a request body of values of other programs; a note says what was left out."""
    body: dict[str, Any] = {}
    for name, value in raw.items():
        convert = _CONVERTED.get(name)
        try:
            converted = None if convert is None else convert(value)
        except (ValueError, TypeError, OverflowError):
            converted = None
        if converted is not None:
            body[name] = converted
        elif value not in (None, ""):
            found.notes.append(f"{name.replace('_', ' ')} was left out; the file says {_plain(str(value))}")
    if not body.get("prompt"):
        found.notes.append("the file names no prompt")
    body.setdefault("prompt", "")
    body.setdefault("model_type", AUTO)
    frames = body.get("num_frames")
    if frames is not None and frames % 4 != 1:
        body["num_frames"] = frames - (frames - 1) % 4
        found.notes.append(f"{frames} frames became {body['num_frames']}: clips have 4k+1")
    return body


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    number = _number(value)
    if number != int(number) or not 0 < number < 100_000:
        raise ValueError
    return int(number)


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not 0 <= int(value) <= MAX_SEED:
        raise ValueError
    return int(value)


def _size(value: Any) -> str:
    match = re.fullmatch(r"(\d{2,5})[xX*](\d{2,5})", _text(value).strip())
    if match is None:
        raise ValueError
    return f"{match[1]}x{match[2]}"


def _scheduler(value: Any) -> str:
    word = re.sub(r"[^a-z]", "", _text(value).lower())
    known = {"unipc": "unipc", "unipcbh": "unipc", "euler": "euler", "default": "unipc"}
    return known[word] if word in known else _refuse()


def _refuse() -> str:
    raise ValueError


#: Parts of file names of models -> the model they are of.
_MODEL_NAMES: Final = (
    (r"fastwan.*5b", "FastWan2.2-TI2V-5B"),
    (r"ti2v|2[._]2.*5b", "TI2V-5B"),
    (r"2[._]?1.*i2v.*720", "Wan2.1-I2V-14B-720P"),
    (r"2[._]?1.*i2v", "Wan2.1-I2V-14B-480P"),
    (r"2[._]?1.*1[._]3b", "Wan2.1-T2V-1.3B"),
    (r"2[._]?1.*t2v", "Wan2.1-T2V-14B"),
    (r"2[._]?2.*i2v|i2v.*2[._]2|i2v.?a14b", "I2V-A14B"),
    (r"2[._]?2.*t2v|t2v.*2[._]2|t2v.?a14b", "T2V-A14B"),
)


def _model(value: Any) -> str:
    name = _text(value)[:200]
    try:
        return find_model(name).id
    except UnknownModel:
        folded = name.lower()
        for pattern, model in _MODEL_NAMES:
            if re.search(pattern, folded):
                return find_model(model).id
    raise ValueError


def _loras(value: Any) -> list[dict[str, Any]]:
    """Return LoRAs by the names of their files; whether they are here is looked up elsewhere."""
    found = []
    for name, strength in value[:_MAX_LORAS]:
        stem = re.split(r"[/\\]", _text(name))[-1].removesuffix(".safetensors")[:200]
        found.append({"id": stem} | ({} if strength is None else {"strength": max(-4.0, min(4.0, _number(strength)))}))
    return found


_CONVERTED: Final[dict[str, Callable[[Any], Any]]] = {
    **{"prompt": _text, "negative_prompt": _text, "resolution": _size, "num_frames": _whole, "steps": _whole},
    **{"fps": _number, "guidance_scale": _number, "guidance_scale_2": _number, "flow_shift": _number},
    **{"seed": _seed, "scheduler": _scheduler, "model_type": _model, "loras": _loras},
}


def _plain(text: str) -> str:
    return json.dumps("".join(one if one.isprintable() else "?" for one in text)[:120], ensure_ascii=False)
