"""A worker starts each task under the optimization settings stored at that moment."""

from __future__ import annotations

from pathlib import Path

from backend.core.catalogue.table import find_model
from backend.core.config.file import ConfigFile
from backend.core.paths import Home
from backend.core.planning.constraints import stored_optimization
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine
from backend.core.planning.memory_plan import Placement, Storage
from backend.core.requests.rules import native_request
from backend.models.lora.library import LoraLibrary
from backend.services.planning.forecast import Forecast
from backend.services.run.start_plans import StartPlans
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore


def test_changed_settings_apply_to_the_next_task(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    database = Database(f"sqlite:///{home.database}")
    database.migrate()
    kept = stored_optimization(ConfigFile(home.config_file))
    card = Machine("NVIDIA H100", cuda=True, vram=80 * GIB, ram=256 * GIB, compute_capability=(9, 0), cores=8)
    forecast = Forecast(card, OutputStore(database, home), LoraLibrary(home), binding=True, constraints=kept.current)
    plans = StartPlans.of(forecast, lambda: 80 * GIB)
    request = native_request(find_model("T2V-A14B"))

    kept.change({"enable_offload": False, "quantization": "fp8"})
    assert plans.choose(request, "files").plan.placement is Placement.RESIDENT
    assert plans.choose(request, "files").plan.storage is Storage.FP8
    kept.change({"enable_offload": True, "quantization": "bf16", "max_vram_usage_gb": 20})
    bound = plans.choose(request, "files")
    assert (bound.plan.placement, bound.plan.storage) == (Placement.BLOCK_STREAM, Storage.BF16)
    assert "20.0 GiB allowed" in bound.reason
    kept.change({"max_vram_usage_gb": 13, "vae_tile_size": 192})
    tiled = plans.choose(request, "files").plan
    assert (tiled.tiled_decode, tiled.tile_size) == (True, 192)
    home.config_file.write_text("{")  # a broken file constrains nothing and stops no task
    assert plans.choose(request, "files").plan == forecast.decide(request).start.plan
    database.close()
