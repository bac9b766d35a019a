"""Routes of recovery: what is wrong, what was done about it, and how to do or take back something."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.api.system.health import diagnose
from backend.core.config.generation_policy import GenerationMode
from backend.core.domain import iso, utcnow
from backend.core.errors.requests import UnknownRecovery
from backend.core.system_integration import ComponentStatus
from backend.services.system.container import MODELS, Services
from backend.services.system.findings import FailureType, RecoveryAction
from backend.services.system.health_monitor import Look, Overall
from backend.services.system.recovery import USUAL
from backend.store.upkeep.recovery_log import RecordedAction

router = Routes(prefix="/recovery", tags=["system"])

_FAILURES = {
    FailureType.MODEL_LOADING: "A model is missing, damaged, or cannot be loaded",
    FailureType.VRAM: "The memory of a card ran out on every plan that was allowed",
    FailureType.PIPELINE: "Attempts fail or are lost for reasons that lie in the worker",
    FailureType.HARDWARE: "A card or its driver does not work as it should",
    FailureType.RESOURCES: "Disk or memory of the machine run out, or the database cannot be reached",
    FailureType.NETWORK: "The model hub cannot be reached",
}
_ACTIONS = {
    RecoveryAction.FALL_BACK_TO_MOCK: "Make mock clips, which say so, until that is taken back; only when asked",
    RecoveryAction.DOWNLOAD_AGAIN: "Download what is missing or damaged of a model; intact files are kept",
    RecoveryAction.LIMIT_VRAM: "Let plans use less of the card, until that is taken back",
    RecoveryAction.RESTART_WORKER: "Start the workers anew; running tasks continue from their saved states",
    RecoveryAction.FREE_MEMORY: "Unload the models of the workers as soon as no task runs",
    RecoveryAction.REDUCE_REQUESTS: "Refused: a request is never changed behind its owner's back",
    RecoveryAction.OFFLOAD: "Let weights leave the card between their uses, until that is taken back",
    RecoveryAction.EXAMINE: "Look for what is wrong now",
}


class ActionView(BaseModel):
    """One action that was carried out, or refused."""

    id: int
    failure_type: str
    action: str
    reason: str
    automatic: bool = Field(description="Whether the server decided it")
    success: bool
    message: str
    seconds: float
    timestamp: Timestamp
    reversible: bool = Field(description="Whether it changed something that `reset` takes back")
    undone_at: Timestamp | None = None


class FindingView(BaseModel):
    """One thing that is wrong."""

    name: str
    message: str
    failure_type: FailureType
    critical: bool
    recommendation: str
    action: RecoveryAction | None = Field(None, description="What the server does about it when it lasts")


class HealthView(BaseModel):
    """What is wrong now."""

    overall_status: Overall
    cpu_usage_percent: float
    memory_usage_percent: float
    vram_usage_percent: float = Field(description="0 without a card")
    gpu_available: bool
    model_loading_functional: bool = Field(description="Whether a model is installed")
    generation_pipeline_functional: bool = Field(description="Whether tasks can be taken and run")
    issues: list[str]
    recommendations: list[str]
    findings: list[FindingView]
    last_check_timestamp: Timestamp


class StatisticsView(BaseModel):
    """How recovery went so far."""

    total_attempts: int
    success_rate: float = Field(description="0 to 1; 0 before the first attempt")
    average_recovery_time: float = Field(description="Seconds")
    failure_types: dict[str, int]
    recovery_actions: dict[str, int]


class RecoveryStatus(BaseModel):
    """The state of recovery."""

    recovery_system_active: bool = Field(description="Whether the server acts by itself")
    health_monitoring_active: bool
    mock_generation_enabled: bool
    degraded_mode_active: bool = Field(description="Whether an action of recovery still restricts something")
    recovery_statistics: StatisticsView
    recent_actions: list[ActionView] = Field(description="The newest first")
    current_health_status: HealthView
    timestamp: Timestamp


class TriggerBody(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    failure_type: str | None = Field(None, max_length=64)
    context: dict[str, Any] = Field(
        default_factory=dict, description="`action`: instead of the usual one; `model`, `worker_id`: what it concerns"
    )


class Triggered(BaseModel):
    """What was done."""

    recovery_triggered: bool
    failure_type: str
    action: str
    success: bool
    message: str
    timestamp: Timestamp


class ResetDone(BaseModel):
    """What was taken back."""

    success: bool
    message: str
    actions: list[ActionView]
    timestamp: Timestamp


class RecoveryWords(BaseModel):
    """The words of these routes."""

    failure_types: list[str]
    recovery_actions: list[str]
    failure_type_descriptions: dict[str, str]
    recovery_action_descriptions: dict[str, str]


@router.get("/status", summary="The state of recovery", response_model_exclude_none=False)
def status(services: ServicesDep) -> RecoveryStatus:
    """Return what the server does by itself, what it did, and the newest look at its health."""
    recovery, monitor = services.recovery, services.monitor
    counted = recovery.statistics()
    return RecoveryStatus(
        recovery_system_active=services.settings.auto_recovery and monitor.active,
        health_monitoring_active=monitor.active,
        mock_generation_enabled=services.policy.current().mode is GenerationMode.MOCK,
        degraded_mode_active=recovery.in_force,
        recovery_statistics=StatisticsView(
            total_attempts=counted.total,
            success_rate=counted.succeeded / counted.total if counted.total else 0.0,
            average_recovery_time=round(counted.mean_seconds or 0.0, 3),
            failure_types=counted.failures,
            recovery_actions=counted.actions,
        ),
        recent_actions=[_shown(one) for one in recovery.history(20)],
        current_health_status=health_view(services, monitor.last or monitor.examine()),
        timestamp=iso(utcnow()),
    )


@router.get("/health", summary="What is wrong now")
def health(services: ServicesDep) -> HealthView:
    """Look now, and return what is wrong; nothing is done about it."""
    return health_view(services, services.monitor.examine())


@router.post("/trigger", summary="Do something about a failure", responses=refusals({400: "No known failure type"}))
def trigger(body: TriggerBody, services: ServicesDep) -> Triggered:
    """Carry out the usual action for a failure, or the one that `context.action` names, and record it."""
    failure = _word(FailureType, body.failure_type, "failure_type")
    wished = body.context.get("action")
    action = USUAL[failure] if wished is None else _word(RecoveryAction, wished, "action")
    model, worker_id = (body.context.get(name) for name in ("model", "worker_id"))
    done = services.recovery.perform(
        action,
        failure,
        "asked for through the API",
        model=None if model is None else str(model),
        worker_id=None if worker_id is None else str(worker_id),
    )
    return Triggered(
        recovery_triggered=True,
        failure_type=done.failure_type,
        action=done.action,
        success=done.succeeded,
        message=done.message,
        timestamp=iso(done.created_at),
    )


@router.post("/reset", summary="Take back what recovery changed")
def reset(services: ServicesDep) -> ResetDone:
    """Take back every action that is still in force; the record keeps them."""
    taken_back = services.recovery.reset()
    done = f"{len(taken_back)} taken back" if taken_back else "Nothing to take back"
    return ResetDone(success=True, message=done, actions=[_shown(one) for one in taken_back], timestamp=iso(utcnow()))


@router.get("/actions", summary="The failures and actions that there are")
def actions() -> RecoveryWords:
    """Return every failure type and every action, with what they mean."""
    return RecoveryWords(
        failure_types=list(FailureType),
        recovery_actions=list(RecoveryAction),
        failure_type_descriptions={str(kind): text for kind, text in _FAILURES.items()},
        recovery_action_descriptions={str(action): text for action, text in _ACTIONS.items()},
    )


def _word(words: type[FailureType] | type[RecoveryAction], value: object, field: str) -> Any:
    if value not in list(words):
        raise UnknownRecovery(
            f"{field} must be one of {', '.join(words)}", details={"field": field, "allowed": list(words)}
        )
    return words(str(value))


def health_view(services: Services, look: Look) -> HealthView:
    """Show what a look found."""
    found, reading = diagnose(services), services.stats.read()
    issues = [one.sentence for one in look.findings]
    return HealthView(
        overall_status=look.overall,
        cpu_usage_percent=reading.cpu_percent,
        memory_usage_percent=reading.ram_percent,
        vram_usage_percent=reading.vram_percent,
        gpu_available=bool(reading.gpus),
        model_loading_functional=services.system.snapshot()[MODELS].status is not ComponentStatus.FAILED,
        generation_pipeline_functional=found.can_run,
        issues=list(dict.fromkeys([*issues, *found.issues])),
        recommendations=[one.next_step for one in look.findings],
        findings=[
            FindingView(
                name=one.name,
                message=one.sentence,
                failure_type=one.failure,
                critical=one.critical,
                recommendation=one.next_step,
                action=one.remedy,
            )
            for one in look.findings
        ],
        last_check_timestamp=iso(look.at),
    )


def _shown(action: RecordedAction) -> ActionView:
    return ActionView(
        id=action.id,
        failure_type=action.failure_type,
        action=action.action,
        reason=action.reason,
        automatic=action.automatic,
        success=action.succeeded,
        message=action.message,
        seconds=round(action.seconds, 3),
        timestamp=iso(action.created_at),
        reversible=action.undo is not None,
        undone_at=None if action.undone_at is None else iso(action.undone_at),
    )
