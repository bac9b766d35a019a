"""The routes about prompts, in every form in which clients of the earlier application ask."""

from __future__ import annotations

import pytest

from tests.api.support import Served, assert_error

PROMPT = "a photo of a cat"


@pytest.mark.parametrize("prefix", ["/api/v1", ""])
@pytest.mark.parametrize(
    "question",
    [
        {"prompt": PROMPT},
        {"prompt": PROMPT, "options": {"apply_vace": False}},
        {"prompt": {"prompt": PROMPT, "options": {}}},
        {"prompt": PROMPT, "apply_cinematic": True},
    ],
)
def test_a_prompt_is_enhanced_on_request(served: Served, prefix: str, question: dict[str, object]) -> None:
    answer = served.client.post(f"{prefix}/prompt/enhance", json=question)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["original_prompt"] == PROMPT
    assert body["enhanced_prompt"].startswith(PROMPT + ", ")
    assert (body["detected_style"], body["vace_detected"]) == ("photorealistic", False)
    counts = body["character_count"]
    assert counts["enhanced"] - counts["original"] == counts["difference"] == len(body["enhanced_prompt"]) - len(PROMPT)
    preview = served.client.post(f"{prefix}/prompt/preview", json=question).json()
    assert preview["preview_enhanced"] == body["enhanced_prompt"]
    assert preview["suggested_enhancements"] == body["enhancements_applied"] != []
    assert served.count() == 0


def test_flags_beside_the_prompt_count(served: Served) -> None:
    question = {"prompt": PROMPT, "apply_cinematic": False, "apply_style": False}
    assert served.client.post("/api/v1/prompt/enhance", json=question).json()["enhanced_prompt"] == PROMPT


def test_a_prompt_that_cannot_be_used_is_refused_or_judged(served: Served) -> None:
    assert_error(served.client.post("/api/v1/prompt/enhance", json={"prompt": "  "}), 422, "invalid_request")
    assert_error(served.client.post("/api/v1/prompt/enhance", json={"prompt": "a\x00b"}), 422, "invalid_request")
    assert_error(served.client.post("/api/v1/prompt/enhance", json={"prompt": "x" * 2001}), 422)
    assert_error(served.client.post("/api/v1/prompt/enhance", json=[]), 422)
    judged = served.client.post("/api/v1/prompt/validate", json={"prompt": " ab "}).json()
    assert (judged["is_valid"], judged["character_count"]) == (False, 2)
    assert served.client.post("/api/v1/prompt/validate", json={"prompt": PROMPT}).json()["is_valid"] is True


def test_styles_are_listed(served: Served) -> None:
    body = served.client.get("/api/v1/prompt/styles").json()
    assert body["total_count"] == len(body["styles"]) > 0
    assert set(body["styles"][0]) == {"name", "display_name", "description"}
