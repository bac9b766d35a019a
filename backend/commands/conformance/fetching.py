"""Checks of what becomes of videos: following, listing, fetching and deleting them; models, keys, errors."""

from __future__ import annotations

from typing import Any, Final

from backend.commands.conformance.probe import (
    UNFINISHED,
    Check,
    NotChecked,
    Probe,
    body_of,
    expect,
    expect_error,
    shown,
)


def _retrieve(probe: Probe) -> None:
    answer = probe.call("GET", f"/videos/{probe.first_id()}")
    expect(answer.status_code == 200, f"answers {shown(answer)}")
    expect(body_of(answer).get("id") == probe.first_id(), "the id is another one")


def _poll_after(probe: Probe) -> None:
    made = probe.ask({"prompt": f"{probe.wishes.prompt}, polled"})
    if made.status_code >= 300:
        raise NotChecked(f"no video was made: {shown(made)}")
    answer = probe.call("GET", f"/videos/{body_of(made)['id']}")
    if body_of(answer).get("status") not in UNFINISHED:
        raise NotChecked("the video had ended already")
    named = answer.headers.get("openai-poll-after-ms", "")
    expect(named.isdecimal() and int(named) > 0, f"openai-poll-after-ms is {named!r}")


def _completes(probe: Probe) -> None:
    seen = probe.followed()
    progress = [video.get("progress") for video in seen]
    numbers = [one for one in progress if type(one) is int]
    expect(len(numbers) == len(progress), f"progress is {progress!r}")
    expect(numbers == sorted(numbers), f"progress went back: {numbers!r}")
    expect(numbers[-1] == 100, f"the completed video has progress {numbers[-1]}")
    expect(100 not in numbers[:-1], "progress was 100 before the video was completed")
    expect(type(seen[-1].get("completed_at")) is int, f"completed_at is {seen[-1].get('completed_at')!r}")


def _failed(probe: Probe) -> None:
    if probe.wishes.failed_video is None:
        raise NotChecked("needs a video that failed: --failed-video ID")
    answer = probe.call("GET", f"/videos/{probe.wishes.failed_video}")
    expect(answer.status_code == 200, f"answers {shown(answer)}: a package would repeat that, and raise it")
    video = body_of(answer)
    expect(video.get("status") == "failed", f"status is {video.get('status')!r}")
    error = video.get("error")
    expect(isinstance(error, dict) and {"code", "message"} <= error.keys(), f"error is {error!r}")


def _unknown(probe: Probe) -> None:
    expect_error(probe.call("GET", "/videos/no-such-video"), 404)


def _list(probe: Probe) -> None:
    probe.first()
    page = _page(probe)
    expect(page.get("object") == "list", f"object is {page.get('object')!r}")
    expect(isinstance(page.get("has_more"), bool), f"has_more is {page.get('has_more')!r}")
    ids = [video.get("id") for video in page["data"]]
    expect((page.get("first_id"), page.get("last_id")) == (ids[0], ids[-1]), "first_id or last_id is another one")
    expect(probe.first_id() in ids, "the newest videos are not in it")


def _page(probe: Probe, **query: Any) -> dict[str, Any]:
    answer = probe.call("GET", "/videos", params=query)
    expect(answer.status_code == 200, f"answers {shown(answer)}")
    page = body_of(answer)
    expect(isinstance(page.get("data"), list) and page["data"], "data is empty, or no list")
    return page


def _order(probe: Probe) -> None:
    probe.first()
    for order in ("desc", "asc"):
        times = [video["created_at"] for video in _page(probe, order=order, limit=20)["data"]]
        expect(times == sorted(times, reverse=order == "desc"), f"order={order} is not in order")


def _paging(probe: Probe) -> None:
    probe.first()
    whole = [video["id"] for video in _page(probe, limit=3)["data"]]
    if len(whole) < 2:
        raise NotChecked("there is one video only")
    walked: list[str] = []
    after: dict[str, str] = {}
    for _ in whole:
        page = _page(probe, limit=1, **after)
        expect(len(page["data"]) == 1, f"limit=1 answers {len(page['data'])} videos")
        walked.append(page["data"][0]["id"])
        after = {"after": page["last_id"]}
    expect(walked == whole, "the pages of one video each are not the page of three")


def _limits(probe: Probe) -> None:
    for limit in ("0", "many"):
        expect_error(probe.call("GET", "/videos", params={"limit": limit}), 400, param="limit")


def _early(probe: Probe) -> None:
    made = probe.ask({"prompt": f"{probe.wishes.prompt}, early"})
    if made.status_code >= 300:
        raise NotChecked(f"no video was made: {shown(made)}")
    answer = probe.call("GET", f"/videos/{body_of(made)['id']}/content")
    if answer.status_code == 200:
        raise NotChecked("the video had ended already")
    expect_error(answer, 400, 404)


def _content(probe: Probe) -> None:
    answer = _fetched(probe)
    expect(answer.content[4:8] == b"ftyp", "the file is no MP4")
    expect(answer.headers.get("content-type") == "video/mp4", f"content-type is {answer.headers.get('content-type')!r}")


def _fetched(probe: Probe, headers: dict[str, str] | None = None, status: int = 200, **query: str) -> Any:
    path = f"/videos/{probe.finished()}/content"
    answer = probe.call("GET", path, params=query, headers={"Accept": "application/binary"} | (headers or {}))
    expect(answer.status_code == status, f"answers {shown(answer)}")
    return answer


def _range(probe: Probe) -> None:
    part = _fetched(probe, {"Range": "bytes=4-7"}, 206)
    expect(part.content == b"ftyp", "the bytes 4 to 7 are others")
    expect(part.headers.get("content-range", "").startswith("bytes 4-7/"), "Content-Range is missing or wrong")


def _etag(probe: Probe) -> None:
    tag = _fetched(probe).headers.get("etag")
    expect(tag, "there is no ETag")
    _fetched(probe, {"If-None-Match": tag}, 304)


def _thumbnail(probe: Probe) -> None:
    _picture(probe, "thumbnail")


def _spritesheet(probe: Probe) -> None:
    _picture(probe, "spritesheet")


def _picture(probe: Probe, variant: str) -> None:
    kind = _fetched(probe, variant=variant).headers.get("content-type", "")
    expect(kind.startswith("image/"), f"content-type is {kind!r}")


def _no_variant(probe: Probe) -> None:
    answer = probe.call("GET", f"/videos/{probe.finished()}/content", params={"variant": "hologram"})
    expect_error(answer, 400, param="variant")


def _delete(probe: Probe) -> None:
    video_id = probe.finished()
    answer = probe.call("DELETE", f"/videos/{video_id}")
    expect(answer.status_code == 200, f"answers {shown(answer)}")
    gone = body_of(answer)
    expect(gone.get("deleted") is True and gone.get("object") == "video.deleted", f"answers {gone!r}")
    expect(gone.get("id") == video_id, "the id is another one")
    for path in ("", "/content"):
        expect_error(probe.call("GET", f"/videos/{video_id}{path}"), 404)


def _delete_unfinished(probe: Probe) -> None:
    made = probe.ask({"prompt": f"{probe.wishes.prompt}, deleted"})
    if made.status_code >= 300:
        raise NotChecked(f"no video was made: {shown(made)}")
    answer = probe.call("DELETE", f"/videos/{body_of(made)['id']}")
    if answer.status_code == 409:  # it is being stopped; the packages repeat the call
        expect_error(answer, 409)
    else:
        expect(answer.status_code == 200, f"answers {shown(answer)}")


def _models(probe: Probe) -> None:
    models = _listed_models(probe)
    for one in models:
        expect(one.get("object") == "model" and isinstance(one.get("id"), str), f"a model is {one!r}")
        expect(type(one.get("created")) is int, f"created is {one.get('created')!r}")
    answer = probe.call("GET", f"/models/{models[0]['id']}")
    expect(answer.status_code == 200, f"GET /models/{{id}} answers {shown(answer)}")


def _listed_models(probe: Probe) -> list[Any]:
    answer = probe.call("GET", "/models")
    expect(answer.status_code == 200, f"answers {shown(answer)}")
    data = body_of(answer).get("data")
    if not isinstance(data, list) or not data:
        raise NotChecked("the list is empty")
    return data


def _no_model(probe: Probe) -> None:
    expect_error(probe.call("GET", "/models/no-such-model"), 404)


def _wrong_key(probe: Probe) -> None:
    answer = probe.call("GET", "/videos", headers={"Authorization": "Bearer wrong"})
    if answer.status_code == 200:
        raise NotChecked("the server takes any key")
    expect_error(answer, 401)


def _no_path(probe: Probe) -> None:
    expect_error(probe.call("GET", "/no-such-thing"), 404)


CHECKS: Final = (
    Check("retrieve.same", "`GET /v1/videos/{id}` shows the video", _retrieve),
    Check("retrieve.poll_after", "an unfinished video has the header `openai-poll-after-ms`", _poll_after),
    Check("retrieve.completes", "`progress` grows, is 100 only at the end, and there is `completed_at`", _completes),
    Check("retrieve.failed", "a video that failed is 200 with `status` and `error`, not an error", _failed),
    Check("retrieve.unknown", "a video that is not there is 404 in the envelope", _unknown),
    Check("list.shape", "a list has `data`, `first_id`, `last_id`, `has_more`", _list),
    Check("list.order", "`order` is newest first, or `asc`", _order),
    Check("list.paging", "`limit` and `after` walk through all videos", _paging),
    Check("list.limits", "a `limit` of 0 or no number is 400 with its `param`", _limits),
    Check("content.early", "the file of an unfinished video is 400 or 404, which no package repeats", _early),
    Check("content.video", "`GET /v1/videos/{id}/content` is an MP4", _content),
    Check("content.range", "`Range` gets a part of it", _range),
    Check("content.etag", "an `ETag` and `If-None-Match` save the second transfer", _etag),
    Check("content.thumbnail", "`variant=thumbnail` is a picture", _thumbnail),
    Check("content.spritesheet", "`variant=spritesheet` is a picture", _spritesheet),
    Check("content.no_variant", "another `variant` is 400 with its `param`", _no_variant),
    Check("models.list", "`GET /v1/models` and `/v1/models/{id}` show models", _models),
    Check("models.unknown", "a model that is not there is 404 in the envelope", _no_model),
    Check("errors.key", "a wrong key is 401 in the envelope", _wrong_key),
    Check("errors.path", "an unknown path is 404 in the envelope", _no_path),
    Check(
        "delete.unfinished", "an unfinished video can be deleted: 200, or 409 until it has stopped", _delete_unfinished
    ),
    Check("delete.finished", "`DELETE` answers `video.deleted`, and the video and its file are gone", _delete),
)
