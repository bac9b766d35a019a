"""What a request becomes, and what is refused with which advice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import InvalidRequest, UnknownModel
from backend.core.model_table import MODELS, ModelSpec, find_model
from backend.core.requests import GenerationRequest, RequestDraft, parse_resolution, resolve_request

PROMPT = "a red circle moving right on a navy background"
TINY = MODELS["tiny-t2v-a14b"]


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.id)
def test_defaults_are_the_models_own_and_legal(spec: ModelSpec) -> None:
    request, notes = resolve_request(spec, RequestDraft(PROMPT))
    assert notes == ()
    assert (request.width, request.height, request.num_frames) == (spec.width, spec.height, spec.num_frames)
    assert (request.guidance_scale, request.guidance_scale_2) == (spec.guidance_scale, spec.guidance_scale_2)
    assert request.max_sequence_length == spec.max_sequence_length
    assert 0 <= request.seed < 2**32


def test_table_agrees_with_the_upstream_recipe() -> None:
    t2v, i2v, ti2v = MODELS["T2V-A14B"], MODELS["I2V-A14B"], MODELS["TI2V-5B"]
    assert (t2v.steps, t2v.guidance_scale, t2v.guidance_scale_2, t2v.flow_shift) == (40, 4.0, 3.0, 12.0)
    assert (i2v.steps, i2v.guidance_scale, i2v.guidance_scale_2, i2v.flow_shift) == (40, 3.5, 3.5, 5.0)
    assert (ti2v.steps, ti2v.guidance_scale, ti2v.guidance_scale_2, ti2v.flow_shift) == (50, 5.0, None, 5.0)
    assert (t2v.boundary_ratio, i2v.boundary_ratio, ti2v.boundary_ratio) == (0.875, 0.9, None)
    assert (t2v.size_multiple, ti2v.size_multiple, ti2v.height) == (16, 32, 704)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("T2V-A14B", "T2V-A14B"),
        ("t2v_a14b", "T2V-A14B"),
        ("t2v-A14B@2.2.0", "T2V-A14B"),
        ("Wan-AI/Wan2.2-I2V-A14B-Diffusers", "I2V-A14B"),
        ("Wan-AI_Wan2.2-TI2V-5B-Diffusers", "TI2V-5B"),
        ("image2video", "I2V-A14B"),
        (" tiny ", "tiny-t2v-a14b"),
    ],
)
def test_aliases(name: str, canonical: str) -> None:
    assert find_model(name).id == canonical


@pytest.mark.parametrize("name", ["", "t2v-a14", "T2V-A14B-x", "sora", "../t2v", "auto2", "wan-ai/"])
def test_unknown_model_is_never_another_one(name: str) -> None:
    with pytest.raises(UnknownModel, match="Must be one of"):
        find_model(name)


def test_sizes_and_frames_are_snapped_and_said() -> None:
    request, notes = resolve_request(TINY, RequestDraft(PROMPT, width=100, height=90, num_frames=16))
    assert (request.resolution, request.num_frames) == ("96x96", 17)
    assert len(notes) == 2
    assert "100x90 became 96x96" in notes[0]
    assert "16 became 17" in notes[1]


def test_720_is_704_for_the_5b() -> None:
    request, notes = resolve_request(MODELS["TI2V-5B"], RequestDraft(PROMPT, width=1280, height=720))
    assert request.resolution == "1280x704"
    assert notes


@given(width=st.integers(1, 8192), height=st.integers(1, 8192), model=st.sampled_from(sorted(MODELS)))
def test_a_refused_size_names_one_that_is_accepted(width: int, height: int, model: str) -> None:
    spec = MODELS[model]
    refused: InvalidRequest | None = None
    try:
        resolve_request(spec, RequestDraft(PROMPT, width=width, height=height))
    except InvalidRequest as refusal:
        refused = refusal
    if refused is not None:
        # Far inside the limits nothing is refused; near them snapping may cross the line.
        assert min(width, height) < spec.min_side or width * height > spec.max_pixels // 2
        assert isinstance(refused.details, dict)
        width, height = parse_resolution(refused.details["nearest"])
    request, notes = resolve_request(spec, RequestDraft(PROMPT, width=width, height=height))
    if refused is not None:
        assert (request.width, request.height, notes) == (width, height, ())
    assert request.width % spec.size_multiple == request.height % spec.size_multiple == 0
    assert request.width * request.height <= spec.max_pixels


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prompt": "   "}, "empty"),
        ({"prompt": "x" * 501}, "500"),
        ({"prompt": "a\x00b"}, "control"),
        ({"prompt": "a\ud800b"}, "control"),
        ({"steps": 0}, "between 1 and 100"),
        ({"steps": 101}, "between 1 and 100"),
        ({"num_frames": 0}, "between 1 and"),
        ({"num_frames": 10**9}, "between 1 and"),
        ({"fps": math.nan}, "between"),
        ({"fps": math.inf}, "between"),
        ({"guidance_scale": -0.1}, "between"),
        ({"guidance_scale_2": math.inf}, "between"),
        ({"seed": -1}, "between"),
        ({"seed": 2**32}, "between"),
        ({"width": 0}, "positive"),
        ({"width": -96}, "positive"),
        ({"width": 4096, "height": 4096}, "nearest size it can make is"),
    ],
)
def test_bad_values_are_refused(change: dict[str, object], word: str) -> None:
    draft = RequestDraft(**({"prompt": PROMPT} | change))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=word):
        resolve_request(TINY, draft)


def test_second_guidance_belongs_to_two_experts() -> None:
    with pytest.raises(InvalidRequest, match="two experts"):
        resolve_request(MODELS["TI2V-5B"], RequestDraft(PROMPT, guidance_scale_2=3.0))


@pytest.mark.parametrize(
    "text", ["", "1280", "1280*720", "axb", "1280x", "-1x5", "1280x720x3", "１２８０x720", "9" * 20 + "x1"]
)
def test_resolution_text(text: str) -> None:
    with pytest.raises(InvalidRequest, match="resolution"):
        parse_resolution(text)


def test_json_round_trip_and_digest() -> None:
    request, _ = resolve_request(TINY, RequestDraft(PROMPT, seed=5))
    again = GenerationRequest.from_json(request.to_json())
    assert again == request
    assert again.digest == request.digest
    other, _ = resolve_request(TINY, RequestDraft(PROMPT, seed=6))
    assert other.digest != request.digest
