"""What a scheduler remembers between two steps: taken out of one and put into a fresh one of the same schedule.

Knows diffusers' two samplers (0.42.1), and that the one for distilled models remembers as little as Euler. Knows
nothing about jobs or files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler


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
