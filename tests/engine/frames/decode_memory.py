"""Measures the peak memory of decoding in a separate process: `python -m tests.engine.frames.decode_memory`.

Prints JSON: for each number of frames the peak in KiB after a streamed decode and whether the frames equal those
of a whole decode, and the peak after the whole decodes. With `tiles` it prints the peaks for each side of the
picture and for a long clip instead, decoded in tiles, and at the end in one piece. The VAE is as small as possible;
its frames are not.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from backend.engine.device.convolution import use_convolution
from backend.engine.frames.decode import count_chunks, stream_frames, to_uint8
from backend.engine.memory.offload import RESIDENT, ModelLayout

FRAMES = (17, 65, 257)
SIDE = 48
SIDES = (192, 480)
LONG = 97
TILE = 96


def peak_kib() -> int:
    """The peak resident memory of this program. `ru_maxrss` would include that of its parent at the fork."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


def whole_digest(vae: Any, latents: torch.Tensor) -> str:
    """Decode at once, as the stock pipeline does."""
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape)
    inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(shape)
    with torch.no_grad():
        video = vae.decode(latents / inverse_std + mean, return_dict=False)[0]
    return hashlib.sha256(to_uint8(video[0]).tobytes()).hexdigest()


def random_vae() -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    use_convolution(vae, "onednn")  # as workers have it
    return vae


def parts_of(vae: Any, **switches: Any) -> Any:
    pipeline = SimpleNamespace(text_encoder=None, vae=vae, transformer=None, transformer_2=None)
    layout = ModelLayout(pipeline, torch.device("cpu"), replace(RESIDENT, **switches))
    return SimpleNamespace(vae=vae, layout=layout, plan=layout.plan)


def noise(side: int, frames: int) -> torch.Tensor:
    return torch.randn(1, 16, count_chunks(frames), side // 8, side // 8, generator=torch.Generator())


def over_frames() -> dict[str, Any]:
    vae = random_vae()
    parts = parts_of(vae)
    clips = {frames: noise(SIDE, frames) for frames in FRAMES}
    peaks: dict[int, int] = {}
    digests: dict[int, str] = {}
    for frames, latents in clips.items():
        content = hashlib.sha256()
        for chunk in stream_frames(parts, latents):
            content.update(chunk.data)
        peaks[frames], digests[frames] = peak_kib(), content.hexdigest()
    equal = {frames: whole_digest(vae, latents) == digests[frames] for frames, latents in clips.items()}
    return {"streamed": peaks, "equal": equal, "whole": peak_kib()}


def over_sides() -> dict[str, Any]:
    vae = random_vae()
    tiled = parts_of(vae, tiled_decode=True, tile_size=TILE)
    peaks: dict[str, int] = {}
    clips = [(str(side), side, 5) for side in SIDES] + [("long", SIDES[0], LONG)]
    for name, side, frames in clips:
        latents = noise(side, frames)
        for _ in stream_frames(tiled, latents):
            pass
        peaks[name] = peak_kib()
    for _ in stream_frames(parts_of(vae), noise(SIDES[-1], 5)):
        pass
    return {"tiled": peaks, "untiled": peak_kib()}


if __name__ == "__main__":
    json.dump(over_sides() if sys.argv[1:] == ["tiles"] else over_frames(), sys.stdout)
