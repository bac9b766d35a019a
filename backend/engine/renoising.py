"""The sampler of models distilled by DMD: foresee the clean clip, then noise it afresh for the next time.

Stands where a scheduler of diffusers stands, and remembers nothing between two steps but their number. The rule is
that of FastVideo's `DmdDenoisingStage`; the table of noise levels is that of the distillation, with the model's own
shift (the stage itself has 8 for every model, which moves a level by less than 0.0004). Knows no jobs and no models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Into how many times the way from clean to noise is divided.
TRAINING_TIMES = 1000


class RenoisingSampler:
    """Makes one run: x0 = x - sigma v, and x = (1 - sigma') x0 + sigma' noise for the next time."""

    def __init__(self, times: Sequence[int], shift: float, seed: int) -> None:
        """Prepare.

        Args:
            times: when the model denoises, of 1000, falling.
            shift: the flow shift of the table in which the level of noise of each time is looked up.
            seed: of the noise; the first draw is what the clip begins with, every later one is drawn here.
        """
        self._seed = seed
        self._index = 0
        self.timesteps = torch.tensor(times)
        #: The share of noise at each time, and none after the last.
        self.sigmas = torch.tensor([*(level_of(time, shift) for time in times), 0.0], dtype=torch.float32)

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Bring the times to a device.

        Raises:
            ValueError: the run has another number of steps.
        """
        if steps != len(self.timesteps):
            raise ValueError(f"there are {len(self.timesteps)} times, not {steps}")
        self.timesteps = self.timesteps.to(device)

    def set_begin_index(self, index: int) -> None:
        """Say how many steps are done."""
        self._index = index

    def step(
        self, prediction: torch.Tensor, _time: torch.Tensor, latents: torch.Tensor, **_options: bool
    ) -> tuple[torch.Tensor]:
        """Return the latents of the next time, or the clean ones after the last; float32, in the shape of `latents`."""
        here, then = self.sigmas[self._index : self._index + 2].tolist()
        clean = latents.to(torch.float32) - here * prediction.to(torch.float32)
        self._index += 1
        if self._index == len(self.timesteps):
            return (clean,)
        return ((1 - then) * clean + then * self._noise(clean),)

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        """Draw the noise that follows this many steps: the same after a restore, and whatever else is drawn meanwhile.

        On the CPU, as the noise that a clip begins with, so that a seed means the same on every device.
        """
        generator = torch.Generator("cpu").manual_seed(self._seed)
        for _ in range(self._index):
            torch.randn(like.shape, generator=generator, dtype=torch.float32)
        return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like.device)


def level_of(time: int, shift: float) -> float:
    """Return the share of noise at a time: that of the nearest of the 1000 times after the shift.

    A time t of the 1000 is at s = t / 1000, and after the shift at shift s / (1 + (shift - 1) s); the share of noise
    is there the same number.
    """
    plain = (index / TRAINING_TIMES for index in range(TRAINING_TIMES, 0, -1))
    shifted = [shift * one / (1 + (shift - 1) * one) for one in plain]
    return min(shifted, key=lambda one: abs(one * TRAINING_TIMES - time))
