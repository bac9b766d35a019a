"""The findings behind `wan22 doctor`: what is installed, what works, and why the rest does not. Changes nothing.

Imports no torch: a separate process asks the engine. The disk test reads sequentially, as model files are read.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from backend import __version__
from backend.core.config.file import ConfigFile
from backend.core.errors.base import WanError
from backend.core.planning.abilities import AttentionSetting, choose_kernel
from backend.core.planning.constraints import OptimizationSettings, stored_optimization
from backend.core.planning.cost_model import Workload
from backend.core.planning.hardware import GIB, detect_hardware, in_gib, last_profile
from backend.core.planning.machine import Machine
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.optimizer import WAN22SystemOptimizer
from backend.core.settings import Settings, unknown_variables
from backend.models.download.hub import Hub, Reach
from backend.models.folder.manager import ModelManager, Presence
from backend.models.own.configuration import ModelConfigurationManager
from backend.services.planning.self_test import EngineAnswer, ask_engine
from backend.services.planning.worker_machine import machine_as_it_looks
from backend.services.system.configuration import configuration_faults
from backend.services.system.findings import Examination
from backend.services.system.surroundings import Surroundings
from backend.store.engine import Database
from backend.store.sqlite_file import FileCondition, inspect_file
from backend.store.upkeep.backups import Backups
from backend.store.upkeep.opening import last_restoration, refuse_lost
from backend.store.upkeep.retention import Retention, RowLimits

#: A smaller file says more about the start of a read than about its speed.
SMALLEST: Final = 1024**2
#: Enough to leave the disk's own buffers behind, and short on a slow one.
MOST_BYTES, MOST_SECONDS = 256 * 1024**2, 2.0
_CHUNK = 8 * 1024**2
LOW_DISK_BYTES = 2 * GIB
#: First SQLite without the WAL-reset bug; older ones need a single checkpointer, which this product keeps to.
SQLITE_WAL_FIX = (3, 51, 3)

Grade = Literal["ok", "note", "bad"]


def read_speed(folder: Path, *, clock: Callable[[], float] = time.perf_counter) -> float | None:
    """Return bytes per second, or None if nothing can be read."""
    with suppress(OSError):
        sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        largest = max(sizes, key=lambda path: sizes[path], default=None)
        if largest is not None and sizes[largest] >= SMALLEST:
            return _read(largest, clock)
    return None


def _read(path: Path, clock: Callable[[], float]) -> float:
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            # What is in memory from an earlier read would tell the memory's speed. Only clean pages go.
            os.posix_fadvise(file.fileno(), 0, MOST_BYTES, os.POSIX_FADV_DONTNEED)
        began, read = clock(), 0
        while read < MOST_BYTES and (part := len(file.read(_CHUNK))):
            read += part
            if clock() - began > MOST_SECONDS:
                break
        return read / max(clock() - began, 1e-9)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    grade: Grade
    subject: str
    text: str


#: Asks the engine about a device and about kernels of attention.
Ask = Callable[[str, AttentionSetting], EngineAnswer]


def examine(settings: Settings, *, offline: bool = False, ask: Ask = ask_engine) -> list[Finding]:
    """Inspect the machine, the libraries, the home folder, the hub and the models, and let the engine try the device.

    Args:
        settings: the ones in force.
        offline: do not contact the hub.
        ask: asks the engine; takes as long as importing torch does.
    """
    hardware = detect_hardware(settings.paths.root)
    limit = (
        "" if hardware.memory_limit is None else f", of which this container may use {in_gib(hardware.memory_limit)}"
    )
    memory = f"{in_gib(hardware.memory_total)} memory{limit}, {in_gib(hardware.memory_available)} free"
    findings = [
        Finding("ok", "wan22", f"{__version__}, Python {hardware.python}"),
        Finding("ok", "processor", f"{hardware.cores} cores, {memory}"),
    ]
    findings += [Finding("note", "hardware", sentence) for sentence in hardware.findings]
    last = last_profile(settings.paths.hardware_file)
    changes = [] if last is None else hardware.changes_since(last)
    findings += [Finding("note", "hardware", f"since the last start: {change}") for change in changes]
    findings += [
        Finding("ok", f"GPU {gpu.index}", f"{gpu.name}, {in_gib(gpu.memory_total)}, driver {hardware.driver}")
        for gpu in hardware.gpus
    ] or [Finding("note", "GPU", "no NVIDIA card found: the tiny models run on the processor")]
    findings += [_library(name) for name in ("torch", "diffusers", "transformers", "av")]
    answer = ask(settings.device, settings.attention)
    findings += _engine(answer, settings.attention)
    findings.append(_sqlite())
    findings += _home(settings)
    findings += _database(settings)
    findings.append(_read_speed(settings))
    findings.append(_hub(offline))
    # What computes is what was found to work, where the engine could be asked.
    precision = None if answer.precision is None else answer.precision.precision
    machine = (
        machine_as_it_looks(settings, hardware)
        if answer.device is None
        else Machine.of(hardware, answer.device, precision)
    )
    kept = stored_optimization(ConfigFile(settings.paths.config_file))
    findings += [Finding("note", "environment", fault) for fault in unknown_variables()]
    findings += [Finding("bad", "config.json", fault) for fault in configuration_faults(settings.paths)]
    constraints = kept.current()
    manager = ModelManager(settings.paths, has_gpu=bool(hardware.gpus) and machine.cuda)
    table = ModelConfigurationManager(settings.paths).refresh()
    for spec in table.specs:
        state = manager.state(spec)
        grade: Grade = "ok" if state.available else "note"
        text = (
            f"ready: {spec.width}x{spec.height}, {spec.num_frames} frames"
            if state.available
            else f"{'not installed' if state.presence is Presence.MISSING else state.presence}: {state.reason}"
        )
        findings.append(Finding(grade, spec.id, text))
        if not spec.miniature:
            work = replace(Workload.native(spec), packed=manager.packed(spec))
            findings.append(_fit(work, machine, constraints, settings.oom_policy))
    try:
        findings.append(Finding("ok", "default model", manager.default().id))
    except WanError as error:
        findings.append(Finding("bad", "default model", error.message))
    return findings


def _fit(work: Workload, machine: Machine, constraints: OptimizationSettings, policy: OomPolicy) -> Finding:
    """Estimate whether this machine can hold a model at its default size."""
    decision = WAN22SystemOptimizer(machine, constraints=constraints).decide(work, policy)
    if decision.fits:
        return Finding("ok", f"{work.model} plan", f"{decision.reason}, estimated")
    return Finding("note", f"{work.model} plan", f"{decision.reason}. {decision.would_fit} (estimated)")


def _engine(answer: EngineAnswer, setting: AttentionSetting) -> list[Finding]:
    """Report the engine's answer: build, device, precision, attention."""
    facts, findings = answer.facts, []
    if "torch" in facts:
        cuda = "without CUDA" if facts["cuda"] is None else f"CUDA {facts['cuda']}"
        sets = ", ".join(facts["architectures"])
        findings.append(
            Finding("ok", "torch build", f"{facts['torch']}, {cuda}" + (f", code for {sets}" if sets else ""))
        )
    if answer.unusable is not None:
        findings.append(Finding("bad", "device", " ".join((f"{answer.unusable}.", *facts["next_steps"]))))
    elif answer.device is not None:
        findings.append(Finding("ok", "device", f"{answer.device} ({facts['name']}): {facts['reason']}"))
        findings += [Finding("note", "device", warning) for warning in facts["warnings"]]
    if answer.precision is not None:
        findings.append(Finding("ok", "precision", f"{answer.precision.precision}: {answer.precision.reason}"))
    if answer.kernels:
        chosen, warnings = choose_kernel(setting, answer.kernels.values())
        findings.append(Finding("ok", "attention", f"{chosen} is used (WAN22_ATTENTION is {setting})"))
        findings += [Finding("note", "attention", warning) for warning in warnings]
    for found in answer.kernels.values():
        measured = "" if found.seconds is None else f", {1000 * found.seconds:.2f} ms"
        distance = "" if found.error is None else f", {found.error:.1e} from float32"
        grade: Grade = "ok" if found.right else "note"
        text = f"{found.verdict}: {found.reason}{measured}{distance}"
        findings.append(Finding(grade, f"attention {found.kernel}", text))
    if answer.failure is not None:
        findings.append(Finding("note" if answer.late else "bad", "engine", answer.failure))
    return findings


def _read_speed(settings: Settings) -> Finding:
    speed = read_speed(settings.paths.models)
    if speed is None:
        return Finding("ok", "disk", "reading was not measured: the models folder is empty")
    return Finding("ok", "disk", f"the models folder reads {speed / 1e9:.2f} GB/s, measured")


def _hub(offline: bool) -> Finding:
    if offline:
        return Finding("ok", "model hub", "not contacted (--offline)")
    hub = Hub()
    reach, how = hub.reach()
    needed = "" if reach is Reach.REACHABLE else "; installed models work without it"
    return Finding("ok" if reach is Reach.REACHABLE else "note", "model hub", f"{hub.host} is {reach}: {how}{needed}")


def _library(name: str) -> Finding:
    try:
        return Finding("ok", name, version(name))
    except PackageNotFoundError:
        return Finding("bad", name, "not installed: run `make install`")


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= SQLITE_WAL_FIX:
        return Finding("ok", "SQLite", sqlite3.sqlite_version)
    return Finding(
        "note",
        "SQLite",
        f"{sqlite3.sqlite_version} has the WAL-reset bug (fixed in 3.51.3); one checkpointer avoids it",
    )


def _home(settings: Settings) -> list[Finding]:
    root = settings.paths.root
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return [Finding("bad", "home", f"{root} cannot be written; set WAN22_HOME")]
    free = shutil.disk_usage(existing).free
    grade: Grade = "ok" if free > LOW_DISK_BYTES else "bad"
    return [Finding(grade, "home", f"{root}, {free / GIB:.1f} GiB free")]


def _health(settings: Settings, database: Database) -> list[Finding]:
    """Report what the health monitor of a server finds."""
    found = Examination(settings, database, surroundings=Surroundings(settings.paths)).findings()
    return [
        Finding("bad" if one.critical else "note", "health", f"{one.sentence}. {one.next_step}") for one in found
    ] or [Finding("ok", "health", "nothing is wrong with queue, workers, memory and cards")]


def _database(settings: Settings) -> list[Finding]:
    """Report the database, its copies, its last restoration, and what could be deleted."""
    home, findings = settings.paths, []
    if (restored := last_restoration(home)) is not None:
        findings.append(Finding("note" if restored.is_news else "ok", "restoration", restored.sentence))
    database = Database(settings.database, checkpointer=False, creates=False)
    try:
        refuse_lost(database.file, home)
        if database.file is not None and inspect_file(database.file).condition is FileCondition.MISSING:
            return [*findings, Finding("ok", "database", "not made yet: the first start of the server makes it")]
        rows = Retention(database).due(RowLimits.of(settings))
        findings.append(Finding("ok", "database", rows.sentence))
        findings += _health(settings, database)
    except WanError as error:
        findings.append(Finding("bad", "database", " ".join((f"{error.message}.", *error.next_steps))))
    finally:
        database.close()
    if database.file is None:
        return [*findings, Finding("ok", "backups", "PostgreSQL is backed up with pg_dump")]
    copies = Backups(home.backups).list()
    text = f"{len(copies)}, the newest of {copies[0].made_at:%Y-%m-%d %H:%M} UTC" if copies else "none yet"
    findings.append(Finding("ok" if copies else "note", "backups", text))
    return findings
