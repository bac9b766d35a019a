"""The finished model as a diffusers folder that the stock `WanPipeline` opens unchanged.

Owns which parts go where, in which precision, and the notes about their making that lie beside them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from training.experts import BOUNDARY, FLOW_SHIFT, TRAINING_TIMES

#: Where the embedded model lies in the repository.
MODEL_FOLDER = Path(__file__).parent.parent / "backend" / "assets" / "tiny" / "tiny-t2v-a14b"
#: Notes about the making: steps, seconds and sizes, from which the model card is written.
NOTES = "training.json"
PREVIEW = "preview.json"
CARD = "README.md"


def save(
    folder: Path,
    parts: dict[str, Any],
    normalisation: tuple[list[float], list[float]],
    preview: dict[str, list[Any]],
    notes: dict[str, Any],
) -> int:
    """Write the folder beside its place, move it there, and give its size in bytes.

    `parts` holds tokenizer, text_encoder, vae, transformer and transformer_2.
    """
    mean, deviation = normalisation
    parts["vae"].register_to_config(latents_mean=mean, latents_std=deviation)
    for name in ("vae", "transformer", "transformer_2"):
        parts[name].to(device="cpu", dtype=torch.float16)
    # Small enough to keep whole: transformers loads a file in the precision it was saved in.
    parts["text_encoder"].to(device="cpu", dtype=torch.float32)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        num_train_timesteps=TRAINING_TIMES,
    )
    pipeline = WanPipeline(**parts, scheduler=scheduler, boundary_ratio=BOUNDARY, expand_timesteps=False)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline.save_pretrained(part, safe_serialization=True)
    (part / PREVIEW).write_text(json.dumps(preview, indent=1) + "\n")
    (part / NOTES).write_text(json.dumps(notes, indent=1) + "\n")
    _name_tokenizer_portably(part)
    for path in part.rglob("*.safetensors"):
        path.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part.replace(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _name_tokenizer_portably(folder: Path) -> None:
    # transformers 5 writes the class's new name, which transformers 4 does not know; both know the old one.
    for path in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        path.write_text(path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def load(folder: Path) -> Any:
    """Open a finished folder with the stock pipeline, which loads float32 unless told otherwise."""
    return WanPipeline.from_pretrained(folder)


def read_notes(folder: Path) -> dict[str, Any]:
    """Give the notes about the making of a finished folder."""
    notes: dict[str, Any] = json.loads((folder / NOTES).read_text())
    return notes
