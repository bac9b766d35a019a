"""Matches the tensors of a LoRA against a transformer's structure: what each changes, and which do not fit.

Uses names, types and shapes only, so the web process gets the same answer from a file's header as the engine does
from its tensors. Nothing is dropped silently: every tensor is either matched or reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, prod, sqrt
from pathlib import Path

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.requests import LoraInvalid
from backend.core.files import parse_json
from backend.core.formats.safetensors import SafetensorsHeader, read_header
from backend.core.formats.tensors import FLOAT_TYPES, TensorInfo, UnreadableWeights
from backend.core.lora.keys import Key, Part, Style, concerns_module, read_key
from backend.core.lora.kinds import for_text_encoder, method_of

#: The header field in which diffusers stores what peft stores in `adapter_config.json`.
ADAPTER_METADATA = "lora_adapter_metadata"
_BLOCK_INDEX = re.compile(r"^blocks\.(\d+)\.")
#: Parameters whose size depends on the channels that a model reads and writes: T2V and I2V of one width differ in them.
_FIRST, _LAST = "patch_embedding.weight", ("proj_out.weight", "proj_out.bias")
#: In the names of parameters that only models with an image encoder have.
_IMAGE_PARTS = ("add_k_proj", "add_v_proj", "norm_added_k", "image_embedder")


class Misfit(StrEnum):
    """Why a tensor does not fit a model."""

    UNKNOWN = "its name belongs to no part of a Wan transformer"
    ABSENT = "this model has no such part"
    CHANNELS = "this model reads or writes other channels"
    TEXT_ENCODER = "it is for the text encoder, which stays as it is"
    EMPTY = "it is empty and changes nothing"
    METHOD = "only low-rank factors and full differences are supported"
    OTHER_MODEL = "its shape belongs to another model"
    INCOMPLETE = "the other half of the pair is missing"
    REPEATED = "another tensor changes the same thing"
    DTYPE = "its type is not a floating-point one"
    SHAPE = "its shape is no valid one"


#: Reasons that concern only their own tensors: the rest of the file is applied.
LEFT_OUT = frozenset({Misfit.UNKNOWN, Misfit.ABSENT, Misfit.CHANNELS, Misfit.TEXT_ENCODER, Misfit.EMPTY})


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one parameter, with the names of its tensors."""

    parameter: str
    expert: str | None  #: the only expert it is for, when names say so
    rank: int  #: 0 for a full difference
    diff: str | None = None
    down: str | None = None
    up: str | None = None
    up_bias: str | None = None
    alpha: str | None = None  #: tensor with the alpha; takes precedence over `scale`
    scale: float = 1.0  #: alpha / rank from the file's metadata; 1 by default

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its tensors."""
        return tuple(key for key in (self.diff, self.down, self.up, self.up_bias, self.alpha) if key is not None)

    def concerns(self, expert: str) -> bool:
        """Whether it applies to this expert."""
        return self.expert is None or self.expert == expert


@dataclass(frozen=True, slots=True)
class Match:
    """The outcome for every tensor of a file."""

    changes: tuple[Change, ...]
    unmatched: tuple[tuple[str, Misfit], ...]
    format: str  #: the tools that write such names; several when mixed
    key_experts: frozenset[str]  #: experts that tensor names mention

    @property
    def matched(self) -> int:
        """Number of matched tensors."""
        return sum(len(change.keys) for change in self.changes)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, ascending; empty when there are only full differences."""
        return tuple(sorted({change.rank for change in self.changes if change.rank}))

    @property
    def left_out(self) -> tuple[tuple[str, Misfit], ...]:
        """The unmatched tensors without which the rest can be applied."""
        return tuple((name, misfit) for name, misfit in self.unmatched if misfit in LEFT_OUT)

    @property
    def obstacles(self) -> tuple[tuple[str, Misfit], ...]:
        """The unmatched tensors because of which nothing of the file is applied."""
        return tuple((name, misfit) for name, misfit in self.unmatched if misfit not in LEFT_OUT)

    @property
    def other_channels(self) -> int:
        """Number of tensors for a model of this width that reads or writes other channels."""
        return sum(misfit is Misfit.CHANNELS for _, misfit in self.unmatched)

    @property
    def other_model(self) -> bool:
        """Whether any tensor belongs to another model."""
        return any(misfit is Misfit.OTHER_MODEL for _, misfit in self.unmatched)


def read_lora(path: Path) -> SafetensorsHeader:
    """Read the header of a LoRA file.

    Raises:
        LoraInvalid: it is not a readable safetensors file.
    """
    try:
        return read_header(path)
    except UnreadableWeights as error:
        raise LoraInvalid(str(error)) from error


def match_tensors(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], shape: WanShape) -> Match:
    """Match every tensor.

    Raises:
        ValueError: the alphas in the metadata are malformed.
    """
    unmatched: dict[str, Misfit] = {}
    groups: dict[tuple[str, str | None], dict[Part, str]] = {}
    styles: set[Style] = set()
    parameters = shape.parameters()
    keys = {name: read_key(name) for name in tensors}
    experts = _key_experts(keys)
    for name, key in keys.items():
        misfit = _misfit(name, key, tensors[name], parameters, shape)
        if key is None or misfit is not None:
            unmatched[name] = misfit or Misfit.UNKNOWN
            continue
        styles.add(key.style)
        # In a file for both experts, the part without a number belongs to the first.
        expert = key.expert or (HIGH if LOW in experts and key.style is Style.DIFFUSERS else None)
        group = groups.setdefault((key.parameter, expert), {})
        if key.part in group:
            unmatched[name] = Misfit.REPEATED
        else:
            group[key.part] = name
    alphas = _Alphas.read(metadata)
    changes: list[Change] = []
    for (parameter, expert), parts in groups.items():
        made, left = _changes(parameter, expert, parts, tensors, parameters[parameter], alphas)
        changes.extend(made)
        unmatched |= left
    return Match(tuple(changes), tuple(unmatched.items()), _format(styles), frozenset(experts))


def _key_experts(keys: Mapping[str, Key | None]) -> set[str]:
    experts = {key.expert for key in keys.values() if key is not None and key.expert is not None}
    if LOW in experts and any(k is not None and k.expert is None and k.style is Style.DIFFUSERS for k in keys.values()):
        experts.add(HIGH)
    return experts


def has_image_parts(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a LoRA changes what only models with an image encoder have, so that it is for images."""
    keys = (read_key(name) for name in tensors)
    return any(part in key.parameter for key in keys if key is not None for part in _IMAGE_PARTS)


def _misfit(
    name: str, key: Key | None, tensor: TensorInfo, parameters: Mapping[str, tuple[int, ...]], shape: WanShape
) -> Misfit | None:
    if key is None:
        if for_text_encoder(name):
            return Misfit.TEXT_ENCODER
        return Misfit.METHOD if method_of(name) or concerns_module(name) else Misfit.UNKNOWN
    if key.parameter not in parameters:
        block = _BLOCK_INDEX.match(key.parameter)
        too_deep = block is not None and int(block[1]) >= shape.layers
        return Misfit.OTHER_MODEL if too_deep else Misfit.ABSENT
    if key.part is not Part.ALPHA and tensor.dtype not in FLOAT_TYPES:
        return Misfit.DTYPE
    return None


def _changes(
    parameter: str,
    expert: str | None,
    parts: dict[Part, str],
    tensors: Mapping[str, TensorInfo],
    shape: tuple[int, ...],
    alphas: _Alphas,
) -> tuple[list[Change], dict[str, Misfit]]:
    """Build the changes of one parameter from its tensors; the second value gives the reasons for the others."""
    made: list[Change] = []
    left: dict[str, Misfit] = {}
    diff = parts.pop(Part.DIFF, None)
    if diff is not None:
        found = tensors[diff].shape
        if _same(found, shape):
            made.append(Change(parameter, expert, 0, diff=diff))
        else:
            left[diff] = Misfit.EMPTY if not prod(found) else _other(parameter, found, shape)
    if not parts:
        return made, left
    names = {part: parts.get(part) for part in Part}
    down, up = names[Part.DOWN], names[Part.UP]
    factors = [tensors[name].shape for name in (down, up) if name is not None]
    if not factors or any(not prod(factor) for factor in factors):
        return made, left | dict.fromkeys(parts.values(), Misfit.EMPTY)
    if down is None or up is None:
        return made, left | dict.fromkeys(parts.values(), Misfit.INCOMPLETE)
    misfit, rank = _low_rank(parameter, tensors[down].shape, tensors[up].shape, shape)
    alpha, bias = names[Part.ALPHA], names[Part.UP_BIAS]
    if misfit is None and alpha is not None and prod(tensors[alpha].shape) != 1:
        misfit = Misfit.SHAPE
    if misfit is None and bias is not None and tensors[bias].shape != shape[:1]:
        misfit = Misfit.OTHER_MODEL
    if misfit is not None:
        return made, left | dict.fromkeys(parts.values(), misfit)
    scale = alphas.scale(parameter, expert, rank)
    made.append(Change(parameter, expert, rank, down=down, up=up, up_bias=bias, alpha=alpha, scale=scale))
    return made, left


def _other(parameter: str, found: tuple[int, ...], shape: tuple[int, ...]) -> Misfit:
    """Say why a full difference has another shape than its parameter."""
    same_width = found[:1] == shape[:1] if parameter == _FIRST else found[1:] == shape[1:]
    return Misfit.CHANNELS if parameter in (_FIRST, *_LAST) and same_width else Misfit.OTHER_MODEL


def _low_rank(
    parameter: str, down: tuple[int, ...], up: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[Misfit | None, int]:
    """Check `down` [rank, inputs] and `up` [outputs, rank]; they may have trailing dimensions as a convolution has."""
    if len(shape) < 2 or len(down) < 2 or len(up) < 2:
        return Misfit.SHAPE, 0
    rank = down[0]
    if up[1] != rank or prod(up[2:]) != 1:
        return Misfit.SHAPE, 0
    outputs, inputs = up[0] == shape[0], _same(down[1:], shape[1:]) or down[1:] == (prod(shape[1:]),)
    if not (outputs and inputs):
        same_width = (parameter == _FIRST and outputs) or (parameter in _LAST and inputs)
        return Misfit.CHANNELS if same_width else Misfit.OTHER_MODEL, 0
    return None, rank


def _same(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes are equal apart from trailing dimensions of length one."""
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return longer[: len(shorter)] == shorter and prod(longer[len(shorter) :]) == 1


def _format(styles: set[Style]) -> str:
    # lightx2v uses ComfyUI's names around its own entries.
    if Style.LIGHTX2V in styles:
        styles = styles - {Style.COMFYUI}
    return " and ".join(sorted(styles)) or "unknown"


@dataclass(frozen=True, slots=True)
class _Alphas:
    """The alphas in the header that diffusers writes, for files without alpha tensors."""

    settings: Mapping[str, object]

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> _Alphas:
        text = metadata.get(ADAPTER_METADATA)
        if text is None:
            return cls({})
        try:
            settings = parse_json(text)
        except ValueError:
            raise ValueError(f"the header field {ADAPTER_METADATA} is not JSON") from None
        if not isinstance(settings, dict):
            raise ValueError(f"the header field {ADAPTER_METADATA} is not an object")
        return cls(settings)

    def scale(self, parameter: str, expert: str | None, rank: int) -> float:
        """Return alpha / rank (alpha / sqrt(rank) for rsLoRA), or 1 without an alpha."""
        component = "transformer_2" if expert == LOW else "transformer"
        alpha = self._number(self._get(component, "lora_alpha"))
        patterns = self._get(component, "alpha_pattern")
        if isinstance(patterns, dict):
            module = parameter.removesuffix(".weight")
            for pattern, value in patterns.items():
                name = _plain_pattern(str(pattern))
                if module == name or module.endswith(f".{name}"):
                    alpha = self._number(value)
        if alpha is None:
            return 1.0
        return alpha / (sqrt(rank) if self._get(component, "use_rslora") else rank)

    def _get(self, component: str, name: str) -> object:
        return self.settings.get(f"{component}.{name}", self.settings.get(name))

    @staticmethod
    def _number(value: object) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"an alpha in {ADAPTER_METADATA} is not a number")
        return float(value)


def _plain_pattern(pattern: str) -> str:
    """Return the module name in one of peft's patterns; only plain names are accepted, since a pattern is untrusted."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name):
        raise ValueError(f"a pattern in {ADAPTER_METADATA} is not a module's name")
    return name
