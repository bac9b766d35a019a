"""The planner's machine is that of the live workers, and until they have tested it the one detected here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backend.core.planning.abilities import Abilities, AttentionSetting, PrecisionVerdict
from backend.core.planning.hardware import GIB, Gpu, HardwareProfile, detect_hardware
from backend.core.planning.machine import Machine
from backend.core.settings import Settings, load_settings
from backend.services.planning.self_test import EngineAnswer, find_abilities
from backend.services.planning.worker_machine import WorkingMachine, machine_as_it_looks
from backend.store.engine import Database
from backend.store.tables import database_now, workers
from backend.store.workers import Equipment, WorkerState, WorkerStore

CARD = Gpu(0, "NVIDIA RTX 5090", 32 * GIB, 0, None, (12, 0))
SEEN: HardwareProfile = replace(
    detect_hardware(), memory_total=64 * GIB, memory_limit=None, gpus=(CARD,), driver="580.1", cores=8
)
HERE = Machine(CARD.name, True, 32 * GIB, 64 * GIB, (12, 0), 8)
PROCESSOR = Machine(SEEN.processor, False, None, 64 * GIB, None, 8)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = load_settings(home=tmp_path / "home", device="auto", attention="auto", lease_seconds=30)
    settings.paths.create()
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def register(database: Database) -> WorkerStore:
    return WorkerStore(database)


def beat(register: WorkerStore, name: str, device: str, equipment: Equipment | None) -> None:
    register.beat(name, device=device, state=WorkerState.IDLE, equipment=equipment)


def test_until_a_worker_has_tested_it_the_machine_is_as_detected(settings: Settings, register: WorkerStore) -> None:
    machine = WorkingMachine(settings, register, SEEN)
    assert machine.now() == HERE
    beat(register, "one", "auto", None)
    assert machine.now() == HERE, "it starts and knows no more than that"
    assert machine.computes_on_gpu()
    assert WorkingMachine(settings, register, replace(SEEN, gpus=())).now() == PROCESSOR
    assert WorkingMachine(settings.model_copy(update={"device": "cpu"}), register, SEEN).now() == PROCESSOR


def test_a_card_that_the_worker_cannot_use_does_not_count(settings: Settings, register: WorkerStore) -> None:
    machine = WorkingMachine(settings, register, SEEN)
    beat(register, "one", "cpu", Equipment("no card can be used", machine=PROCESSOR))
    assert machine.now() == PROCESSOR
    assert not machine.computes_on_gpu()
    register.remove("one")
    assert machine.now() == HERE


def test_a_worker_on_another_machine_reports_that_machine(settings: Settings, register: WorkerStore) -> None:
    far = Machine("NVIDIA H200", True, 141 * GIB, 512 * GIB, (9, 0), 64, float32=True)
    beat(register, "far", "cuda:0", Equipment("it passed its trial", precision="float32", machine=far))
    assert WorkingMachine(settings, register, replace(SEEN, gpus=())).now() == far


def test_a_worker_of_an_older_version_reports_device_and_precision(settings: Settings, register: WorkerStore) -> None:
    machine = WorkingMachine(settings, register, SEEN)
    beat(register, "old", "cuda:0", Equipment("it passed its trial", precision="float32"))
    assert machine.now() == replace(HERE, float32=True)
    beat(register, "old", "cpu", Equipment("no card can be used", precision="float32"))
    assert machine.now() == PROCESSOR


def test_the_most_capable_of_several_workers_decides(settings: Settings, register: WorkerStore) -> None:
    small = replace(HERE, vram=8 * GIB)
    for name, device, machine in (("a", "cpu", PROCESSOR), ("b", "cuda:0", HERE), ("c", "cuda:1", small)):
        beat(register, name, device, Equipment("tried", machine=machine))
    assert WorkingMachine(settings, register, replace(SEEN, gpus=())).now() == HERE


def test_a_silent_worker_is_ignored(settings: Settings, register: WorkerStore, database: Database) -> None:
    beat(register, "one", "cpu", Equipment("no card can be used", machine=PROCESSOR))
    with database.begin() as connection:
        connection.execute(workers.update().values(seen_at=database_now() - 31))
    assert WorkingMachine(settings, register, SEEN).now() == HERE


def test_without_the_register_the_machine_is_as_detected(settings: Settings, register: WorkerStore) -> None:
    beat(register, "one", "cpu", Equipment("no card can be used", machine=PROCESSOR))
    unreachable = Database(f"sqlite:///{settings.paths.root}/not/here.db")
    assert WorkingMachine(settings, WorkerStore(unreachable), SEEN).now() == HERE
    unreachable.close()


def test_the_recorded_precision_of_the_card_counts_until_a_worker_reports_it(
    settings: Settings, register: WorkerStore
) -> None:
    def slow(device: str, wish: AttentionSetting) -> EngineAnswer:
        return EngineAnswer(precision=PrecisionVerdict("float32", "bfloat16 takes 1.50 of the time"), done=True)

    found: Abilities = find_abilities(
        settings.paths.abilities_file, "cuda:0", CARD.name, SEEN.driver, settings.attention, ask=slow
    )
    assert found.precision.precision == "float32"
    assert WorkingMachine(settings, register, SEEN).now() == replace(HERE, float32=True)
    assert machine_as_it_looks(settings, replace(SEEN, driver="590.1")) == HERE, "another driver, another verdict"
    assert machine_as_it_looks(settings, replace(SEEN, gpus=())) == PROCESSOR
