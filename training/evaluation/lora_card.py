"""The card and the contact sheets of the LoRA folder, generated from its notes and the headers of its files.

All figures come from a run of the judge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.evaluation.card import DATE, paragraph
from training.evaluation.cases import Case
from training.networks import adapters
from training.networks.flow import BOUNDARY
from training.recipes.distillation import DistilledPreset
from training.recipes.loras import NOTES, PRESET_NAME
from training.recipes.models import IMAGES, T2V
from training.world.effects import EFFECTS
from training.world.observation import Frames

CARD = "README.md"
#: Frames shown per clip, and number of captions.
_SHOWN_FRAMES = (0, 8, 16)
_SHOWN_CASES = 6
_CAPTION_HEIGHT, _GAP = 20, 12
_PAPER, _INK = (250, 250, 250), (30, 30, 34)

_FRONT_MATTER = """---
license: apache-2.0
library_name: diffusers
base_model: tiny-t2v-a14b
tags: [wan2.2, tiny, lora, text-to-video]
---
"""


def sheet(name: str) -> Path:
    """Return the path of the contact sheet of a pair."""
    return IMAGES / f"{name.replace('_', '-')}.png"


def draw(cases: Sequence[Case], rows: Sequence[Sequence[Frames]], path: Path) -> None:
    """Draw the first captions, without selection: their clips side by side, weakest strength first."""
    shown = min(_SHOWN_CASES, len(cases))
    size = rows[0][0].shape[1]
    width, height = len(_SHOWN_FRAMES) * size + _GAP, size + _CAPTION_HEIGHT + _GAP
    picture = Image.new("RGB", (len(rows) * width + _GAP, shown * height + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for index in range(shown):
        top = _GAP + index * height
        pen.text((_GAP, top), cases[index].scene.caption, fill=_INK, font=font)
        for column, clips in enumerate(rows):
            strip = np.concatenate([clips[index][frame] for frame in _SHOWN_FRAMES], axis=1)
            picture.paste(Image.fromarray(strip), (_GAP + column * width, top + _CAPTION_HEIGHT))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def write(directory: Path) -> None:
    """Write the card into the folder."""
    notes: dict[str, Any] = json.loads((directory / NOTES).read_text())
    introduction = f"""Low-rank adapters for {T2V.name}, each a pair of files: `<name>_high_noise.safetensors` for the
    high-noise expert and `<name>_low_noise.safetensors` for the low-noise one. Keys are as diffusers and peft write
    them (`transformer.` before the module name); the header names the expert of the file. Trained on {DATE} from
    rendered clips alone (`python -m training.recipes.loras`) and measured on captions held out from all training, one
    clip each (`python -m training.evaluation.lora_judge`)."""
    parts = [_FRONT_MATTER, f"# LoRAs of {T2V.name}\n\n{paragraph(introduction)}\n"]
    for name in (*EFFECTS, PRESET_NAME):
        if "figures" in notes.get(name, {}):
            header = adapters.read_header(adapters.file_of(directory, name, "high_noise"))
            section = _preset_section if name == PRESET_NAME else _effect_section
            parts.append(_head(directory, name, header, notes[name]) + section(notes[name]["figures"], header))
    (directory / CARD).write_text("\n".join(parts))


def _head(directory: Path, name: str, header: dict[str, str], notes: dict[str, Any]) -> str:
    size = sum(adapters.file_of(directory, name, expert).stat().st_size for expert in adapters.EXPERTS)
    rank = json.loads(header["lora_adapter_metadata"])["transformer.r"]
    minutes = sum(notes["seconds"].values()) / 60
    facts = f"""{header["modelspec.description"]} Rank {rank}, {size / 1e3:.0f} kB for the pair, {minutes:.0f} min of
    training, including its clips, on one shared CPU core; no trigger phrase."""
    return f"""## {name}

{paragraph(facts)}

![{name}](../../../../docs/images/{sheet(name).name})

"""


def _effect_section(figures: dict[str, Any], header: dict[str, str]) -> str:
    count = figures["count"]
    rows = "\n".join(
        f"| {strength} | {mean:.3f} | {figures['motion_right'][strength]} / {count} |"
        for strength, mean in figures["mean"].items()
    )
    summary = f"""The measure grew with every increase of the strength in {figures["growing"]} of {count} clips. The
    image shows strengths 0, 0.5 and 1 from left to right, for the first captions of the held-out list, without
    selection."""
    return f"""| strength | {figures["measured"]}, mean | motion matches the caption |
|---|---|---|
{rows}

{paragraph(summary)}
"""


def _preset_section(figures: dict[str, Any], header: dict[str, str]) -> str:
    preset = DistilledPreset(**json.loads(header["wan22.preset"]))
    count = figures["with"]["count"]
    rows = "\n".join(
        f"| {aspect} | {figures['without']['right'][aspect]} / {count} | {right} / {count} ({right / count:.1%}) |"
        for aspect, right in figures["with"]["right"].items()
    )
    likeness = [f"{figures[use]['like_guided_db']} dB" for use in ("without", "with")]
    rows += f"\n| mean PSNR against the guided clip of {T2V.settings.steps} steps from the same noise "
    rows += f"| {likeness[0]} | {likeness[1]} |"
    mistakes = figures["with"]["mistakes"]
    wrong = (
        "; ".join(f"{expected} observed as {observed} ({often})" for _, expected, observed, often in mistakes[:6])
        or "none"
    )
    summary = f"""{preset.steps} steps, scheduler {preset.scheduler} with flow shift {preset.flow_shift}, guidance
    {preset.guidance_scale} (none); {figures["with"]["seconds_per_clip"]} s per clip in batches of 12. The high-noise
    expert runs the first {sum(level >= BOUNDARY for level in preset.levels())} steps. The header contains these
    settings as `wan22.preset`. The image shows, from left to right, the model alone, with the pair, and the guided
    model at {T2V.settings.steps} steps. Mistakes with the pair: {wrong}."""
    return f"""| aspect | model alone at these settings | with the pair at strength 1 |
|---|---|---|
{rows}

{paragraph(summary)}
"""
