"""Scores a finished model on held-out captions: `python -m training.evaluation.judge --model tiny-t2v-a14b`.

Generates one clip per held-out case with the stock pipeline, analyses it with `observation`, and writes the
scores to the notes and card of the model, with a contact sheet of the first clips.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.evaluation import card, cases, contact_sheet
from training.evaluation.cases import Case
from training.evaluation.scores import RIGHT, Scores, likeness
from training.recipes import folder
from training.recipes.models import MODELS, T2V, SamplingSettings, TinyModel
from training.world.observation import Frames, observe
from training.world.split import held_out

logger = logging.getLogger(__name__)

_BATCH = 12
#: Number of cases with an end image; fewer, because only the last frame is new in them.
END_COUNT = 24


def generate(pipeline: Any, test_cases: Sequence[Case], settings: SamplingSettings) -> list[Frames]:
    """Generate one clip per case as uint8 (frames, height, width, 3); with images, pass one case at a time."""
    given = {}
    if test_cases[0].image is not None:
        given["image"] = Image.fromarray(test_cases[0].image)
    if test_cases[0].end_image is not None:
        given["last_image"] = Image.fromarray(test_cases[0].end_image)
    made = pipeline(
        **given,
        prompt=[case.scene.caption for case in test_cases],
        height=settings.size,
        width=settings.size,
        num_frames=settings.frames,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        guidance_scale_2=settings.guidance_2,
        max_sequence_length=settings.max_sequence_length,
        generator=[torch.Generator().manual_seed(case.seed) for case in test_cases],
        output_type="np",
    ).frames
    return [np.round(clip * 255).astype(np.uint8) for clip in made]


def judge(pipeline: Any, test_cases: Sequence[Case], settings: SamplingSettings) -> tuple[Scores, list[Frames], float]:
    """Generate and score one clip per case; return the scores, the clips, and the seconds per clip."""
    pipeline.set_progress_bar_config(disable=True)
    scores = Scores()
    clips: list[Frames] = []
    start = time.monotonic()
    # The pipeline uses one image for the whole batch.
    batch_size = _BATCH if test_cases[0].image is None else 1
    for first in range(0, len(test_cases), batch_size):
        batch = test_cases[first : first + batch_size]
        made = generate(pipeline, batch, settings)
        for case, clip in zip(batch, made, strict=True):
            scores.add(case.scene, observe(clip))
            if case.image is not None:
                scores.first_frames.append(likeness(clip[0], case.image))
            if case.end_image is not None:
                scores.last_frames.append(likeness(clip[-1], case.end_image))
        clips += made
        if len(clips) % _BATCH == 0 or len(clips) == len(test_cases):
            logger.info("%d/%d  %s", scores.count, len(test_cases), _line(scores))
    return scores, clips, (time.monotonic() - start) / max(1, len(test_cases))


def _line(scores: Scores) -> str:
    parts = [f"{aspect} {scores.share(aspect):.1%}" for aspect in RIGHT]
    parts.append(f"outline {np.mean(scores.outlines):.3f} (worst {min(scores.outlines):.3f})")
    for name, ratios in (("first frame", scores.first_frames), ("last frame", scores.last_frames)):
        if ratios:
            parts.append(f"{name} {np.mean(ratios):.1f} dB (worst {min(ratios):.1f})")
    return "  ".join(parts)


def judge_model(model: TinyModel, directory: Path, count: int, settings: SamplingSettings, dry: bool) -> None:
    """Judge every use of a model and, unless `dry`, write notes, card and contact sheets."""
    uses = {"text": cases.from_text(count)} if model.from_text else {}
    if model.from_image:
        uses["image"] = cases.from_image(count, settings.size)
    if model.from_image and not model.expand_timesteps:
        uses["end image"] = cases.from_image(min(count, END_COUNT), settings.size, with_end=True)
    for use, test_cases in uses.items():
        from_image = use != "text"
        scores, clips, seconds = judge(folder.load(directory, from_image), test_cases, settings)
        for (aspect, expected, observed), often in scores.mistakes.most_common():
            logger.info("%s: expected %s, observed %s: %d", aspect, expected, observed, often)
        if dry:
            continue
        notes = folder.read_notes(directory)
        record = scores.summary() | {"settings": asdict(settings), "seconds_per_clip": round(seconds, 1)}
        notes.setdefault("scores", {})[use] = record
        folder.write_notes(directory, notes)
        contact_sheet.draw(test_cases, clips, model.sheet(use))
        logger.info("wrote %s", model.sheet(use))
    if not dry:
        card.write(directory, model)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluation.judge", description=__doc__)
    parser.add_argument("--model", choices=list(MODELS), default=T2V.name)
    parser.add_argument("--folder", type=Path, help="folder of the finished model; default: the one in the repository")
    parser.add_argument("--count", type=int, default=len(held_out()), help="number of held-out cases")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float, help="guidance of the high-noise (or only) expert")
    parser.add_argument("--guidance-2", type=float, help="guidance of the low-noise expert")
    parser.add_argument("--max-sequence-length", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dry", action="store_true", help="print the scores without writing anything")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    model = MODELS[arguments.model]
    given = {name: getattr(arguments, name) for name in ("steps", "guidance", "guidance_2", "max_sequence_length")}
    settings = replace(model.settings, **{name: value for name, value in given.items() if value is not None})
    judge_model(model, arguments.folder or model.folder, arguments.count, settings, arguments.dry)


if __name__ == "__main__":
    main()
