"""The record of a run: its exact bytes, and what is read from older, newer or damaged records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend import __version__
from backend.core.catalogue.table import MODELS
from backend.core.domain import Phase
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request

TINY = "tiny-t2v-a14b"
REQUEST = resolve_request(MODELS[TINY], RequestDraft("a red circle", seed=1))[0]
RESULT = RunResult(
    frames=17,
    frames_sha256="f" * 64,
    quality="flat",
    seconds={Phase.LOAD: 0.12345, Phase.DECODE: 2.0},
    expert_steps={"high": 7, "low": 13},
    warnings=("The clip is flat.",),
    loras=({"id": "style", "outcome": "applied"},),
    resumed_from_step=4,
    kept_latents=True,
    attention="native",
    precision="bfloat16",
    peak_ram_bytes=5,
    plan="expert-swap-fp8",
    plan_reason="it fits",
    fallbacks=({"at": "loading", "use": "load", "from": "a", "to": "b", "reason": "no memory"},),
)
RECORD = RunRecord.of("task-1", REQUEST, RESULT, device="cpu", weights_sha256="d" * 64, libraries={"torch": "2.13.0"})
_HASH, _WEIGHTS, _REQUESTED = "f" * 64, "d" * 64, json.dumps(REQUEST.to_json())
#: What versions before this class wrote for the same run, byte for byte.
WRITTEN = (
    f'{{"format": 1, "product": "wan22", "version": "{__version__}", "task_id": "task-1", "request": {_REQUESTED}, '
    f'"model": {{"id": "tiny-t2v-a14b", "repository": null, "weights_sha256": "{_WEIGHTS}"}}, '
    '"libraries": {"torch": "2.13.0"}, "device": "cpu", '
    f'"result": {{"frames": 17, "frames_sha256": "{_HASH}", "quality": "flat", '
    '"seconds": {"load": 0.123, "decode": 2.0}, "expert_steps": {"high": 7, "low": 13}, '
    '"warnings": ["The clip is flat."], "loras": [{"id": "style", "outcome": "applied"}], '
    '"resumed_from_step": 4, "kept_latents": true, "attention": "native", "precision": "bfloat16", '
    '"peak_vram_bytes": null, "peak_ram_bytes": 5, "plan": "expert-swap-fp8", "plan_reason": "it fits", '
    '"fallbacks": [{"at": "loading", "use": "load", "from": "a", "to": "b", "reason": "no memory"}]}}'
)


def test_the_bytes_of_a_record_are_the_same_in_every_version() -> None:
    assert json.dumps(RECORD.to_json()) == WRITTEN


def test_a_record_reads_back_as_it_was_written() -> None:
    again = RunRecord.from_json(json.loads(WRITTEN))
    assert json.dumps(again.to_json()) == WRITTEN
    assert again.requested == REQUEST


def test_absent_values_are_unknown() -> None:
    empty = RunRecord.from_json({})
    assert (empty.requested, empty.result, empty.device, empty.version, empty.product) == (None,) * 5
    old = RunRecord.from_json(RECORD.to_json() | {"result": {"frames": 17}})
    assert old.result == RunResult(frames=17)


@pytest.mark.parametrize(
    "values",
    [
        {"request": 7, "model": "x", "libraries": None, "result": []},
        {"request": {"model": TINY}, "result": {"seconds": {"decode": "soon"}}},
        {"result": {"peak_ram_bytes": "much"}},
        {"result": {"seconds": 3}},
    ],
)
def test_unreadable_values_are_unknown_too(values: dict[str, Any]) -> None:
    record = RunRecord.from_json(values)
    assert (record.requested, record.result) == (None, None)


def test_phases_of_another_version_are_skipped() -> None:
    assert RunResult.from_json({"seconds": {"upscale": 5.0, "mux": 1}}).seconds == {Phase.MUX: 1.0}
