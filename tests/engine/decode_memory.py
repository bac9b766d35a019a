"""Measures the peak memory of decoding, in a process of its own: `python -m tests.engine.decode_memory FOLDER`.

Prints JSON: for each number of frames the peak in KiB after a streamed decode and whether the frames equal a whole
decode, and the peak after one whole decode of the longest clip.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path

import torch

from backend.core.model_table import MODELS
from backend.engine.decode import count_chunks, stream_frames, to_uint8
from backend.engine.pipeline_loader import WanComponents, WanPipelineLoader

FRAMES = (17, 65, 257)


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def whole_digest(components: WanComponents, latents: torch.Tensor) -> str:
    """Decode at once, as the stock pipeline does."""
    config = components.vae.config
    shape = (1, config.z_dim, 1, 1, 1)
    mean, inverse_std = (
        torch.tensor(config.latents_mean).view(shape),
        1.0 / torch.tensor(config.latents_std).view(shape),
    )
    with torch.no_grad():
        video = components.vae.decode(latents / inverse_std + mean, return_dict=False)[0]
    return hashlib.sha256(to_uint8(video[0]).tobytes()).hexdigest()


def main() -> None:
    components = WanPipelineLoader("cpu", threads=1).load_decoder(Path(sys.argv[1]), MODELS["tiny-t2v-a14b"])
    streamed: dict[int, tuple[int, str]] = {}
    clips = {
        frames: torch.randn(1, 16, count_chunks(frames), 8, 8, generator=torch.Generator().manual_seed(frames))
        for frames in FRAMES
    }
    for frames, latents in clips.items():
        digest = hashlib.sha256()
        for chunk in stream_frames(components, latents):
            digest.update(chunk.data)
        streamed[frames] = (peak_kib(), digest.hexdigest())
    equal = {frames: whole_digest(components, latents) == streamed[frames][1] for frames, latents in clips.items()}
    json.dump(
        {"streamed": {frames: peak for frames, (peak, _) in streamed.items()}, "equal": equal, "whole": peak_kib()},
        sys.stdout,
    )


if __name__ == "__main__":
    main()
