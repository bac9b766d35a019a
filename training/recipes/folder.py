"""The folder of a finished model, in the diffusers layout that the stock pipelines open unchanged.

Owns the layout, the precision of each component, and the training notes stored next to them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline

from training.networks.flow import FLOW_SHIFT, TRAINING_TIMES
from training.networks.latents import Normalisation
from training.recipes.models import TinyModel
from training.world.scenes import CANONICAL, world_words

#: Training notes: steps, seconds and sizes, from which the model card is generated.
NOTES = "training.json"
PREVIEW = "preview.json"
CARD = "README.md"
VOCABULARY = "vocabulary.json"


def save(
    folder: Path,
    model: TinyModel,
    parts: dict[str, Any],
    normalisation: Normalisation,
    preview: dict[str, list[Any]],
    notes: dict[str, Any],
) -> int:
    """Write a temporary folder, move it to `folder`, and return its size in bytes.

    `parts` holds tokenizer, text_encoder, vae, transformer and, with two experts, transformer_2.
    """
    mean, deviation = normalisation
    parts["vae"].register_to_config(latents_mean=mean, latents_std=deviation)
    for name in parts.keys() & {"vae", "transformer", "transformer_2"}:
        parts[name].to(device="cpu", dtype=torch.float16)
    # Small enough for full precision: transformers loads a file in the precision it was saved in.
    parts["text_encoder"].to(device="cpu", dtype=torch.float32)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        num_train_timesteps=TRAINING_TIMES,
    )
    pipeline = model.pipeline(
        **parts, scheduler=scheduler, boundary_ratio=model.boundary, expand_timesteps=model.expand_timesteps
    )
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline.save_pretrained(part, safe_serialization=True)
    (part / PREVIEW).write_text(json.dumps(preview, indent=1) + "\n")
    (part / VOCABULARY).write_text(vocabulary_file())
    write_notes(part, notes)
    _name_tokenizer_portably(part)
    _forget_origin(part)
    for path in part.rglob("*.safetensors"):
        path.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part.replace(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def vocabulary_file() -> str:
    """Return the declaration of what the model knows, from which the server tells users of words that it ignores."""
    return json.dumps({"sentence": CANONICAL, "words": world_words()}, indent=1) + "\n"


def _name_tokenizer_portably(folder: Path) -> None:
    # transformers 5 writes the new class name, which transformers 4 does not know; both know the old one.
    for path in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        path.write_text(path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def _forget_origin(folder: Path) -> None:
    # A component loaded from another folder records the path of that folder on this machine.
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(folder: Path, from_image: bool = False) -> Any:
    """Open a finished folder with the stock text or image pipeline, in float32, the default of `from_pretrained`."""
    return (WanImageToVideoPipeline if from_image else WanPipeline).from_pretrained(folder)


def read_notes(folder: Path) -> dict[str, Any]:
    """Read the training notes of a finished folder."""
    notes: dict[str, Any] = json.loads((folder / NOTES).read_text())
    return notes


def write_notes(folder: Path, notes: dict[str, Any]) -> None:
    """Write the training notes into a folder."""
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n")
