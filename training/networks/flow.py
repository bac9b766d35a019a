"""Flow matching: the noise levels assigned to a network, and the loss it is trained with.

Owns the sampling of times, the caption dropout for guidance, and the ways to condition on an image.
`experts.py` owns the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.networks.experts import Denoiser
from training.networks.latents import EncodedClips
from training.networks.workspace import mixed_precision
from training.world.scenes import FILLERS, Scene

#: Time, as a share of 1000, from which the high-noise expert is used; 0.875 as in Wan 2.2 T2V.
BOUNDARY = 0.875
#: The same for the image-to-video experts, as in Wan 2.2 I2V.
IMAGE_BOUNDARY = 0.9
#: Flow shift of the scheduler; training times are drawn with the same shift.
FLOW_SHIFT = 3.0
TRAINING_TIMES = 1000
#: Share of captions dropped, which classifier-free guidance requires.
EMPTY_SHARE = 0.1
#: Share of the dropped captions replaced by unknown words, like a negative prompt in another language.
UNKNOWN_SHARE = 0.2
#: Padded prompt length -> its share. The pipeline attends to padding, so the length must vary: wan22 pads to
#: 64, the stock pipeline to 512 by default.
PAD_LENGTHS = {64: 0.9, 512: 0.1}


@dataclass(frozen=True)
class NoiseLevels:
    """The range of noise levels (0 clean, 1 pure noise) of one network, and its extra share of spinning clips."""

    low: float = 0.0
    high: float = 1.0
    #: Share of the clips drawn from the spinning ones only, in addition to those drawn by chance.
    spinning: float = 0.0

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Draw levels within the range: logit-normal times with the shift of the scheduler."""
        drawn = np.empty(0)
        while len(drawn) < count:
            # Mostly logit-normal; a share of uniform draws covers the first and last steps of a sampler.
            even = rng.random(4 * count) < 0.2
            times = 1 / (1 + np.exp(-rng.normal(size=4 * count)))
            times = np.where(even, rng.random(4 * count), times)
            levels = FLOW_SHIFT * times / (1 + (FLOW_SHIFT - 1) * times)
            drawn = np.concatenate([drawn, levels[(levels >= self.low) & (levels <= self.high)]])
        return torch.from_numpy(drawn[:count]).float()


@dataclass(frozen=True)
class NetworkInput:
    """The input of a network, its times (per clip or per token), and the loss weight of each latent."""

    hidden: Tensor
    times: Tensor
    loss_weights: Tensor | None = None


#: Builds the input from noisy latents, clean latents, times (clips,), the indices of the clips in the data set,
#: and the random generator of the step. This is how an image, if any, reaches the network.
Conditioning = Callable[[Tensor, Tensor, Tensor, Tensor, np.random.Generator], NetworkInput]


def without_image(
    noisy: Tensor, clean: Tensor, times: Tensor, chosen: Tensor, rng: np.random.Generator
) -> NetworkInput:
    """Condition as text-to-video does: the noisy latents and one time per clip."""
    return NetworkInput(noisy, times)


def as_channels(conditions: Tensor, first_frame: float = 1.0) -> Conditioning:
    """Condition as I2V-A14B does: mask and encoded image as additional channels next to the noisy latents.

    An error in the first latent frame, which must reproduce the image, is weighted by `first_frame`.
    """

    def condition(
        noisy: Tensor, clean: Tensor, times: Tensor, chosen: Tensor, rng: np.random.Generator
    ) -> NetworkInput:
        loss_weights = torch.ones_like(noisy)
        loss_weights[:, :, 0] = first_frame
        return NetworkInput(torch.cat([noisy, conditions[chosen].to(noisy)], 1), times, loss_weights)

    return condition


def as_first_frame(share: float, used: int) -> Conditioning:
    """Condition as TI2V-5B does: in that share of the clips the first latent frame is clean and its tokens have time 0.

    Only the first `used` channels enter the input and the loss; the others are empty.
    """

    def condition(
        noisy: Tensor, clean: Tensor, times: Tensor, chosen: Tensor, rng: np.random.Generator
    ) -> NetworkInput:
        given = torch.from_numpy(rng.random(len(noisy)) < share).to(noisy.device)
        fresh = torch.ones_like(noisy[:, :1])
        fresh[given, :, 0] = 0.0
        shown = torch.zeros_like(noisy)
        shown[:, :used] = 1.0
        # One time per token of 2x2 latents, in the order of the transformer's patches.
        per_token = (fresh[:, 0, :, ::2, ::2] * times[:, None, None, None]).flatten(1)
        return NetworkInput(shown * (fresh * noisy + (1 - fresh) * clean), per_token, shown * fresh)

    return condition


class FlowLoss:
    """Flow matching on encoded clips: predict the straight path from clean latents to noise."""

    def __init__(
        self,
        denoiser: Denoiser,
        clips: EncodedClips,
        tokenizer: Any,
        levels: NoiseLevels,
        batch: int,
        conditioning: Conditioning = without_image,
    ) -> None:
        self._denoiser, self._clips, self._tokenizer = denoiser, clips, tokenizer
        self._levels, self._batch, self._conditioning = levels, batch, conditioning
        self._spinning = np.array([i for i, scene in enumerate(clips.scenes) if scene.motion == "spinning"])

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the loss of one step."""
        device = next(self._denoiser.parameters()).device
        chosen = rng.integers(len(self._clips.scenes), size=self._batch)
        favoured = rng.random(self._batch) < self._levels.spinning
        chosen = np.where(favoured, rng.choice(self._spinning, size=self._batch), chosen)
        captions = [self._caption(self._clips.scenes[index], rng) for index in chosen]
        tokens = self._tokenizer(captions, padding=True, return_tensors="pt").input_ids.to(device)
        rows = torch.from_numpy(chosen)
        clean = self._clips.latents[rows].to(device).float()
        noise = torch.randn(clean.shape).to(device)
        level = self._levels.draw(self._batch, rng).to(device)
        share = level[:, None, None, None, None]
        length = int(rng.choice(list(PAD_LENGTHS), p=list(PAD_LENGTHS.values())))
        inputs = self._conditioning((1 - share) * clean + share * noise, clean, level * TRAINING_TIMES, rows, rng)
        with mixed_precision(device):
            prompt = self._denoiser.embed(tokens, length)
            predicted = self._denoiser(inputs.hidden, inputs.times, prompt)
        error = (predicted.float() - (noise - clean)).square()
        if inputs.loss_weights is None:
            return {"flow": error.mean()}
        return {"flow": (error * inputs.loss_weights).sum() / inputs.loss_weights.sum()}

    def _caption(self, scene: Scene, rng: np.random.Generator) -> str:
        if rng.random() >= EMPTY_SHARE:
            return scene.phrase(rng)
        if rng.random() >= UNKNOWN_SHARE:
            return ""
        return " ".join(FILLERS[:1] * int(rng.integers(1, 20)))
