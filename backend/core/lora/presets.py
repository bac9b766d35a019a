"""The preset of a distilled LoRA: its steps, guidance, shift and sampler, from its header or known by its name.

Also reads trigger words. Headers are untrusted: only short, printable words and numbers in range are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from backend.core.errors.requests import LoraInvalid
from backend.core.files import parse_json
from backend.core.requests.forms import Scheduler
from backend.core.requests.rules import MAX_GUIDANCE, MAX_STEPS

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


#: Four steps without guidance, shift 5: lightx2v's own configuration for its Wan2.2 A14B LoRAs
#: (`configs/wan22/wan_moe_t2v_distill_lora.json` of ModelTC/LightX2V). The default sampler puts four steps on the
#: very noise levels that these LoRAs were trained on: 1, 0.94, 0.83, 0.62.
_FOUR_STEPS = Preset(steps=4, guidance_scale=1.0, guidance_scale_2=1.0, flow_shift=5.0)
_KNOWN: tuple[tuple[re.Pattern[str], Preset], ...] = (
    (re.compile(r"wan.?2\.?2.*(?:lightx2v|lightning|seko).*4.?steps?", re.IGNORECASE), _FOUR_STEPS),
    (re.compile(r"wan.?2\.?2.*4.?steps?.*(?:lightx2v|lightning|seko)", re.IGNORECASE), _FOUR_STEPS),
)


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


def known_preset(name: str) -> Preset | None:
    """Return the preset of a LoRA by its name; None if the name is unknown."""
    return next((preset for pattern, preset in _KNOWN if pattern.search(name)), None)


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
