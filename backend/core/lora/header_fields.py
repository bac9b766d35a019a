"""Reads the header fields of a LoRA that are meant for people: trigger words and recommended settings.

Headers are untrusted: only short, printable words and numbers in range are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backend.core.errors import LoraInvalid
from backend.core.files import parse_json
from backend.core.requests import MAX_GUIDANCE, MAX_STEPS, Scheduler

TRIGGER_METADATA = ("wan22.trigger_words", "modelspec.trigger_phrase", "trigger_words", "trigger_word")
PRESET_METADATA = "wan22.preset"
MAX_WORDS = 20
MAX_WORD_CHARS = 100
#: The range of each number in a preset; the same as in a request.
_NUMBERS = {
    "guidance_scale": (0.0, MAX_GUIDANCE),
    "guidance_scale_2": (0.0, MAX_GUIDANCE),
    "flow_shift": (0.1, 30.0),
}


@dataclass(frozen=True, slots=True)
class Preset:
    """The settings that a distilled LoRA was made for; None keeps the model's default."""

    steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    scheduler: Scheduler | None = None

    def values(self) -> dict[str, Any]:
        """Return the values it sets, by their names in a request."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the trigger words in the header: a JSON list, or a comma-separated text."""
    for field in TRIGGER_METADATA:
        words = [word for word in map(_clean, _listed(metadata.get(field, ""))) if word]
        if words:
            return tuple(dict.fromkeys(words))[:MAX_WORDS]
    return ()


def preset_in(metadata: Mapping[str, str]) -> Preset | None:
    """Return the preset in the header, or None.

    Raises:
        LoraInvalid: the preset is malformed or out of range.
    """
    text = metadata.get(PRESET_METADATA)
    if text is None:
        return None
    try:
        values = parse_json(text)
    except ValueError:
        raise LoraInvalid(f"The header field {PRESET_METADATA} is not JSON") from None
    known = {"steps", "scheduler", *_NUMBERS}
    if not isinstance(values, dict) or not values.keys() <= known:
        raise LoraInvalid(f"The header field {PRESET_METADATA} may only have {', '.join(sorted(known))}")
    steps, scheduler = values.get("steps"), values.get("scheduler")
    if steps is not None and not (type(steps) is int and 1 <= steps <= MAX_STEPS):
        raise LoraInvalid(f"steps in {PRESET_METADATA} must be between 1 and {MAX_STEPS}")
    if scheduler is not None and scheduler not in list(Scheduler):
        raise LoraInvalid(f"scheduler in {PRESET_METADATA} must be one of {', '.join(Scheduler)}")
    numbers = {name: _number(name, values.get(name)) for name in _NUMBERS}
    return Preset(steps=steps, scheduler=None if scheduler is None else Scheduler(scheduler), **numbers)


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    low, high = _NUMBERS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise LoraInvalid(f"{name} in {PRESET_METADATA} must be between {low} and {high}")
    return float(value)


def _listed(text: str) -> list[str]:
    try:
        values = parse_json(text)
    except ValueError:
        return text.split(",")
    return [str(value) for value in values] if isinstance(values, list) else [text]


def _clean(word: str) -> str:
    word = word.strip()
    return word if word.isprintable() and len(word) <= MAX_WORD_CHARS else ""
