"""A worker makes way: outside its hours and for other programs, and says so in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import psutil
import pytest

from backend.core.config.file import ConfigFile
from backend.core.domain import EventType, TaskStatus, utcnow
from backend.core.planning.memory_level import MemoryReading, Place
from backend.store.workers import WorkerState
from backend.worker.yielding import Yielding
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)
GIB = 1024**3


@dataclass
class Readings:
    """What other programs do, as a test says."""

    memory: Callable[[], MemoryReading | None]
    load: Callable[[], float | None]


def configure(queue: Queue, **sections: object) -> ConfigFile:
    """Write config.json as a user would."""
    file = ConfigFile(queue.home.config_file)
    part = file.path.with_suffix(".new")
    part.write_text(json.dumps(sections))
    part.replace(file.path)
    return file


def closed_hours() -> list[str]:
    """A window that opens in two hours."""
    local = utcnow().astimezone()
    start, end = (local + timedelta(hours=hours) for hours in (2, 3))
    return [f"{start:%H:%M}-{end:%H:%M}"]


def test_outside_the_hours_the_reason_names_the_next_opening(queue: Queue) -> None:
    hours = closed_hours()
    yielding = Yielding(configure(queue, schedule={"generate": hours}), lambda: None)
    yielding.look()
    assert yielding.reason is not None
    assert yielding.reason.startswith(f"Videos are generated only in these hours: {hours[0]}; the next begin ")
    assert yielding.reason.endswith(hours[0][:5])
    configure(queue)
    yielding.look()
    assert yielding.reason is None, "a changed file applies at once"


def test_the_memory_of_others_decides_after_the_patience_in_the_file(queue: Queue) -> None:
    used, moments = 30, iter((0.0, 2.0, 3.0, 4.0, 13.9, 14.0))
    file = configure(queue, give_way={"when_others_leave_gb": 4, "after_seconds": 3, "back_after_seconds": 10})
    others = Readings(lambda: MemoryReading(Place.RAM, used * GIB, 32 * GIB), lambda: None)
    yielding = Yielding(file, lambda: others, clock=lambda: next(moments))
    reasons = []
    for _ in range(3):
        yielding.look()
        reasons.append(yielding.reason)
    assert reasons == [
        None,
        None,
        "Other programs leave 2.0 of 32.0 GiB memory of the device; wan22 gives way below 4 GiB",
    ]
    used = 20
    for _ in range(3):
        yielding.look()
        reasons.append(yielding.reason)
    assert [reason is None for reason in reasons[3:]] == [False, False, True]


def test_the_load_by_others_decides_as_well_and_without_a_limit_nobody_makes_way(queue: Queue) -> None:
    used, moments = 90.0, iter(range(10))
    file = configure(queue, give_way={"when_others_use_percent": 50, "after_seconds": 2, "back_after_seconds": 2})
    others = Readings(lambda: None, lambda: used)
    yielding = Yielding(file, lambda: others, clock=lambda: float(next(moments)))
    reasons = []
    for percent in (90.0, 90.0, 90.0, 48.0, 40.0, 40.0, 40.0, 40.0):
        used = percent
        yielding.look()
        reasons.append(yielding.reason)
    assert reasons[2] == "Other programs use 90 % of the device's time; wan22 gives way above 50 %"
    assert [reason is not None for reason in reasons] == [False, False, True, True, True, True, False, False]
    configure(queue, give_way={"after_seconds": 0})
    used = 100.0
    yielding.look()
    assert yielding.reason is None


def test_a_running_task_makes_way_keeps_its_steps_and_costs_no_attempt(queue: Queue) -> None:
    """First for the hours, then for the memory of this machine; both times it continues where it was."""
    task = queue.submit(steps=40, frames=17)
    queue.start_worker("first", WAN22_FAULTS="denoise.step:*=slow")

    def pass_step(step: int) -> None:
        def passed() -> bool:
            now = queue.tasks.get(task.id)
            return now.status is TaskStatus.PROCESSING and (now.step or 0) > step

        wait_for(passed, seconds=START_SECONDS, what=f"a step after {step}")

    def made_way() -> int:
        back = queue.wait_status(task.id, TaskStatus.PENDING)
        assert (back.attempt, queue.types(task.id)[-1]) == (0, EventType.HELD_UP)
        yields = WorkerState.YIELDING
        wait_for(lambda: queue.worker("first").state is yields, seconds=START_SECONDS, what="its state")
        assert queue.worker("first").model is None or queue.worker("first").state is yields
        return max(queue.states(task.id))

    pass_step(2)
    configure(queue, schedule={"generate": closed_hours()})
    first = made_way()
    assert "only in these hours" in (queue.worker("first").detail or "")
    configure(queue)
    pass_step(first)
    too_much = psutil.virtual_memory().total / GIB + 1
    configure(queue, give_way={"when_others_leave_gb": too_much, "after_seconds": 0, "back_after_seconds": 0})
    second = made_way()
    assert second > first
    assert "Other programs leave" in (queue.worker("first").detail or "")
    configure(queue)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.attempt == 1
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] == second
