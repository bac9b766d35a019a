"""What is refused for lack of memory, and what is queued because the user insists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.errors.requests import DoesNotFit
from backend.core.paths import Home
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.models.lora.library import LoraLibrary
from backend.services.planning.forecast import Forecast
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore

BIG = ["T2V-A14B", "TI2V-5B"]


@pytest.fixture
def forecast(tmp_path: Path) -> Forecast:
    """A processor with 4 GiB, where nothing was generated yet."""
    home = Home(tmp_path / "home").create()
    database = Database(f"sqlite:///{home.database}")
    database.migrate()
    machine = Machine("a processor", cuda=False, vram=None, ram=4 * GIB)
    return Forecast(machine, OutputStore(database, home), LoraLibrary(home), binding=True)


def request_for(model: str) -> GenerationRequest:
    return resolve_request(MODELS[model], RequestDraft("a red circle", seed=1))[0]


@pytest.mark.parametrize("model", BIG)
@pytest.mark.parametrize("share", [None, 1.0], ids=["size unknown", "size known"])
def test_what_does_not_fit_is_refused_unless_forced(forecast: Forecast, model: str, share: float | None) -> None:
    request = request_for(model)
    size = None if share is None else int(share * MODELS[model].weights_gb * 1e9)
    with pytest.raises(DoesNotFit) as refused:
        forecast.check(request, size)
    assert any("`force`" in step for step in refused.value.next_steps)
    forecast.check(replace(request, force=True), size)
    assert forecast.shortfall(request, size) is not None


@pytest.mark.parametrize("model", BIG)
def test_nothing_is_said_about_files_of_another_structure_or_another_machine(forecast: Forecast, model: str) -> None:
    assert forecast.shortfall(request_for(model), 10**6) is None
    assert replace(forecast, binding=False).shortfall(request_for(model), None) is None


@pytest.mark.parametrize("model", BIG)
def test_force_reaches_the_worker_and_changes_no_frame(model: str) -> None:
    request = request_for(model)
    forced = replace(request, force=True)
    assert GenerationRequest.from_json(forced.to_json()) == forced
    assert "force" not in request.to_json()
    assert forced.denoise_digest == request.denoise_digest
