"""What the server says that it can make is what it makes."""

from __future__ import annotations

from tests.api.support import GOOD, SUBMIT, Served


def test_capabilities_are_those_of_the_models_that_can_be_used(served: Served) -> None:
    found = served.client.get("/api/v1/generation/capabilities").json()
    models = served.client.get("/api/v1/models").json()["models"]
    usable = {model["id"] for model in models if model["is_available"]}
    assert set(found["supported_models"]) == set(found["models_info"]) == usable != set()
    assert found["features"]["image_to_video"] is any(
        found["models_info"][one]["limits"]["takes_image"] for one in usable
    )
    assert found["supported_resolutions"] == ["256x256"], "no size that only larger models make"
    assert found["default_steps"] == next(one for one in models if one["id"] == GOOD["model_type"])["defaults"]["steps"]
    assert (found["min_steps"], found["max_image_size_mb"]) == (1, 10)


def test_the_limits_are_those_of_submit(served: Served) -> None:
    found = served.client.get("/api/v1/generation/capabilities").json()
    for field, limit in (("steps", found["max_steps"]), ("steps", found["min_steps"])):
        assert served.client.post(SUBMIT, json=GOOD | {field: limit}).status_code == 200
    assert served.client.post(SUBMIT, json=GOOD | {"steps": found["max_steps"] + 1}).status_code == 422
    longest = "a " * (found["max_prompt_length"] // 2 - 1) + "b"
    assert served.client.post(SUBMIT, json=GOOD | {"prompt": longest}).status_code == 200
    assert served.client.post(SUBMIT, json=GOOD | {"prompt": longest + " cc"}).status_code == 422
