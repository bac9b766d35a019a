"""The sampler of models distilled by DMD: foresee the clean clip, then noise it afresh for the next time.

Stands where a scheduler of diffusers stands, and remembers nothing between two steps but their number. The rule is
that of FastVideo's `DmdDenoisingStage`; the table of noise levels is that of the distillation, with the model's own
shift (the stage itself has 8 for every model, which moves a level by less than 0.0004). Knows no jobs and no models.

What a scheduler remembers between two steps: taken out of one and put into a fresh one of the same schedule.

Knows diffusers' two samplers (0.42.1), and that the one for distilled models remembers as little as Euler. Knows
nothing about jobs or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

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


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """The memory of a scheduler after `index` steps; only UniPC's is more than the index."""

    index: int  #: steps done
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


def scheduler_state(scheduler: Any, index: int) -> SchedulerState:
    """Take out what the next step will look at; the tensors are the scheduler's own, not copies."""
    if not isinstance(scheduler, UniPCMultistepScheduler) or index == 0:
        return SchedulerState(index)
    # The last outputs as clean latents, newest last; None where the run is still shorter than the order.
    outputs = {
        f"model_output_{place}": output
        for place, output in enumerate(scheduler.model_outputs)
        if isinstance(output, torch.Tensor)
    }
    return SchedulerState(
        index,
        outputs | {"last_sample": scheduler.last_sample},
        {"lower_order_nums": scheduler.lower_order_nums, "this_order": scheduler.this_order},
    )


def restore_scheduler(scheduler: Any, state: SchedulerState, device: torch.device) -> None:
    """Put a state into a scheduler that was just made and has its timesteps.

    Raises:
        KeyError: a part of the state is not there; the scheduler was not touched.
    """
    if isinstance(scheduler, UniPCMultistepScheduler) and state.index > 0:
        order = len(scheduler.model_outputs)
        places = [place for place in range(order) if order - place <= state.index]
        outputs = {place: state.tensors[f"model_output_{place}"].to(device) for place in places}
        last_sample = state.tensors["last_sample"].to(device)
        lower_order_nums, this_order = state.numbers["lower_order_nums"], state.numbers["this_order"]
        for place, output in outputs.items():
            scheduler.model_outputs[place] = output
            scheduler.timestep_list[place] = scheduler.timesteps[state.index - (order - place)]
        scheduler.last_sample = last_sample
        scheduler.lower_order_nums, scheduler.this_order = lower_order_nums, this_order
    scheduler.set_begin_index(state.index)  # the next step begins there
