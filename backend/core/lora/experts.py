"""Which expert a LoRA file is for, as far as its name and its metadata say it; and which files make a pair.

Nothing in the tensors tells the experts of Wan2.2 A14B apart, so people write it into names, in many spellings.

Which models a LoRA was made for, found by holding its tensors against every structure that is known.

Nothing in a file names its base reliably, but widths and numbers of blocks do. T2V and I2V of A14B differ
only where their input begins, so a LoRA that does not touch it fits both.
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

#: Our own header field; goes before everything else.
EXPERT_METADATA = "wan22.expert"
#: Header fields of trainers in which names appear: the title, the output file, the model it was trained on.
_NAMING_METADATA = ("modelspec.title", "ss_output_name", "ss_sd_model_name")

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z0-9]+")
_WORDS = {"high": HIGH, "low": LOW}
_JOINED = {"highnoise": HIGH, "lownoise": LOW, "hn": HIGH, "ln": LOW}
_LETTERS = {"h": HIGH, "l": LOW}
#: Words after a bare "high" or "low" with which it means something else than an expert.
_OTHER_MEANING = re.compile(
    "angle|budget|contrast|cut|def|definition|details?|detailed|dynamic|end|energy|fantasy|fashion|fidelity|five|fps"
    "|frame|ground|heels?|jump|key|kick|light|lighting|motion|pitch|poly|quality|res|resolution|rise|saturation|school"
    "|shot|society|speed|strength|tech|vram|waist|water"
)
#: Words before it, likewise.
_DEGREES = frozenset({"mid", "semi", "super", "too", "ultra", "very"})
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hint:
    """What a name says about the expert."""

    expert: str  #: "high" or "low"
    family: str  #: the name without that word; files of a pair have the same, whatever the case
    certain: bool  #: False for words that often mean something else; they count only beside their counterpart


def hint_of(stem: str) -> Hint | None:
    """Read a file name without its ending; None when it names no expert, or both."""
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
    """Return "high", "low" or "both" where the header says it, None where it says nothing clear."""
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
    """Return the names of the structures in which every tensor has a place; of none, those in which most have one.

    Raises:
        ValueError: the metadata cannot be understood.
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
    """Name the models that a LoRA fits, `unknown` for none; `further` are structures beside the published ones.

    Raises:
        ValueError: the metadata cannot be understood.
    """
    return " or ".join(fitting_bases(tensors, metadata, PUBLISHED | dict(further or {}))) or UNKNOWN
