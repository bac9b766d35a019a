"""Components start in order and stop in reverse; a failure is reported with its reason, and the rest continues."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from backend.core.errors.surroundings import StoreUnavailable
from backend.core.system_integration import Component, ComponentStatus, Condition, SystemIntegration

READY = Condition(ComponentStatus.READY, "works")


class Part:
    """A component that records what happens to it and fails on demand."""

    def __init__(self, name: str, calls: list[str], *, essential: bool = False) -> None:
        self.name, self.calls, self.essential = name, calls, essential
        self.fails_to_start: Exception | None = None
        self.fails_to_stop: Exception | None = None
        self.fails_to_answer: Exception | None = None
        self.condition = READY

    async def start(self) -> None:
        self.calls.append(f"start {self.name}")
        if self.fails_to_start is not None:
            raise self.fails_to_start

    async def stop(self) -> None:
        self.calls.append(f"stop {self.name}")
        if self.fails_to_stop is not None:
            raise self.fails_to_stop

    def ask(self) -> Condition:
        self.calls.append(f"ask {self.name}")
        if self.fails_to_answer is not None:
            raise self.fails_to_answer
        return self.condition

    def component(self) -> Component:
        return Component(self.name, self.ask, self.start, self.stop, essential=self.essential)


def system_of(*parts: Part) -> SystemIntegration:
    system = SystemIntegration()
    system.include(*(part.component() for part in parts))
    return system


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def parts(calls: list[str]) -> tuple[Part, Part, Part]:
    return Part("disk", calls, essential=True), Part("cards", calls), Part("worker", calls)


def test_they_start_in_order_and_stop_in_reverse(parts: tuple[Part, Part, Part], calls: list[str]) -> None:
    system = system_of(*parts)
    assert system.snapshot().status is ComponentStatus.NOT_STARTED
    asyncio.run(system.start())
    assert system.snapshot().status is ComponentStatus.READY
    asyncio.run(system.stop())
    order = ["disk", "cards", "worker"]
    assert calls == [
        *(f"start {name}" for name in order),
        *(f"ask {name}" for name in order),
        *(f"stop {name}" for name in reversed(order)),
    ]
    assert system.snapshot().status is ComponentStatus.NOT_STARTED
    assert system.snapshot().errors == ()


def test_a_failed_component_is_shown_and_the_others_start(parts: tuple[Part, Part, Part], calls: list[str]) -> None:
    parts[1].fails_to_start = PermissionError(13, "Permission denied", "secret/place")
    system = system_of(*parts)
    asyncio.run(system.start())
    state = system.snapshot()
    assert state.status is ComponentStatus.DEGRADED
    assert (state["cards"].status, state["cards"].sentence) == (
        ComponentStatus.FAILED,
        "PermissionError: Permission denied",
    )
    assert state["worker"].ready
    assert state.errors == ("cards: PermissionError: Permission denied",)
    asyncio.run(system.stop())
    assert "ask cards" not in calls
    assert "stop cards" not in calls
    assert system.snapshot()["cards"].status is ComponentStatus.FAILED


def test_without_an_essential_component_nothing_runs(parts: tuple[Part, Part, Part], calls: list[str]) -> None:
    first, essential, last = parts[1], parts[0], parts[2]
    essential.fails_to_start = StoreUnavailable("The disk is gone")
    system = system_of(first, essential, last)
    with pytest.raises(StoreUnavailable):
        asyncio.run(system.start())
    assert calls == ["start cards", "start disk", "stop cards"]
    state = system.snapshot()
    assert state.status is ComponentStatus.FAILED
    assert state["disk"].sentence == "The disk is gone"
    assert state["worker"].status is ComponentStatus.NOT_STARTED


def test_a_component_that_cannot_stop_does_not_keep_others_running(
    parts: tuple[Part, Part, Part], calls: list[str]
) -> None:
    parts[2].fails_to_stop = RuntimeError("stuck")
    system = system_of(*parts)
    asyncio.run(system.start())
    asyncio.run(system.stop())
    assert calls[-3:] == ["stop worker", "stop cards", "stop disk"]
    assert system.snapshot().errors == ("worker: RuntimeError: stuck",)
    asyncio.run(system.stop())
    assert calls.count("stop worker") == 1


def test_the_state_is_queried_on_every_read(parts: tuple[Part, Part, Part]) -> None:
    system = system_of(*parts)
    asyncio.run(system.start())
    since = system.snapshot()["cards"].since
    assert system.snapshot()["cards"].since == since
    parts[1].condition = Condition(ComponentStatus.DEGRADED, "one of two is silent")
    state = system.snapshot()
    assert state.status is ComponentStatus.DEGRADED
    assert (state["cards"].sentence, state["cards"].since >= since) == ("one of two is silent", True)
    changed = state["cards"].since
    parts[1].condition = Condition(ComponentStatus.DEGRADED, "both are silent")
    assert (system.snapshot()["cards"].sentence, system.snapshot()["cards"].since) == ("both are silent", changed)
    parts[1].condition = READY
    assert system.snapshot().status is ComponentStatus.READY


def test_one_component_is_asked_alone(parts: tuple[Part, Part, Part], calls: list[str]) -> None:
    system = system_of(*parts)
    assert system.state("cards").status is ComponentStatus.NOT_STARTED
    asyncio.run(system.start())
    calls.clear()
    parts[1].condition = Condition(ComponentStatus.DEGRADED, "one of two is silent")
    assert system.state("cards").sentence == "one of two is silent"
    assert calls == ["ask cards"]
    assert system.state("cards") == system.snapshot()["cards"]


def test_a_component_that_cannot_report_counts_as_failed_until_it_can(parts: tuple[Part, Part, Part]) -> None:
    system = system_of(*parts)
    asyncio.run(system.start())
    parts[0].fails_to_answer = StoreUnavailable("The disk is gone")
    assert system.snapshot().status is ComponentStatus.FAILED
    parts[0].fails_to_answer = None
    assert system.snapshot().status is ComponentStatus.READY


def test_a_snapshot_leaves_slow_components_to_the_background(parts: tuple[Part, Part, Part], calls: list[str]) -> None:
    """They are queried at the start, by an inspection, and every interval; never by a snapshot."""

    async def run() -> None:
        system = SystemIntegration(inspection_seconds=60)
        system.include(replace(parts[0].component(), slow=True), parts[1].component())
        await system.start()
        assert calls.count("ask disk") == 1
        parts[0].condition = parts[1].condition = Condition(ComponentStatus.FAILED, "gone")
        for _ in range(10):
            state = system.snapshot()
            assert (state["disk"].status, state["cards"].status) == (ComponentStatus.READY, ComponentStatus.FAILED)
        assert (calls.count("ask disk"), calls.count("ask cards")) == (1, 11)
        assert system.inspect()["disk"].status is ComponentStatus.FAILED
        await system.stop()
        assert calls[-2:] == ["stop cards", "stop disk"]

    asyncio.run(run())


def test_the_background_notices_a_slow_component_that_changes(parts: tuple[Part, Part, Part], calls: list[str]) -> None:
    async def run() -> None:
        system = SystemIntegration(inspection_seconds=0.01)
        noticed = threading.Event()

        def ask() -> Condition:
            if calls.count("ask disk") == 2:  # so the second report was recorded
                noticed.set()
            return parts[0].ask()

        system.include(replace(parts[0].component(), ask=ask, slow=True))
        await system.start()
        parts[0].condition = Condition(ComponentStatus.DEGRADED, "almost full")
        assert await asyncio.to_thread(noticed.wait, 10)
        assert system.snapshot()["disk"].status is ComponentStatus.DEGRADED
        await system.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        (["ready", "ready", "ready"], "ready"),
        (["ready", "ready", "starting"], "starting"),
        (["ready", "ready", "not_started"], "degraded"),
        (["ready", "starting", "degraded"], "degraded"),
        (["ready", "starting", "failed"], "degraded"),
        (["failed", "ready", "ready"], "failed"),
        (["degraded", "ready", "ready"], "degraded"),
    ],
)
def test_the_overall_status_follows_the_components(
    parts: tuple[Part, Part, Part], statuses: list[str], whole: str
) -> None:
    system = system_of(*parts)
    asyncio.run(system.start())
    for part, status in zip(parts, statuses, strict=True):
        part.condition = Condition(ComponentStatus(status), "so it is")
    assert system.snapshot().status == whole
