"""One attempt at a task, from request to finished video file.

Chooses the way that the model's mode and the request ask for, and puts the parts in order. Does not know the
database: `report` is how the outside sees the run and stops it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from backend.core.catalogue.table import Mode, find_model
from backend.core.domain import Output, Stage
from backend.core.errors import InvalidRequest, LatentsNotKept, OutOfMemory
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.memory_ladder import MemoryLadder, MemoryUse, OomPolicy
from backend.core.requests import GenerationRequest
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.state.kept_latents import read_latents
from backend.models.lora.library import LoraLibrary
from backend.services.media.images import InputStore
from backend.services.run.clip_writer import Clip, ClipWriter
from backend.services.run.clock import EXPERT_PHASE, CostHistory, Phase, PhaseClock, learn, plan_phases
from backend.services.run.denoising import DenoisingRun, OpenLora
from backend.services.run.files import AttemptFiles, StateFiles
from backend.services.run.memory_plans import StartPlan, StartPlans
from backend.services.run.memory_watch import Alerted, MemoryWatch, RunMemory
from backend.services.run.model_fetch import Admit, ModelFetch, Paused, never_paused
from backend.services.run.report import Report, RunReport

#: While steps are made, the state is saved at least this often.
STATE_SECONDS = 30.0


def _admit_all(_request: GenerationRequest, _model_bytes: int) -> None:
    pass


class RealGenerationPipeline:
    """Runs requests on real models, one at a time; remembers how long phases take on this machine."""

    def __init__(
        self,
        bridge: ModelIntegrationBridge[WanComponents],
        home: Home,
        *,
        open_lora: OpenLora | None = None,
        state_seconds: float = STATE_SECONDS,
        oom_policy: OomPolicy = OomPolicy.QUALITY,
        admit: Admit = _admit_all,
        paused: Paused = never_paused,
        start_plans: StartPlans | None = None,
        watch: MemoryWatch | None = None,
        alerted: Alerted = lambda alert, given_up: None,
    ) -> None:
        """Prepare.

        Args:
            bridge: gives the models.
            home: where inputs, states and outputs lie.
            open_lora: finds a LoRA's file by its reference; None = in this home's library.
            state_seconds: longest time of denoising without a saved state; 0 = one after every step.
            oom_policy: what may be given up when memory runs out.
            admit: says of a model that would be fetched whether this machine can run it.
            paused: says of a model that is being fetched whether somebody paused that.
            start_plans: with which memory plan a run begins; None = with everything on the device.
            watch: who looks at the memory; None = nobody, and the peaks are unknown.
            alerted: who hears that memory gets full.
        """
        self._bridge = bridge
        self._home = home
        self._open_lora = open_lora or LoraLibrary(home).open_file
        self._state_seconds = state_seconds
        self._oom_policy = oom_policy
        self._admit = admit
        self._paused = paused
        self._start_plans = start_plans or StartPlans()
        self._watch = watch
        self._alerted = alerted
        self._used: WanComponents | None = None  #: what the present run computes with
        self._history = CostHistory()

    def learn(self, outputs: Iterable[Output], device: str) -> None:
        """Take over what recorded videos, newest first, say about this device's speed."""
        learn(self._history, outputs, device)

    def generate(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Make the video of a task and return its record.

        A request that names kept latents is decoded again without denoising; every other one goes the way of
        its model's mode. Saved states stay on disk until the task has ended (`Leftovers` removes them); the next
        attempt goes on from them.

        Args:
            task_id: names the files.
            request: every value that decides the pixels.
            report: called at every phase, step and chunk; what it raises stops the run (`Interrupted`).

        Raises:
            Interrupted: `report` asked to stop, or (DownloadPaused) somebody paused the download of the model; nothing
                but states, and what has arrived of the model, is left on disk.
            InvalidRequest: the model cannot do what the request says.
            InputMissing, LatentsNotKept, StateMismatch: what the request starts from is not here, or not its own.
            ModelUnavailable, ModelDamaged: the model cannot be used, or not be fetched.
            DoesNotFit: a model that would have to be fetched cannot run here; nothing was fetched.
            GenerationFailed: non-finite values, no memory, a LoRA, or the encoder failed.
            StorageFull: the disk is full.
        """
        if request.latents_of is not None:
            return self._make(task_id, request, report)
        ways = {Mode.T2V: self.generate_t2v, Mode.I2V: self.generate_i2v, Mode.TI2V: self.generate_ti2v}
        return ways[find_model(request.model).mode](task_id, request, report=report)

    def generate_t2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Make a video from text, as `generate` does."""
        return self._make_by(Mode.T2V, task_id, request, report)

    def generate_i2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Make a video from a start image, perhaps an end image, and text, as `generate` does."""
        return self._make_by(Mode.I2V, task_id, request, report)

    def generate_ti2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Make a video from text, with or without a start image, as `generate` does."""
        return self._make_by(Mode.TI2V, task_id, request, report)

    def _make_by(self, mode: Mode, task_id: str, request: GenerationRequest, report: Report) -> Output:
        spec = find_model(request.model)
        if spec.mode is not mode:
            raise InvalidRequest(f"{spec.id} is a {spec.mode} model, not a {mode} one")
        return self._make(task_id, request, report)

    def _make(self, task_id: str, request: GenerationRequest, report: Report) -> Output:
        started = time.monotonic()
        if request.latents_of is not None and not self._home.latents_of(request.latents_of).is_file():
            raise LatentsNotKept
        with AttemptFiles(self._home, task_id) as files:
            fetch = self._bridge.would_fetch(request.model)
            plan = plan_phases(request, warm=not fetch and self._bridge.is_warm(request.model), fetch=fetch)
            clock = PhaseClock(request.model, plan, self._history)
            self._used = None
            memory = RunMemory(self._watch, report, self._alerted, self._give_up_unused)
            said = RunReport(clock, memory.report, request.steps)
            said.update(Stage.INITIALIZING, "Starting")
            if fetch:
                ModelFetch(self._bridge, request, said, self._admit, self._paused).run()
                started = time.monotonic()  # a video is not said to take longer for the model's first way here
            try:
                if request.latents_of is None:
                    clip = self._denoised(task_id, request, files, said)
                else:
                    clip = self._kept(request.latents_of, request, said)
                output = ClipWriter(self._bridge, files, task_id, request, said, memory).write(clip)
            except OutOfMemory:
                self._bridge.unload()  # it may have been on its way to another plan, and its memory is wanted
                raise
            clock.finish()
        components = clip.components
        self._start_plans.learn(request, components.fingerprint, components.plan, clip.ladder.taken)
        return replace(output, generation_seconds=time.monotonic() - started)

    def preload(self, request: GenerationRequest) -> None:
        """Load the model of a request that has not come yet, under the plan with which its run would begin.

        Raises like `generate`.
        """
        ladder = MemoryLadder(self._oom_policy, _side(request))
        components = self._load(request, self._start(request), ladder)
        self._start_plans.learn(request, components.fingerprint, components.plan, ladder.taken)

    def _start(self, request: GenerationRequest) -> StartPlan:
        return self._start_plans.choose(request, self._bridge.fingerprint(request.model))

    def _denoised(self, task_id: str, request: GenerationRequest, files: AttemptFiles, report: RunReport) -> Clip:
        report.begin(Phase.LOAD, f"Loading {request.model}")
        ladder = MemoryLadder(self._oom_policy, _side(request))
        start = self._start(request)
        components = self._used = self._load(request, start, ladder, report)
        report.clock.advance()
        run = DenoisingRun(
            components,
            request,
            inputs=InputStore(self._home),
            open_lora=self._open_lora,
            files=files,
            states=StateFiles(self._home, task_id),
            state_seconds=self._state_seconds,
            report=report,
            ladder=ladder,
        )
        job = run.run()
        return Clip(
            latents=job.latents,
            components=components,
            weights_sha256=None,
            expert_steps={expert: job.steps_of(expert) for expert in EXPERT_PHASE},
            loras=() if job.loras is None else tuple(receipt.to_json() for receipt in job.loras.receipts),
            resumed_from_step=run.resumed_from,
            ladder=ladder,
            plan_reason=start.reason,
        )

    def _load(
        self, request: GenerationRequest, start: StartPlan, ladder: MemoryLadder, report: RunReport | None = None
    ) -> WanComponents:
        """Load the model, or the decoder of a request that only decodes, under the first plan that fits."""
        bridge, plan = self._bridge, start.plan
        load = bridge.prepare if request.latents_of is None else bridge.decoder
        while True:
            try:
                return load(request, plan)
            except OutOfMemory as error:
                plan = ladder.down(plan, error, MemoryUse.LOAD)
            if report is not None:
                report.fell_back(Stage.LOADING_MODEL, ladder.taken[-1].sentence)

    def _give_up_unused(self) -> tuple[str, ...]:
        """Forget a model that is loaded and not what this run computes with; say which."""
        # Until the run has its model, the loaded one may be it.
        forgotten = None if self._used is None else self._bridge.unload_unless(self._used)
        return () if forgotten is None else (forgotten,)

    def _kept(self, source: str, request: GenerationRequest, report: RunReport) -> Clip:
        """Read the latents that an earlier video kept."""
        report.begin(Phase.LOAD, f"Loading the decoder of {request.model}")
        ladder = MemoryLadder(self._oom_policy, _side(request))
        start = self._start(request)
        components = self._used = self._load(request, start, ladder, report)
        kept = read_latents(self._home.latents_of(source), components, request)
        report.clock.advance()
        return Clip(
            latents=kept.latents,
            components=components,
            weights_sha256=kept.weights_sha256,
            expert_steps=dict.fromkeys(EXPERT_PHASE, 0),
            loras=kept.loras,
            resumed_from_step=None,
            ladder=ladder,
            plan_reason=start.reason,
        )


def _side(request: GenerationRequest) -> int:
    return max(request.width, request.height)
