"""The gallery: metadata, files in whole and in part, downloads, still pictures, deleting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.core.domain import Output
from backend.services.media.video_encoder import read_frames
from tests.api.support import TINY, Served, assert_error
from tests.services.media.test_video_encoder import encode, noise

OUTPUTS = "/api/v1/outputs"
CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)


@pytest.fixture
def video(served: Served) -> Output:
    """One finished video."""
    served.submit(seed=7)
    return served.complete(served.claim(), CONTENT)


def test_the_gallery_lists_what_is_there(served: Served, video: Output) -> None:
    served.submit(prompt="a blue ring")
    newer = served.complete(served.claim(), b"x" * 1024**2)
    answer = served.client.get(OUTPUTS).json()
    assert [one["id"] for one in answer["videos"]] == [newer.task_id, video.task_id]
    assert answer["total_count"] == 2
    assert answer["total_size_mb"] == pytest.approx(1.01, abs=0.001)
    page = served.client.get(OUTPUTS, params={"limit": 1, "offset": 1}).json()
    assert ([one["id"] for one in page["videos"]], page["total_count"]) == ([video.task_id], 2)
    assert served.client.get("/outputs").json() == answer


def test_one_video_has_every_field_that_clients_read(served: Served, video: Output) -> None:
    shown = served.client.get(f"{OUTPUTS}/{video.task_id}").json()
    assert (shown["id"], shown["model_type"], shown["resolution"]) == (video.task_id, TINY, "64x64")
    assert (shown["duration_seconds"], shown["num_frames"], shown["fps"]) == (2.125, 17, 8.0)
    assert shown["generation_time_minutes"] == pytest.approx(1.25 / 60, abs=0.001)
    assert shown["file_size_mb"] == pytest.approx(SIZE / 1024**2, abs=0.001)
    assert shown["generation_params"]["seed"] == 7
    assert shown["metadata"]["request"]["seed"] == 7
    assert shown["created_at"].endswith("Z")
    for field in ("file_path", "video_url", "output_path", "download_url", "thumbnail_path", "thumbnail_url"):
        assert served.client.get(shown[field]).status_code == 200, field
    assert shown["thumbnail_path"].rpartition("/")[2] == f"{video.task_id}_thumb.jpg"
    assert str(served.services.home.root) not in str(shown)


def test_whole_files_have_their_type_and_may_not_act(served: Served, video: Output) -> None:
    for path, disposition in (("video", None), ("download", f'attachment; filename="wan22_video_{video.task_id}.mp4"')):
        response = served.client.get(f"{OUTPUTS}/{video.task_id}/{path}")
        assert response.status_code == 200
        assert response.content == CONTENT
        assert response.headers["content-type"] == "video/mp4"
        assert response.headers["accept-ranges"] == "bytes"
        assert response.headers["etag"] == f'"{video.sha256}"'
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "sandbox"
        assert response.headers.get("content-disposition") == disposition
        head = served.client.head(f"{OUTPUTS}/{video.task_id}/{path}")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(SIZE), b"")
    for path in (f"{OUTPUTS}/{video.task_id}/thumbnail", f"/thumbnails/{video.task_id}_thumb.jpg"):
        picture = served.client.get(path)
        assert (picture.headers["content-type"], picture.content) == ("image/jpeg", b"\xff\xd8picture")


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-50", SIZE - 50, SIZE),
        (f"bytes=10-{SIZE * 2}", 10, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
def test_parts_are_sent_as_asked(served: Served, video: Output, asked: str, first: int, end: int) -> None:
    for path in ("video", "download"):
        response = served.client.get(f"{OUTPUTS}/{video.task_id}/{path}", headers={"Range": asked})
        assert response.status_code == 206
        assert response.content == CONTENT[first:end]
        assert response.headers["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
        assert response.headers["content-length"] == str(end - first)


def test_several_parts_come_as_several_parts(served: Served, video: Output) -> None:
    response = served.client.get(f"{OUTPUTS}/{video.task_id}/video", headers={"Range": "bytes=0-9,100-109"})
    assert response.status_code == 206
    assert response.headers["content-type"].startswith("multipart/byteranges")
    assert CONTENT[:10] in response.content
    assert CONTENT[100:110] in response.content


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}"])
def test_a_part_outside_the_file_is_416(served: Served, video: Output, asked: str) -> None:
    response = served.client.get(f"{OUTPUTS}/{video.task_id}/video", headers={"Range": asked})
    assert_error(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"].endswith(f"*/{SIZE}")


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=",
        "bytes=a-b",
        "bytes=5-1",
        "bytes=--5",
        "pages=1-2",
        "bytes=0-9" + ",0-9" * 10_000,
        "\u00ff".encode("latin-1"),
    ],
    ids=["empty", "letters", "backwards", "double", "unit", "ten thousand", "not ASCII"],
)
def test_strange_ranges_never_break_anything(served: Served, video: Output, asked: str | bytes) -> None:
    response = served.client.get(f"{OUTPUTS}/{video.task_id}/video", headers={"Range": asked})
    assert (response.status_code, response.content) == (200, CONTENT)  # what cannot be read is ignored


@pytest.mark.parametrize("path", ["video", "download", "thumbnail"])
def test_a_file_that_the_client_has_is_not_sent_again(served: Served, video: Output, path: str) -> None:
    address = f"{OUTPUTS}/{video.task_id}/{path}"
    first = served.client.get(address)
    for tags in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = served.client.get(address, headers={"If-None-Match": tags})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["cache-control"] == first.headers["cache-control"]
    dated = served.client.get(address, headers={"If-Modified-Since": first.headers["last-modified"]})
    assert dated.status_code == 304
    assert served.client.get(address, headers={"If-None-Match": '"other"'}).content == first.content


def test_an_old_validator_gets_the_whole_file(served: Served, video: Output) -> None:
    path = f"{OUTPUTS}/{video.task_id}/video"
    same = served.client.get(path, headers={"Range": "bytes=0-9", "If-Range": f'"{video.sha256}"'})
    other = served.client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (same.status_code, other.status_code, other.content) == (206, 200, CONTENT)


def test_a_download_without_metadata_is_a_video_without_its_record(served: Served, tmp_path: Path) -> None:
    encode(tmp_path / "clip.mp4", noise(64, 48))
    served.submit(seed=7)
    made = served.complete(served.claim(), (tmp_path / "clip.mp4").read_bytes())
    address = f"{OUTPUTS}/{made.task_id}/download"
    assert b"hello" in served.client.get(address).content
    plain = served.client.get(address, params={"metadata": False})
    assert (plain.status_code, plain.headers["content-type"]) == (200, "video/mp4")
    assert plain.headers["content-disposition"] == f'attachment; filename="wan22_video_{made.task_id}.mp4"'
    assert plain.headers["content-length"] == str(len(plain.content))
    assert b"hello" not in plain.content
    (tmp_path / "plain.mp4").write_bytes(plain.content)
    assert len(list(read_frames(tmp_path / "plain.mp4"))) == len(list(read_frames(tmp_path / "clip.mp4")))


def test_a_download_without_metadata_of_what_is_no_video_is_an_error(served: Served, video: Output) -> None:
    answer = served.client.get(f"{OUTPUTS}/{video.task_id}/download", params={"metadata": False})
    assert_error(answer, 404, "output_file_missing")


def _shown(served: Served, task_id: str) -> list[dict[str, Any]]:
    """Return the task as its own address shows it and as the queue does."""
    (listed,) = served.client.get("/api/v1/queue").json()["tasks"]
    return [served.client.get(f"/api/v1/queue/{task_id}").json(), listed]


def test_deleting_hides_a_video_until_it_is_restored(served: Served, video: Output) -> None:
    address = f"{OUTPUTS}/{video.task_id}"
    answer = served.client.delete(address).json()
    assert answer == {"message": "Video deleted successfully"}
    for path in ("", "/video", "/download", "/thumbnail"):
        body = assert_error(served.client.get(f"{address}{path}"), 404, "output_not_found")
        assert body["detail"] == "Video not found"
    assert_error(served.client.delete(address), 404, "output_not_found")
    assert_error(served.client.post(f"{address}/extend", json={}), 404, "output_not_found")
    assert served.client.get(OUTPUTS).json()["total_count"] == 0
    for task in _shown(served, video.task_id):
        assert (task["status"], task.get("output_path")) == ("completed", None), "its video is not there for now"
    (trashed,) = served.client.get(OUTPUTS, params={"trash": True}).json()["videos"]
    assert trashed["purge_at"] > trashed["trashed_at"]
    assert served.client.get(f"{address}/video", params={"trash": True}).content == CONTENT
    assert served.client.get(f"{address}/thumbnail", params={"trash": True}).status_code == 200
    assert served.client.get(address, params={"trash": True}).json()["trashed_at"] == trashed["trashed_at"]
    assert served.client.post(f"{address}/restore").json()["id"] == video.task_id
    assert "trashed_at" not in served.client.get(address).json()
    assert all(task["output_path"] == f"{address}/video" for task in _shown(served, video.task_id))
    assert_error(served.client.post(f"{OUTPUTS}/nobody/restore"), 404, "output_not_found")


def test_deleting_for_good_removes_files_and_row(served: Served, video: Output) -> None:
    served.client.delete(f"{OUTPUTS}/{video.task_id}")
    answer = served.client.delete(f"{OUTPUTS}/{video.task_id}", params={"permanent": True}).json()
    assert answer == {"message": "Video deleted successfully"}
    assert list(served.services.home.outputs.iterdir()) == []
    assert served.client.get(OUTPUTS, params={"trash": True}).json()["total_count"] == 0
    assert_error(served.client.post(f"{OUTPUTS}/{video.task_id}/restore"), 404, "output_not_found")
    assert_error(served.client.delete(f"{OUTPUTS}/{video.task_id}?permanent=true"), 404, "output_not_found")
    assert all("output_path" not in task for task in _shown(served, video.task_id))


def test_a_file_that_somebody_took_away_is_said_to_be_missing(served: Served, video: Output) -> None:
    served.services.home.video_of(video.task_id).unlink()
    body = assert_error(served.client.get(f"{OUTPUTS}/{video.task_id}/video"), 404, "output_file_missing")
    assert body["detail"] == "Video file not found"
    served.services.home.thumbnail_of(video.task_id).unlink()
    assert_error(served.client.get(f"/thumbnails/{video.task_id}_thumb.jpg"), 404)
    assert served.client.get(OUTPUTS).json()["total_count"] == 1
    assert served.client.delete(f"{OUTPUTS}/{video.task_id}").status_code == 200


def test_a_file_that_somebody_cut_short_is_not_served(served: Served, video: Output) -> None:
    path = served.services.home.video_of(video.task_id)
    path.write_bytes(path.read_bytes()[:100])
    for address in (f"{OUTPUTS}/{video.task_id}/video", f"{OUTPUTS}/{video.task_id}/download"):
        body = assert_error(served.client.get(address), 404, "output_file_missing")
        assert body["detail"] == f"The video file is damaged: it has 100 bytes instead of {video.size_bytes}"
    assert served.client.delete(f"{OUTPUTS}/{video.task_id}").status_code == 200


def test_a_task_without_a_video_has_no_output(served: Served) -> None:
    task_id = served.submit()
    assert_error(served.client.get(f"{OUTPUTS}/{task_id}"), 404, "output_not_found")
    assert_error(served.client.get(f"/thumbnails/{task_id}_thumb.jpg"), 404)
