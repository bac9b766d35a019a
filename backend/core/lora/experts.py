"""Which expert a LoRA file is for, by its name and metadata; which files form a pair; which models it fits.

The tensors do not distinguish the experts of Wan2.2 A14B, so people write the expert into names, in many spellings.
Nothing in a file names its base model reliably, but widths and block counts do. T2V and I2V of A14B differ only in
the input layer, so a LoRA that does not touch it fits both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.transformer import PUBLISHED, WanShape
from backend.core.formats.tensors import TensorInfo
from backend.core.lora.keys import BOTH
from backend.core.lora.match import Match, match_tensors

#: Our own header field; takes precedence over everything else.
EXPERT_METADATA = "wan22.expert"
#: Header fields of trainers that contain names: the title, the output file, the base model.
_NAMING_METADATA = ("modelspec.title", "ss_output_name", "ss_sd_model_name")

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z0-9]+")
_WORDS = {"high": HIGH, "low": LOW}
_JOINED = {"highnoise": HIGH, "lownoise": LOW, "hn": HIGH, "ln": LOW}
_LETTERS = {"h": HIGH, "l": LOW}
#: Words after a bare "high" or "low" that give it another meaning than an expert.
_OTHER_MEANING = re.compile(
    "angle|budget|contrast|cut|def|definition|details?|detailed|dynamic|end|energy|fantasy|fashion|fidelity|five|fps"
    "|frame|ground|heels?|jump|key|kick|light|lighting|motion|pitch|poly|quality|res|resolution|rise|saturation|school"
    "|shot|society|speed|strength|tech|vram|waist|water"
)
#: Words before it that do the same.
_DEGREES = frozenset({"mid", "semi", "super", "too", "ultra", "very"})
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hint:
    """The expert that a name suggests."""

    expert: str  #: "high" or "low"
    family: str  #: the name without that word; equal for both files of a pair, apart from case
    certain: bool  #: False for ambiguous words, which count only when the counterpart exists


def hint_of(stem: str) -> Hint | None:
    """Read a file name without its suffix; None when it names no expert, or both."""
    tokens = _TOKEN.findall(stem)
    found: list[tuple[int, int, str, bool]] = []  # first token, token after the last, expert, certain
    index = 0
    while index < len(tokens):
        span = _expert_at(tokens, index)
        if span is not None:
            found.append(span)
            index = span[1]
        else:
            index += 1
    certain = [span for span in found if span[3]]
    chosen = certain or found
    if len(chosen) != 1:
        return None
    first, after, expert, sure = chosen[0]
    return Hint(expert, _joined(tokens[:first], tokens[after:]), sure)


def expert_in_metadata(metadata: Mapping[str, str]) -> str | None:
    """Return "high", "low" or "both" from the header; None when it is unclear."""
    own = metadata.get(EXPERT_METADATA, "").strip().lower().removesuffix("_noise")
    if own in (HIGH, LOW, BOTH):
        return own
    for field in _NAMING_METADATA:
        stem = re.sub(r"\.safetensors$", "", metadata.get(field, ""))
        hint = hint_of(stem)
        if hint is not None and hint.certain:
            return hint.expert
    return None


def _expert_at(tokens: list[str], index: int) -> tuple[int, int, str, bool] | None:
    word = tokens[index].lower()
    if word in _JOINED:
        return index, _past(tokens, index + 1, {"model", "expert"}), _JOINED[word], True
    if word in _WORDS:
        noise = _past(tokens, index + 1, {"noise"})
        if noise > index + 1:
            return index, _past(tokens, noise, {"model", "expert"}), _WORDS[word], True
        before, after = _next_word(tokens[:index][::-1]), _next_word(tokens[index + 1 :])
        certain = not (after and _OTHER_MEANING.fullmatch(after)) and before not in _DEGREES
        return index, _past(tokens, index + 1, {"model", "expert"}), _WORDS[word], certain
    alone = (index == 0 or not tokens[index - 1].isalnum()) and (
        index + 1 == len(tokens) or not tokens[index + 1].isalnum()
    )
    if word in _LETTERS and alone:
        return index, index + 1, _LETTERS[word], tokens[index].isupper() and index == len(tokens) - 1 and index > 0
    return None


def _past(tokens: list[str], index: int, words: set[str]) -> int:
    """Return the index after the next word if it is one of `words`, else `index`."""
    at = index + 1 if index < len(tokens) and not tokens[index].isalnum() else index
    return at + 1 if at < len(tokens) and tokens[at].lower() in words else index


def _next_word(tokens: list[str]) -> str | None:
    return next((token.lower() for token in tokens if token.isalnum()), None)


def _joined(before: list[str], after: list[str]) -> str:
    left, right = "".join(before).rstrip(" ._-"), "".join(after).lstrip(" ._-")
    return f"{left}_{right}" if left and right else left or right


def fitting_bases(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], shapes: Mapping[str, WanShape]
) -> tuple[str, ...]:
    """Return the names of the structures that the most tensors match; empty when none fits.

    Raises:
        ValueError: the metadata is malformed.
    """
    matches: dict[str, Match] = {name: match_tensors(tensors, metadata, shape) for name, shape in shapes.items()}
    possible = {name: match for name, match in matches.items() if match.matched and not match.other_model}
    if not possible:
        return ()
    most = max(match.matched for match in possible.values())
    return tuple(name for name, match in possible.items() if match.matched == most)


def base_name(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], further: Mapping[str, WanShape] | None = None
) -> str:
    """Name the models that a LoRA fits, or `unknown`; `further` adds structures to the published ones.

    Raises:
        ValueError: the metadata is malformed.
    """
    return " or ".join(fitting_bases(tensors, metadata, PUBLISHED | dict(further or {}))) or UNKNOWN
