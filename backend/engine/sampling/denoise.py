"""The denoising loop, one step at a time.

Bit-identical to `__call__` of diffusers' `WanPipeline` and `WanImageToVideoPipeline` (0.42.1) for their samplers, but
it can be stopped, observed, saved and interleaved between any two steps. Knows nothing about tasks, files or progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.errors.generation import NonFiniteLatents, OutOfMemory
from backend.core.errors.interruptions import Interrupted
from backend.core.faults import fault_point
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.requests.forms import GenerationRequest, Scheduler
from backend.core.requests.rules import check_sampler, guidance_plan
from backend.engine.failures import device_errors
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.lora.stack import LoraStack
from backend.engine.sampling.conditioning import (
    LatentConditioning,
    Picture,
    TextConditioning,
    encode_text,
    encoded_as,
    prepare_latents,
)
from backend.engine.sampling.samplers import RenoisingSampler, restore_scheduler, scheduler_state


def build_scheduler(components: WanComponents, request: GenerationRequest) -> Any:
    """Build a fresh scheduler for one job; the flow shift comes from the request, not from the folder.

    Raises:
        InvalidRequest: the sampler is not for this model.
    """
    check_sampler(components.spec, request.scheduler)
    config = components.scheduler_config
    if request.scheduler is Scheduler.DMD:
        return RenoisingSampler(components.spec.renoise_at, request.flow_shift, request.seed)
    if request.scheduler is Scheduler.EULER:
        return FlowMatchEulerDiscreteScheduler.from_config(config, shift=request.flow_shift)
    return UniPCMultistepScheduler.from_config(
        config, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=request.flow_shift
    )


def _ready_scheduler(components: WanComponents, request: GenerationRequest) -> Any:
    """Build a scheduler positioned at the first step."""
    scheduler = build_scheduler(components, request)
    scheduler.set_timesteps(request.steps, device=components.device)
    # WanImageToVideoPipeline leaves this to the scheduler, which then searches its list for the first timestep:
    # the same, unless a strong shift rounds the first two timesteps to one value. Then it would skip a step and fail.
    scheduler.set_begin_index(0)
    return scheduler


@dataclass(slots=True)
class DenoiseJob:
    """One clip between noise and final latents; owns its scheduler, so jobs may take turns on one model."""

    components: WanComponents
    request: GenerationRequest
    text: TextConditioning
    given: LatentConditioning
    scheduler: Any
    timesteps: torch.Tensor  #: [total_steps], on the device
    plan: tuple[str, ...]  #: the expert of every step
    scales: tuple[float | None, ...]  #: the guidance scale of every step; None = unguided, a single pass
    loras: LoraStack | None
    encoded_as: str | None  #: how the memory plan changed bits of text or image; None = not at all
    #: [1, C, T, H/s, W/s], normalised by the VAE's config; float32, but Euler returns the transformer's precision.
    latents: torch.Tensor
    index: int = 0  #: steps done
    _estimate: torch.Tensor | None = None

    @classmethod
    def start(
        cls,
        components: WanComponents,
        request: GenerationRequest,
        *,
        image: Picture | None = None,
        end_image: Picture | None = None,
        loras: LoraStack | None = None,
    ) -> DenoiseJob:
        """Encode the prompt and images, draw the noise and plan the steps.

        Args:
            components: the loaded model.
            request: every value that affects the latents.
            image: the first frame, uint8 RGB [height, width, 3] of the request's size; I2V needs it, TI2V accepts it.
            end_image: the last frame, in the same form; I2V accepts it.
            loras: activated before every step; None = no LoRAs.

        Raises:
            ImageRequired, ImageNotAccepted: the model needs an image, or takes none or only one.
            InvalidRequest: a picture's size differs from the request's, or the sampler is not for this model.
            OutOfMemory: the text encoder or the VAE's encoder did not fit.
        """
        scheduler = _ready_scheduler(components, request)
        timesteps: torch.Tensor = scheduler.timesteps
        if components.boundary_ratio is None:
            plan = (HIGH,) * len(timesteps)
        else:
            boundary = components.boundary_ratio * scheduler.config.num_train_timesteps
            plan = tuple(HIGH if high else LOW for high in (timesteps >= boundary).tolist())
        scales = guidance_plan(request, plan)
        text = encode_text(components, request, guided=any(scale is not None for scale in scales))
        given = prepare_latents(components, request, image, end_image)
        return cls(
            components=components,
            request=request,
            text=text,
            given=given,
            encoded_as=encoded_as(components, request, with_image=image is not None),
            scheduler=scheduler,
            timesteps=timesteps,
            plan=plan,
            scales=scales,
            loras=loras,
            latents=given.noise,
        )

    @property
    def total_steps(self) -> int:
        """The number of steps of the run."""
        return len(self.plan)

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.index >= self.total_steps

    @property
    def expert(self) -> str:
        """The expert of the next step, or of the last one once done: "high" or "low"."""
        return self.plan[min(self.index, self.total_steps - 1)]

    def by_expert(self, index: int) -> str:
        """Return which expert takes a step, in brackets to follow its number; empty for a model that has one."""
        return "" if self.components.boundary_ratio is None else f" ({self.plan[index]}-noise expert)"

    @property
    def forwards(self) -> list[tuple[str, int]]:
        """The expert of every step and the number of its forwards."""
        return [(expert, 1 if scale is None else 2) for expert, scale in zip(self.plan, self.scales, strict=True)]

    def steps_of(self, expert: str) -> int:
        """Return the number of steps of the whole run that use an expert."""
        return self.plan.count(expert)

    @property
    def estimate(self) -> torch.Tensor:
        """The clean latents as predicted by the last step, in the shape of `latents`; for previews."""
        return self.latents if self._estimate is None else self._estimate

    @torch.no_grad()
    def step(self) -> None:
        """Run one step.

        Raises:
            NonFiniteLatents: the step produced NaN or infinity; the job cannot continue.
            OutOfMemory: the transformer did not fit; the job is as before the step, which can be repeated.
            Interrupted: the run was stopped between two layers; the job is as before the step, too.
        """
        memory, latents, estimate = scheduler_state(self.scheduler, self.index), self.latents, self._estimate
        try:
            with device_errors(f"denoising step {self.index + 1}", MemoryUse.STEP):
                fault_point("denoise.step")
                self._step()
        except (OutOfMemory, Interrupted):
            # A scheduler stores its outputs one by one, so it may hold half a step.
            self.latents, self._estimate, self.index = latents, estimate, memory.index
            self.scheduler = _ready_scheduler(self.components, self.request)
            restore_scheduler(self.scheduler, memory, latents.device)
            raise
        if not bool(torch.isfinite(self.latents).all()):
            raise NonFiniteLatents(
                f"Step {self.index} of {self.total_steps}{self.by_expert(self.index - 1)} produced values that are not "
                "numbers, so the run was stopped"
            )

    def _step(self) -> None:
        components = self.components
        t, scale = self.timesteps[self.index], self.scales[self.index]
        model: Any = components.transformer if self.expert == HIGH else components.transformer_2
        if self.loras is None:
            LoraStack.deactivate(model)  # another job's LoRAs may still be on
        else:
            self.loras.activate(self.expert, model)
        components.layout.hold(model)
        model_input = self._model_input().to(components.transformer.dtype)
        timestep = self._timestep(t)

        def predict(embeds: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = model(
                hidden_states=model_input,
                timestep=timestep,
                encoder_hidden_states=embeds,
                encoder_hidden_states_image=self.given.tokens,
                return_dict=False,
            )[0]
            return out

        prediction = predict(self.text.prompt)
        if scale is not None and self.text.negative is not None:
            # The order of these operations decides the last bit; it is the pipeline's order.
            negative = predict(self.text.negative)
            prediction = negative + scale * (prediction - negative)
        sigma = self.scheduler.sigmas[self.index].to(self.latents.device, torch.float32)
        self._estimate = self._with_image(self.latents - sigma * prediction.to(torch.float32))
        self.latents = self.scheduler.step(prediction, t, self.latents, return_dict=False)[0]
        self.index += 1
        if self.done:
            self.latents = self._with_image(self.latents)

    def _model_input(self) -> torch.Tensor:
        """Return the transformer's input: the latents with the image replacing a frame (TI2V) or concatenated (I2V)."""
        image = self.given.image
        if image is None or self.given.mask is not None:
            return self._with_image(self.latents)
        return torch.cat([self.latents, image], dim=1)

    def _with_image(self, latents: torch.Tensor) -> torch.Tensor:
        """Replace the first latent frame with the image, if the model works that way."""
        image, mask = self.given.image, self.given.mask
        if image is None or mask is None:
            return latents
        return (1 - mask) * image + mask * latents

    def _timestep(self, t: torch.Tensor) -> torch.Tensor:
        if self.given.mask is None:
            return t.expand(self.latents.shape[0])
        # TI2V takes one timestep per token of 2x2 latents; it is 0 in the image's frame.
        per_token = self.given.mask[0][0][:, ::2, ::2] * t
        return per_token.flatten().unsqueeze(0).expand(self.latents.shape[0], -1)
