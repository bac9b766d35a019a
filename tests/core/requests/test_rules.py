"""How drafts become requests, and which are refused, with which advice."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.core.catalogue.table import MODELS, Mode, ModelSpec, find_model
from backend.core.errors.requests import ImageNotAccepted, ImageRequired, InvalidRequest, UnknownModel
from backend.core.requests.forms import (
    Fit,
    GenerationRequest,
    ImageRef,
    LoraFileRef,
    LoraUse,
    OnLoraFailure,
    RequestDraft,
    Scheduler,
)
from backend.core.requests.frame_size import nearest_size, parse_resolution, snap_size
from backend.core.requests.rules import guidance_plan, resolve_request

PROMPT = "a red circle moving right on a navy background"
TINY = MODELS["tiny-t2v-a14b"]
IMAGE = "5f" * 32


def draft_for(spec: ModelSpec, **values: Any) -> RequestDraft:
    """Build a draft with what the model requires: I2V gets an image with the aspect of the video."""
    if spec.mode is Mode.I2V and "image" not in values:
        size = values.get("width") or spec.width, values.get("height") or spec.height
        values["image"] = ImageRef(IMAGE, *size)
    return RequestDraft(PROMPT, **values)


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.id)
def test_defaults_are_the_models_own_and_legal(spec: ModelSpec) -> None:
    request, notes = resolve_request(spec, draft_for(spec))
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
        ("Wan-AI/Wan2.2-T2V-A14B", "T2V-A14B"),
        ("Wan2.2-I2V-A14B", "I2V-A14B"),
        ("i2v-A14B@2.2.0", "I2V-A14B"),
        ("ti2v-5b@2.2.0", "TI2V-5B"),
        ("t2v-A14B", "T2V-A14B"),
        ("ti2v_5B", "TI2V-5B"),
        ("T2V", "T2V-A14B"),
        ("I2V", "I2V-A14B"),
        ("ti2v", "TI2V-5B"),
        ("text2video", "T2V-A14B"),
        ("image2video", "I2V-A14B"),
        ("Wan-AI_Wan2.2-T2V-A14B-Diffusers", "T2V-A14B"),
        ("Wan-AI/Wan2.1-T2V-14B-Diffusers", "Wan2.1-T2V-14B"),
        ("wan2.1_t2v_1.3b", "Wan2.1-T2V-1.3B"),
        ("FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers", "FastWan2.2-TI2V-5B"),
        ("FastVideo_FastWan2.2-TI2V-5B", "FastWan2.2-TI2V-5B"),
        ("fastwan", "FastWan2.2-TI2V-5B"),
        ("t2v-a14", "T2V-A14B"),
        ("Wan2.2-TI2V", "TI2V-5B"),
        (" tiny ", "tiny-t2v-a14b"),
    ],
)
def test_aliases(name: str, canonical: str) -> None:
    assert find_model(name).id == canonical


@pytest.mark.parametrize(
    "name",
    ["", "T2V-A14B-x", "sora", "../t2v", "auto2", "wan-ai/", "wan2.2", "wan2.1-t2v", "tiny-t", "t2", "i", "T2V 14B"],
)
def test_an_unknown_model_is_never_substituted(name: str) -> None:
    with pytest.raises(UnknownModel, match="Must be one of"):
        find_model(name)


def test_sizes_and_frames_are_snapped_with_notes() -> None:
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
        resolve_request(spec, draft_for(spec, width=width, height=height))
    except InvalidRequest as refusal:
        refused = refusal
    if refused is not None:
        # Far inside the limits nothing is refused; near them snapping may cross the line.
        assert min(width, height) < spec.min_side or width * height > spec.max_pixels // 2
        assert isinstance(refused.details, dict)
        width, height = parse_resolution(refused.details["nearest"])
    request, notes = resolve_request(spec, draft_for(spec, width=width, height=height))
    if refused is not None:
        assert (request.width, request.height, notes) == (width, height, ())
    assert request.width % spec.size_multiple == request.height % spec.size_multiple == 0
    assert request.width * request.height <= spec.max_pixels


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prompt": "   "}, "empty"),
        ({"prompt": "x" * 2001}, "2000"),
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
        ({"seed": -2}, "between"),
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


@given(
    spec=st.sampled_from([*MODELS.values()]),
    width=st.integers(1, 10_000),
    height=st.integers(1, 10_000),
)
@example(spec=TINY, width=241, height=272)  # 65,552 pixels, 16 too many; as 240x272 it fits
def test_the_size_named_by_a_refusal_is_near_and_accepted_unchanged(spec: ModelSpec, width: int, height: int) -> None:
    near, refused = nearest_size(spec, width, height), False
    try:
        snap_size(spec, width, height)
    except InvalidRequest as error:
        refused = (error.details["nearest"], f"{near[0]}x{near[1]}" in error.message) == (f"{near[0]}x{near[1]}", True)
    step, too_small = spec.size_multiple, min(width, height) < spec.min_side
    snapped = [max(spec.min_side, round(side / step) * step) for side in (width, height)]
    too_large = snapped[0] * snapped[1] > spec.max_pixels
    assert snap_size(spec, *near) == (*near, ())
    assert refused is (too_large or too_small)
    if too_large:  # the largest size: one step more along both sides is too much
        assert (near[0] + step) * (near[1] + step) > spec.max_pixels
    elif too_small:  # the smallest size
        assert min(near) - step < spec.min_side


def test_the_size_named_by_a_refusal_keeps_the_aspect() -> None:
    large = MODELS["Wan2.1-I2V-14B-480P"]
    assert nearest_size(large, 96, 96) == (128, 128)
    assert nearest_size(large, 64, 128) == (128, 256)
    assert nearest_size(large, 1920, 1080) == (1280, 720)
    assert nearest_size(large, 1080, 1920) == (720, 1280)
    assert nearest_size(TINY, 4096, 4096) == (256, 256)
    assert nearest_size(TINY, 10_000, 1) == (1024, 64), "what is too narrow loses its length"


def test_a_second_guidance_scale_requires_two_experts() -> None:
    with pytest.raises(InvalidRequest, match="two experts"):
        resolve_request(MODELS["TI2V-5B"], RequestDraft(PROMPT, guidance_scale_2=3.0))


def test_values_fixed_by_a_distillation_are_set_with_notes() -> None:
    spec = MODELS["FastWan2.2-TI2V-5B"]
    request, notes = resolve_request(spec, RequestDraft(PROMPT, steps=50, guidance_scale=5.0, flow_shift=3.0))
    assert (request.steps, request.guidance_scale, request.flow_shift) == (3, 1.0, 5.0)
    assert request.scheduler is Scheduler.DMD
    assert [note.split(",")[0] for note in notes] == [
        "steps 50 became 3", "guidance_scale 5 became 1", "flow_shift 3 became 5",
    ]  # fmt: skip
    own, notes = resolve_request(spec, RequestDraft(PROMPT, steps=3, guidance_scale=1.0, scheduler=Scheduler.DMD))
    assert (own.steps, notes) == (3, ())
    assert GenerationRequest.from_json(own.to_json()) == own
    with pytest.raises(InvalidRequest, match="between 1 and 100"):
        resolve_request(spec, RequestDraft(PROMPT, steps=0))


@pytest.mark.parametrize("scheduler", [Scheduler.UNIPC, Scheduler.EULER])
def test_a_distilled_model_accepts_only_its_own_sampler(scheduler: Scheduler) -> None:
    with pytest.raises(InvalidRequest, match="distilled for the sampler dmd") as refused:
        resolve_request(MODELS["FastWan2.2-TI2V-5B"], RequestDraft(PROMPT, scheduler=scheduler))
    assert refused.value.details == {"field": "scheduler", "nearest": "dmd"}


@pytest.mark.parametrize("model", [name for name, spec in MODELS.items() if not spec.renoise_at])
def test_the_sampler_of_distilled_models_is_refused_for_others(model: str) -> None:
    with pytest.raises(InvalidRequest, match="was not distilled") as refused:
        resolve_request(MODELS[model], draft_for(MODELS[model], scheduler=Scheduler.DMD))
    assert refused.value.details == {"field": "scheduler", "nearest": "unipc"}


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


def test_the_size_follows_the_image_unless_requested() -> None:
    spec = MODELS["I2V-A14B"]
    wide, notes = resolve_request(spec, draft_for(spec, image=ImageRef(IMAGE, 2000, 1000)))
    assert wide.width / wide.height == pytest.approx(2.0, rel=0.03)
    assert wide.width * wide.height == pytest.approx(spec.width * spec.height, rel=0.03)
    assert wide.width % 16 == wide.height % 16 == 0
    assert "by the shape of the image (2000x1000)" in notes[0]
    native, notes = resolve_request(spec, draft_for(spec, image=ImageRef(IMAGE, 1920, 1080)))
    assert (native.resolution, notes) == ("1280x720", ())


@pytest.mark.parametrize(("fit", "word"), [(None, "cropped"), (Fit.PAD, "padded"), (Fit.STRETCH, "stretched")])
def test_an_image_of_another_aspect_is_never_changed_silently(fit: Fit | None, word: str) -> None:
    spec = MODELS["tiny-i2v-a14b"]
    draft = draft_for(spec, image=ImageRef(IMAGE, 100, 300), width=96, height=96, image_fit=fit)
    request, notes = resolve_request(spec, draft)
    assert request.image == IMAGE
    assert request.image_fit == (fit or Fit.CROP)
    assert len(notes) == 1
    assert word in notes[0]


@pytest.mark.parametrize(
    ("model", "images", "error"),
    [
        ("T2V-A14B", {"image"}, ImageNotAccepted),
        ("tiny-t2v-a14b", {"end_image"}, ImageNotAccepted),
        ("I2V-A14B", set(), ImageRequired),
        ("tiny-i2v-a14b", {"end_image"}, ImageRequired),
        ("TI2V-5B", {"image", "end_image"}, ImageNotAccepted),
        ("FastWan2.2-TI2V-5B", {"image"}, ImageNotAccepted),
    ],
)
def test_images_are_checked_against_the_model(model: str, images: set[str], error: type[Exception]) -> None:
    draft = RequestDraft(PROMPT, **{name: ImageRef(IMAGE, 96, 96) for name in images})
    with pytest.raises(error):
        resolve_request(MODELS[model], draft)


def test_a_full_request_round_trips_through_json_and_older_records_still_load() -> None:
    spec = MODELS["tiny-i2v-a14b"]
    use = LoraUse("neon", 0.5, 1.0, (LoraFileRef("ab" * 32, "neon_high_noise.safetensors", "high"),))
    draft = draft_for(
        spec,
        end_image=ImageRef("6e" * 32, 96, 96),
        image_fit=Fit.PAD,
        on_lora_failure=OnLoraFailure.FAIL,
        guidance_end=0.5,
        crf=20,
        keep_latents=True,
        scheduler=Scheduler.EULER,
    )
    request, _ = resolve_request(spec, draft, (use,))
    assert GenerationRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    plain, _ = resolve_request(TINY, RequestDraft(PROMPT, seed=3))
    known_before = [
        "model",
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "num_frames",
        "fps",
        "steps",
        "guidance_scale",
        "guidance_scale_2",
        "flow_shift",
        "scheduler",
        "seed",
        "max_sequence_length",
    ]
    assert GenerationRequest.from_json({name: plain.to_json()[name] for name in known_before}) == plain


def test_values_that_affect_latents_are_separate_from_those_of_the_file() -> None:
    base, _ = resolve_request(TINY, RequestDraft(PROMPT, seed=3))
    file, _ = resolve_request(TINY, RequestDraft(PROMPT, seed=3, crf=30, fps=24.0, keep_latents=True))
    assert file.denoise_digest == base.denoise_digest
    assert file.digest != base.digest
    use = LoraUse("neon", 1.0, 1.0, (LoraFileRef("ab" * 32, "neon.safetensors", "both"),))
    assert replace(base, loras=(use,)).denoise_digest != base.denoise_digest
    for change in ({"guidance_end": 0.5}, {"steps": 7}, {"seed": 4}):
        other, _ = resolve_request(TINY, RequestDraft(PROMPT, **({"seed": 3} | change)))  # type: ignore[arg-type]
        assert other.denoise_digest != base.denoise_digest, change


@pytest.mark.parametrize(
    "values",
    [{"crf": 52}, {"crf": 0}, {"guidance_start": -0.1}, {"guidance_end": 1.1}, {"guidance_start": math.nan},
     {"guidance_start": 0.6, "guidance_end": 0.4}],
)  # fmt: skip
def test_new_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        resolve_request(TINY, RequestDraft(PROMPT, **values))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_empty_guidance_interval_is_accepted_and_guides_no_step(share: float) -> None:
    draft = RequestDraft(PROMPT, steps=4, guidance_scale=5.0, guidance_start=share, guidance_end=share)
    request, notes = resolve_request(TINY, draft)
    assert (request.guidance_start, request.guidance_end, notes) == (share, share, ())
    assert guidance_plan(request, ("high", "high", "low", "low")) == (None,) * 4


def test_guidance_starts_at_its_first_share_and_ends_before_its_last() -> None:
    draft = RequestDraft(
        PROMPT, steps=4, guidance_scale=5.0, guidance_scale_2=3.0, guidance_start=0.25, guidance_end=0.75
    )
    request, _ = resolve_request(TINY, draft)
    assert guidance_plan(request, ("high", "high", "low", "low")) == (None, 5.0, 3.0, None)
