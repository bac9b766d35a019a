"""Videos through the `openai` package: create, follow, list, fetch, delete, remix; and what it is told of errors."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image

from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.core.errors.surroundings import DeviceUnusable
from backend.services.media.spritesheet import COLUMNS
from backend.services.media.video_encoder import VideoEncoder
from tests.api.openai.conftest import library
from tests.api.support import TINY, Served

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

PROMPT = "a red circle moving right on a navy background"
Refused = Callable[..., openai.APIStatusError]


def small(client: openai.OpenAI, **more: Any) -> Any:
    values: dict[str, Any] = {"prompt": PROMPT, "model": TINY, "size": "64x64"} | more
    return client.videos.create(**values)


def finish(served: Served) -> str:
    """Finish the next task with a clip whose every frame has a grey of its own, and return its id."""
    task = served.claim()
    path = served.services.home.work / "clip.mp4"
    with VideoEncoder(path, 64, 64, 8.0) as encoder:
        greys = np.arange(17, dtype=np.uint8)[:, None, None, None] * 10
        encoder.write(np.broadcast_to(greys, (17, 64, 64, 3)).copy())
        encoder.finish()
    served.complete(task, path.read_bytes())
    return task.id


def test_a_video_is_followed_from_its_request_to_its_end(clean: Served, clean_client: openai.OpenAI) -> None:
    made = small(clean_client, seconds="2", extra_body={"seed": 3, "num_inference_steps": 2})
    assert (made.object, made.status, made.progress, made.size, made.seconds) == ("video", "queued", 0, "64x64", "2")
    assert (made.model, made.prompt, made.error, made.completed_at) == (TINY, PROMPT, None, None)
    assert (made.model_extra["seed"], made.model_extra["num_frames"], made.model_extra["fps"]) == (3, 17, 8.0)
    task = clean.claim()
    assert task.id == made.id
    assert task.request["steps"] == 2
    clean.report(task, 0.5, 1, left=40.0)
    raw = clean_client.videos.with_raw_response.retrieve(made.id)
    assert (raw.parse().status, raw.parse().progress) == ("in_progress", 50)
    assert raw.headers["openai-poll-after-ms"] == "2000"
    clean.complete(task)
    done = clean_client.videos.poll(made.id)
    assert (done.status, done.progress, done.error) == ("completed", 100, None)
    assert isinstance(done.completed_at, int)
    assert "openai-poll-after-ms" not in clean_client.videos.with_raw_response.retrieve(made.id).headers


def test_the_pause_between_two_questions_follows_the_time_that_is_left(
    clean: Served, clean_client: openai.OpenAI
) -> None:
    small(clean_client)
    task = clean.claim()
    for left, wait in ((0.1, "500"), (100.0, "5000"), (9000.0, "10000")):
        clean.report(task, 0.5, 1, left=left)
        assert clean_client.videos.with_raw_response.retrieve(task.id).headers["openai-poll-after-ms"] == wait


def test_what_failed_or_was_cancelled_is_an_answer_and_no_error(served: Served, client: openai.OpenAI) -> None:
    small(client)
    task = served.claim()
    served.services.tasks.fail(task.id, str(task.lease_token), DeviceUnusable())
    failed = client.videos.poll(task.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "device_unusable"
    assert failed.error.message
    waiting = small(client, extra_body={"seed": 1})
    served.services.tasks.request_pause(waiting.id)
    assert client.videos.retrieve(waiting.id).status == "queued"
    served.services.tasks.request_cancel(waiting.id)
    cancelled = client.videos.retrieve(waiting.id)
    assert cancelled.status == "failed"
    assert cancelled.error is not None
    assert cancelled.error.code == "cancelled"


def test_pages_of_the_list_have_every_video_once(clean: Served, clean_client: openai.OpenAI) -> None:
    ids = [small(clean_client, extra_body={"seed": seed}).id for seed in range(5)]
    assert [video.id for video in clean_client.videos.list(limit=2)] == ids[::-1]
    assert [video.id for video in clean_client.videos.list(limit=3, order="asc")] == ids
    page = clean_client.videos.list(limit=2, after=ids[3])
    assert [video.id for video in page.data] == [ids[2], ids[1]]
    assert (page.last_id, page.has_more) == (ids[1], True)
    # A page goes on after a video that was deleted meanwhile.
    clean_client.videos.delete(ids[3])
    assert [video.id for video in clean_client.videos.list(after=ids[3])] == [ids[2], ids[1], ids[0]]
    assert clean_client.videos.list(limit=100).has_more is False


def test_a_finished_video_outlives_its_place_in_the_queue(served: Served, client: openai.OpenAI) -> None:
    small(client)
    done = finish(served)
    assert served.client.post("/api/v1/queue/clear").status_code == 200
    assert client.videos.retrieve(done).status == "completed"
    assert [video.id for video in client.videos.list()] == [done]
    # What is in the trash is not there, and comes back.
    served.client.delete(f"/api/v1/outputs/{done}")
    assert client.videos.list().data == []
    served.client.post(f"/api/v1/outputs/{done}/restore")
    assert [video.id for video in client.videos.list()] == [done]
    client.videos.delete(done)
    assert list(served.services.home.outputs.glob("*.mp4")) == []
    assert client.videos.list().data == []


def test_every_variant_of_a_video_is_fetched(served: Served, client: openai.OpenAI, refused: Refused) -> None:
    small(client)
    waiting = client.videos.list().data[0].id
    assert refused(openai.NotFoundError, lambda: client.videos.download_content(waiting)).code == "video_not_ready"
    done = finish(served)
    file = client.videos.download_content(done).read()
    assert file == served.services.outputs.video_path(done).read_bytes()
    part = client.videos.with_raw_response.download_content(done, extra_headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (206, file[4:8], "video/mp4")
    assert client.videos.download_content(done, variant="thumbnail").read().startswith(b"\xff\xd8")
    sheet = Image.open(io.BytesIO(client.videos.download_content(done, variant="spritesheet").read()))
    assert sheet.size == (COLUMNS * 64, 4 * 64)
    for frame in range(17):
        row, column = divmod(frame, COLUMNS)
        shade = np.asarray(sheet.crop((column * 64 + 8, row * 64 + 8, column * 64 + 56, row * 64 + 56))).mean()
        assert abs(shade - frame * 10) < 6, frame
    wrong = refused(openai.BadRequestError, lambda: client.videos.download_content(done, variant="0"))  # type: ignore[arg-type]
    assert wrong.param == "variant"


def test_a_spritesheet_is_kept_and_goes_with_its_video(served: Served, client: openai.OpenAI) -> None:
    small(client)
    done = finish(served)
    kept = served.services.home.spritesheet_of(done)
    first = client.videos.download_content(done, variant="spritesheet").read()
    assert kept.read_bytes() == first
    before = kept.stat().st_mtime_ns
    assert client.videos.download_content(done, variant="spritesheet").read() == first
    assert kept.stat().st_mtime_ns == before
    client.videos.delete(done)
    assert not kept.exists()


def test_a_video_is_deleted_in_every_state(served: Served, client: openai.OpenAI, refused: Refused) -> None:
    waiting = small(client)
    gone = client.videos.delete(waiting.id)
    assert (gone.id, gone.deleted, gone.object) == (waiting.id, True, "video.deleted")
    assert refused(openai.NotFoundError, lambda: client.videos.retrieve(waiting.id)).code == "video_not_found"
    small(client)
    task = served.claim()
    busy = refused(openai.ConflictError, lambda: client.videos.delete(task.id))
    assert busy.code == "video_being_cancelled"
    assert busy.response.headers["x-should-retry"] == "true"
    assert busy.response.headers["retry-after"] == "2"
    served.services.tasks.acknowledge_cancel(task.id, str(task.lease_token))  # its worker stops
    assert client.videos.delete(task.id).deleted
    small(client)
    done = finish(served)
    client.videos.delete(done)
    assert not served.services.home.video_of(done).exists()
    assert refused(openai.NotFoundError, lambda: client.videos.delete(done)).param == "video_id"


def test_a_remix_has_another_prompt_and_the_same_seed(served: Served, client: openai.OpenAI, refused: Refused) -> None:
    small(client, extra_body={"seed": 5, "steps": 3})
    waiting = client.videos.list().data[0].id
    early = refused(openai.NotFoundError, lambda: client.videos.remix(waiting, prompt="x"))
    assert early.code == "video_not_ready"
    done = finish(served)
    prompt = "a blue circle moving right on a navy background"
    remixed = client.videos.remix(done, prompt=prompt)
    assert (remixed.status, remixed.prompt, remixed.remixed_from_video_id) == ("queued", prompt, done)
    request = served.claim().request
    assert (request["seed"], request["steps"], request["prompt"]) == (5, 3, prompt)
    more = refused(
        openai.BadRequestError, lambda: client.videos.remix(done, prompt=prompt, extra_body={"size": "96x96"})
    )
    assert (more.code, more.param) == ("not_offered", "size")


def test_a_video_of_this_server_is_edited_and_extended(served: Served, client: openai.OpenAI, refused: Refused) -> None:
    small(client, extra_body={"seed": 5})
    done = finish(served)
    file = client.videos.download_content(done).read()
    prompt = "a blue circle moving right on a navy background"
    edited = client.videos.edit(prompt=prompt, video=("a.mp4", file, "video/mp4"))
    assert edited.remixed_from_video_id == done
    longer = client.videos.extend(prompt=prompt, seconds="1", video=("a.mp4", file, "video/mp4"))  # type: ignore[arg-type]
    assert (longer.seconds, longer.size) == ("1", "64x64")
    assert longer.model_extra is not None
    assert served.services.tasks.get(longer.id).request["extends"] == done
    # The library cannot send an id; other clients can, as JSON or in a form.
    for sent in ({"json": {"prompt": prompt, "video": {"id": done}}}, {"data": {"prompt": prompt, "video[id]": done}}):
        again = served.client.post("/v1/videos/extensions", **sent)
        assert again.status_code == 200, again.text
        assert served.services.tasks.get(again.json()["id"]).request["extends"] == done
    other = ("a.mp4", file[:-1], "video/mp4")
    calls: list[Callable[[], object]] = [
        lambda: client.videos.edit(prompt=prompt, video=other),
        lambda: client.videos.extend(prompt=prompt, seconds="4", video=other),
    ]
    for call in calls:
        foreign = refused(openai.BadRequestError, call)
        assert (foreign.code, foreign.param) == ("not_offered", "video")
    with pytest.raises(openai.BadRequestError, match="Characters are not offered"):
        client.videos.create_character(name="Ann", video=("a.mp4", file, "video/mp4"))


def test_the_models_are_those_that_a_request_can_name(shared_client: openai.OpenAI, refused: Refused) -> None:
    models = {model.id: model for model in shared_client.models.list()}
    assert models[TINY].owned_by == "wan22"
    assert models[TINY].created > 0
    assert shared_client.models.retrieve(TINY) == models[TINY]
    assert refused(openai.NotFoundError, lambda: shared_client.models.retrieve("sora-2")).param == "model"


def test_a_key_sees_its_own_videos_alone(served: Served, client: openai.OpenAI, refused: Refused) -> None:
    of_operator = small(client)
    drawn = {name: draw_key() for name in ("ann", "ben")}
    for name, key in drawn.items():
        served.services.key_store.create(key, name, [Scope.GENERATE], KeyLimits())
    served.services.keys.refresh()
    ann, ben = (library(served, api_key=drawn[name].text) for name in ("ann", "ben"))
    hers = small(ann)
    assert [video.id for video in ann.videos.list()] == [hers.id]
    assert ben.videos.list().data == []
    served.services.tasks.request_cancel(of_operator.id)
    assert finish(served) == hers.id
    file = ann.videos.download_content(hers.id).read()
    calls: list[Callable[[], object]] = [
        lambda: ben.videos.retrieve(hers.id),
        lambda: ben.videos.delete(hers.id),
        lambda: ben.videos.remix(hers.id, prompt=PROMPT),
        lambda: ben.videos.download_content(hers.id),
        lambda: ben.videos.list(after=hers.id),
        lambda: ann.videos.retrieve(of_operator.id),
    ]
    for call in calls:
        assert refused(openai.NotFoundError, call).code == "video_not_found"
    theirs = refused(openai.BadRequestError, lambda: ben.videos.edit(prompt=PROMPT, video=("a.mp4", file, "video/mp4")))
    assert theirs.code == "not_offered"
    nobody = refused(openai.AuthenticationError, lambda: library(served, api_key="wrong").videos.list())
    assert (nobody.type, nobody.code) == ("authentication_error", "unauthorized")
