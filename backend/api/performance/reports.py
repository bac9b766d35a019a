"""Routes with sums: over the tasks of a period, against targets, and what would help."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Body, Query
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.api.performance.ended import TaskRow, ended_rows, task_row
from backend.api.performance.load import Envelope, Hours, PastStats, ResourcesNow, envelope, past_stats, resources_now
from backend.api.planning.settings import advice
from backend.core.domain import Phase, iso
from backend.services.performance.summary import TARGETS, Interval, Summary, Target, meeting
from backend.services.system.container import Services

router = Routes(prefix="/performance", tags=["performance"])

_DAY_HOURS: Final = 24.0
_WEEK_HOURS: Final = 168.0
#: Rows, samples and presets that one answer shows.
_RECENT, _SAMPLES = 10, 60
#: A phase with a larger share of the time is called a bottleneck.
_LARGE_SHARE: Final = 0.25


class Bottlenecks(BaseModel):
    """Where the time of the videos went."""

    main: str | None = Field(None, description="The phase with the largest share; absent where no record says")
    phase_seconds: dict[str, float]
    phase_shares: dict[str, float] = Field(description="0 to 1")


class TrendPoint(BaseModel):
    """The tasks that ended in a part of the period."""

    start: Timestamp
    tasks: int
    success_rate: float | None = None
    average_generation_time: float | None = None


class Figures(BaseModel):
    """Sums over the tasks of a period; absent = no task says."""

    model_config = ConfigDict(protected_namespaces=())

    total_tasks: int
    left_out: int = Field(description="Older tasks of the period beyond the newest 2000")
    average_generation_time: float | None = Field(None, description="Seconds, of completed tasks")
    success_rate: float | None = Field(None, description="0 to 1, without cancelled tasks")
    resource_efficiency: float | None = Field(None, description="Share of the time that was spent on denoising, 0 to 1")
    bottleneck_analysis: Bottlenecks
    optimization_recommendations: list[str]
    performance_trends: list[TrendPoint] = Field(description="Of twelve equal intervals, those in which tasks ended")


class Analysed(BaseModel):
    """The analysis of a period."""

    time_window_hours: float
    analysis: Figures


class Advice(BaseModel):
    """One thing that would help."""

    kind: str
    message: str
    reason: str
    settings: dict[str, Any] | None = Field(None, description="Values for `POST /api/v1/system/optimization`")


class AdviceList(BaseModel):
    """What would help; may be empty."""

    recommendations: list[Advice]


class Benchmark(BaseModel):
    """The completed tasks of one size against its target."""

    target_seconds: float
    limit_seconds: float = Field(description="Above it, the size counts as too slow")
    videos: int = Field(description="Completed in the last week; no other run is made to measure this")
    average_seconds: float | None = None
    best_seconds: float | None = None
    meets_target: bool | None = Field(None, description="Absent while no video of the size was made")
    within_limit: bool | None = None


class Benchmarks(BaseModel):
    """What finished videos took, against targets."""

    benchmarks: dict[str, Benchmark]


class Optimized(BaseModel):
    """Which preset was put in force, and what else would help."""

    applied: list[str]
    message: str
    recommendations: list[Advice]


class Totals(BaseModel):
    """The tasks of the last day in brief."""

    total_operations_24h: int
    success_rate: float | None = None
    average_duration: float | None = Field(None, description="Seconds")
    p95_duration: float | None = Field(None, description="Seconds")


class Dashboard(BaseModel):
    """All of it in brief, always of now."""

    performance_summary: Totals
    current_resources: ResourcesNow
    operations_by_type: dict[str, int] = Field(description="Ended tasks of each model")
    recent_activity: list[TaskRow]
    bottlenecks: list[str]
    recommendations: list[str]
    resource_trends: list[PastStats]


class ModelReport(BaseModel):
    """The tasks of one model."""

    tasks: int
    success_rate: float | None = None
    average_generation_time: float | None = None
    p95_generation_time: float | None = None
    phase_seconds: dict[str, float]


class Report(BaseModel):
    """A period by model, and the load."""

    hours_back: float
    figures: Figures
    models: dict[str, ModelReport]
    resources: list[PastStats]


@router.get("/analysis", summary="Speed and success over a period")
def analysis(
    services: ServicesDep,
    time_window_hours: Annotated[float, Query(ge=1, le=_WEEK_HOURS, description="How far to look back")] = _DAY_HOURS,
) -> Envelope[Analysed]:
    """Return sums over the tasks that ended, where their time went, and how that changed."""
    found = _figures(services, time_window_hours)[0]
    return envelope(Analysed(time_window_hours=time_window_hours, analysis=found))


@router.get("/recommendations", summary="What would make videos faster")
def recommendations(services: ServicesDep) -> Envelope[AdviceList]:
    """Return what the planner, the finished tasks and the load suggest; may be empty."""
    return envelope(AdviceList(recommendations=_advice(services)))


@router.get("/benchmarks", summary="Finished videos against targets")
def benchmarks(services: ServicesDep) -> Envelope[Benchmarks]:
    """Compare the videos of the last week with the targets for their size; nothing is run for it."""
    _, rows = ended_rows(services, _WEEK_HOURS)
    return envelope(
        Benchmarks(benchmarks={target.name: _benchmark(target, meeting(target, rows)) for target in TARGETS})
    )


@router.post(
    "/optimize",
    summary="Put an optimization preset in force",
    responses=refusals({404: "No such preset", 409: "No model could make a video with it"}),
)
def optimize(
    services: ServicesDep,
    presets: Annotated[list[str], Body(max_length=1, description="The id of a preset, or nothing")],
) -> Envelope[Optimized]:
    """Apply the named preset as `/api/v1/optimization/apply-preset` does; without one, only advise."""
    for preset in presets:
        services.advisor.apply(preset)
    done = f"{presets[0]} is in force from the next request on" if presets else "Nothing was named, so nothing changed"
    return envelope(Optimized(applied=presets, message=done, recommendations=_advice(services)))


def _totals(summary: Summary, count: int) -> Totals:
    return Totals(
        total_operations_24h=count,
        success_rate=_rounded(summary.success_rate),
        average_duration=_rounded(summary.mean_seconds),
        p95_duration=_rounded(summary.quantile(0.95)),
    )


def day_totals(services: Services) -> Totals:
    """Return how the tasks of the last day went."""
    _, rows = ended_rows(services, _DAY_HOURS)
    return _totals(Summary(rows), len(rows))


@router.get("/dashboard", summary="Speed, load and advice in brief")
def dashboard(
    services: ServicesDep,
    _refresh: Annotated[
        bool, Query(alias="force_refresh", description="Has no effect: every answer is computed anew")
    ] = False,
) -> Envelope[Dashboard]:
    """Return the last day in brief."""
    _, rows = ended_rows(services, _DAY_HOURS)
    summary = Summary(rows)
    return envelope(
        Dashboard(
            performance_summary=_totals(summary, len(rows)),
            current_resources=resources_now(services),
            operations_by_type={model: len(part.rows) for model, part in summary.by_model.items()},
            recent_activity=[task_row(row) for row in rows[:_RECENT]],
            bottlenecks=[
                f"{phase} takes {100 * share:.0f} % of the time"
                for phase, share in summary.phase_shares.items()
                if share > _LARGE_SHARE
            ],
            recommendations=[one.message for one in _advice(services)],
            resource_trends=_load(services, _DAY_HOURS),
        )
    )


@router.get("/report", summary="A period by model")
def report(services: ServicesDep, hours_back: Hours = _DAY_HOURS) -> Envelope[Report]:
    """Return the sums of a period, the same by model, and the load."""
    found, summary = _figures(services, hours_back)
    models = {
        model: ModelReport(
            tasks=len(part.rows),
            success_rate=_rounded(part.success_rate),
            average_generation_time=_rounded(part.mean_seconds),
            p95_generation_time=_rounded(part.quantile(0.95)),
            phase_seconds=_plain(part.phase_seconds),
        )
        for model, part in summary.by_model.items()
    }
    return envelope(Report(hours_back=hours_back, figures=found, models=models, resources=_load(services, hours_back)))


def _figures(services: Services, hours: float) -> tuple[Figures, Summary]:
    period, rows = ended_rows(services, hours)
    summary = Summary(rows)
    shares = summary.phase_shares
    found = Figures(
        total_tasks=len(rows),
        left_out=period.left_out,
        average_generation_time=_rounded(summary.mean_seconds),
        success_rate=_rounded(summary.success_rate),
        resource_efficiency=_rounded(summary.efficiency),
        bottleneck_analysis=Bottlenecks(
            main=max(shares, key=lambda phase: shares[phase]) if shares else None,
            phase_seconds=_plain(summary.phase_seconds),
            phase_shares=_plain(shares),
        ),
        optimization_recommendations=[one.message for one in _advice(services)],
        performance_trends=[_trend_point(one) for one in summary.trend(period.start, period.end)],
    )
    return found, summary


def _trend_point(interval: Interval) -> TrendPoint:
    return TrendPoint(
        start=iso(interval.start),
        tasks=interval.tasks,
        success_rate=_rounded(interval.success_rate),
        average_generation_time=_rounded(interval.mean_seconds),
    )


def _benchmark(target: Target, made: Summary) -> Benchmark:
    mean = made.mean_seconds
    return Benchmark(
        target_seconds=target.seconds,
        limit_seconds=target.limit_seconds,
        videos=len(made.rows),
        average_seconds=_rounded(mean),
        best_seconds=_rounded(min(made.durations, default=None)),
        meets_target=None if mean is None else mean <= target.seconds,
        within_limit=None if mean is None else mean <= target.limit_seconds,
    )


def _advice(services: Services) -> list[Advice]:
    return [Advice(**one.model_dump()) for one in advice(services)]


def _load(services: Services, hours: float) -> list[PastStats]:
    return [past_stats(sample) for sample in services.load.history(hours, _SAMPLES).samples]


def _plain(values: dict[Phase, float]) -> dict[str, float]:
    return {str(phase): round(value, 3) for phase, value in values.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
