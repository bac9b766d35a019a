"""Which expert a LoRA file is for, by its name and metadata; which files form a pair; which models it fits.

The tensors do not distinguish the experts of Wan2.2 A14B, so people write the expert into names, in many spellings.
Nothing in a file names its base model reliably, but widths and block counts do. T2V and I2V of A14B differ only in
the input layer, so a LoRA that does not touch it fits both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.transformer import PUBLISHED, WanShape
from backend.core.formats.tensors import TensorInfo
from backend.core.lora.keys import BOTH
from backend.core.lora.match import Match, has_image_parts, match_tensors

#: Our own header field; takes precedence over everything else.
EXPERT_METADATA = "wan22.expert"
#: Header fields of trainers that contain names: the title, the output file, the base model.
_NAMING_METADATA = ("modelspec.title", "ss_output_name", "ss_sd_model_name")

#: Words with a meaning of their own, found anywhere in a name, also within joined capitals; "glow noise", "slow noise",
#: "flow noise", "yellow noise" and "below noise" are none.
_ANYWHERE = re.compile(r"(highnoise|(?<![gsfl])(?<!be)lownoise|[高低]噪[声音點点聲]?)", re.IGNORECASE)
_TOKEN = re.compile(
    r"[A-Z]+?(?=T?[TI]2V)|[Tt]?[TtIi]2[Vv]|\d+[Bb](?![a-z])|(?:HIGH|LOW)(?=[a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z0-9]+"
)
_WORDS = {"high": HIGH, "low": LOW, "hi": HIGH, "lo": LOW}
_JOINED = {
    **dict.fromkeys(("highnoise", "hinoise", "hnoise", "hn"), HIGH),
    **dict.fromkeys(("lownoise", "lonoise", "lnoise", "ln"), LOW),
}
_CHINESE = {"高噪": HIGH, "低噪": LOW}
_LETTERS = {"h": HIGH, "l": LOW}
#: Words after a bare "high" or "low" that give it another meaning than an expert.
_OTHER_MEANING = re.compile(
    "angle|budget|contrast|cut|def|definition|details?|detailed|dynamic|end|energy|fantasy|fashion|fidelity|five|fps"
    "|fi|frame|ground|heels?|jump|key|kick|light|lighting|motion|pitch|poly|quality|res|resolution|rise|saturation|school"
    "|shot|society|speed|strength|tech|there|vram|waist|water"
)
#: Words before it that do the same.
_DEGREES = frozenset({"mid", "say", "saying", "says", "semi", "super", "too", "ultra", "very", "waving"})
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hint:
    """The expert that a name suggests."""

    expert: str  #: "high" or "low"
    family: str  #: the name without that word; equal for both files of a pair, apart from case
    certain: bool  #: False for ambiguous words, which count only when the counterpart exists


def hint_of(stem: str) -> Hint | None:
    """Read a file name without its suffix, in any script; None when it names no expert, or both."""
    name = unicodedata.normalize("NFC", stem)
    tokens = _tokens(name)
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
    begin, end = (sum(map(len, tokens[:count])) for count in (first, after))
    return Hint(expert, _joined(name[:begin], name[end:]), sure)


def _tokens(name: str) -> list[str]:
    """Split a name into words, numbers and what separates them; together they are as long as the name.

    Accents are removed, and other Latin letters replaced, so that "é" and "ß" do not end a word. Letters of other
    scripts separate words.
    """
    plain = "".join(map(_plain_letter, name))
    pieces = _ANYWHERE.split(plain)
    return [token for piece in pieces for token in ([piece] if _ANYWHERE.fullmatch(piece) else _TOKEN.findall(piece))]


def _plain_letter(char: str) -> str:
    base = unicodedata.normalize("NFKD", char)[0]
    if base.isascii():
        return base
    if unicodedata.name(base, "").startswith("LATIN "):
        return "X" if base.isupper() else "x"
    return char


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
    if word[:2] in _CHINESE:
        return index, index + 1, _CHINESE[word[:2]], True
    if word in _JOINED:
        return index, _past(tokens, index + 1, {"model", "expert"}), _JOINED[word], True
    if word in _WORDS or word in _LETTERS:
        noise = _past(tokens, index + 1, {"noise"})
        if noise > index + 1:
            return index, _past(tokens, noise, {"model", "expert"}), (_WORDS | _LETTERS)[word], True
    if word in _WORDS:
        before, after = _next_word(tokens[:index][::-1]), _next_word(tokens[index + 1 :])
        certain = not (after and _OTHER_MEANING.fullmatch(after)) and before not in _DEGREES
        return index, _past(tokens, index + 1, {"model", "expert"}), _WORDS[word], certain
    around = [tokens[at] for at in (index - 1, index + 1) if 0 <= at < len(tokens)]
    if word in _LETTERS and not any(map(_is_word, around)):
        last = index > 0 and index == len(tokens) - 1 and not tokens[index - 1][-1].isalpha()
        return index, index + 1, _LETTERS[word], tokens[index].isupper() and last
    return None


def _is_word(token: str) -> bool:
    return token.isascii() and token.isalnum()


def _past(tokens: list[str], index: int, words: set[str]) -> int:
    """Return the index after the next word if it is one of `words`, else `index`."""
    at = index + 1 if index < len(tokens) and not _is_word(tokens[index]) else index
    return at + 1 if at < len(tokens) and tokens[at].lower() in words else index


def _next_word(tokens: list[str]) -> str | None:
    return next((token.lower() for token in tokens if _is_word(token)), None)


def _joined(before: str, after: str) -> str:
    left, right = before.rstrip(" ._-"), after.lstrip(" ._-")
    return f"{left}_{right}" if left and right else left or right


def fitting_bases(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], shapes: Mapping[str, WanShape]
) -> tuple[str, ...]:
    """Return the names of the structures that a LoRA fits best; empty when none fits.

    Parts that a structure lacks do not count against it, because other generations of a model have them. Layers for
    other channels do, and a LoRA with parts for images was made for a model that reads an image.

    Raises:
        ValueError: the metadata is malformed.
    """
    matches: dict[str, Match] = {name: match_tensors(tensors, metadata, shape) for name, shape in shapes.items()}
    possible = {name: match for name, match in matches.items() if match.matched and not match.other_model}
    if has_image_parts(tensors):
        reading = {name: match for name, match in possible.items() if shapes[name].reads_image}
        possible = reading or possible
    least = min((match.other_channels for match in possible.values()), default=0)
    return tuple(name for name, match in possible.items() if match.other_channels == least)


def base_name(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], further: Mapping[str, WanShape] | None = None
) -> str:
    """Name the models that a LoRA fits, or `unknown`; `further` adds structures to the published ones.

    Raises:
        ValueError: the metadata is malformed.
    """
    return " or ".join(fitting_bases(tensors, metadata, PUBLISHED | dict(further or {}))) or UNKNOWN
