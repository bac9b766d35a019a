"""Flow matching: which noise levels a network answers for, and the loss it learns by.

Owns the times that are drawn, captions left out for guidance, and the ways a given image is told. The
networks themselves are in `experts.py`.
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
from training.networks.place import mixed_precision
from training.world.scenes import FILLERS, Scene

#: Time, as a share of 1000, from which the high-noise expert answers; 0.875 as in Wan 2.2 T2V.
BOUNDARY = 0.875
#: The same for the experts that get an image, as in Wan 2.2 I2V.
IMAGE_BOUNDARY = 0.9
#: The scheduler's flow shift; training times are drawn with the same one.
FLOW_SHIFT = 3.0
TRAINING_TIMES = 1000
#: Share of empty captions, which classifier-free guidance needs.
EMPTY_SHARE = 0.1
#: Share of those that hold only unknown words instead, as a negative prompt in another language would.
UNKNOWN_SHARE = 0.2
#: Length prompts are padded to, and how often: the pipeline attends to padding, so its length must vary.
#: 64 is what the product asks for, 512 is what the stock pipeline pads to unless told otherwise.
PAD_LENGTHS = {64: 0.9, 512: 0.1}


@dataclass(frozen=True)
class NoiseLevels:
    """The noise levels (0 clean, 1 pure noise) that one network answers for, and what it sees most."""

    low: float = 0.0
    high: float = 1.0
    #: Share of the clips that is drawn from those that spin, besides those that come by chance.
    spinning: float = 0.0

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Draw levels: logit-normal times, shifted as the scheduler shifts them, within the range."""
        drawn = np.empty(0)
        while len(drawn) < count:
            # Mostly logit-normal; a share of even draws keeps the first and last steps of a sampler in view.
            even = rng.random(4 * count) < 0.2
            times = 1 / (1 + np.exp(-rng.normal(size=4 * count)))
            times = np.where(even, rng.random(4 * count), times)
            levels = FLOW_SHIFT * times / (1 + (FLOW_SHIFT - 1) * times)
            drawn = np.concatenate([drawn, levels[(levels >= self.low) & (levels <= self.high)]])
        return torch.from_numpy(drawn[:count]).float()


@dataclass(frozen=True)
class Question:
    """What a network is asked: its input, the times (per clip, or per token), and which latents are judged."""

    hidden: Tensor
    times: Tensor
    counted: Tensor | None = None


#: Makes the question of noisy latents, clean ones, times (clips,), the positions of the clips in the data
#: set, and the step's randomness. It is how a given image reaches the network, or does not.
Asking = Callable[[Tensor, Tensor, Tensor, Tensor, np.random.Generator], Question]


def without_image(noisy: Tensor, clean: Tensor, times: Tensor, chosen: Tensor, rng: np.random.Generator) -> Question:
    """Ask as text-to-video does: the noisy latents and one time."""
    return Question(noisy, times)


def beside(conditions: Tensor, first_frame: float = 1.0) -> Asking:
    """Ask as I2V-A14B does: mask and encoded image as further channels beside the noisy latents.

    An error in the first latent frame, where the image is to appear again, counts `first_frame` times.
    """

    def ask(noisy: Tensor, clean: Tensor, times: Tensor, chosen: Tensor, rng: np.random.Generator) -> Question:
        counted = torch.ones_like(noisy)
        counted[:, :, 0] = first_frame
        return Question(torch.cat([noisy, conditions[chosen].to(noisy)], 1), times, counted)

    return ask


def as_first_frame(share: float, used: int) -> Asking:
    """Ask as TI2V-5B does: in that share of the clips the first latent frame is clean and its tokens' time 0.

    Only the first `used` channels are shown and judged; the others hold nothing.
    """

    def ask(noisy: Tensor, clean: Tensor, times: Tensor, chosen: Tensor, rng: np.random.Generator) -> Question:
        given = torch.from_numpy(rng.random(len(noisy)) < share).to(noisy.device)
        fresh = torch.ones_like(noisy[:, :1])
        fresh[given, :, 0] = 0.0
        shown = torch.zeros_like(noisy)
        shown[:, :used] = 1.0
        # One time per token of two by two latents, in the order of the transformer's patches.
        per_token = (fresh[:, 0, :, ::2, ::2] * times[:, None, None, None]).flatten(1)
        return Question(shown * (fresh * noisy + (1 - fresh) * clean), per_token, shown * fresh)

    return ask


class FlowLoss:
    """Flow matching on encoded clips: predict the straight way from clean latents to noise."""

    def __init__(
        self,
        denoiser: Denoiser,
        clips: EncodedClips,
        tokenizer: Any,
        levels: NoiseLevels,
        batch: int,
        ask: Asking = without_image,
    ) -> None:
        self._denoiser, self._clips, self._tokenizer = denoiser, clips, tokenizer
        self._levels, self._batch, self._ask = levels, batch, ask
        self._spinning = np.array([i for i, scene in enumerate(clips.scenes) if scene.motion == "spinning"])

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Give the loss of one step."""
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
        question = self._ask((1 - share) * clean + share * noise, clean, level * TRAINING_TIMES, rows, rng)
        with mixed_precision(device):
            prompt = self._denoiser.embed(tokens, length)
            predicted = self._denoiser(question.hidden, question.times, prompt)
        error = (predicted.float() - (noise - clean)).square()
        if question.counted is None:
            return {"flow": error.mean()}
        return {"flow": (error * question.counted).sum() / question.counted.sum()}

    def _caption(self, scene: Scene, rng: np.random.Generator) -> str:
        if rng.random() >= EMPTY_SHARE:
            return scene.phrase(rng)
        if rng.random() >= UNKNOWN_SHARE:
            return ""
        return " ".join(FILLERS[:1] * int(rng.integers(1, 20)))
