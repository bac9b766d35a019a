"""Records of finished videos, also odd ones, become observations; what they do not tell is not made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.core.calibration import MemoryCorrection
from backend.core.domain import Output
from backend.core.model_table import find_model
from backend.core.requests import RequestDraft, resolve_request
from backend.services.finished_runs import loads, observations, peaks

REQUEST = resolve_request(find_model("tiny-t2v-a14b"), RequestDraft("a", seed=1))[0]
SECONDS = {"load": 2.0, "encode": 0.5, "denoise_high": 3.0, "denoise_low": 1.0, "decode": 2.5}


def output(device: str = "cpu", seconds: float = 10.0, request: dict[str, Any] | None = None, **result: Any) -> Output:
    record = {"device": device, "request": request or REQUEST.to_json(), "result": {"seconds": SECONDS} | result}
    return Output("t", "t.mp4", 1, "0" * 64, 96, 96, 17, 8.0, seconds, metadata=record)


def test_a_whole_run_tells_every_phase() -> None:
    (one,) = observations([output()], cuda=False)
    assert (one.denoise_seconds, one.decode_seconds, one.encode_seconds) == (4.0, 2.5, 0.5)
    assert one.finish_seconds == pytest.approx(1.0)
    assert one.workload.model == REQUEST.model
    assert list(loads([output()], cuda=False)) == [(one.workload, 2.0)]


def test_what_a_run_did_in_part_tells_nothing_of_the_whole() -> None:
    (resumed,) = observations([output(resumed_from_step=3, seconds=1.0)], cuda=False)
    assert (resumed.denoise_seconds, resumed.encode_seconds, resumed.finish_seconds) == (None, None, None)
    assert resumed.decode_seconds == 2.5
    again = output(request=replace(REQUEST, latents_of="t").to_json())
    (decoded,) = observations([again], cuda=False)
    assert (decoded.denoise_seconds, decoded.decode_seconds) == (None, 2.5)
    assert list(loads([again], cuda=False)) == []


def test_only_runs_on_the_same_kind_of_device_count() -> None:
    both = [output(), output("cuda:0 (NVIDIA H100)")]
    assert [len(list(observations(both, cuda=cuda))) for cuda in (False, True)] == [1, 1]


@pytest.mark.parametrize(
    "broken",
    [
        replace(output(), metadata={}),
        output(request={"model": "tiny-t2v-a14b"}),
        replace(output(), metadata=output().metadata | {"result": {}}),
        replace(output(), metadata=output().metadata | {"result": {"seconds": {"decode": "soon"}}}),
        output(peak_ram_bytes="much"),
    ],
)
def test_a_record_that_cannot_be_read_is_passed_over(broken: Output) -> None:
    assert len(list(observations([broken, output()], cuda=False))) == 1


def test_memory_is_learnt_from_runs_that_kept_their_plan() -> None:
    told = output(plan="resident-bf16", peak_ram_bytes=700_000_000, peak_vram_bytes=None)
    (peak,) = peaks([told], cuda=False)
    assert (peak.ram, peak.vram) == (700_000_000, None)
    assert MemoryCorrection.of([peak]).ram == pytest.approx(700_000_000 / peak.said.ram)
    silent = [
        output(),
        output(plan="some other plan", peak_ram_bytes=1),
        output(plan="resident-bf16", peak_ram_bytes=1, fallbacks=[{"after": "block-stream-bf16"}]),
    ]
    assert list(peaks(silent, cuda=False)) == []
    (unmeasured,) = peaks([output(plan="resident-bf16")], cuda=False)
    assert MemoryCorrection.of([unmeasured]) == MemoryCorrection()
