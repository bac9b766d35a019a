"""What a worker remembers of the models that it would have to fetch."""

from __future__ import annotations

from backend.core.errors import UnknownModel, WanError
from backend.worker.runner import LOOK_SECONDS, AbsentModels


def test_the_disk_is_looked_at_once_a_second_for_each_model() -> None:
    clock, here, looked = [100.0], {"here"}, []

    def look(model: str) -> bool:
        looked.append(model)
        return model not in here

    absent = AbsentModels(look, lambda: clock[0])
    for _ in range(10):
        assert (absent.would_fetch("away"), absent.would_fetch("here")) == (True, False)
    assert looked == ["away", "here"]
    here.add("away")
    clock[0] += LOOK_SECONDS / 2
    assert absent.would_fetch("away"), "not looked at yet"
    clock[0] += LOOK_SECONDS / 2
    assert not absent.would_fetch("away")
    assert looked == ["away", "here", "away"]


def test_what_cannot_be_looked_at_is_left_to_the_attempt_which_says_why() -> None:
    failures: list[WanError | OSError] = [UnknownModel("gone"), PermissionError("not yours")]

    def look(_model: str) -> bool:
        raise failures.pop()

    absent = AbsentModels(look)
    assert not absent.would_fetch("one")
    assert not absent.would_fetch("two")
    assert failures == []
