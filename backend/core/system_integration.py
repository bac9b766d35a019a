"""Starts and stops the components of a process in order, and reports the state of each at any time.

Receives its components and knows nothing about them. The system continues without a component that failed, and
reports the reason, unless that component is essential.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import structlog

from backend.core.domain import utcnow
from backend.core.errors.base import WanError

log = structlog.get_logger(__name__)

#: Interval between inspections in the background, in seconds: how old the state of a slow component may be.
INSPECTION_SECONDS = 5.0


class ComponentStatus(StrEnum):
    """The status of a component."""

    NOT_STARTED = "not_started"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"  #: works in part
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Condition:
    """A component's report on itself."""

    status: ComponentStatus
    sentence: str


async def nothing_to_do() -> None:
    """Start or stop a component that needs neither."""


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a process, as described by its owner."""

    name: str
    ask: Callable[[], Condition]  #: its current condition; called from any thread, once it has started
    start: Callable[[], Awaitable[None]] = nothing_to_do  #: raises on failure
    stop: Callable[[], Awaitable[None]] = nothing_to_do  #: called only after a successful `start`
    essential: bool = False  #: whether the system cannot run without it
    slow: bool = False  #: whether checking walks folders, so that a snapshot shows the last inspection instead


@dataclass(frozen=True, slots=True)
class ComponentState:
    """Snapshot of one component."""

    name: str
    status: ComponentStatus
    sentence: str
    since: datetime  #: when this status was first observed
    essential: bool

    @property
    def ready(self) -> bool:
        """Whether it is fully usable."""
        return self.status is ComponentStatus.READY


@dataclass(frozen=True, slots=True)
class SystemState:
    """Snapshot of all components."""

    components: tuple[ComponentState, ...]  #: in starting order
    errors: tuple[str, ...]  #: failures of starting and stopping, oldest first

    def __getitem__(self, name: str) -> ComponentState:
        """Return one component; raises KeyError."""
        return {component.name: component for component in self.components}[name]

    @property
    def status(self) -> ComponentStatus:
        """Overall status: failed when an essential component is, degraded when another is, starting while one is."""
        found = {component.status for component in self.components}
        if any(one.essential and one.status is ComponentStatus.FAILED for one in self.components):
            return ComponentStatus.FAILED
        if found & {ComponentStatus.FAILED, ComponentStatus.DEGRADED}:
            return ComponentStatus.DEGRADED
        if ComponentStatus.STARTING in found:
            return ComponentStatus.STARTING
        if ComponentStatus.NOT_STARTED in found:
            return ComponentStatus.DEGRADED if ComponentStatus.READY in found else ComponentStatus.NOT_STARTED
        return ComponentStatus.READY


class SystemIntegration:
    """Starts and stops the components of one process, on one event loop; any thread may ask for the state."""

    def __init__(self, inspection_seconds: float = INSPECTION_SECONDS) -> None:
        self._inspection_seconds = inspection_seconds
        self._inspections: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._lock = threading.Lock()
        self._components: dict[str, Component] = {}
        self._states: dict[str, ComponentState] = {}
        self._started: set[str] = set()
        self._errors: list[str] = []

    def include(self, *components: Component) -> None:
        """Add components; they start in the order they are added."""
        for one in components:
            self._components[one.name] = one
            self._note(one, Condition(ComponentStatus.NOT_STARTED, "Not started yet"))

    async def start(self) -> None:
        """Start every component in order.

        Raises:
            Exception: what an essential component raised; those that had started are stopped again.
        """
        for component in self._components.values():
            self._note(component, Condition(ComponentStatus.STARTING, "Starting"))
            try:
                await component.start()
            except Exception as error:  # the boundary of a component: its failure must not stop the others
                self._failed(component, error)
                if component.essential:
                    await self.stop()
                    raise
            else:
                self._started.add(component.name)
                self._note(component, Condition(ComponentStatus.READY, "Started"))
        if any(component.slow for component in self._components.values()):
            await asyncio.to_thread(self.inspect)
            self._stopping.clear()
            self._inspections = asyncio.create_task(self._keep_inspecting())

    async def stop(self) -> None:
        """Stop what has started, in reverse order; a failure is noted and does not keep others from stopping."""
        self._stopping.set()
        if self._inspections is not None:
            await self._inspections
            self._inspections = None
        for component in reversed(self._components.values()):
            if component.name not in self._started:
                continue
            self._started.discard(component.name)
            try:
                await component.stop()
            except Exception as error:  # the boundary of a component
                self._failed(component, error)
            else:
                self._note(component, Condition(ComponentStatus.NOT_STARTED, "Stopped"))

    def snapshot(self) -> SystemState:
        """Return the state without reading folders: slow components as the last inspection found them, others as now.

        A component whose start failed is not asked: it stays failed.
        """
        return self._state(slow=False)

    def state(self, name: str) -> ComponentState:
        """Return the state of one component, as `snapshot` would, without asking the others."""
        component = self._components[name]
        if name in self._started and not component.slow:
            self._note(component, _asked(component))
        with self._lock:
            return self._states[name]

    def inspect(self) -> SystemState:
        """Check every component now, including slow ones. One whose start failed stays failed."""
        return self._state(slow=True)

    def _state(self, *, slow: bool) -> SystemState:
        for component in self._components.values():
            if component.name in self._started and (slow or not component.slow):
                self._note(component, _asked(component))
        with self._lock:
            return SystemState(tuple(self._states.values()), tuple(self._errors))

    async def _keep_inspecting(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._inspection_seconds)
                return
            await asyncio.to_thread(self.inspect)

    def _failed(self, component: Component, error: Exception) -> None:
        sentence = _reason(error)
        log.warning("component.failed", component=component.name, reason=sentence, exc_info=error)
        self._errors.append(f"{component.name}: {sentence}")
        self._note(component, Condition(ComponentStatus.FAILED, sentence))

    def _note(self, component: Component, condition: Condition) -> None:
        with self._lock:
            known = self._states.get(component.name)
            if known is not None and known.status is condition.status:
                self._states[component.name] = replace(known, sentence=condition.sentence)
                return
            self._states[component.name] = ComponentState(
                component.name, condition.status, condition.sentence, utcnow(), component.essential
            )


def _asked(component: Component) -> Condition:
    try:
        return component.ask()
    except Exception as error:  # the boundary of a component: failing to report is a report too
        return Condition(ComponentStatus.FAILED, _reason(error))


def _reason(error: Exception) -> str:
    """Describe an error without the paths that an OSError carries."""
    if isinstance(error, WanError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
