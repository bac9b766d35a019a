"""The sampler of models distilled by DMD, and the state that any sampler carries from step to step.

State is taken out of one scheduler and restored into a fresh one of the same schedule. Covers diffusers' two samplers
(0.42.1); only UniPC carries more than the step index. Knows nothing about jobs, models or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

#: Number of timesteps between clean and pure noise.
TRAINING_TIMES = 1000


class RenoisingSampler:
    """A DMD run: predicts x0 = x - sigma v, then re-noises x = (1 - sigma') x0 + sigma' noise for the next timestep.

    Takes the place of a diffusers scheduler. The rule is that of FastVideo's `DmdDenoisingStage`; the table of noise
    levels is that of the distillation, with the model's own shift (the stage uses 8 for every model, which moves a
    level by less than 0.0004).
    """

    def __init__(self, times: Sequence[int], shift: float, seed: int) -> None:
        """Prepare the schedule.

        Args:
            times: the timesteps at which the model denoises, of 1000, descending.
            shift: the flow shift of the table that gives each timestep's noise level.
            seed: seed of the noise; the first draw is the clip's initial noise, later ones are drawn here.
        """
        self._seed = seed
        self._index = 0
        self.timesteps = torch.tensor(times)
        #: The noise level at each timestep, and 0 after the last.
        self.sigmas = torch.tensor([*(level_of(time, shift) for time in times), 0.0], dtype=torch.float32)

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Move the timesteps to a device.

        Raises:
            ValueError: `steps` is not the number of timesteps.
        """
        if steps != len(self.timesteps):
            raise ValueError(f"there are {len(self.timesteps)} timesteps, not {steps}")
        self.timesteps = self.timesteps.to(device)

    def set_begin_index(self, index: int) -> None:
        """Set the number of completed steps."""
        self._index = index

    def step(
        self, prediction: torch.Tensor, _time: torch.Tensor, latents: torch.Tensor, **_options: bool
    ) -> tuple[torch.Tensor]:
        """Return the latents of the next timestep, or the clean ones after the last; float32, shaped like `latents`."""
        here, then = self.sigmas[self._index : self._index + 2].tolist()
        clean = latents.to(torch.float32) - here * prediction.to(torch.float32)
        self._index += 1
        if self._index == len(self.timesteps):
            return (clean,)
        return ((1 - then) * clean + then * self._noise(clean),)

    def _noise(self, like: torch.Tensor) -> torch.Tensor:
        """Draw the noise after the current step: the same after a restore, and independent of other random draws.

        Drawn on the CPU, like a clip's initial noise, so that a seed means the same on every device.
        """
        generator = torch.Generator("cpu").manual_seed(self._seed)
        for _ in range(self._index):
            torch.randn(like.shape, generator=generator, dtype=torch.float32)
        return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like.device)


def level_of(time: int, shift: float) -> float:
    """Return the noise level at a timestep: that of the nearest of the 1000 shifted timesteps.

    Timestep t of 1000 is at s = t / 1000, and after the shift at shift s / (1 + (shift - 1) s), which is also its noise
    level.
    """
    plain = (index / TRAINING_TIMES for index in range(TRAINING_TIMES, 0, -1))
    shifted = [shift * one / (1 + (shift - 1) * one) for one in plain]
    return min(shifted, key=lambda one: abs(one * TRAINING_TIMES - time))


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """The state of a scheduler after `index` steps; only UniPC's is more than the index."""

    index: int  #: steps done
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


def scheduler_state(scheduler: Any, index: int) -> SchedulerState:
    """Return the state that the next step depends on; the tensors are the scheduler's own, not copies."""
    if not isinstance(scheduler, UniPCMultistepScheduler) or index == 0:
        return SchedulerState(index)
    # The last outputs as clean latents, newest last; None while the run is shorter than the solver's order.
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
    """Restore a state into a fresh scheduler that has its timesteps.

    Raises:
        KeyError: part of the state is missing; the scheduler was not changed.
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
    scheduler.set_begin_index(state.index)  # the next step starts there
