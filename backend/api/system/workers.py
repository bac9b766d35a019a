"""Routes of the workers: what each is doing; drain and resume a device."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Message, Timestamp
from backend.core.domain import iso
from backend.core.errors.lookups import WorkerNotFound
from backend.services.system.container import Services
from backend.store.order import QUEUE_SCOPE, device_scope
from backend.store.workers import WorkerState

router = Routes(prefix="/workers", tags=["system"])
_ABSENT = refusals({404: "No such device is known"})


class WorkerSummary(BaseModel):
    """One worker."""

    id: str
    device: str = Field(description="Host and device, the name by which it is drained")
    state: WorkerState
    detail: str | None = None
    drained: bool = Field(description="Whether the device takes no task until it is resumed")
    seen_at: Timestamp


class WorkerList(BaseModel):
    """The living workers, and the devices that are drained."""

    workers: list[WorkerSummary]
    drained: list[str] = Field(description="All drained devices, also those without a worker now")


class DeviceBody(BaseModel):
    """Which device."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device: str | None = Field(
        None, max_length=512, description="`host/device`, or `device` on every host that has it; all when left out"
    )


class DrainBody(DeviceBody):
    """Which device to drain, and how."""

    now: bool = Field(
        False, description="Whether its running task stops at its next step, with its state saved, instead of finishing"
    )


class Drained(Message):
    """The devices that were changed."""

    devices: list[str]


@router.get("", summary="The workers")
def workers(services: ServicesDep) -> WorkerList:
    """List the living workers, what each does, and which devices are drained."""
    drained = _drained(services)
    return WorkerList(
        workers=[
            WorkerSummary(
                id=one.id,
                device=device_scope(one.host, one.device),
                state=one.state,
                detail=one.detail,
                drained=device_scope(one.host, one.device) in drained,
                seen_at=iso(one.seen_at),
            )
            for one in services.living_workers()
        ],
        drained=drained,
    )


@router.post("/drain", summary="Drain a device", responses=_ABSENT)
def drain(body: DrainBody, services: ServicesDep) -> Drained:
    """Let a device finish its task and claim nothing more until it is resumed, also after a restart.

    With `now`, the task stops at its next step with its state saved, and continues on another device or later.
    """
    known = {device_scope(one.host, one.device) for one in services.living_workers()}
    devices = _named(body.device, known)
    for device in devices:
        services.tasks.hold(device, interrupts=body.now)
    when = "its task stops at its next step" if body.now else "a running task finishes"
    return Drained(message=f"Drained: {', '.join(devices)}; {when}", devices=devices)


@router.post("/resume", summary="Resume a drained device", responses=_ABSENT)
def resume(body: DeviceBody, services: ServicesDep) -> Drained:
    """Let a drained device claim tasks again."""
    known = {device_scope(one.host, one.device) for one in services.living_workers()}
    devices = _named(body.device, known | {*_drained(services)})
    for device in devices:
        services.tasks.lift(device)
    return Drained(message=f"Taking tasks: {', '.join(devices)}", devices=devices)


def _drained(services: Services) -> list[str]:
    return [hold.scope for hold in services.tasks.holds() if hold.scope != QUEUE_SCOPE]


def _named(device: str | None, known: set[str]) -> list[str]:
    """Return the scopes that a device name stands for."""
    found = sorted(one for one in known if device is None or device in (one, one.rpartition("/")[2]))
    if not found:
        raise WorkerNotFound
    return found
