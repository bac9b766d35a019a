"""What is here, what is usable and why not: the findings behind `wan22 doctor`. Looks, never changes."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from backend import __version__
from backend.core.config_file import ConfigFile
from backend.core.cost_model import Workload
from backend.core.errors import WanError
from backend.core.hardware import GIB, detect_hardware, in_gib
from backend.core.memory_ladder import OomPolicy
from backend.core.model_table import MODELS, ModelSpec
from backend.core.optimization_settings import kept_optimization
from backend.core.settings import Settings
from backend.core.system_optimizer import Machine, WAN22SystemOptimizer
from backend.models.manager import ModelManager, Presence
from backend.services.forecast import native_request
from backend.services.machine_record import last_profile

LOW_DISK_BYTES = 2 * GIB
#: First SQLite without the WAL-reset bug; older ones need a single checkpointer, which this product keeps to.
SQLITE_WAL_FIX = (3, 51, 3)

Grade = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    grade: Grade
    subject: str
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Look at the machine, the libraries, the home folder and the models."""
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
    findings.append(_sqlite())
    findings += _home(settings)
    machine = Machine.of(hardware, settings.device)
    kept = kept_optimization(ConfigFile(settings.paths.config_file))
    try:
        kept.read()
    except WanError as error:
        findings.append(Finding("bad", "config.json", f"{error.message}; the defaults are in force"))
    wishes = kept.current()
    manager = ModelManager(settings.paths, has_gpu=bool(hardware.gpus))
    for spec in MODELS.values():
        state = manager.state(spec)
        grade: Grade = "ok" if state.available else "note"
        text = (
            f"ready: {spec.width}x{spec.height}, {spec.num_frames} frames"
            if state.available
            else f"{'not here' if state.presence is Presence.MISSING else state.presence}: {state.reason}"
        )
        findings.append(Finding(grade, spec.id, text))
        if not spec.embedded:
            findings.append(_fit(spec, WAN22SystemOptimizer(machine, wishes=wishes), settings.oom_policy))
    try:
        findings.append(Finding("ok", "default model", manager.default().id))
    except WanError as error:
        findings.append(Finding("bad", "default model", error.message))
    return findings


def _fit(spec: ModelSpec, optimizer: WAN22SystemOptimizer, policy: OomPolicy) -> Finding:
    """Say whether this machine can hold a model at its own size; by estimate."""
    decision = optimizer.decide(Workload.of(native_request(spec)), policy)
    if decision.fits:
        return Finding("ok", f"{spec.id} plan", f"{decision.reason}, estimated")
    instead = decision.instead
    fitting = (
        "nothing would fit"
        if instead is None
        else f"{instead.model} at {instead.width}x{instead.height}, {instead.num_frames} frames would fit"
    )
    return Finding("note", f"{spec.id} plan", f"{decision.reason}; {fitting} (estimated)")


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
