"""Predicted against measured peak memory, over twenty sizes of the tiny models: `python -m benchmarks.memory`.

Each run is a process of its own on the CPU: load, two forwards, decode. Compared is what it took beyond what the same
process had before. The allocator gives freed memory back at once, so that what is alive is measured and not what it
keeps for later. Writes a Markdown table to standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

#: model, width, height, frames. Few frames where the picture is large: decoding does not grow with them.
CASES = [
    ("tiny-t2v-a14b", 64, 64, 5),
    ("tiny-t2v-a14b", 96, 96, 17),
    ("tiny-t2v-a14b", 128, 128, 9),
    ("tiny-t2v-a14b", 160, 160, 9),
    ("tiny-t2v-a14b", 192, 192, 9),
    ("tiny-t2v-a14b", 224, 224, 5),
    ("tiny-t2v-a14b", 256, 256, 5),
    ("tiny-t2v-a14b", 256, 128, 9),
    ("tiny-t2v-a14b", 128, 256, 5),
    ("tiny-t2v-a14b", 256, 192, 5),
    ("tiny-t2v-a14b", 96, 96, 49),
    ("tiny-t2v-a14b", 160, 96, 25),
    ("tiny-ti2v-5b", 64, 64, 5),
    ("tiny-ti2v-5b", 96, 96, 17),
    ("tiny-ti2v-5b", 128, 128, 17),
    ("tiny-ti2v-5b", 160, 160, 9),
    ("tiny-ti2v-5b", 192, 192, 9),
    ("tiny-ti2v-5b", 224, 224, 9),
    ("tiny-ti2v-5b", 256, 256, 9),
    ("tiny-ti2v-5b", 256, 128, 17),
]
GOAL = 0.15
MIB = 1024**2
#: glibc: every block above this many bytes is mapped by itself and unmapped when it is freed.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def peak() -> tuple[int, int]:
    """Return the resident memory of this process now, and at its highest point; bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    now, highest = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, highest


def measure(model: str, width: int, height: int, frames: int) -> dict[str, int]:
    """Make a clip of one step in this process, and say what it took beyond the libraries; bytes."""
    from backend.core.cost_model import Workload
    from backend.core.footprint import WORKER_BASE, footprint
    from backend.core.memory_plan import PLANS
    from backend.core.model_table import find_model
    from backend.core.requests import RequestDraft, resolve_request
    from backend.engine.decode import stream_frames
    from backend.engine.denoise import DenoiseJob
    from backend.engine.pipeline_loader import WanPipelineLoader
    from backend.models.manager import EMBEDDED_MODELS

    spec = find_model(model)
    draft = RequestDraft("a red circle", width=width, height=height, num_frames=frames, steps=1, seed=1)
    request, _ = resolve_request(spec, draft)
    loader = WanPipelineLoader("cpu", threads=1)
    # The first load brings in the classes of the libraries, which belong to every worker.
    loader.load(EMBEDDED_MODELS / model, spec)
    before, _ = peak()
    components = loader.load(EMBEDDED_MODELS / model, spec)
    job = DenoiseJob.start(components, request)
    while not job.done:
        job.step()
    for _ in stream_frames(components, job.latents):
        pass
    _, highest = peak()
    work = Workload.of(request)
    needs = footprint(work.architecture, PLANS[0], work.size, text_tokens=work.text_tokens, cpu=True)
    out_frames = 3 * width * height * min(frames, 64)  # held by the encoder of the file, which does not run here
    return {"measured": highest - before, "predicted": needs.ram - WORKER_BASE["cpu"] - out_frames}


def main() -> None:
    """Measure every case in a child, and print the table."""
    if len(sys.argv) == 5:
        json.dump(measure(sys.argv[1], *map(int, sys.argv[2:])), sys.stdout)
        return
    rows: list[tuple[Any, ...]] = []
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.memory", *map(str, case)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ALLOCATOR)
        found = json.loads(done.stdout)
        rows.append((*case, found["predicted"], found["measured"], found["predicted"] / found["measured"] - 1))
        sys.stderr.write(f"{rows[-1]}\n")
    lines = ["| model | size | frames | predicted MiB | measured MiB | off by |", "|---|---|---|---|---|---|"]
    for model, width, height, frames, predicted, measured, off in rows:
        size = f"{width}x{height}"
        lines.append(f"| {model} | {size} | {frames} | {predicted / MIB:.0f} | {measured / MIB:.0f} | {off:+.0%} |")
    inside = sum(abs(row[-1]) <= GOAL for row in rows)
    middle = median(abs(row[-1]) for row in rows)
    lines.append(f"\n{inside} of {len(rows)} within {GOAL:.0%}; the median is off by {middle:.0%}.")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
