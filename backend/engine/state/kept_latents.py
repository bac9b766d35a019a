"""The final latents of a clip, kept beside its video so that it can be decoded again without the experts.

Knows what they belong to (a request and its model's VAE), not where the file is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.core.errors.generation import StateMismatch
from backend.core.requests.forms import GenerationRequest
from backend.engine.loading.pipeline_loader import WanComponents, library_versions
from backend.engine.state.tensor_file import read_tensors, write_tensors

LATENTS_FORMAT = 1
_KIND = "latents"


@dataclass(frozen=True, slots=True)
class KeptLatents:
    """Latents to keep, and their origin."""

    latents: torch.Tensor  #: [1, C, T, h, w] on the device
    weights_sha256: str  #: digest of all weights of the model
    loras: tuple[dict[str, Any], ...]  #: receipts of the LoRAs, as plain JSON values


def write_latents(path: Path, kept: KeptLatents, components: WanComponents, request: GenerationRequest) -> None:
    """Write the final latents of a run; durable when this returns.

    Raises:
        OSError: the file could not be written.
        ModelDamaged: the weights of the VAE can no longer be read.
    """
    record = {
        "kind": _KIND,
        "format": LATENTS_FORMAT,
        "request": request.denoise_digest,
        "weights": kept.weights_sha256,
        "loras": list(kept.loras),
        "vae": components.vae_digest,
        "libraries": library_versions(),
    }
    write_tensors(path, {"latents": kept.latents}, record)


def read_latents(path: Path, components: WanComponents, request: GenerationRequest) -> KeptLatents:
    """Read kept latents for decoding; `components` may be a decoder only.

    Raises:
        StateMismatch: the file is damaged or of another version, belongs to another request, or was made with
            another VAE; `details["differs"]` says which.
    """
    tensors, record = read_tensors(path)
    checks = {
        "format": (record.get("kind"), record.get("format")) == (_KIND, LATENTS_FORMAT) and "latents" in tensors,
        "request": record.get("request") == request.denoise_digest,
        "VAE": record.get("vae") == components.vae_digest,
    }
    for differs, fits in checks.items():
        if not fits:
            raise StateMismatch(
                f"The kept latents do not fit: they belong to another {differs}",
                details={"differs": differs},
                suggestions=("Generate the clip again; the same seed gives the same clip.",),
            )
    return KeptLatents(tensors["latents"].to(components.device), str(record["weights"]), tuple(record["loras"]))
