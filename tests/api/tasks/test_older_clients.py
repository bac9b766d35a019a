"""What clients of the earlier application read, where it differs from what one would build today."""

from __future__ import annotations

from backend.api.tasks.shapes import minutes
from tests.api.support import GOOD, SUBMIT, Served


def test_a_lora_out_of_range_is_refused_in_the_words_that_they_compare(served: Served) -> None:
    answer = served.client.post(SUBMIT, json=GOOD | {"lora_path": "tiny_chalk", "lora_strength": 2.5})
    assert answer.status_code == 422
    assert answer.json()["message"] == "LoRA strength must be between 0.0 and 2.0"


def test_the_lora_of_a_task_is_in_the_queue_as_it_was_sent(served: Served) -> None:
    plain = served.submit()
    styled = served.submit(lora_path="tiny_chalk", lora_strength=0.0)
    tasks = {task["id"]: task for task in served.client.get("/api/v1/queue").json()["tasks"]}
    assert (tasks[styled]["lora_path"], tasks[styled]["lora_strength"]) == ("tiny_chalk", 0.0)
    assert tasks[plain].get("lora_path") is None


def test_the_health_answer_repeats_who_asked_and_for_whom(served: Served) -> None:
    served.client.headers["Origin"] = "http://testserver"
    connectivity = served.client.get("/api/v1/system/health").json()["connectivity"]
    assert connectivity["request_origin"] == "http://testserver"
    assert connectivity["host_header"] == served.client.base_url.netloc.decode()


def test_the_last_moments_are_a_minute_or_nothing() -> None:
    assert [minutes(seconds) for seconds in (None, 0.0, 0.4, 61.0)] == [None, 1, 1, 2]
