"""How much other programs on the machine slow a video down, with the threads' wait policy and without it.

`python -m benchmarks.other_load`. Two workers, one as users start it and one whose OpenMP threads spin as the library
does by default, make the same clip in turn: alone, and beside as many busy processes as there are cores. A program that
shares its cores fairly takes twice as long then.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from backend.core.planning.hardware import detect_hardware
from benchmarks.real_worker import RealWorker, real_worker, table

#: What libgomp and Intel's OpenMP do unless they are told otherwise.
SPINNING = {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
MODEL, SIZE, STEPS = "tiny-t2v-a14b", (96, 96, 9), 8
#: Clips for each figure; the median counts.
TIMES = 3
REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "other-load.md"
BEGIN = "<!-- table: python -m benchmarks.other_load -->"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep this many processes computing within the block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _seconds(worker: RealWorker) -> float:
    output = worker.make(worker.request(MODEL, SIZE, image=False, steps=STEPS))
    return output.generation_seconds - float(output.metadata["result"]["seconds"].get("load", 0.0))


def main() -> None:
    """Measure, and write the table into the report."""
    machine = detect_hardware()
    load = os.getloadavg()[0]
    found: dict[tuple[str, int], list[float]] = {}
    with real_worker() as usual, real_worker(SPINNING) as spinning:
        workers = {"passive, as users start it": usual, "spinning, as by default": spinning}
        for worker in workers.values():
            _seconds(worker)  # loads the model
        for _ in range(TIMES):
            for beside in (0, machine.cores):
                for name, worker in workers.items():
                    with busy(beside):
                        found.setdefault((name, beside), []).append(_seconds(worker))
    rows = []
    for name in workers:
        alone, shared = (median(found[name, beside]) for beside in (0, machine.cores))
        rows.append([name, f"{alone:.2f}", f"{shared:.2f}", f"{shared / alone:.1f}"])
    head = ("threads wait", "alone s", f"beside {machine.cores} busy processes s", "times as long")
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.processor}, {machine.cores} cores; load before the run {load:.1f}; "
        f"{MODEL}, {SIZE[0]}x{SIZE[1]}, {SIZE[2]} frames, {STEPS} steps, median of {TIMES}.\n\n{table(head, rows)}\n"
    )
    sys.stdout.write(text)
    before, _, _ = REPORT.read_text().partition(BEGIN)
    REPORT.write_text(f"{before}{BEGIN}\n\n{text}")


if __name__ == "__main__":
    main()
