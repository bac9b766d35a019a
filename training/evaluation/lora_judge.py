"""Measures the finished LoRAs on held-out captions: `python -m training.evaluation.lora_judge`.

The style and the motion are measured at strengths 0, 0.5 and 1; the four-step preset is compared with the plain
model at the same settings. Writes the notes, the card and the contact sheets of the LoRA folder.
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
from training.recipes.distillation import DistilledPreset
from training.recipes.loras import FOLDER, NOTES, PRESET_NAME
from training.recipes.models import T2V, SamplingSettings
from training.world.effects import EFFECTS, LoraEffect
from training.world.observation import Frames

logger = logging.getLogger(__name__)

STRENGTHS = (0.0, 0.5, 1.0)
#: Number of captions for each strength of an effect, and for the preset.
EFFECT_COUNT, PRESET_COUNT = 36, 96


def with_lora(directory: Path, name: str, strength: float) -> Any:
    """Open tiny-t2v-a14b with a pair merged at that strength."""
    pipeline = folder.load(T2V.folder)
    for expert, part in adapters.EXPERTS.items():
        adapters.merge(getattr(pipeline, part), adapters.file_of(directory, name, expert), strength)
    return pipeline


def preset_of(directory: Path) -> DistilledPreset:
    """Read the preset from the header of its high-noise file."""
    header = adapters.read_header(adapters.file_of(directory, PRESET_NAME, "high_noise"))
    return DistilledPreset(**json.loads(header["wan22.preset"]))


def measure_effect(directory: Path, effect: LoraEffect, count: int) -> tuple[dict[str, Any], list[list[Frames]]]:
    """Measure an effect at every strength; return the figures, and the clips by strength."""
    test_cases = cases.from_text(count)
    made = [judge(with_lora(directory, effect.name, strength), test_cases, T2V.settings)[:2] for strength in STRENGTHS]
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


def judge_preset(
    directory: Path, preset: DistilledPreset, count: int, strength: float
) -> tuple[Scores, list[Frames], float]:
    """Score the model at the settings of the preset with the pair at that strength."""
    pipeline = with_lora(directory, PRESET_NAME, strength)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config, shift=preset.flow_shift)
    settings = settings_of(preset)
    return judge(pipeline, cases.from_text(count), settings)


def compare_preset(directory: Path, preset: DistilledPreset, count: int) -> tuple[dict[str, Any], list[list[Frames]]]:
    """Score the model with and without the pair at the settings of the preset; return the figures and the clips.

    A clip should be correct and also resemble the one that the guided model generates from the same noise. The
    clips are those without the pair, those with it, and those of the guided model.
    """
    _, guided, _ = judge(folder.load(T2V.folder), cases.from_text(count), T2V.settings)
    figures: dict[str, Any] = {}
    rows = []
    for label, strength in (("without", 0.0), ("with", 1.0)):
        scores, clips, seconds = judge_preset(directory, preset, count, strength)
        alike = [
            np.mean([likeness(*pair) for pair in zip(*two, strict=True)]) for two in zip(clips, guided, strict=True)
        ]
        figures[label] = scores.summary() | {
            "seconds_per_clip": round(seconds, 2),
            "like_guided_db": round(float(np.mean(alike)), 1),
        }
        rows.append(clips)
    logger.info("%s: %s", PRESET_NAME, figures)
    return figures, [*rows, guided]


def settings_of(preset: DistilledPreset) -> SamplingSettings:
    """Return the sampling settings of a preset."""
    return replace(T2V.settings, steps=preset.steps, guidance=preset.guidance_scale, guidance_2=preset.guidance_scale_2)


def main() -> None:
    """Run the command line."""
    every = [*EFFECTS, PRESET_NAME]
    parser = argparse.ArgumentParser(prog="python -m training.evaluation.lora_judge", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*every, []], help="pairs to measure; default: all")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, help="number of held-out captions")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dry", action="store_true", help="print the figures without writing anything")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    directory: Path = arguments.folder
    notes: dict[str, Any] = json.loads((directory / NOTES).read_text())
    for name in arguments.names or every:
        if name == PRESET_NAME:
            preset = preset_of(directory)
            figures, rows = compare_preset(directory, preset, arguments.count or PRESET_COUNT)
        else:
            figures, rows = measure_effect(directory, EFFECTS[name], arguments.count or EFFECT_COUNT)
        notes[name]["figures"] = figures
        if not arguments.dry:
            lora_card.draw(cases.from_text(len(rows[0])), rows, lora_card.sheet(name))
            (directory / NOTES).write_text(json.dumps(notes, indent=1) + "\n")
    if not arguments.dry:
        lora_card.write(directory)


if __name__ == "__main__":
    main()
