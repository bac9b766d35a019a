"""The fields of a video in the spellings of OpenAI, SGLang, vLLM-Omni and LightX2V, and what each is here.

A field is understood, or refused by name: none is ignored in silence. Knows values, not HTTP.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backend.core.errors.requests import InvalidImage, InvalidRequest, NotOffered, UnknownField
from backend.core.files import parse_json
from backend.core.plain_words import nearest

#: Fields of our own API, which have their own names here, too.
# fmt: off
_OWN: Final = (
    "prompt", "negative_prompt", "seconds", "num_frames", "fps", "steps", "guidance_scale", "guidance_scale_2",
    "guidance_start", "guidance_end", "flow_shift", "scheduler", "seed", "max_sequence_length", "image_id",
    "end_image_id", "image_fit", "preset", "crf", "keep_latents", "priority", "force", "on_lora_failure",
    "on_model_failure", "client_request_id", "resolution", "model_type", "webhook",
)
# fmt: on
#: Spelling -> the field of a submission.
_FIELDS: Final = {
    **{name: name for name in _OWN},
    "model": "model_type",
    "size": "resolution",
    "num_inference_steps": "steps",
    "infer_steps": "steps",
    "guidance_scale_high": "guidance_scale",
    "guidance_scale_low": "guidance_scale_2",
    "target_video_length": "num_frames",
    "target_fps": "fps",
}
#: Spelling -> the image that it is; a file, a `data:` URL, or an object with one of both.
_IMAGES: Final = {
    **dict.fromkeys(
        ("input_reference", "input_references", "image_reference", "reference_url", "image_file", "image_path"), "image"
    ),
    **dict.fromkeys(("last_frame", "last_frame_file", "last_frame_path", "end_image"), "end_image"),
    "image": "image",
}
_LORAS: Final = frozenset({"lora", "loras", "lora_name", "lora_strength"})
#: Objects whose members are fields of the request.
_NESTED: Final = frozenset({"extra_params", "extra_body", "extra_json"})
#: What can be left off but not be put on.
_SWITCHES: Final = frozenset(
    {
        "enhance_prompt",
        "use_prompt_enhancer",
        "enable_teacache",
        "enable_frame_interpolation",
        "enable_upscaling",
        "generate_sound",
        "return_stage_metrics",
    }
)
#: How many videos one call makes.
_COUNTS: Final = frozenset({"n", "num_outputs_per_prompt", "variations"})
#: Fields that say nothing about the video.
_ABOUT_THE_CLIENT: Final = frozenset({"user"})
#: Known fields of other servers that this one cannot honour -> why, or what to use.
_REFUSED: Final = {
    "boundary_ratio": "the step at which the experts change is part of the model",
    "true_cfg_scale": "Wan2.2 has one guidance scale for each expert: guidance_scale and guidance_scale_2",
    "quality": "the quality of the file is `crf`, from 1 (best) to 51",
    "output_quality": "the quality of the file is `crf`, from 1 (best) to 51",
    "output_compression": "the quality of the file is `crf`, from 1 (best) to 51",
    "video_reference": "a video can be extended with POST /v1/videos/extensions",
    "video_url": "a video can be extended with POST /v1/videos/extensions",
    "video_path": "a video can be extended with POST /v1/videos/extensions",
    "output_path": "clients choose no paths on the server",
    "save_result_path": "clients choose no paths on the server",
    "perf_dump_path": "clients choose no paths on the server",
    "aspect_ratio": "the form of the video is `size`",
    "short_edge": "the form of the video is `size`",
}
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_MEMBER: Final = re.compile(r"([^\[\]]+)\[([^\[\]]*)\](.*)", re.DOTALL)
_DATA_URL: Final = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
#: What OpenAI calls our fields, for errors about fields that were not sent.
_USUAL: Final = {"image": "input_reference", "resolution": "size", "model_type": "model"}
_KNOWN: Final = (*_FIELDS, *_IMAGES, *_LORAS)


@dataclass(slots=True)
class Translated:
    """A request for a video in our own words."""

    values: dict[str, Any] = field(default_factory=dict)  #: fields of a `SubmitBody`
    images: dict[str, bytes] = field(default_factory=dict)  #: its image files, by field
    spelled: dict[str, str] = field(default_factory=lambda: dict(_USUAL))  #: our names -> the client's


def translate(sent: Mapping[str, Any], files: Mapping[str, bytes], into: Translated) -> Translated:
    """Fill `into` with what a client sent; it is complete up to the field at which an error was raised.

    Raises:
        UnknownField: a field is not known.
        NotOffered: a field asks for something that this server cannot do.
        InvalidRequest: a field was sent in two spellings, or has no readable value.
        InvalidImage: an image is not in the request itself.
    """
    for name, content in files.items():
        if name not in _IMAGES:
            raise _unknown(name)
        _put_image(into, name, content)
    flat = _flat(sent)
    for name, value in flat.items():
        if value is None or value == "":
            continue
        if name in _IMAGES:
            _read_image(into, name, value)
        elif name in _FIELDS:
            _put(into, name, _FIELDS[name], value)
        elif name not in ("width", "height") and name not in _LORAS:
            _check_other(name, value)
    _put_size(into, flat)
    _put_loras(into, flat)
    return into


def _flat(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with those of nested objects among them."""
    flat: dict[str, Any] = {}
    for name, value in sent.items():
        if name in _NESTED and value not in (None, ""):
            members = _json(name, value)
            if not isinstance(members, dict):
                raise InvalidRequest(f"{name} must be an object", details={"field": name})
        else:
            members = {name: value}
        for inner, one in members.items():
            if inner in flat or (inner in _NESTED and name in _NESTED):
                raise InvalidRequest("A field was sent twice", details={"field": _shown(inner)})
            flat[inner] = one
    return flat


def _put(into: Translated, name: str, ours: str, value: Any) -> None:
    if ours in into.values:
        raise InvalidRequest(
            f"{name} and {into.spelled[ours]} are the same field; send one of them", details={"field": name}
        )
    into.spelled[ours] = name
    into.values[ours] = value


def _check_other(name: str, value: Any) -> None:
    """Accept what changes nothing, and refuse the rest by name."""
    if name in _ABOUT_THE_CLIENT:
        return
    if name in _SWITCHES:
        if str(value).lower() not in ("false", "0"):
            raise NotOffered(f"{name} is not offered here", details={"field": name})
    elif name in _COUNTS:
        if str(value) != "1":
            raise NotOffered(
                "One call makes one video",
                suggestions=("Send the request once for each video.",),
                details={"field": name},
            )
    elif name in _REFUSED:
        raise NotOffered(f"{name} is not offered here: {_REFUSED[name]}", details={"field": name})
    else:
        raise _unknown(name)


def _unknown(name: str) -> UnknownField:
    shown = _shown(name)
    close = nearest(name, _KNOWN)
    hint = f"; did you mean {close}?" if close else ""
    what = f"There is no field {shown}" if shown != "(unnamed)" else "A field has a name that is not known"
    return UnknownField(what + hint, details={"field": shown})


def _shown(name: str) -> str:
    """Return a name that a client chose, if it can stand in an answer."""
    return name if _PLAIN.fullmatch(name) else "(unnamed)"


def _put_size(into: Translated, sent: Mapping[str, Any]) -> None:
    sides = [sent.get("width"), sent.get("height")]
    given = [side for side in sides if side not in (None, "")]
    if not given:
        return
    missing = "height" if sides[0] not in (None, "") else "width"
    if len(given) == 1:
        raise InvalidRequest("width and height belong together", details={"field": missing})
    _put(into, "width", "resolution", f"{sides[0]}x{sides[1]}")


def _put_loras(into: Translated, sent: Mapping[str, Any]) -> None:
    chosen: list[Any] = []
    for name in ("lora", "loras"):
        value = sent.get(name)
        if value not in (None, "", []):
            value = _json(name, value)
            chosen += [_lora(name, one) for one in (value if isinstance(value, list) else [value])]
            into.spelled["loras"] = name
    if sent.get("lora_name"):
        strength = sent.get("lora_strength")
        chosen.append(
            {"id": _file_name(sent["lora_name"])} | ({} if strength in (None, "") else {"strength": strength})
        )
        into.spelled["loras"] = "lora_name"
    elif sent.get("lora_strength") not in (None, ""):
        raise InvalidRequest("lora_strength needs lora_name", details={"field": "lora_strength"})
    if chosen:
        into.values["loras"] = chosen


#: Members of a LoRA in other spellings; the second strength is that of the low-noise expert.
_LORA_MEMBERS: Final = {
    **{name: name for name in ("id", "strength", "strength_2", "expert")},
    **dict.fromkeys(("name", "path", "lora_name", "lora_path"), "id"),
    **dict.fromkeys(("scale", "weight", "high"), "strength"),
    "low": "strength_2",
}
#: A number that vLLM-Omni's clients give each LoRA for themselves.
_LORA_UNUSED: Final = frozenset({"int_id"})


def _lora(field_name: str, sent: Any) -> dict[str, Any]:
    """Return one LoRA as our API takes it. `name` and `path` of one LoRA may both be there: the path has the file."""
    if isinstance(sent, str):
        sent = {"name": sent}
    if not isinstance(sent, dict):
        raise InvalidRequest(f"{field_name} must be a list of objects", details={"field": field_name})
    read: dict[str, Any] = {}
    for name, value in sent.items():
        if name in _LORA_UNUSED:
            continue
        ours = _LORA_MEMBERS.get(name)
        if ours is None:
            raise UnknownField(f"A LoRA has no member {_shown(name)}", details={"field": field_name})
        if ours in read and not (ours == "id" and "path" in sent):
            raise InvalidRequest(f"A LoRA has {_shown(name)} twice", details={"field": field_name})
        if ours != "id" or name == "path" or "path" not in sent:
            read[ours] = _file_name(value) if ours == "id" else value
    return read


def _file_name(value: Any) -> Any:
    """Return the id of a LoRA of a path; it identifies a LoRA of the list and is never opened."""
    return re.split(r"[/\\]", value)[-1].removesuffix(".safetensors") if isinstance(value, str) else value


def _read_image(into: Translated, name: str, value: Any) -> None:
    """Take an image from a field that is no file."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = _json(name, value)
    if isinstance(value, list):
        if len(value) != 1:
            raise NotOffered("A video starts from one image", details={"field": name})
        value = value[0]
    if isinstance(value, dict):
        unknown = value.keys() - {"image_url", "file_id", "url", "type"}
        if unknown:
            raise UnknownField(f"{name} has no member {_shown(min(unknown))}", details={"field": name})
        if value.get("file_id"):
            _put(into, name, f"{_IMAGES[name]}_id", value["file_id"])
            return
        value = value.get("image_url") or value.get("url")
        value = value.get("url") if isinstance(value, dict) else value
    _put_image(into, name, _decoded(name, value))


def _put_image(into: Translated, name: str, content: bytes) -> None:
    ours = _IMAGES[name]
    if ours in into.images:
        raise InvalidRequest(f"There are two images for {ours}; send one", details={"field": name})
    into.spelled[ours] = name
    into.images[ours] = content


def _decoded(name: str, value: Any) -> bytes:
    """Return the bytes of a `data:` URL."""
    if not isinstance(value, str):
        raise InvalidImage(f"{name} must be a file or a data: URL", details={"field": name})
    start = _DATA_URL.match(value)
    if start is None:
        raise InvalidImage(
            f"{name} must be a file or a data: URL; this server opens no addresses and no paths",
            suggestions=("Send the image itself: as a file, or as data:image/png;base64,…",),
            details={"field": name},
        )
    try:
        return base64.b64decode(value[start.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage(f"The data: URL of {name} is not valid base64", details={"field": name}) from None


def _json(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        raise InvalidRequest(f"{name} is not valid JSON", details={"field": name}) from None


def gathered(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a form, with `name[member]` as objects and `name[]` as lists.

    Raises:
        InvalidRequest: a field was sent twice, or is a list of objects: that form does not say which member belongs to
            which object.
    """
    values: dict[str, Any] = {}
    for name, value in pairs:
        match = _MEMBER.fullmatch(name)
        if match is None:
            if name in values:
                raise InvalidRequest("A field of the form was sent twice", details={"field": _shown(name)})
            values[name] = value
            continue
        outer, inner, rest = match.groups()
        group = values.setdefault(outer, {} if inner else [])
        if rest or isinstance(group, str) or isinstance(group, dict) != bool(inner) or (inner in group and inner):
            raise InvalidRequest(
                f"{_shown(outer)} cannot be read in parts from a form",
                suggestions=("Send it as one JSON text, such as [{}].",),
                details={"field": _shown(outer)},
            )
        if isinstance(group, dict):
            group[inner] = value
        else:
            group.append(value)
    return values
