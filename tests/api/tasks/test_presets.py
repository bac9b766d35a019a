"""Named requests, and the history of prompts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.api.support import TINY, Served, assert_error

PRESETS = "/api/v1/presets"
HISTORY = "/api/v1/prompts/history"


def test_presets_are_kept_changed_and_deleted(served: Served) -> None:
    request = {"model_type": TINY, "steps": "8", "loras": [], "negative_prompt": "  blur "}
    made = served.client.post(PRESETS, json={"name": " My  draft ", "request": request}).json()
    assert made["name"] == "My draft"
    assert made["request"] == {"model_type": TINY, "steps": 8, "loras": [], "negative_prompt": "blur"}
    address = f"{PRESETS}/{made['id']}"
    assert served.client.get(address).json() == made
    assert served.client.get(PRESETS).json() == {"presets": [made]}
    served.submit(**made["request"])
    assert_error(served.client.post(PRESETS, json={"name": "My draft", "request": {}}), 409, "saved_preset_exists")
    changed = served.client.patch(address, json={"request": {"crf": 20}}).json()
    assert (changed["name"], changed["request"]) == ("My draft", {"crf": 20})
    assert served.client.patch(address, json={"name": "Other"}).json()["request"] == {"crf": 20}
    assert served.client.delete(address).status_code == 200
    for again in (served.client.get, served.client.delete):
        assert_error(again(address), 404, "saved_preset_not_found")
    assert_error(served.client.patch(f"{PRESETS}/%00", json={"name": "x"}), 404, "saved_preset_not_found")


@pytest.mark.parametrize(
    "request_",
    [
        {"no_such_field": 1},
        {"steps": "many"},
        {"client_request_id": "x"},
        {"prompt": "x" * 2001},
        {"prompt": "\u0000"},
        {"preset": "x" * 201},
        {"model_type": "x" * 20_000},
        {"model_type": "\u0000"},
    ],
)
def test_a_request_that_no_submit_takes_is_no_preset(shared: Served, request_: dict[str, object]) -> None:
    assert_error(shared.client.post(PRESETS, json={"name": "bad", "request": request_}), 422)
    assert shared.client.get(PRESETS).json() == {"presets": []}


def test_the_history_remembers_prompts_and_forgets_the_oldest(serve: Callable[..., Served]) -> None:
    served = serve(keep_prompts=2)
    for prompt in ("one circle", "two Ärger", "one circle", "three", "four"):
        served.submit(prompt=prompt, variations=2 if prompt == "three" else 1)
        if prompt == "two Ärger":
            (kept,) = served.client.get(HISTORY, params={"search": "ÄRGER"}).json()["prompts"]
            assert (kept["uses"], kept["favourite"], kept["model_type"]) == (1, False, TINY)
            assert served.client.patch(f"{HISTORY}/{kept['id']}", json={"favourite": True}).json()["favourite"]
    listed = served.client.get(HISTORY).json()
    assert [one["prompt"] for one in listed["prompts"]] == ["four", "three", "two Ärger"]
    assert [one["uses"] for one in listed["prompts"]] == [1, 1, 1]
    assert listed["total_count"] == 3
    page = served.client.get(HISTORY, params={"sort": "most_used", "limit": 1, "favourite": False}).json()
    assert (len(page["prompts"]), page["total_count"]) == (1, 2)
    assert served.client.delete(f"{HISTORY}/{listed['prompts'][0]['id']}").status_code == 200
    assert_error(served.client.delete(f"{HISTORY}/{listed['prompts'][0]['id']}"), 404, "prompt_not_found")
    assert served.client.delete(HISTORY).json()["message"] == "1 prompt forgotten"
    assert [one["id"] for one in served.client.get(HISTORY).json()["prompts"]] == [kept["id"]]
    assert served.client.delete(HISTORY, params={"favourites": True}).json()["message"] == "1 prompt forgotten"


def test_no_prompt_is_remembered_where_the_history_is_off(serve: Callable[..., Served]) -> None:
    served = serve(keep_prompts=0)
    served.submit()
    assert served.client.get(HISTORY).json() == {"prompts": [], "total_count": 0}
