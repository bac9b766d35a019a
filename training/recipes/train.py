"""From a seed to a finished model folder: `python -m training.recipes.train --model tiny-t2v-a14b`.

Reads the command line and runs the recipe of that model; each lives in a file of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from training.networks.place import WORK, Place
from training.recipes import image_to_video, text_image_to_video, text_to_video
from training.recipes.models import I2V, MODELS, T2V, TI2V

logger = logging.getLogger(__name__)


def train(name: str, place: Place, scale: float = 1.0, remark: str = "") -> int:
    """Train the model of that name with a share of its recipe, and give the folder's size in bytes."""
    if name == T2V.name:
        return text_to_video.train(text_to_video.Recipe().scaled(scale), place, remark)
    if name == I2V.name:
        return image_to_video.train(image_to_video.Recipe().scaled(scale), place, remark)
    return text_image_to_video.train(text_image_to_video.Recipe().scaled(scale), place, remark)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.train", description=__doc__)
    parser.add_argument("--model", choices=[T2V.name, I2V.name, TI2V.name], default=T2V.name)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints, to continue from")
    parser.add_argument("--out", type=Path, help="the finished folder; the repository's own unless given")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda to be done in minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and its C++ compiler")
    parser.add_argument("--remark", default="", help="a sentence for the model card")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps and clips")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    out = arguments.out or MODELS[arguments.model].folder
    place = Place(out, arguments.work, arguments.device, not arguments.no_compile)
    size = train(arguments.model, place, arguments.scale, arguments.remark)
    logger.info("saved %s, %.1f MB", out, size / 1e6)


if __name__ == "__main__":
    main()
