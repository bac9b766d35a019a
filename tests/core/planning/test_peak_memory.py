"""A real worker needs the memory that the planner predicts, at sizes that torch computes in different ways."""

from __future__ import annotations

import sys

import pytest

from backend.core.planning.cost_model import Workload
from backend.core.planning.footprint import footprint
from backend.core.planning.memory_plan import PLANS
from benchmarks.memory import AT_ONCE
from benchmarks.real_worker import real_worker

#: Each needs more than the one before it, so that one worker's peak is that of its last task. The second one
#: is larger than the third, but oneDNN computes its largest level.
SIZES = ((128, 128, 5), (256, 256, 5), (208, 208, 5))


@pytest.mark.skipif(sys.platform != "linux", reason="the highest point of a process is asked of Linux")
@pytest.mark.timeout(600)
def test_a_worker_needs_the_predicted_memory() -> None:
    said, taken = [], []
    # Unfolded inputs are what is predicted; oneDNN does without them, and needs less.
    with real_worker({**AT_ONCE, "WAN22_CONVOLUTION": "native"}) as worker:
        for size in SIZES:
            request = worker.request("tiny-t2v-a14b", size, image=False, steps=1)
            worker.make(request)
            taken.append(worker.peak_bytes)
            work = Workload.of(request)
            needs = footprint(work.architecture, PLANS[0], work.size, text_tokens=work.text_tokens, cpu=True)
            said.append(needs.ram - needs.heap)
    assert said == sorted(said)
    for predicted, measured in zip(said, taken, strict=True):
        assert predicted == pytest.approx(measured, rel=0.05)
