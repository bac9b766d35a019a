"""Checks of asking for videos: the forms of a request, the answer, refusals, repeated calls."""

from __future__ import annotations

from typing import Any, Final

from backend.commands.conformance.probe import Check, NotChecked, Probe, body_of, expect, expect_error, shown

RETRY_COUNT: Final = "x-stainless-retry-count"
_MADE: Final = (200, 201, 202)


def _form(probe: Probe) -> None:
    probe.first()


def _object(probe: Probe) -> None:
    video = probe.first()
    expect(video.get("object") == "video", f"object is {video.get('object')!r}")
    expect(isinstance(video.get("id"), str), "id is no text")
    expect(isinstance(video.get("model"), str), "model is no text")
    expect(video.get("status") in ("queued", "in_progress", "completed"), f"status is {video.get('status')!r}")
    for name in ("progress", "created_at"):
        expect(type(video.get(name)) is int, f"{name} is {video.get(name)!r}, not a whole number")


def _texts(probe: Probe) -> None:
    video = probe.first()
    for name in ("seconds", "size"):
        expect(isinstance(video.get(name), str), f"{name} is {video.get(name)!r}, not a text")


def _prompt(probe: Probe) -> None:
    expect(probe.first().get("prompt") == probe.wishes.prompt, f"prompt is {probe.first().get('prompt')!r}")


def _json(probe: Probe) -> None:
    fields: dict[str, Any] = {"prompt": probe.wishes.prompt} | probe.wishes.fields
    answer = probe.call("POST", "/videos", json=fields)
    probe.keep(answer)
    expect(answer.status_code in _MADE, f"answers {shown(answer)}")


def _no_prompt(probe: Probe) -> None:
    expect_error(probe.post({"seed": "1"} | probe.wishes.fields), 400, param="prompt")


def _bad_size(probe: Probe) -> None:
    expect_error(probe.ask({"size": "wide"}), 400, param="size")


def _bad_seconds(probe: Probe) -> None:
    expect_error(probe.ask({"seconds": "soon"}), 400, param="seconds")


def _unknown_model(probe: Probe) -> None:
    expect_error(probe.ask({"model": "no-such-model"}), 400, 404, param="model")


def _unknown_field(probe: Probe) -> None:
    expect_error(probe.ask({"num_infrence_steps": "3"}), 400, param="num_infrence_steps")


def _lost_pairs(probe: Probe) -> None:
    expect_error(probe.ask({"loras[][path]": "a"}), 400, param="loras")


def _no_picture(probe: Probe) -> None:
    form = {"prompt": (None, probe.wishes.prompt), "input_reference": ("a.png", b"no picture", "image/png")}
    expect_error(probe.call("POST", "/videos", files=form), 400, param="input_reference")


def _repeat(probe: Probe) -> None:
    changes = {"prompt": f"{probe.wishes.prompt}, once"}
    first = probe.ask(changes, {RETRY_COUNT: "0"})
    if first.status_code not in _MADE:
        raise NotChecked(f"the first call answers {shown(first)}")
    again = probe.ask(changes, {RETRY_COUNT: "1"})
    expect(again.status_code in _MADE, f"the second attempt answers {shown(again)}")
    expect(body_of(first)["id"] == body_of(again)["id"], "the second attempt made a second video")


def _two_calls(probe: Probe) -> None:
    changes = {"prompt": f"{probe.wishes.prompt}, twice"}
    answers = [probe.ask(changes, {RETRY_COUNT: "0"}) for _ in range(2)]
    if any(answer.status_code not in _MADE for answer in answers):
        raise NotChecked(f"the second call answers {shown(answers[1])}")
    expect(body_of(answers[0])["id"] != body_of(answers[1])["id"], "the second call got the first video")


def _remix(probe: Probe) -> None:
    source = probe.finished()
    answer = probe.call("POST", f"/videos/{source}/remix", json={"prompt": f"{probe.wishes.prompt}, again"})
    probe.keep(answer)
    expect(answer.status_code in _MADE, f"answers {shown(answer)}")
    named = body_of(answer).get("remixed_from_video_id")
    expect(named == source, f"remixed_from_video_id is {named!r}")


def _remix_of_nothing(probe: Probe) -> None:
    expect_error(probe.call("POST", "/videos/no-such-video/remix", json={"prompt": "x"}), 404)


CHECKS: Final = (
    Check("create.form", "`POST /v1/videos` takes `multipart/form-data` without a file", _form),
    Check(
        "create.object",
        "the answer is a video: `id`, `object`, `model`, `status`, whole `progress`, `created_at`",
        _object,
    ),
    Check("create.texts", "`seconds` and `size` are texts", _texts),
    Check("create.prompt", "the answer has the `prompt`", _prompt),
    Check("create.json", "`POST /v1/videos` takes JSON, too", _json),
    Check("create.no_prompt", "without a `prompt` it is 400 and `param` is `prompt`", _no_prompt),
    Check("create.bad_size", "a `size` that cannot be read is 400 with its `param`", _bad_size),
    Check("create.bad_seconds", "`seconds` that cannot be read are 400 with their `param`", _bad_seconds),
    Check("create.unknown_model", "a model that is not there is 400 or 404 with `param` `model`", _unknown_model),
    Check("create.unknown_field", "a misspelt field is refused with its name in `param`, not ignored", _unknown_field),
    Check("create.lost_pairs", "a list of objects in parts, which has lost its pairs, is refused by name", _lost_pairs),
    Check("create.no_picture", "a file that is no image is 400 with `param` `input_reference`", _no_picture),
    Check("create.repeat", "a second attempt (`x-stainless-retry-count: 1`) gets the video of the first", _repeat),
    Check("create.two_calls", "two equal calls make two videos", _two_calls),
    Check("remix.made", "`POST /v1/videos/{id}/remix` takes JSON and names `remixed_from_video_id`", _remix),
    Check("remix.unknown", "a remix of a video that is not there is 404", _remix_of_nothing),
)
