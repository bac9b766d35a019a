"""What ended tasks show about speed: a row of figures for each, and sums over many.

Computes from records alone; what a record does not say is None, never guessed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from backend.core.domain import Phase, Task, TaskStatus
from backend.core.errors.generation import TaskUnreadable
from backend.core.errors.tree import kind_of
from backend.core.planning.memory_plan import Placement
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import GenerationRequest
from backend.store.performance.ended_tasks import EndedTask

_MIB: Final = 1024**2
_DENOISING: Final = (Phase.DENOISE_HIGH, Phase.DENOISE_LOW)
#: Intervals that a trend divides its period into.
_INTERVALS: Final = 12


def mode_of(task: Task) -> str:
    """Return what the task makes its video from, in a word."""
    request = task.request
    if request.get("latents_of"):
        return "redecode"
    if request.get("end_image"):
        return "first_last_frame"
    return "image" if request.get("image") else "text"


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """The figures of one ended task; None = its record does not say."""

    task_id: str
    model: str
    resolution: str
    frames: int
    steps: int
    status: TaskStatus
    start: datetime | None
    end: datetime | None
    wait_seconds: float | None  #: from the submit to the start of its last attempt
    seconds: float | None  #: of its last attempt
    phases: dict[Phase, float]
    peak_vram_mb: float | None
    peak_ram_mb: float | None
    plan: str | None
    error_category: str | None

    @property
    def succeeded(self) -> bool:
        """Whether it completed."""
        return self.status is TaskStatus.COMPLETED

    @property
    def load_seconds(self) -> float | None:
        """How long it waited for its model."""
        return self.phases.get(Phase.LOAD)

    @property
    def placement(self) -> Placement | None:
        """Where the weights were."""
        return next((one for one in Placement if (self.plan or "").startswith(f"{one}-")), None)

    @property
    def quantization(self) -> str | None:
        """How the weights were stored."""
        if self.plan is None or self.placement is None:
            return None
        return self.plan.removeprefix(f"{self.placement}-").partition(" ")[0]

    @property
    def optimizations(self) -> list[str]:
        """The parts of its memory plan that save memory."""
        if self.plan is None or self.placement is None:
            return []
        switches = [one for one in self.plan.partition(" with ")[2].split(" and ") if one]
        moved = [str(self.placement)] if self.placement.offloads else []
        return [*moved, *(["fp8"] if self.quantization == "fp8" else []), *switches]


def figures(ended: Iterable[EndedTask]) -> list[TaskFigures]:
    """Return the figures of tasks; those whose request is damaged are left out."""
    found = []
    for one in ended:
        try:
            found.append(_figures(one))
        except TaskUnreadable:
            continue
    return found


def _figures(ended: EndedTask) -> TaskFigures:
    task = ended.task
    request = GenerationRequest.understood(task.request)
    record = None if ended.output is None else RunRecord.from_json(ended.output.metadata).result
    result = record or RunResult()
    return TaskFigures(
        task_id=task.id,
        model=task.model,
        resolution=request.resolution,
        frames=request.num_frames,
        steps=request.steps,
        status=task.status,
        start=task.started_at,
        end=task.completed_at,
        wait_seconds=None if task.started_at is None else (task.started_at - task.created_at).total_seconds(),
        seconds=ended.seconds,
        phases=result.seconds or {},
        peak_vram_mb=None if result.peak_vram_bytes is None else round(result.peak_vram_bytes / _MIB, 1),
        peak_ram_mb=None if result.peak_ram_bytes is None else round(result.peak_ram_bytes / _MIB, 1),
        plan=result.plan,
        error_category=None if task.error_code is None else kind_of(task.error_code).category.value,
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """The tasks that ended in a part of a period."""

    start: datetime
    tasks: int
    success_rate: float | None
    mean_seconds: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums over ended tasks; cancelled ones say nothing about success or speed."""

    rows: Sequence[TaskFigures]

    @property
    def success_rate(self) -> float | None:
        """Share of completed tasks among those that were not cancelled, 0 to 1; None without any."""
        counted = [row for row in self.rows if row.status is not TaskStatus.CANCELLED]
        return sum(row.succeeded for row in counted) / len(counted) if counted else None

    @property
    def durations(self) -> list[float]:
        """Seconds of the completed tasks, shortest first."""
        return sorted(row.seconds for row in self.rows if row.succeeded and row.seconds is not None)

    @property
    def mean_seconds(self) -> float | None:
        """Mean seconds of the completed tasks."""
        return _mean(self.durations)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which this share of the completed tasks was done; None without any."""
        durations = self.durations
        return durations[max(0, math.ceil(share * len(durations)) - 1)] if durations else None

    @property
    def phase_seconds(self) -> dict[Phase, float]:
        """Seconds that the videos spent in each phase, in the order of a run."""
        sums: Counter[Phase] = Counter()
        for row in self.rows:
            sums.update(row.phases)
        return {phase: sums[phase] for phase in Phase if sums[phase] > 0}

    @property
    def phase_shares(self) -> dict[Phase, float]:
        """The share of each phase, 0 to 1."""
        seconds = self.phase_seconds
        total = sum(seconds.values())
        return {phase: value / total for phase, value in seconds.items()}

    @property
    def efficiency(self) -> float | None:
        """The share of the time that was spent on denoising, 0 to 1; None where no record says."""
        shares = self.phase_shares
        return sum(shares.get(phase, 0.0) for phase in _DENOISING) if shares else None

    @property
    def by_model(self) -> dict[str, Summary]:
        """The same by model, most used first."""
        counts = Counter(row.model for row in self.rows)
        return {model: Summary([row for row in self.rows if row.model == model]) for model, _ in counts.most_common()}

    def trend(self, start: datetime, end: datetime) -> list[Interval]:
        """Divide a period into equal intervals, and return those in which tasks ended, oldest first."""
        length = (end - start) / _INTERVALS
        found: dict[int, list[TaskFigures]] = {}
        for row in self.rows:
            if row.end is not None:
                found.setdefault(min(_INTERVALS - 1, int((row.end - start) / length)), []).append(row)
        return [self._interval(start + number * length, found[number]) for number in sorted(found)]

    @staticmethod
    def _interval(start: datetime, rows: Sequence[TaskFigures]) -> Interval:
        part = Summary(rows)
        return Interval(start, len(rows), part.success_rate, part.mean_seconds)


@dataclass(frozen=True, slots=True)
class Target:
    """How long a clip of some size should take at most, as the earlier application promised its users."""

    name: str
    pixels: range  #: of a frame
    seconds: float
    limit_seconds: float  #: beyond which it counts as too slow


#: Pixels of a frame about 1280x720 and about 1920x1080.
TARGETS: Final = (
    Target("720p", range(800_000, 1_200_000), 300.0, 450.0),
    Target("1080p", range(1_800_000, 2_400_000), 900.0, 1350.0),
)


def meeting(target: Target, rows: Iterable[TaskFigures]) -> Summary:
    """Return the completed tasks of a target's size."""
    return Summary([row for row in rows if row.succeeded and _pixels(row) in target.pixels])


def _pixels(row: TaskFigures) -> int:
    width, height = row.resolution.split("x")
    return int(width) * int(height)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
