"""Predicted and measured peak memory, for twenty sizes of the tiny models.

`python -m benchmarks.memory`. Each size runs twice on a fresh worker on the processor: as users start it, which is what
the planner budgets, and with a C library that returns freed memory at once, which shows what is alive. The peak
resident memory of the whole process is compared. One argument sets the number of parallel workers, and affects no
result; five (`MODEL WIDTH HEIGHT FRAMES IMAGE`) measure one size and print JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from backend.core.planning.cost_model import Workload
from backend.core.planning.footprint import footprint
from backend.core.planning.hardware import detect_hardware
from backend.core.planning.memory_plan import PLANS
from benchmarks.real_worker import real_worker, table

T2V, I2V, TI2V = "tiny-t2v-a14b", "tiny-i2v-a14b", "tiny-ti2v-5b"
#: model, width, height, frames, whether it starts from an image. Chosen before anything was measured, from the smallest
#: to the largest picture; few frames where the picture is large, because decoding does not grow with them.
CASES = (
    (T2V, 64, 64, 5, False),
    (T2V, 96, 96, 17, False),
    (T2V, 128, 128, 9, False),
    (T2V, 160, 96, 25, False),
    (T2V, 192, 192, 9, False),
    (T2V, 256, 128, 9, False),
    (T2V, 128, 256, 5, False),
    (T2V, 256, 256, 5, False),
    (I2V, 64, 64, 9, True),
    (I2V, 96, 96, 17, True),
    (I2V, 128, 128, 33, True),
    (I2V, 192, 128, 9, True),
    (I2V, 128, 224, 5, True),
    (I2V, 256, 256, 5, True),
    (TI2V, 64, 64, 5, False),
    (TI2V, 96, 96, 17, True),
    (TI2V, 160, 160, 9, False),
    (TI2V, 192, 192, 9, True),
    (TI2V, 256, 128, 17, False),
    (TI2V, 256, 256, 9, True),
)
GOAL = 0.15
MIB = 1024**2
#: glibc: every block above this many bytes is mapped by itself and unmapped when it is freed.
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "memory.md"
BEGIN = "<!-- table: python -m benchmarks.memory -->"


@dataclass(frozen=True, slots=True)
class Measured:
    """One size; bytes."""

    predicted: int  #: what the planner budgets
    peak: int  #: measured peak of the process
    predicted_alive: int  #: the same without what the heap retains
    peak_alive: int  #: measured with a C library that retains nothing


def measure(model: str, width: int, height: int, frames: int, image: bool) -> Measured:
    """Generate one clip with each of the two allocator settings."""
    peaks = []
    for environment in ({}, AT_ONCE):
        with real_worker(environment) as worker:
            request = worker.request(model, (width, height, frames), image=image, steps=2)
            worker.make(request)
            peaks.append(worker.peak_bytes)
    sys.stderr.write(f"{model} {width}x{height} {frames} {image}: {peaks}\n")
    work = Workload.of(request)
    needs = footprint(
        work.architecture,
        PLANS[0],
        work.size,
        text_tokens=work.text_tokens,
        encoded_frames=work.encoded_frames,
        cpu=True,
    )
    return Measured(needs.ram, peaks[0], needs.ram - needs.heap, peaks[1])


def _in_a_process(case: tuple[str, int, int, int, bool]) -> Measured:
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, case)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout))


def main() -> None:
    """Measure one size or all of them, and write the table into the report."""
    if len(sys.argv) == 6:
        model, *size, image = sys.argv[1:]
        found = measure(model, int(size[0]), int(size[1]), int(size[2]), image == "True")
        json.dump(asdict(found), sys.stdout)
        return
    rows, budget, alive = [], [], []
    jobs = int(sys.argv[1]) if len(sys.argv) == 2 else 1
    with ThreadPoolExecutor(jobs) as pool:
        measured = list(pool.map(_in_a_process, CASES))
    for case, found in zip(CASES, measured, strict=True):
        budget.append(found.predicted / found.peak - 1)
        alive.append(found.predicted_alive / found.peak_alive - 1)
        numbers = (found.predicted, found.peak), (found.predicted_alive, found.peak_alive)
        cells = [
            cell
            for (said, seen), off in zip(numbers, (budget[-1], alive[-1]), strict=True)
            for cell in (f"{said / MIB:.0f}", f"{seen / MIB:.0f}", f"{off:+.0%}")
        ]
        rows.append([case[0], f"{case[1]}x{case[2]}", str(case[3]), "yes" if case[4] else "", *cells])
    sums = [
        f"{sum(abs(off) <= GOAL for off in offs)} of {len(offs)} within {GOAL:.0%}, the median off by "
        f"{median(map(abs, offs)):.0%}, the worst by {max(offs, key=abs):+.0%}"
        for offs in (budget, alive)
    ]
    machine = detect_hardware()
    head = ("model", "size", "frames", "image", "budget MiB", "measured MiB", "off by", "alive", "measured", "off by")
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.processor}, {machine.cores} cores ({os.uname().machine}).\n\n"
        f"{table(head, rows)}\n\nBudget: {sums[0]}. What is alive: {sums[1]}.\n"
    )
    sys.stdout.write(text)
    before, _, _ = REPORT.read_text().partition(BEGIN)
    REPORT.write_text(f"{before}{BEGIN}\n\n{text}")


if __name__ == "__main__":
    main()
