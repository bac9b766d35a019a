"""The denoising loop, one step at a time.

Equal to `diffusers.WanPipeline.__call__` (0.42.1) to the bit, but it can be stopped, watched and
interleaved between any two steps. Does not know tasks, files or progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from backend.core.errors import NonFiniteLatents
from backend.core.faults import fault_point
from backend.core.requests import GenerationRequest, Scheduler
from backend.engine.conditioning import TextConditioning, encode_text, initial_noise
from backend.engine.failures import device_errors
from backend.engine.pipeline_loader import WanComponents

HIGH = "high"
LOW = "low"


def build_scheduler(config: dict[str, Any], request: GenerationRequest) -> Any:
    """Make a fresh scheduler for one job; the flow shift comes from the request, not from the folder."""
    if request.scheduler is Scheduler.EULER:
        return FlowMatchEulerDiscreteScheduler.from_config(config, shift=request.flow_shift)
    return UniPCMultistepScheduler.from_config(
        config, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=request.flow_shift
    )


@dataclass(slots=True)
class DenoiseJob:
    """One clip on its way from noise to latents; owns its scheduler, so jobs may take turns on one model."""

    components: WanComponents
    request: GenerationRequest
    text: TextConditioning
    scheduler: Any
    timesteps: torch.Tensor  #: [total_steps], on the device
    plan: tuple[str, ...]  #: the expert of every step
    #: [1, C, T, H/s, W/s], normalised as the VAE's config says; float32, but Euler leaves the transformer's precision.
    latents: torch.Tensor
    index: int = 0  #: steps done
    _estimate: torch.Tensor | None = None

    @classmethod
    def start(cls, components: WanComponents, request: GenerationRequest) -> DenoiseJob:
        """Encode the prompt, draw the noise and plan the steps.

        Raises:
            OutOfMemory: the text encoder did not fit.
        """
        text = encode_text(components, request)
        scheduler = build_scheduler(components.scheduler_config, request)
        scheduler.set_timesteps(request.steps, device=components.device)
        scheduler.set_begin_index(0)
        timesteps: torch.Tensor = scheduler.timesteps
        if components.boundary_ratio is None:
            plan = (HIGH,) * len(timesteps)
        else:
            boundary = components.boundary_ratio * scheduler.config.num_train_timesteps
            plan = tuple(HIGH if high else LOW for high in (timesteps >= boundary).tolist())
        return cls(components, request, text, scheduler, timesteps, plan, initial_noise(components, request))

    @property
    def total_steps(self) -> int:
        """How many steps the run has."""
        return len(self.plan)

    @property
    def done(self) -> bool:
        """Whether every step is done."""
        return self.index >= self.total_steps

    @property
    def expert(self) -> str:
        """Who makes the next step, or made the last one: "high" or "low"."""
        return self.plan[min(self.index, self.total_steps - 1)]

    def steps_of(self, expert: str) -> int:
        """How many steps of the whole run belong to an expert."""
        return self.plan.count(expert)

    @property
    def estimate(self) -> torch.Tensor:
        """The clean latents as the last step foresaw them, same shape as `latents`; for previews."""
        return self.latents if self._estimate is None else self._estimate

    @torch.no_grad()
    def step(self) -> None:
        """Make one step.

        Raises:
            NonFiniteLatents: the step gave values that are not numbers; the job cannot go on.
            OutOfMemory: the transformer did not fit.
        """
        fault_point("denoise.step")
        with device_errors(f"denoising step {self.index + 1}"):
            self._step()
        if not bool(torch.isfinite(self.latents).all()):
            raise NonFiniteLatents(
                f"Step {self.index} of {self.total_steps} ({self.plan[self.index - 1]}-noise expert) produced values "
                "that are not numbers, so the run was stopped"
            )

    def _step(self) -> None:
        request, components = self.request, self.components
        t = self.timesteps[self.index]
        model, guidance = components.transformer, request.guidance_scale
        if self.expert == LOW:
            model = components.transformer_2
            if request.guidance_scale_2 is not None:  # else one scale serves both experts, as in the pipeline
                guidance = request.guidance_scale_2
        model_input = self.latents.to(components.transformer.dtype)
        timestep = self._timestep(t)

        def predict(embeds: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = model(
                hidden_states=model_input, timestep=timestep, encoder_hidden_states=embeds, return_dict=False
            )[0]
            return out

        prediction = predict(self.text.prompt)
        if self.text.negative is not None:
            # The order of these operations decides the last bit; it is the pipeline's.
            negative = predict(self.text.negative)
            prediction = negative + guidance * (prediction - negative)
        sigma = self.scheduler.sigmas[self.index].to(self.latents.device, torch.float32)
        self._estimate = self.latents - sigma * prediction.to(torch.float32)
        self.latents = self.scheduler.step(prediction, t, self.latents, return_dict=False)[0]
        self.index += 1

    def _timestep(self, t: torch.Tensor) -> torch.Tensor:
        if not self.components.expand_timesteps:
            return t.expand(self.latents.shape[0])
        # TI2V wants one time for each token; without an image they are all the same.
        frames, height, width = self.latents.shape[2:]
        per_token = torch.ones(frames, height, width, dtype=torch.float32, device=self.latents.device)
        return (per_token[:, ::2, ::2] * t).flatten().unsqueeze(0).expand(self.latents.shape[0], -1)
