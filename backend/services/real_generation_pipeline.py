"""One attempt at a task, from request to finished video file: picks what the request needs and orders the parts.

Does not know the database: `report` is how others follow the run and stop it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from backend.core.catalogue.table import Mode, find_model
from backend.core.domain import Output, Phase, Progress, Stage
from backend.core.errors.base import WanError
from backend.core.errors.generation import NonFiniteLatents, OutOfMemory
from backend.core.errors.interruptions import Interrupted
from backend.core.errors.lookups import LatentsNotKept
from backend.core.errors.models import ModelDamaged
from backend.core.errors.requests import InvalidRequest
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.memory_plan import Placement
from backend.core.requests.forms import GenerationRequest
from backend.engine.device.stop_points import stop_points
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.state.kept_latents import read_latents
from backend.models.lora.library import LoraLibrary
from backend.services.run.clip_writer import Clip, ClipWriter, Substitution
from backend.services.run.clock import EXPERT_PHASE, PhaseClock, plan_phases
from backend.services.run.denoising import DenoisingRun, OpenLora
from backend.services.run.files import AttemptFiles
from backend.services.run.memory_watch import Alerted, MemoryWatch, RunMemory
from backend.services.run.model_fetch import Admit, ModelFetch, Paused, never_paused
from backend.services.run.out_of_memory import Rungs
from backend.services.run.report import Report, RunReport
from backend.services.run.start_plans import StartPlan, StartPlans
from backend.services.run.weights_check import changed_files, in_words, put_changed_away

#: During denoising, the state is saved at least this often.
STATE_SECONDS = 30.0


def _go_on() -> None:
    pass


def _admit_all(_request: GenerationRequest, _model_bytes: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How runs are carried out; the defaults suit a single unsupervised run."""

    open_lora: OpenLora | None = None  #: finds a LoRA's file by its reference; None = in the home's library
    state_seconds: float = STATE_SECONDS  #: longest denoising without a saved state; 0 = save after every step
    oom_policy: OomPolicy = OomPolicy.QUALITY  #: what may be given up when memory runs out
    admit: Admit = _admit_all  #: refuses a model that this machine cannot run, before it is downloaded
    paused: Paused = never_paused  #: whether the download of a model is paused
    start_plans: StartPlans = field(default_factory=StartPlans)  #: the memory plans that runs start with
    watch: MemoryWatch | None = None  #: samples the memory; None = the peaks are unknown
    alerted: Alerted = lambda alert, unloaded: None  #: receives memory alerts


class RealGenerationPipeline:
    """Runs requests on real models, one at a time."""

    def __init__(
        self, bridge: ModelIntegrationBridge[WanComponents], home: Home, options: RunOptions | None = None
    ) -> None:
        self._bridge = bridge
        self._home = home.create()  # once: a folder that is missing later is on a disk that was unmounted
        self._options = options or RunOptions()
        self._open_lora = self._options.open_lora or LoraLibrary(home).open_file
        self._used: WanComponents | None = None  #: what the current run computes with

    def generate(
        self,
        task_id: str,
        request: GenerationRequest,
        *,
        report: Report,
        poll: Callable[[], None] | None = None,
        instead_of: Substitution | None = None,
    ) -> Output:
        """Generate the video of a task and return its output.

        A request that names kept latents is decoded again without denoising. Saved states stay on disk until the task
        has ended (`Leftovers` removes them); the next attempt resumes from them.

        Args:
            task_id: names the files.
            request: every value that decides the pixels.
            report: called at every phase, step and chunk; what it raises stops the run (`Interrupted`).
            poll: called before every layer of a model; what it raises stops the run as well.
            instead_of: the model that the task asked for, if this request replaces its own, and why.

        Raises:
            Interrupted: `report` asked to stop, or (DownloadPaused) the download of the model is paused; only
                saved states, and what has been downloaded of the model, stay on disk.
            InvalidRequest: the model does not support the request.
            InputMissing, LatentsNotKept, StateMismatch: what the request starts from is missing or does not match.
            ModelUnavailable, ModelDamaged: the model cannot be used, or not be downloaded.
            DoesNotFit: a model that would have to be downloaded cannot run here; nothing was downloaded.
            GenerationFailed: non-finite values, out of memory, a LoRA, or the encoder failed.
            StorageFull: the disk is full.
        """
        started = time.monotonic()
        if request.latents_of is not None and not self._home.latents_of(request.latents_of).is_file():
            raise LatentsNotKept
        self._used = None
        plans = self._options.start_plans
        memory = RunMemory(self._options.watch, self._options.alerted, self._unload_unused)

        def report_and_relieve(progress: Progress) -> None:
            report(progress)
            memory.relieve()

        with stop_points(poll or _go_on), AttemptFiles(self._home, task_id) as files:
            model = self._bridge.availability(request.model)
            planned, fetch = plans.planned(request), model.would_fetch
            phases = plan_phases(model.spec, request, planned.seconds, warm=model.loaded, fetch=fetch)
            clock = PhaseClock(phases)
            progress = RunReport(clock, report_and_relieve, request.steps)
            progress.update(Stage.INITIALIZING, "Starting")
            if fetch:
                ModelFetch(self._bridge, request, progress, self._options.admit, self._options.paused).run()
                progress.saved_step = 0
                started = time.monotonic()  # a model's first download does not count towards a video's time
                planned = plans.planned(request)  # more is known about an installed model
            try:
                clip = self._latents(request, planned, files, progress)
                output = ClipWriter(files, task_id, request, progress, memory, instead_of).write(clip)
            except NonFiniteLatents as error:
                raise self._explained(error) from error
            except OutOfMemory:
                self._bridge.unload()  # it may be halfway to another plan, and its memory is needed
                raise
            except Interrupted:
                if self._used is not None and self._used.plan.placement is not Placement.RESIDENT:
                    self._bridge.unload()  # some of its blocks may be on their way to the device
                raise
        self._replace_changed(clip.components)
        plans.learn(request, clip.components.fingerprint, clip.components.plan, clip.rungs.taken)
        return replace(output, generation_seconds=time.monotonic() - started)

    def generate_t2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Generate a video from text, as `generate` does."""
        return self._generate_in(Mode.T2V, task_id, request, report)

    def generate_i2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Generate a video from a start image, optionally an end image, and text, as `generate` does."""
        return self._generate_in(Mode.I2V, task_id, request, report)

    def generate_ti2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Generate a video from text, with or without a start image, as `generate` does."""
        return self._generate_in(Mode.TI2V, task_id, request, report)

    def _generate_in(self, mode: Mode, task_id: str, request: GenerationRequest, report: Report) -> Output:
        spec = find_model(request.model)
        if spec.mode is not mode:
            raise InvalidRequest(f"{spec.id} is a {spec.mode} model, not a {mode} one")
        return self.generate(task_id, request, report=report)

    def preload(self, request: GenerationRequest) -> None:
        """Load the model for future requests, under the plan that a run of this one would start with.

        Raises like `generate`.
        """
        rungs = self._rungs(request)
        components = rungs.load(partial(self._bridge.prepare, request), self._start(request).plan)
        self._options.start_plans.learn(request, components.fingerprint, components.plan, rungs.taken)

    def _rungs(self, request: GenerationRequest, report: RunReport | None = None) -> Rungs:
        return Rungs(self._options.oom_policy, request, report, float32=self._bridge.precision == "float32")

    def _start(self, request: GenerationRequest, planned: StartPlan | None = None) -> StartPlan:
        return self._options.start_plans.choose(request, self._bridge.fingerprint(request.model), planned)

    def _latents(self, request: GenerationRequest, planned: StartPlan, files: AttemptFiles, report: RunReport) -> Clip:
        """Load the model and return the final latents, denoised now or kept by an earlier video."""
        source = request.latents_of
        start = self._start(request, planned)
        what = request.model if source is None else f"the decoder of {request.model}"
        report.begin(Phase.LOAD, f"Loading {what}")
        rungs = self._rungs(request, report)
        load = self._bridge.prepare if source is None else self._bridge.decoder
        components = self._used = rungs.load(partial(load, request), start.plan)
        if source is not None:
            kept = read_latents(self._home.latents_of(source), components, request)
            report.clock.advance()
            return Clip(
                latents=kept.latents,
                components=components,
                weights_sha256=kept.weights_sha256,
                expert_steps=dict.fromkeys(EXPERT_PHASE, 0),
                loras=kept.loras,
                resumed_from_step=None,
                rungs=rungs,
                plan_reason=start.reason,
            )
        report.clock.advance()
        run = DenoisingRun(
            components,
            request,
            files,
            report,
            rungs,
            open_lora=self._open_lora,
            state_seconds=self._options.state_seconds,
        )
        job = run.run()
        return Clip(
            latents=job.latents,
            components=components,
            weights_sha256=None,
            expert_steps={expert: job.steps_of(expert) for expert in EXPERT_PHASE},
            loras=() if job.loras is None else tuple(receipt.to_json() for receipt in job.loras.receipts),
            resumed_from_step=run.resumed_from,
            rungs=rungs,
            plan_reason=start.reason,
        )

    def _explained(self, error: NonFiniteLatents) -> WanError:
        """Return why the values were not numbers: weights that have changed on disk, or else the error itself."""
        components = self._used
        changed = () if components is None else self._replace_changed(components)
        return ModelDamaged(in_words(components, list(changed))) if components is not None and changed else error

    def _replace_changed(self, components: WanComponents) -> tuple[str, ...]:
        """Put changed weight files away, so that the next task downloads them again; return their names."""
        changed = changed_files(components)
        if changed:
            put_changed_away(self._home, components, changed)
            self._bridge.unload()
        return tuple(changed)

    def _unload_unused(self) -> tuple[str, ...]:
        """Unload a model that this run does not use; return its name."""
        # Until the run has its model, the loaded one may be it.
        unloaded = None if self._used is None else self._bridge.unload_unless(self._used)
        return () if unloaded is None else (unloaded,)
