"""Files of other programs become models by ids alone: only folders that the owner allowed are searched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download

from backend.models.folder.manager import EMBEDDED_MODELS
from tests.api.support import Served, assert_error
from tests.support.hub import COMMIT, REPOSITORY, repository_files, stand_in
from tests.support.server import wait_for

ADOPTION = "/api/v1/models/adoption"
T2V = "T2V-A14B"


def test_a_model_in_an_allowed_folder_is_adopted_and_no_path_is_told(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    cache = tmp_path / "theirs"
    with stand_in(repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b")) as hub:
        for name in hub.files:
            hf_hub_download(REPOSITORY, name, cache_dir=cache, endpoint=hub.endpoint, revision=COMMIT, token=False)
    assert T2V not in found(serve()), "a folder that nobody allowed is not searched"
    served = serve(model_roots=[cache])
    answer = served.client.post(f"{ADOPTION}/survey")
    assert str(tmp_path) not in answer.text
    plan = found(served)[T2V]
    assert (plan["status"], plan["missing"], plan["worthwhile"]) == ("missing", [], True)
    assert served.client.post(ADOPTION, json={"models": ["t2v-a14b"]}).status_code == 200

    def ended() -> dict[str, object] | None:
        (step,) = served.client.get(ADOPTION).json()["models"]
        return step if step["ended"] else None

    step = wait_for(ended, what="the end of the adoption")
    assert step is not None
    assert step["complete"] is True
    assert step["done_bytes"] == step["total_bytes"] == plan["found_bytes"]
    assert served.client.get(f"/api/v1/models/status/{T2V}").json()["status"] == "available"
    assert (cache / f"models--{REPOSITORY.replace('/', '--')}").exists(), "the other program keeps its files"


def test_what_was_not_found_is_refused_and_paths_are_no_models(shared: Served) -> None:
    assert_error(shared.client.post(ADOPTION, json={"models": ["TI2V-5B"]}), 409, "state_conflict")
    assert_error(shared.client.post(ADOPTION, json={"models": ["/etc/passwd"]}), 422)
    assert_error(shared.client.post(ADOPTION, json={"models": [T2V], "from": "/etc"}), 422)


def found(served: Served) -> dict[str, dict[str, object]]:
    """Return the plans of a survey by model."""
    plans = served.client.post(f"{ADOPTION}/survey").json()["plans"]
    return {plan["model_id"]: plan for plan in plans}
