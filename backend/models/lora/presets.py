"""The settings that well-known distilled LoRAs need, for files whose header does not say them.

A four-step LoRA run with forty steps and guidance gives burnt pictures, and nothing in such a file says so.
"""

from __future__ import annotations

import re

from backend.core.lora.words import Preset

#: Four steps without guidance, shift 5: lightx2v's own configuration for its Wan2.2 A14B LoRAs
#: (`configs/wan22/wan_moe_t2v_distill_lora.json` of ModelTC/LightX2V). The default sampler puts four steps on the
#: very noise levels that these LoRAs were trained on: 1, 0.94, 0.83, 0.62.
_FOUR_STEPS = Preset(steps=4, guidance_scale=1.0, guidance_scale_2=1.0, flow_shift=5.0)
_KNOWN: tuple[tuple[re.Pattern[str], Preset], ...] = (
    (re.compile(r"wan.?2\.?2.*(?:lightx2v|lightning|seko).*4.?steps?", re.IGNORECASE), _FOUR_STEPS),
    (re.compile(r"wan.?2\.?2.*4.?steps?.*(?:lightx2v|lightning|seko)", re.IGNORECASE), _FOUR_STEPS),
)


def known_preset(name: str) -> Preset | None:
    """Return the preset of a LoRA by its name, None when the name is not known."""
    return next((preset for pattern, preset in _KNOWN if pattern.search(name)), None)
