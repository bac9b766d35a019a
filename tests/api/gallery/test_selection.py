"""Ids first, details of some, filters, marks, boards and the trash, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from tests.api.support import TINY, Served, assert_error

OUTPUTS = "/api/v1/outputs"


@pytest.fixture
def ids(served: Served) -> list[str]:
    """Three finished videos, oldest first."""
    return [finished(served, prompt) for prompt in ("a red circle", "a blue ring", "a red ring")]


def finished(served: Served, prompt: str) -> str:
    served.submit(prompt=prompt)
    return served.complete(served.claim()).task_id


def listed(served: Served, **query: object) -> list[str]:
    """Return the ids that a filter gives, which must be the same in every form of the list."""
    found: list[str] = served.client.get(f"{OUTPUTS}/ids", params=query).json()["ids"]
    packed = served.client.get(f"{OUTPUTS}/ids", params=query | {"format": "packed"})
    assert packed.headers["content-type"] == "application/octet-stream"
    assert [str(UUID(bytes=packed.content[at : at + 16])) for at in range(0, len(packed.content), 16)] == found
    assert packed.headers["x-total-count"] == str(len(found))
    assert [one["id"] for one in served.client.get(OUTPUTS, params=query).json()["videos"]] == found
    return found


def test_ids_come_first_and_details_for_some(served: Served, ids: list[str]) -> None:
    assert listed(served) == ids[::-1]
    page = served.client.get(f"{OUTPUTS}/ids", params={"limit": 1, "offset": 1}).json()
    assert page == {"ids": [ids[1]], "total_count": 3}
    answer = served.client.post(f"{OUTPUTS}/batch", json={"ids": [ids[0], "nobody", ids[2]]}).json()
    assert [one["id"] for one in answer["videos"]] == [ids[0], ids[2]]
    assert answer["missing"] == ["nobody"]
    assert answer["videos"][0] == served.client.get(OUTPUTS).json()["videos"][2]
    assert served.client.get("/outputs/ids").json()["ids"] == ids[::-1]
    packed = served.client.get(f"{OUTPUTS}/ids?format=packed")
    again = served.client.get(f"{OUTPUTS}/ids?format=packed", headers={"If-None-Match": packed.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_days_are_those_of_the_clients_clock(served: Served, ids: list[str]) -> None:
    def days(**query: object) -> list[dict[str, object]]:
        found: list[dict[str, object]] = served.client.get(f"{OUTPUTS}/days", params=query).json()["days"]
        return found

    made = datetime.fromisoformat(served.client.get(f"{OUTPUTS}/{ids[0]}").json()["created_at"])
    assert sum(one["videos"] for one in days()) == 3  # type: ignore[misc]
    assert days()[-1]["day"] == made.date().isoformat()
    assert days(utc_offset=840)[-1]["day"] == (made + timedelta(minutes=840)).date().isoformat()
    assert days(search="blue")[0]["videos"] == 1
    assert days(favourite=True) == []
    assert_error(served.client.get(f"{OUTPUTS}/days", params={"utc_offset": 2000}), 422)


def test_filters_over_http(served: Served, ids: list[str]) -> None:
    assert listed(served, search="RED ri") == [ids[2]]
    assert listed(served, model="TINY-t2v-a14b") == listed(served, family="T2V-A14B", mode="t2v") == ids[::-1]
    assert listed(served, model=["t2v-a14b", TINY], sort="oldest") == ids
    assert listed(served, mode="i2v") == listed(served, mock=True) == listed(served, imported=True) == []
    assert listed(served, after="2020-01-01T00:00:00Z", before="2999-01-01") == ids[::-1]
    assert listed(served, before="2020-01-01T00:00:00+02:00") == []


@pytest.mark.parametrize(
    "query",
    [
        {"model": "no-such-model"},
        {"family": "none"},
        {"mode": "x2v"},
        {"tag": "\u202e"},
        {"after": "yesterday"},
        {"sort": "best"},
        {"search": "x" * 501},
        {"tag": ["x"] * 51},
        {"format": "packed", "offset": 1},
        {"favorite": True},
    ],
)
def test_a_filter_that_cannot_be_is_refused(shared: Served, query: dict[str, object]) -> None:
    assert_error(shared.client.get(f"{OUTPUTS}/ids", params=query), 422)


def test_marks_and_boards(served: Served, ids: list[str]) -> None:
    board = served.client.post("/api/v1/boards", json={"name": "  Best  of "}).json()
    assert (board["name"], board["videos"]) == ("Best of", 0)
    assert_error(served.client.post("/api/v1/boards", json={"name": "Best of"}), 409, "board_exists")
    shown = served.client.patch(
        f"{OUTPUTS}/{ids[0]}", json={"favourite": True, "board_id": board["id"], "add_tags": ["Neon"]}
    ).json()
    assert (shown["favourite"], shown["board_id"], shown["tags"]) == (True, board["id"], ["neon"])
    assert listed(served, favourite=True) == listed(served, tag="NEON") == listed(served, board=board["id"]) == ids[:1]
    assert listed(served, board="none") == ids[:0:-1]
    assert served.client.get(f"{OUTPUTS}/tags").json() == {"tags": [{"tag": "neon", "videos": 1}]}
    renamed = served.client.patch(f"/api/v1/boards/{board['id']}", json={"name": "Good"}).json()
    assert served.client.get("/api/v1/boards").json()["boards"] == [renamed] == [board | {"name": "Good", "videos": 1}]
    assert served.client.delete(f"/api/v1/boards/{board['id']}").status_code == 200
    assert_error(served.client.delete(f"/api/v1/boards/{board['id']}"), 404, "board_not_found")
    assert_error(served.client.patch(f"{OUTPUTS}/{ids[0]}", json={"board_id": board["id"]}), 404, "board_not_found")
    assert_error(served.client.patch(f"{OUTPUTS}/nobody", json={"favourite": True}), 404, "output_not_found")
    assert_error(served.client.patch(f"{OUTPUTS}/{ids[0]}", json={"tags": ["a"], "add_tags": ["b"]}), 422)
    assert_error(served.client.post("/api/v1/boards", json={"name": "a\u0007"}), 422)


def test_many_at_once(served: Served, ids: list[str]) -> None:
    def bulk(**body: object) -> dict[str, object]:
        answer: dict[str, object] = served.client.post(f"{OUTPUTS}/bulk", json=body).json()
        return answer

    assert bulk(ids=[*ids[:2], "nobody"], favourite=True)["missing"] == ["nobody"]
    assert bulk(ids=ids, action="trash")["changed"] == ids
    assert (listed(served), sorted(listed(served, trash=True))) == ([], sorted(ids))
    assert bulk(ids=ids[:2], action="restore")["changed"] == ids[:2]
    assert listed(served, favourite=True) == ids[1::-1]
    assert bulk(ids=ids[:1], action="delete")["changed"] == ids[:1]
    assert served.client.post(f"{OUTPUTS}/trash/empty").json()["deleted"] == 1
    assert [path.stem for path in served.services.home.outputs.glob("*.mp4")] == [ids[1]]
    assert_error(served.client.post(f"{OUTPUTS}/bulk", json={"ids": ids, "action": "trash", "favourite": True}), 422)
    assert_error(served.client.post(f"{OUTPUTS}/bulk", json={"ids": ["x"] * 1001}), 422)


def test_without_a_trash_a_deleted_video_is_gone(serve: Callable[..., Served]) -> None:
    served = serve(trash_days=0)
    task_id = served.complete_one()
    assert served.client.delete(f"{OUTPUTS}/{task_id}").json() == {"message": "Video deleted successfully"}
    assert list(served.services.home.outputs.iterdir()) == []


def test_the_janitor_empties_the_trash_when_its_days_are_over(serve: Callable[..., Served]) -> None:
    served = serve(trash_days=1e-9)
    task_id = served.complete_one()
    served.client.delete(f"{OUTPUTS}/{task_id}")
    assert listed(served, trash=True) == [task_id]
    assert served.services.janitor.sweep().trash == 1
    assert list(served.services.home.outputs.iterdir()) == []
