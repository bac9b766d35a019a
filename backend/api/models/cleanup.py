"""The route that frees disk space of models: lists what can be deleted, and deletes it on request."""

from __future__ import annotations

from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.api.models.status import GB
from backend.core.domain import iso, utcnow
from backend.models.folder.storage import Suggestion
from backend.services.models.cleanup import Done

router = Routes(prefix="/models", tags=["models"])


class CleanupAsked(BaseModel):
    """How much to free, and whether to delete or only list."""

    target_space_gb: float | None = Field(
        None, ge=0, le=1e6, description="Stop when this many GB are free; absent: delete everything suggested"
    )
    keep_recent_days: int = Field(30, ge=0, le=36500, description="Keep models used within this many days")
    dry_run: bool = Field(True, description="Only list what would be deleted")


class CleanupAction(BaseModel):
    """One deletion, suggested or done."""

    action: str = Field(description="delete_model, delete_unfinished or delete_quarantine")
    model_id: str
    space_gb: float = Field(description="What it frees; files that other programs share do not count")
    reason: str


class CleanupPlan(BaseModel):
    """The suggestions."""

    total_space_available_gb: float = Field(description="Free space of the disk now")
    target_space_gb: float | None = None
    space_to_free_gb: float
    cleanup_actions: list[CleanupAction]


class Cleanup(BaseModel):
    """The suggestions, and what was deleted."""

    dry_run: bool
    recommendations: CleanupPlan
    executed_actions: list[CleanupAction]
    total_space_freed_gb: float
    timestamp: Timestamp


@router.post("/cleanup", response_model_exclude_none=False, summary="Free disk space")
def cleanup(asked: CleanupAsked, services: ServicesDep) -> Cleanup:
    """Say what can be deleted: leftovers, and models unused for a while; deletes them only with `dry_run` false.

    Models that a task waits for or a worker holds stay, and so do files that a user put there.
    """
    target = None if asked.target_space_gb is None else round(asked.target_space_gb * GB)
    report = services.cleanup.report()
    found = services.cleanup.suggestions(report, keep_days=asked.keep_recent_days, target_free=target)
    done = [] if asked.dry_run else services.cleanup.carry_out(found)
    return Cleanup(
        dry_run=asked.dry_run,
        recommendations=CleanupPlan(
            total_space_available_gb=_gb(report.free_bytes),
            target_space_gb=asked.target_space_gb,
            space_to_free_gb=_gb(
                sum(one.frees for one in found) if target is None else max(0, target - report.free_bytes)
            ),
            cleanup_actions=[cleanup_action(one, one.frees) for one in found],
        ),
        executed_actions=[_executed(one) for one in done if one.error is None],
        total_space_freed_gb=_gb(sum(one.freed for one in done)),
        timestamp=iso(utcnow()),
    )


def _executed(done: Done) -> CleanupAction:
    return cleanup_action(done.suggestion, done.freed)


def cleanup_action(suggestion: Suggestion, size: int) -> CleanupAction:
    """Show one deletion that frees `size` bytes."""
    return CleanupAction(
        action=f"delete_{suggestion.what}", model_id=suggestion.spec.id, space_gb=_gb(size), reason=suggestion.reason
    )


def _gb(size: int) -> float:
    return round(size / GB, 3)
