"""Opens a model folder as a set of ready components on one device.

Safetensors and GGUF only, local files only, no code from the folder; components are read and placed one at a time.
Knows devices and precision; knows nothing about requests, tasks or where models are stored.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import diffusers
import diffusers.utils.logging as diffusers_logging
import torch
import transformers.utils.logging as transformers_logging
from safetensors import SafetensorError
from torch import nn

from backend.core.catalogue.spec import PIPELINES
from backend.core.catalogue.table import Mode, ModelSpec
from backend.core.faults import fault_point
from backend.core.formats.tensors import UnreadableWeights
from backend.core.planning.abilities import NATIVE
from backend.core.planning.footprint import CUDA_CONTEXT
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.planning.memory_plan import MemoryPlan
from backend.engine.device.attention import use_kernel
from backend.engine.device.convolution import use_convolution
from backend.engine.failures import device_errors
from backend.engine.loading.component_loader import Fitting, build_component, fill, fit
from backend.engine.loading.configurations import RefusedConfiguration, clean_folder
from backend.engine.loading.model_files import ModelFiles, check_model_files, read_structure
from backend.engine.loading.weight_files import damaged
from backend.engine.loading.weights_digest import WeightsDigest
from backend.engine.memory.offload import RESIDENT, ModelLayout, reading_place, settle

#: Components that decoding does not need.
_NOT_FOR_DECODING = ("tokenizer", "text_encoder", "transformer", "transformer_2")
_NOT_FOR_DECODING_TOO = ("image_encoder", "image_processor")  #: in models that have them
#: Components that always compute in float32, as in the model cards' examples.
_IN_FLOAT32 = ("vae", "image_encoder")
_LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "av", "ftfy")


@dataclass(frozen=True, slots=True)
class WanComponents:
    """A loaded model: diffusers' own objects, ready on one device."""

    spec: ModelSpec
    folder: Path
    fingerprint: str  #: state of the weight files when they were opened
    pipeline: (
        Any  #: diffusers' pipeline; encode_prompt and prepare_latents are reused, the pipeline itself is never called
    )
    device: torch.device
    digest: WeightsDigest = field(repr=False)
    layout: ModelLayout = field(repr=False)  #: where the weights are now
    attention: str = NATIVE  #: the experts' attention kernel
    convolution: str = NATIVE  #: the VAE's convolutions
    precision: str = "float32"  #: the dtype in which the experts compute

    @property
    def tokenizer(self) -> Any:
        """The tokenizer for prompts."""
        return self.pipeline.tokenizer

    @property
    def text_encoder(self) -> Any:
        """The UMT5 encoder."""
        return self.pipeline.text_encoder

    @property
    def image_encoder(self) -> Any | None:
        """The CLIP encoder of the start image, always in float32; None where the model has none."""
        return getattr(self.pipeline, "image_encoder", None)

    @property
    def vae(self) -> Any:
        """The causal video VAE, always in float32."""
        return self.pipeline.vae

    @property
    def transformer(self) -> Any:
        """The expert for high noise, or the only one."""
        return self.pipeline.transformer

    @property
    def transformer_2(self) -> Any | None:
        """The expert for low noise, where there are two."""
        return self.pipeline.transformer_2

    @property
    def image_pipeline(self) -> Any:
        """The pipeline that starts from an image: I2V's own; for TI2V one built from the same components."""
        if self.spec.mode is Mode.I2V:
            return self.pipeline
        return diffusers.WanImageToVideoPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            scheduler=self.pipeline.scheduler,
            transformer=self.transformer,
            transformer_2=self.transformer_2,
            boundary_ratio=self.boundary_ratio,
            expand_timesteps=self.expand_timesteps,
        )

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """The folder's scheduler settings; every job builds its own scheduler from them."""
        return dict(self.pipeline.scheduler.config)

    @property
    def boundary_ratio(self) -> float | None:
        """The fraction of the training timesteps from which on the high-noise expert is used; None with one expert."""
        ratio: float | None = self.pipeline.config.boundary_ratio
        return ratio

    @property
    def expand_timesteps(self) -> bool:
        """Whether the transformer takes one timestep for each token (TI2V)."""
        return bool(self.pipeline.config.expand_timesteps)

    @property
    def plan(self) -> MemoryPlan:
        """The current memory plan."""
        return self.layout.plan

    def arrange(self, plan: MemoryPlan) -> None:
        """Switch to another plan without reading the files again.

        Raises:
            OutOfMemory: the plan does not fit; the model can no longer be used.
            ValueError: the plan is not one that the current plan `reaches`.
        """
        with device_errors(f"arranging {self.spec.id}", MemoryUse.LOAD):
            self.layout.change(plan)

    @property
    def weights_digest(self) -> str:
        """SHA-256 over all weight files; the first call may wait for it."""
        return self.digest.value

    @property
    def vae_digest(self) -> str:
        """SHA-256 over the weights of the VAE; the first call may wait for it."""
        return self.digest.vae

    @property
    def device_name(self) -> str:
        """The device in words, for a video's record."""
        return _in_words(self.device)


class WanPipelineLoader:
    """Opens model folders for one device; float32 on a CPU, bfloat16 with a float32 VAE on a GPU."""

    def __init__(
        self,
        device: str,
        threads: int = 0,
        *,
        attention: str = NATIVE,
        convolution: str = NATIVE,
        precision: str | None = None,
    ) -> None:
        """Prepare.

        Args:
            device: "cpu", "cuda" or "cuda:N".
            threads: CPU threads of torch; 0 leaves them as they are.
            attention: the experts' attention kernel.
            convolution: the VAE's convolutions.
            precision: dtype of text encoder and experts; None = the class's default.
        """
        self.device = torch.device(device)
        self._attention, self._convolution = attention, convolution
        self.precision = precision or ("float32" if self.device.type == "cpu" else "bfloat16")
        if threads > 0:
            torch.set_num_threads(threads)
        # Their progress bars would end up in the worker's log; our own progress is more precise. The pipeline classes
        # are resolved lazily, after this: the image pipeline would warn that CLIP's image processor lacks torchvision,
        # which it does not need.
        transformers_logging.set_verbosity_error()
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()

    @property
    def device_name(self) -> str:
        """The device in words, as in its videos' records."""
        return _in_words(self.device)

    def build(self, folder: Path, spec: ModelSpec) -> dict[str, nn.Module]:
        """Build every component that has weights from the folder's configurations, without loading them.

        The parameters are on torch's meta device: they have names and shapes but no memory.

        Raises:
            ModelDamaged: a configuration is missing, unusable, or belongs to another model.
            ModelUnavailable: the folder holds a kind of pipeline that this version cannot run.
        """
        return self._build(spec, read_structure(folder, spec))

    def free_bytes(self) -> int | None:
        """Return the card's memory that is free or already this process's own; None on a CPU."""
        if self.device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(self.device)  # creates the CUDA context if there is none, so it counts too
        return int(free) + int(torch.cuda.memory_reserved(self.device)) + CUDA_CONTEXT

    def fingerprint(self, folder: Path, spec: ModelSpec) -> str:
        """Return an identifier that changes when the folder's weight files change. Raises like `load`."""
        return check_model_files(folder, spec).fingerprint

    def load(self, folder: Path, spec: ModelSpec, plan: MemoryPlan = RESIDENT) -> WanComponents:
        """Check the folder, then load it according to the plan.

        Raises:
            ModelDamaged: a file is missing, truncated, or does not hold what the model's class needs.
            ModelUnavailable: the folder holds a kind of pipeline that this version cannot run.
            OutOfMemory: the device cannot hold the model.
        """
        return self._load(folder, spec, plan, without=())

    def load_decoder(self, folder: Path, spec: ModelSpec, plan: MemoryPlan = RESIDENT) -> WanComponents:
        """Check the folder, then load only what turns latents into frames: no text encoder, no experts.

        Raises like `load`.
        """
        without = _NOT_FOR_DECODING + (_NOT_FOR_DECODING_TOO if spec.image_tokens else ())
        return self._load(folder, spec, plan, without=without)

    def _load(self, folder: Path, spec: ModelSpec, plan: MemoryPlan, without: tuple[str, ...]) -> WanComponents:
        files = check_model_files(folder, spec)
        configs = {name: config for name, config in files.configs.items() if name not in without}
        modules = self._build(spec, configs)
        fittings = [fit(spec, name, one, files.components[name], configs[name]) for name, one in modules.items()]
        gc.collect()  # the previous model may still await collection
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        with device_errors(f"loading {spec.id}", MemoryUse.LOAD):
            fault_point("model.load")
            loaded = {fitting.component: self._read(files, spec, fitting, plan) for fitting in fittings}
            pipeline = self._assemble(folder, spec, loaded | dict.fromkeys(without))
            use_kernel(pipeline, self._attention)
            use_convolution(pipeline.vae, self._convolution)
            layout = ModelLayout(pipeline, self.device, plan)
        return WanComponents(
            spec=spec,
            folder=folder,
            fingerprint=files.fingerprint,
            pipeline=pipeline,
            device=self.device,
            digest=WeightsDigest(files, decoder_only=bool(without)),
            layout=layout,
            attention=self._attention,
            convolution=self._convolution,
            precision=self.precision,
        )

    @staticmethod
    def _build(spec: ModelSpec, configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
        modules = {}
        for name, config in configs.items():
            with _misfits(spec):
                modules[name] = build_component(name, config)
        return modules

    def _read(self, files: ModelFiles, spec: ModelSpec, fitting: Fitting, plan: MemoryPlan) -> nn.Module:
        """Read one component and place it according to the plan, so that the next one finds room."""
        name = fitting.component
        main: torch.dtype = torch.float32 if name in _IN_FLOAT32 else getattr(torch, self.precision)
        with _misfits(spec):
            module = fill(fitting, files.configs[name], main, reading_place(name, self.device, plan))
        settle(name, module, self.device, plan)
        return module

    @staticmethod
    def _assemble(folder: Path, spec: ModelSpec, components: dict[str, nn.Module | None]) -> Any:
        """Build diffusers' pipeline from the loaded components and the folder's tokenizer and scheduler."""
        with _misfits(spec), clean_folder(folder) as readable:
            return getattr(diffusers, PIPELINES[spec.mode]).from_pretrained(
                readable, local_files_only=True, use_safetensors=True, **components
            )


@contextmanager
def _misfits(spec: ModelSpec) -> Iterator[None]:
    """Turn whatever the libraries raise for unsuitable files into one error."""
    try:
        yield
    except RefusedConfiguration as error:
        raise damaged(spec, str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, UnreadableWeights) as error:
        raise damaged(spec, f"its files do not fit its classes ({type(error).__name__})") from error


def _in_words(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect the pixels."""
    return {name: metadata.version(name) for name in _LIBRARIES}
