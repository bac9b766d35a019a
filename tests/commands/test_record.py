"""The record inside a video: read, asked for again, held against another one."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import av
import pytest

from backend.api.tasks.body import SubmitBody
from backend.commands.replay import NoRecord, Record, named_video
from backend.core.errors.surroundings import BadSettings
from backend.core.record import RunRecord, body_of
from backend.core.requests.forms import Fit, GenerationRequest, LoraFileRef, LoraUse, OnLoraFailure, Scheduler
from backend.services.media.video_encoder import VideoEncoder
from tests.commands.support import invoke, with_record
from tests.services.media.test_video_encoder import noise

REQUEST = GenerationRequest(
    model="I2V-A14B",
    prompt="a red circle",
    negative_prompt="",
    width=160,
    height=128,
    num_frames=9,
    fps=12.5,
    steps=7,
    guidance_scale=3.25,
    guidance_scale_2=0.0,
    flow_shift=4.5,
    scheduler=Scheduler.EULER,
    seed=0,
    max_sequence_length=33,
    image="a" * 64,
    end_image="b" * 64,
    image_fit=Fit.PAD,
    loras=(
        LoraUse("pair", 0.0, 1.5, (LoraFileRef("c" * 64, "high", "high"), LoraFileRef("d" * 64, "low", "low"))),
        LoraUse("single", 0.5, 0.25, (LoraFileRef("e" * 64, "single", "low"),)),
    ),
    on_lora_failure=OnLoraFailure.FAIL,
    guidance_start=0.0,
    guidance_end=0.75,
    crf=1,
    keep_latents=True,
    latents_of="an-output",
    extends="another-output",
    preset="pair",
    remix_of="another-task",
)


def record(request: GenerationRequest = REQUEST, **changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "product": "wan22",
        "version": "1.0",
        "request": request.to_json(),
        "model": {"id": request.model, "weights_sha256": "f" * 64},
        "libraries": {"torch": "2.13.0", "diffusers": "0.42.1"},
        "device": "cpu",
        "result": {"frames_sha256": "0" * 64, "loras": [{"id": "pair", "outcome": "applied"}]},
    } | changes


def write(path: Path, values: dict[str, Any]) -> Path:
    with VideoEncoder(path, 64, 64, 8.0) as encoder:
        encoder.write(noise(64, 64)[:1])
        encoder.finish(values)
    return path


def changed(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[str, str]]:
    then, now = (
        Record(GenerationRequest.from_json(values["request"]), RunRecord.from_json(values)) for values in (one, other)
    )
    factors = then.factors(now)
    return {factor.name: (factor.then, factor.now) for factor in factors if not factor.same}


def test_the_api_understands_every_value_of_the_record() -> None:
    wish = body_of(REQUEST)
    body = SubmitBody.model_validate({key: value for key, value in wish.items() if value is not None})
    assert (body.model_type, body.resolution) == ("I2V-A14B", "160x128")
    assert (body.image_id, body.end_image_id) == ("a" * 64, "b" * 64)
    assert [lora.model_dump() for lora in body.loras] == [
        {"id": "pair", "strength": 0.0, "strength_2": 1.5, "expert": None},
        {"id": "single", "strength": 0.5, "strength_2": 0.25, "expert": "low"},
    ]
    elsewhere = {"model", "width", "height", "image", "end_image", "loras"}
    provenance = {"latents_of", "extends", "preset", "remix_of"}
    for field in fields(GenerationRequest):
        if field.name not in elsewhere | provenance:
            assert getattr(body, field.name) == getattr(REQUEST, field.name), field.name
    assert body.preset is None, "a preset fills gaps, and there are none"


def test_a_record_is_read_from_the_file(tmp_path: Path) -> None:
    read = Record.read(write(tmp_path / "clip.mp4", record()))
    assert read.request == REQUEST
    assert read.frames_sha256 == "0" * 64
    assert read.images == {"image": "a" * 64, "end_image": "b" * 64}


def test_an_older_record_has_no_hash_and_its_gaps_have_defaults(tmp_path: Path) -> None:
    old = record(result={"frames": 1})
    for name in ("image", "end_image", "image_fit", "loras", "on_lora_failure", "guidance_start", "guidance_end"):
        del old["request"][name]
    for name in ("crf", "keep_latents", "latents_of", "extends", "preset"):
        del old["request"][name]
    read = Record.read(write(tmp_path / "clip.mp4", old))
    assert read.frames_sha256 is None
    assert (read.request.image, read.request.loras, read.request.crf) == (None, (), 17)
    assert body_of(read.request)["loras"] == []


def test_files_without_a_record_of_ours_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoRecord, match="There is no file"):
        Record.read(tmp_path / "missing.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(NoRecord, match="no record"):
        Record.read(text)
    ours = write(tmp_path / "clip.mp4", record())
    with pytest.raises(NoRecord, match="no record"):
        Record.read(with_record(ours, tmp_path / "bare.mp4", None))
    with pytest.raises(NoRecord, match="no record"):
        Record.read(with_record(ours, tmp_path / "foreign.mp4", record(product="another")))
    with pytest.raises(NoRecord, match="newer version"):
        Record.read(with_record(ours, tmp_path / "newer.mp4", record(format=99)))
    with pytest.raises(NoRecord, match=r"cannot be read by this version \(1.0 made it\)"):
        Record.read(with_record(ours, tmp_path / "odd.mp4", record() | {"request": {"model": "T2V-A14B"}}))
    with pytest.raises(NoRecord, match="cannot be read"):
        Record.read(
            with_record(ours, tmp_path / "later.mp4", record() | {"request": REQUEST.to_json() | {"mood": "blue"}})
        )


def test_equal_records_differ_in_nothing() -> None:
    assert changed(record(), record()) == {}


def test_values_that_are_not_in_the_frames_are_no_difference() -> None:
    other = replace(
        REQUEST, fps=8.0, crf=30, keep_latents=False, latents_of=None, extends=None, preset=None, remix_of=None
    )
    assert changed(record(), record(other)) == {}


def test_each_thing_that_differs_is_named_with_both_values() -> None:
    weights = {"model": {"id": REQUEST.model, "weights_sha256": "9" * 64}}
    assert changed(record(), record(**weights)) == {"weights": ("f" * 64, "9" * 64)}
    assert changed(record(), record(device="cuda:0")) == {"device": ("cpu", "cuda:0")}
    assert changed(record(), record(version="1.1")) == {"wan22": ("1.0", "1.1")}
    libraries = {"torch": "2.14.0", "diffusers": "0.42.1", "kernels": "1"}
    assert changed(record(), record(libraries=libraries)) == {"torch": ("2.13.0", "2.14.0"), "kernels": ("-", "1")}
    assert changed(record(), record(replace(REQUEST, seed=8, image=None))) == {
        "request: seed": ("0", "8"),
        "request: image": ("a" * 64, "None"),
    }


def test_a_lora_of_the_same_name_with_another_content_is_a_difference() -> None:
    pair, single = REQUEST.loras
    swapped = replace(single, files=(replace(single.files[0], sha256="1" * 64),))
    assert list(changed(record(), record(replace(REQUEST, loras=(pair, swapped))))) == ["LoRA single"]
    assert list(changed(record(), record(replace(REQUEST, loras=(pair,))))) == ["LoRA single"]
    skipped = {"frames_sha256": "0" * 64, "loras": [{"id": "pair", "outcome": "skipped"}]}
    ((name, (then, now)),) = changed(record(), record(result=skipped)).items()
    assert name == "LoRA pair"
    assert then.endswith("applied")
    assert now.endswith("skipped")


FOREIGN: dict[str, Any] = {
    "a workflow": {"last_node_id": 9, "nodes": [], "links": []},
    "a list": [1, {"product": "wan22"}],
    "a number": 7,
    "a text": "Steps: 20, Sampler: Euler a, CFG scale: 7",
    "our name alone": {"product": "wan22", "format": [1]},
    "a request of the wrong types": record() | {"request": {"model": 3, "prompt": None, "loras": 7, "scheduler": {}}},
    "a text for a number": record() | {"request": REQUEST.to_json() | {"width": "160"}},
    "a fraction of a step": record() | {"request": REQUEST.to_json() | {"steps": 7.5}},
    "LoRAs of another kind": record() | {"request": REQUEST.to_json() | {"loras": [{"id": 1, "files": "x"}]}},
    "not a number": record() | {"request": REQUEST.to_json() | {"fps": float("nan")}},
    "without end": record() | {"request": REQUEST.to_json() | {"guidance_scale": float("inf")}},
}


@pytest.mark.parametrize("values", FOREIGN.values(), ids=list(FOREIGN))
def test_a_record_of_anybodys_making_is_a_sentence(tmp_path: Path, values: Any) -> None:
    video = with_record(write(tmp_path / "clip.mp4", {}), tmp_path / "foreign.mp4", values)
    done = invoke("replay", str(video), "--check", home=tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists(), "nothing is started for it"


@pytest.mark.parametrize(
    "odd",
    [
        {"result": {"loras": [1, {"outcome": "applied"}, {"id": ["pair"]}], "frames": 1e300, "warnings": 5}},
        {"libraries": {"torch": 2, "numpy": ["1"]}, "model": [], "device": {"name": "cpu"}, "version": 1.5},
        {"result": {"seconds": {"decode": float("inf")}, "expert_steps": {"high": float("inf")}}, "task_id": 4},
    ],
)
def test_whatever_else_a_record_says_can_be_compared(odd: dict[str, Any]) -> None:
    values = record(**odd)
    then, now = (
        Record(GenerationRequest.from_json(one["request"]), RunRecord.from_json(one)) for one in (values, record())
    )
    assert all(isinstance(factor.then, str) and isinstance(factor.now, str) for factor in then.factors(now))


@pytest.mark.parametrize(("suffix", "tag"), [("mkv", "wan22"), ("mkv", "WAN22"), ("mov", "Wan22")])
def test_a_record_is_found_in_other_containers(tmp_path: Path, suffix: str, tag: str) -> None:
    source, target = write(tmp_path / "clip.mp4", record()), tmp_path / f"take:2.{suffix}"
    options = {"movflags": "use_metadata_tags"} if suffix == "mov" else {}
    with av.open(str(source)) as old, av.open(f"file:{target}", "w", options=options) as new:
        new.metadata[tag] = old.metadata["wan22"]
        new.metadata["comment"] = '{"nodes": []}'
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    assert Record.read(target).request == REQUEST


def test_a_video_is_named_by_an_id_or_by_its_own_file(tmp_path: Path) -> None:
    assert named_video("4b1f") == "4b1f"
    assert named_video("last") == "last"
    assert named_video(str(write(tmp_path / "clip.mp4", record(task_id="an-output")))) == "an-output"
    (tmp_path / "holiday.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    for text in ("holiday.mp4", "missing.mp4", "folder/missing", "holiday.MOV"):
        with pytest.raises(BadSettings) as refused:
            named_video(str(tmp_path / text) if "/" not in text else text)
        assert "id of a video" in refused.value.next_steps[0]
