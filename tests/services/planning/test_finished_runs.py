"""Records of finished videos, even unusual ones, become observations; missing values are never invented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.core.catalogue.table import find_model
from backend.core.domain import Output
from backend.core.planning.calibration import MemoryCorrection
from backend.core.planning.memory_ladder import Fallback, MemoryUse
from backend.core.record import RunResult
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.services.planning.finished_runs import loads, observations, peaks, whole_phases

REQUEST = resolve_request(find_model("tiny-t2v-a14b"), RequestDraft("a", seed=1))[0]
SECONDS = {"load": 2.0, "encode": 0.5, "denoise_high": 3.0, "denoise_low": 1.0, "decode": 2.5}


def output(device: str = "cpu", seconds: float = 10.0, request: dict[str, Any] | None = None, **result: Any) -> Output:
    record = {"device": device, "request": request or REQUEST.to_json(), "result": {"seconds": SECONDS} | result}
    return Output("t", "t.mp4", 1, "0" * 64, 96, 96, 17, 8.0, seconds, metadata=record)


def test_a_complete_run_yields_every_phase() -> None:
    (one,) = observations([output()], cuda=False)
    assert (one.denoise_seconds, one.decode_seconds, one.encode_seconds) == (4.0, 2.5, 0.5)
    assert one.finish_seconds == pytest.approx(1.0)
    assert one.workload.model == REQUEST.model
    assert list(loads([output()], cuda=False)) == [(one.workload, 2.0)]


def test_a_partial_phase_is_not_counted() -> None:
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


def test_only_runs_in_the_same_precision_count_on_a_card() -> None:
    card = "cuda:0 (NVIDIA Tesla T4)"
    wide, usual, old = output(card, precision="float32"), output(card, precision="bfloat16"), output(card)
    for read in (observations, loads, peaks):
        assert len(list(read([wide], cuda=True, float32=True))) == (0 if read is peaks else 1)
        assert list(read([wide], cuda=True)) == []
    assert [len(list(observations([usual, old], cuda=True, float32=float32))) for float32 in (False, True)] == [2, 0]
    assert len(list(observations([output(precision="float32")], cuda=False))) == 1, "a processor always does"
    told = {"plan": "resident-bf16", "peak_vram_bytes": 10**9}
    (more,) = peaks([output(card, precision="float32", **told)], cuda=True, float32=True)
    (less,) = peaks([output(card, **told)], cuda=True)
    assert more.predicted.vram > less.predicted.vram


def rung(use: MemoryUse) -> dict[str, str]:
    return Fallback(use, "somewhere", "resident-bf16", "expert-swap-bf16", "no memory").to_json()


@pytest.mark.parametrize(
    ("uses", "whole"),
    [
        ((), {"load", "encode", "denoise", "decode", "finish"}),
        ((MemoryUse.LOAD,), set()),
        ((MemoryUse.TEXT,), {"load"}),
        ((MemoryUse.IMAGE,), {"load"}),
        ((MemoryUse.STEP,), {"load", "encode"}),
        ((MemoryUse.DECODE,), {"load", "encode", "denoise"}),
        ((MemoryUse.TEXT, MemoryUse.DECODE), {"load"}),
    ],
)
def test_a_run_that_ran_out_of_memory_counts_only_up_to_that_point(
    uses: tuple[MemoryUse, ...], whole: set[str]
) -> None:
    one = output(fallbacks=[rung(use) for use in uses], expert_steps={"high": 20, "low": 20})
    (seen,) = observations([one], cuda=False)
    taught = {
        "encode": seen.encode_seconds,
        "denoise": seen.denoise_seconds,
        "decode": seen.decode_seconds,
        "finish": seen.finish_seconds,
        "load": next((seconds for _, seconds in loads([one], cuda=False)), None),
    }
    assert {name for name, seconds in taught.items() if seconds is not None} == whole


def test_a_fallback_without_a_location_leaves_no_phase_complete() -> None:
    for odd in ([{"at": "loading", "from": "a", "to": "b"}], [{"use": "something"}], ["odd"], 7):
        assert whole_phases(RunResult.from_json({"fallbacks": odd})) == ()
        (one,) = observations([output(fallbacks=odd)], cuda=False)
        assert (one.denoise_seconds, one.decode_seconds, one.finish_seconds) == (None, None, None)


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
def test_an_unreadable_record_is_skipped(broken: Output) -> None:
    assert len(list(observations([broken, output()], cuda=False))) == 1


def test_memory_is_learnt_only_from_runs_that_kept_their_plan() -> None:
    told = output(plan="resident-bf16", peak_ram_bytes=700_000_000, peak_vram_bytes=None)
    (peak,) = peaks([told], cuda=False)
    assert (peak.ram, peak.vram) == (700_000_000, None)
    assert MemoryCorrection.of([peak]).ram == pytest.approx(700_000_000 / peak.predicted.ram)
    silent = [
        output(),
        output(plan="some other plan", peak_ram_bytes=1),
        output(plan="resident-bf16", peak_ram_bytes=1, fallbacks=[{"after": "block-stream-bf16"}]),
    ]
    assert list(peaks(silent, cuda=False)) == []
    (unmeasured,) = peaks([output(plan="resident-bf16")], cuda=False)
    assert MemoryCorrection.of([unmeasured]) == MemoryCorrection()
