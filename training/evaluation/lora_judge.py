"""Measures the finished LoRAs on captions they never saw: `python -m training.evaluation.lora_judge`.

A style and a motion are measured at strengths 0, 0.5 and 1; the preset of four steps is scored beside the
model without it at the same settings. Writes the notes, the card and a contact sheet of the folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from training.evaluation import cases, lora_card
from training.evaluation.judge import judge
from training.evaluation.scores import Scores, likeness
from training.networks import adapters
from training.recipes import folder
from training.recipes.distillation import Preset
from training.recipes.loras import FOLDER, NOTES, PRESET_NAME
from training.recipes.models import T2V, Settings
from training.world.effects import EFFECTS, Effect
from training.world.observation import Frames

logger = logging.getLogger(__name__)

STRENGTHS = (0.0, 0.5, 1.0)
#: Captions for each strength of an effect, and for the preset.
EFFECT_COUNT, PRESET_COUNT = 36, 96


def with_lora(place: Path, name: str, strength: float) -> Any:
    """Open tiny-t2v-a14b with a pair merged in at that strength."""
    pipeline = folder.load(T2V.folder)
    for expert, part in adapters.EXPERTS.items():
        adapters.merge(getattr(pipeline, part), adapters.file_of(place, name, expert), strength)
    return pipeline


def preset_of(place: Path) -> Preset:
    """Read the preset from the header of the first file."""
    header = adapters.read_header(adapters.file_of(place, PRESET_NAME, "high_noise"))
    return Preset(**json.loads(header["wan22.preset"]))


def measure_effect(place: Path, effect: Effect, count: int) -> tuple[dict[str, Any], list[list[Frames]]]:
    """Measure an effect at every strength; give the figures, and the clips by strength."""
    asked = cases.from_text(count)
    made = [judge(with_lora(place, effect.name, strength), asked, T2V.settings)[:2] for strength in STRENGTHS]
    values = np.array([[effect.measure(clip) for clip in clips] for _, clips in made])
    growing = int((np.diff(values, axis=0) > 0).all(axis=0).sum())
    figures = {
        "measured": effect.measured,
        "count": count,
        "mean": {
            str(strength): round(float(mean), 3) for strength, mean in zip(STRENGTHS, values.mean(1), strict=True)
        },
        "growing": growing,
        "motion_right": {
            str(strength): scores.right["motion"] for strength, (scores, _) in zip(STRENGTHS, made, strict=True)
        },
    }
    logger.info("%s: %s", effect.name, figures)
    return figures, [clips for _, clips in made]


def judge_preset(place: Path, preset: Preset, count: int, strength: float) -> tuple[Scores, list[Frames], float]:
    """Score the model at the preset's settings with the pair at that strength."""
    pipeline = with_lora(place, PRESET_NAME, strength)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config, shift=preset.flow_shift)
    settings = settings_of(preset)
    return judge(pipeline, cases.from_text(count), settings)


def compare_preset(place: Path, preset: Preset, count: int) -> tuple[dict[str, Any], list[list[Frames]]]:
    """Score the model with and without the pair at the preset's settings; give the figures, and the clips by use.

    Besides being right, a clip should be the one that the guided model makes of the same noise.
    """
    _, wanted, _ = judge(folder.load(T2V.folder), cases.from_text(count), T2V.settings)
    figures: dict[str, Any] = {}
    rows = []
    for label, strength in (("without", 0.0), ("with", 1.0)):
        scores, clips, seconds = judge_preset(place, preset, count, strength)
        alike = [
            np.mean([likeness(*pair) for pair in zip(*two, strict=True)]) for two in zip(clips, wanted, strict=True)
        ]
        figures[label] = scores.summary() | {
            "seconds_per_clip": round(seconds, 2),
            "like_guided_db": round(float(np.mean(alike)), 1),
        }
        rows.append(clips)
    logger.info("%s: %s", PRESET_NAME, figures)
    return figures, [*rows, wanted]


def settings_of(preset: Preset) -> Settings:
    """Give the settings under which a preset runs."""
    return replace(T2V.settings, steps=preset.steps, guidance=preset.guidance_scale, guidance_2=preset.guidance_scale_2)


def main() -> None:
    """Read the command line, measure, and write."""
    every = [*EFFECTS, PRESET_NAME]
    parser = argparse.ArgumentParser(prog="python -m training.evaluation.lora_judge", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*every, []], help="which pairs; all unless named")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, help="how many held-out captions")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dry", action="store_true", help="only print the figures")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    place: Path = arguments.folder
    notes: dict[str, Any] = json.loads((place / NOTES).read_text())
    for name in arguments.names or every:
        if name == PRESET_NAME:
            preset = preset_of(place)
            figures, rows = compare_preset(place, preset, arguments.count or PRESET_COUNT)
        else:
            figures, rows = measure_effect(place, EFFECTS[name], arguments.count or EFFECT_COUNT)
        notes[name]["figures"] = figures
        if not arguments.dry:
            lora_card.draw(cases.from_text(len(rows[0])), rows, lora_card.sheet(name))
            (place / NOTES).write_text(json.dumps(notes, indent=1) + "\n")
    if not arguments.dry:
        lora_card.write(place)


if __name__ == "__main__":
    main()
