"""Predicted and measured seconds: ten tasks of each tiny model to learn from, and six of other sizes to predict.

`python -m benchmarks.seconds`. One worker, started as users start it, runs them model by model; the first task of each
model, which loads it, is not one of the ten. Predicted tasks run between those that are learnt from, so that both meet
the same conditions, but nothing is learnt from them. Each runs three times, spread over the run, since the same task
varies by a quarter on shared cores; the median from the loaded model to the finished file is compared. Other programs
on the machine distort the result.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from statistics import median

from backend.core.domain import Output
from backend.core.planning.calibration import refine
from backend.core.planning.cost_model import Rates, Workload, rates_of, seconds
from backend.core.planning.hardware import detect_hardware
from backend.core.planning.memory_plan import PLANS
from backend.core.requests.forms import GenerationRequest
from backend.services.planning.finished_runs import observations
from benchmarks.real_worker import RealWorker, real_worker, table

Case = tuple[int, int, int, int]  # width, height, frames, steps
MODELS = (("tiny-t2v-a14b", False), ("tiny-i2v-a14b", True), ("tiny-ti2v-5b", False))
#: Chosen before anything was measured; sides are multiples of 32, which every tiny model takes.
LEARNT: tuple[Case, ...] = (
    (64, 64, 5, 4),
    (96, 96, 17, 20),
    (128, 96, 9, 8),
    (160, 160, 5, 6),
    (96, 128, 33, 10),
    (192, 192, 5, 4),
    (64, 96, 25, 30),
    (224, 256, 5, 5),
    (128, 128, 17, 12),
    (256, 256, 9, 4),
)
FORETOLD: tuple[Case, ...] = (
    (64, 96, 13, 15),
    (96, 96, 9, 30),
    (160, 128, 9, 8),
    (128, 192, 17, 6),
    (256, 192, 5, 10),
    (192, 256, 9, 20),
)
#: Runs of each predicted task.
TIMES = 3
GOAL = 0.25
REPORT = Path(__file__).parents[1] / "docs" / "benchmarks" / "seconds.md"
BEGIN = "<!-- table: python -m benchmarks.seconds -->"


@dataclass(frozen=True, slots=True)
class Foretold:
    """One predicted task; seconds with the model in memory."""

    model: str
    case: Case
    first: float  #: predicted before anything was measured here
    predicted: float  #: after ten tasks
    measured: tuple[float, ...]  #: one for each run

    @property
    def usual(self) -> float:
        """The median of the times."""
        return median(self.measured)

    @property
    def off(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.usual - 1


def expect(worker: RealWorker, model: str, *, image: bool) -> list[Foretold]:
    """Run the tasks of one model, and predict those of the other sizes from the ten."""

    def make(case: Case) -> Output:
        request = worker.request(model, case[:3], image=image, steps=case[3])
        output = worker.make(request)
        sys.stderr.write(f"{model} {case}: {output.metadata['result']['seconds']} of {output.generation_seconds:.2f}\n")
        return output

    make(LEARNT[0])
    learnt: list[Output] = []
    asked: dict[Case, list[Output]] = {case: [] for case in FORETOLD}
    queue = list(FORETOLD) * TIMES
    for done, case in enumerate(LEARNT, start=1):
        learnt.append(make(case))
        until = done * len(queue) // len(LEARNT)
        for other in queue[sum(map(len, asked.values())) : until]:
            asked[other].append(make(other))
    begin = rates_of(None, detect_hardware().cores)
    known = refine(begin, observations(learnt, cuda=False))
    return [
        Foretold(model, case, _predict(made[0], begin), _predict(made[0], known), tuple(map(_warm, made)))
        for case, made in asked.items()
    ]


def _predict(output: Output, rates: Rates) -> float:
    work = Workload.of(GenerationRequest.from_json(output.metadata["request"]))
    return seconds(work, PLANS[0], rates, cpu=True).warm


def _warm(output: Output) -> float:
    return output.generation_seconds - float(output.metadata["result"]["seconds"].get("load", 0.0))


def main() -> None:
    """Measure every model and write the table into the report."""
    with real_worker() as worker:
        found = list(chain.from_iterable(expect(worker, model, image=image) for model, image in MODELS))
    rows = [
        [
            one.model,
            f"{one.case[0]}x{one.case[1]}",
            f"{one.case[2]}",
            f"{one.case[3]}",
            f"{one.first:.1f}",
            f"{one.predicted:.2f}",
            f"{one.usual:.2f}",
            f"{min(one.measured):.2f} to {max(one.measured):.2f}",
            f"{one.off:+.0%}",
        ]
        for one in found
    ]
    head = ("model", "size", "frames", "steps", "before any task s", "after ten s", "usual s", "of three", "off by")
    inside = sum(abs(one.off) <= GOAL for one in found)
    machine = detect_hardware()
    load = "unknown" if not hasattr(os, "getloadavg") else f"{os.getloadavg()[2]:.1f}"
    text = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.processor}, {machine.cores} cores; load over the last 15 minutes "
        f"{load}, of which this is about {machine.cores}.\n\n{table(head, rows)}\n\n"
        f"{inside} of {len(found)} within {GOAL:.0%}, the median off by {median(abs(one.off) for one in found):.0%}, "
        f"the worst by {max((one.off for one in found), key=abs):+.0%}.\n"
    )
    sys.stdout.write(text)
    before, _, _ = REPORT.read_text().partition(BEGIN)
    REPORT.write_text(f"{before}{BEGIN}\n\n{text}")


if __name__ == "__main__":
    main()
