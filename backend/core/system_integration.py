"""Starts the parts of a process in order, stops them in reverse, and says at any time how every one of them is.

It is given its components and knows none of them. A part that fails is shown with its reason and the system goes on
without it, unless it cannot live without that one.
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
from backend.core.errors import WanError

log = structlog.get_logger(__name__)

#: Interval between inspections in the background, in seconds: how old the state of a slow component may be.
INSPECTION_SECONDS = 5.0


class ComponentStatus(StrEnum):
    """Where a component stands."""

    NOT_STARTED = "not_started"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"  #: works, but something of it is missing
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a component says of itself when it is asked."""

    status: ComponentStatus
    sentence: str


async def nothing_to_do() -> None:
    """Start or stop a component that has no life of its own."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a process, as the part's owner describes it."""

    name: str
    ask: Callable[[], Condition]  #: how it is now; called from any thread, once it has started
    start: Callable[[], Awaitable[None]] = nothing_to_do  #: raises when it cannot
    stop: Callable[[], Awaitable[None]] = nothing_to_do  #: called when `start` has succeeded
    essential: bool = False  #: whether the system cannot live without it
    slow: bool = False  #: whether asking walks folders, so that a snapshot shows the last inspection instead


@dataclass(frozen=True, slots=True)
class ComponentState:
    """One component at one moment."""

    name: str
    status: ComponentStatus
    sentence: str
    since: datetime  #: when it came into this status, as far as it was looked at
    essential: bool

    @property
    def ready(self) -> bool:
        """Whether all of it can be used."""
        return self.status is ComponentStatus.READY


@dataclass(frozen=True, slots=True)
class SystemState:
    """Every component at one moment."""

    components: tuple[ComponentState, ...]  #: in the order of starting
    errors: tuple[str, ...]  #: what went wrong while starting and stopping, oldest first

    def __getitem__(self, name: str) -> ComponentState:
        """Return one component; KeyError when there is none."""
        return {component.name: component for component in self.components}[name]

    @property
    def status(self) -> ComponentStatus:
        """The whole: failed without an essential part, degraded without any other, starting while one does."""
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
    """The components of one process. `start` and `stop` belong to one event loop; any thread may ask for the state."""

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
        """Take components in; they start in the order in which they came."""
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
            except Exception as error:  # the boundary of a component: what it was, the others need not suffer
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
        """Stop what has started, in reverse order; one that fails at it is noted and keeps no other from stopping."""
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

    def inspect(self) -> SystemState:
        """Ask every component how it is now, slow ones too. One whose start failed stays failed."""
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
    except Exception as error:  # the boundary of a component: not being able to say how it is, is an answer
        return Condition(ComponentStatus.FAILED, _reason(error))


def _reason(error: Exception) -> str:
    """Say what went wrong, without the paths that an OSError carries."""
    if isinstance(error, WanError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
