"""Trains a model from a seed to the finished folder: `python -m training.recipes.train --model tiny-t2v-a14b`.

Reads the command line and runs the recipe of that model.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from training.networks.workspace import WORK, Workspace
from training.recipes import image_to_video, text_image_to_video, text_to_video
from training.recipes.models import I2V, MODELS, T2V, TI2V

logger = logging.getLogger(__name__)


def train(name: str, workspace: Workspace, scale: float = 1.0, remark: str = "") -> int:
    """Train a model with its recipe scaled by `scale`, and return the size of its folder in bytes."""
    if name == T2V.name:
        return text_to_video.train(text_to_video.TextToVideoRecipe().scaled(scale), workspace, remark)
    if name == I2V.name:
        return image_to_video.train(image_to_video.ImageToVideoRecipe().scaled(scale), workspace, remark)
    return text_image_to_video.train(text_image_to_video.TextImageToVideoRecipe().scaled(scale), workspace, remark)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.train", description=__doc__)
    parser.add_argument("--model", choices=[T2V.name, I2V.name, TI2V.name], default=T2V.name)
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder of the checkpoints, from which training resumes"
    )
    parser.add_argument("--out", type=Path, help="folder of the finished model; default: the one in the repository")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda to finish in minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile, which needs a C++ compiler")
    parser.add_argument("--remark", default="", help="sentence added to the model card")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the steps and clips of the recipe")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    out = arguments.out or MODELS[arguments.model].folder
    workspace = Workspace(out, arguments.work, arguments.device, not arguments.no_compile)
    size = train(arguments.model, workspace, arguments.scale, arguments.remark)
    logger.info("saved %s, %.1f MB", out, size / 1e6)


if __name__ == "__main__":
    main()
