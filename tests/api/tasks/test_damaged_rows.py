"""What clients see of a task that the database has damaged, and of one that is queued while nothing else works."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from backend.services.planning.forecast import Forecast
from backend.store.tasks import TaskStore
from tests.api.support import GOOD, SUBMIT, Served


def test_a_damaged_task_breaks_no_list_and_no_submit(served: Served) -> None:
    bad, newer = served.submit(), served.submit()
    with served.services.tasks._database.begin() as connection:
        connection.execute(text("UPDATE tasks SET request = substr(request, 1, 20) WHERE id = :id"), {"id": bad})
        change = "UPDATE tasks SET request = replace(request, '{', '{\"camera\": 1, ') WHERE id = :id"
        connection.execute(text(change), {"id": newer})
    good = served.client.post(SUBMIT, json=GOOD)
    assert good.status_code == 200
    assert good.json()["queue_position"] == 3
    listed = served.client.get("/api/v1/queue").json()
    assert [task["id"] for task in listed["queue"]] == [good.json()["task_id"], newer, bad]
    assert [task["id"] for task in listed["tasks"]] == [good.json()["task_id"], newer]
    assert served.client.get("/api/v1/queue/poll").status_code == 200
    assert served.client.get(f"/api/v1/queue/{newer}").json()["prompt"] == GOOD["prompt"]
    answer = served.client.get(f"/api/v1/queue/{bad}")
    assert (answer.status_code, answer.json()["error"]) == (410, "task_unreadable")
    assert served.client.post(f"/api/v1/queue/{bad}/cancel").status_code == 200


def test_a_video_whose_record_is_damaged_stays_in_every_list(served: Served) -> None:
    done = served.complete_one()
    with served.services.tasks._database.begin() as connection:
        connection.execute(text("UPDATE outputs SET metadata = '{\"request', warnings = '['"))
    (listed,) = served.client.get("/api/v1/outputs").json()["videos"]
    assert (listed["id"], listed["prompt"], listed["model_type"]) == (done, "", GOOD["model_type"])
    assert served.client.get(f"/api/v1/outputs/{done}").status_code == 200
    assert served.client.get(f"/api/v1/outputs/{done}/video").status_code == 200
    assert served.client.get("/api/v1/queue").status_code == 200
    assert served.client.post(f"/api/v1/outputs/{done}/extend", json={}).status_code == 410


@pytest.mark.parametrize(("owner", "call"), [(TaskStore, "up_to"), (Forecast, "until_done")])
def test_a_queued_task_is_never_answered_with_an_error(
    served: Served, monkeypatch: pytest.MonkeyPatch, owner: type, call: str
) -> None:
    def fail(*_arguments: object) -> object:
        raise RuntimeError("the row is gone")

    monkeypatch.setattr(owner, call, fail)
    answer = served.client.post(SUBMIT, json=GOOD)
    assert answer.status_code == 200
    assert "queue_position" not in answer.json()
    assert served.count() == 1
