"""The lock between queuing a task and removing its model: who waits, how long, and where there is nothing to lock."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.errors.models import ModelUnavailable
from backend.core.paths import Home
from backend.models.folder import locks as module
from backend.models.folder.locks import removal_lock

T2V, TI2V, TINY = MODELS["T2V-A14B"], MODELS["TI2V-5B"], MODELS["tiny-t2v-a14b"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def test_one_waits_for_the_other_and_no_other_model_does(home: Home) -> None:
    order: list[str] = []

    def second() -> None:
        with removal_lock(home, T2V):
            order.append("second")

    with removal_lock(home, T2V):
        thread = threading.Thread(target=second)
        thread.start()
        with removal_lock(home, TI2V), removal_lock(home, TINY), removal_lock(home, TINY):
            order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_who_waits_too_long_is_told_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    with removal_lock(home, T2V), pytest.raises(ModelUnavailable, match="removed"), removal_lock(home, T2V):
        pass
    with removal_lock(home, T2V):
        pass


def test_without_a_folder_of_models_nothing_is_locked(tmp_path: Path) -> None:
    home = Home(tmp_path / "nowhere")
    with removal_lock(home, T2V):
        assert not home.root.exists()
