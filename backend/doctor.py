"""What is here, what is usable and why not: the findings behind `wan22 doctor`. Looks, never changes."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from backend import __version__
from backend.core.errors import WanError
from backend.core.hardware import GIB, detect_hardware, in_gib
from backend.core.model_table import MODELS
from backend.core.settings import Settings
from backend.models.manager import ModelManager

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
    hardware = detect_hardware()
    findings = [
        Finding("ok", "wan22", f"{__version__}, Python {hardware.python}"),
        Finding("ok", "processor", f"{hardware.cores} cores, {hardware.memory_total / GIB:.1f} GiB memory"),
    ]
    findings += [
        Finding("ok", f"GPU {gpu.index}", f"{gpu.name}, {in_gib(gpu.memory_total)}, driver {hardware.driver}")
        for gpu in hardware.gpus
    ] or [Finding("note", "GPU", "no NVIDIA card found: the tiny models run on the processor")]
    findings += [_library(name) for name in ("torch", "diffusers", "transformers", "av")]
    findings.append(_sqlite())
    findings += _home(settings)
    manager = ModelManager(settings.paths, has_gpu=bool(hardware.gpus))
    for spec in MODELS.values():
        state = manager.state(spec)
        grade: Grade = "ok" if state.available else "note"
        text = (
            f"ready: {spec.width}x{spec.height}, {spec.num_frames} frames"
            if state.available
            else f"not here: {state.reason}"
        )
        findings.append(Finding(grade, spec.id, text))
    try:
        findings.append(Finding("ok", "default model", manager.default().id))
    except WanError as error:
        findings.append(Finding("bad", "default model", error.message))
    return findings


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
