"""Scores the finished model on captions it never saw: `python -m training.judge`.

Generates one clip per held-out caption with the stock pipeline, looks at each with `observation`, and
writes the scores into the model card and a contact sheet. Seeds are a formula, fixed before looking.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training import card, contact_sheet, folder
from training.observation import Frames, observe
from training.scores import ASPECTS, Scores, Settings
from training.split import held_out
from training.world import Scene

logger = logging.getLogger(__name__)

#: Seed of the first held-out caption; each further one has the next.
FIRST_SEED = 1000
_BATCH = 12


def seed_of(index: int) -> int:
    """Give the seed of the held-out caption at `index`."""
    return FIRST_SEED + index


def generate(pipeline: Any, scenes: Sequence[Scene], seeds: Sequence[int], settings: Settings) -> list[Frames]:
    """Generate one clip per scene, as uint8 (frames, height, width, 3)."""
    made = pipeline(
        prompt=[scene.caption for scene in scenes],
        height=settings.size,
        width=settings.size,
        num_frames=settings.frames,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        guidance_scale_2=settings.guidance_2,
        max_sequence_length=settings.max_sequence_length,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    ).frames
    return [np.round(clip * 255).astype(np.uint8) for clip in made]


def judge(pipeline: Any, scenes: Sequence[Scene], settings: Settings) -> tuple[Scores, list[Frames], float]:
    """Generate and score a clip per scene; give scores, the clips, and the seconds per clip."""
    pipeline.set_progress_bar_config(disable=True)
    scores = Scores()
    clips: list[Frames] = []
    start = time.monotonic()
    for first in range(0, len(scenes), _BATCH):
        batch = scenes[first : first + _BATCH]
        made = generate(pipeline, batch, [seed_of(first + i) for i in range(len(batch))], settings)
        for scene, clip in zip(batch, made, strict=True):
            scores.add(scene, observe(clip))
        clips += made
        shown = "  ".join(f"{aspect} {scores.share(aspect):.1%}" for aspect in (*ASPECTS, "everything"))
        logger.info("%d/%d  %s", scores.count, len(scenes), shown)
    return scores, clips, (time.monotonic() - start) / max(1, len(scenes))


def main() -> None:
    """Read the command line, judge, and write the card and the contact sheet."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m training.judge", description=__doc__)
    parser.add_argument("--model", type=Path, default=folder.MODEL_FOLDER)
    parser.add_argument("--count", type=int, default=len(held_out()), help="how many held-out captions")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--guidance", type=float, default=default.guidance, help="of the high-noise expert")
    parser.add_argument("--guidance-2", type=float, default=default.guidance_2, help="of the low-noise expert")
    parser.add_argument("--max-sequence-length", type=int, default=default.max_sequence_length)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sheet", type=Path, default=contact_sheet.PLACE)
    parser.add_argument("--dry", action="store_true", help="only print the scores")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    settings = Settings(
        steps=arguments.steps,
        guidance=arguments.guidance,
        guidance_2=arguments.guidance_2,
        max_sequence_length=arguments.max_sequence_length,
    )
    scenes = held_out()[: arguments.count]
    scores, clips, seconds = judge(folder.load(arguments.model), scenes, settings)
    for (aspect, asked, seen), often in scores.mistakes.most_common():
        logger.info("%s: asked for %s, saw %s: %d", aspect, asked, seen, often)
    if not arguments.dry:
        contact_sheet.draw(scenes, clips, arguments.sheet)
        card.write(arguments.model, scores, settings, seconds)
        logger.info("wrote %s and the card in %s", arguments.sheet, arguments.model)


if __name__ == "__main__":
    main()
