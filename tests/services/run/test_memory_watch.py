"""Memory is watched during a run: alerts, unloaded models, peaks. The readings are simulated; the run is real."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.config.file import ConfigFile
from backend.core.domain import Progress, Stage
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.hardware import GIB
from backend.core.planning.memory_level import (
    MemoryAlert,
    MemoryLevel,
    MemoryPeaks,
    MemoryReading,
    Place,
    ResourceLimits,
    stored_limits,
)
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.models.folder.manager import ModelManager
from backend.services.real_generation_pipeline import RealGenerationPipeline, RunOptions
from backend.services.run.memory_watch import MemoryWatch, RunMemory

REQUEST, _ = resolve_request(
    MODELS["tiny-t2v-a14b"],
    RequestDraft(prompt="a red circle", width=64, height=64, num_frames=5, steps=2, seed=1, keep_latents=True),
)


class Gauge:
    """A machine with a simulated memory usage, in percent."""

    def __init__(
        self, *, vram: float | None = None, ram: float | None = None, counted: MemoryPeaks | None = None
    ) -> None:
        self.vram, self.ram = vram, ram
        self.counted = counted or MemoryPeaks()
        self.released = 0
        self.looked = threading.Event()

    def readings(self) -> Sequence[MemoryReading]:
        full = {Place.VRAM: self.vram, Place.RAM: self.ram}
        self.looked.set()
        return [MemoryReading(place, int(share * GIB), 100 * GIB) for place, share in full.items() if share is not None]

    def begin(self) -> None:
        return None

    def peaks(self) -> MemoryPeaks:
        return self.counted

    def release(self) -> None:
        self.released += 1


def levels(gauge: Gauge, shares: Sequence[float]) -> list[str]:
    """Return the alerts while the card's usage takes these values one after the other."""
    watch = MemoryWatch(gauge)
    said = []
    for share in shares:
        gauge.vram = share
        watch.poll()
        said.append("".join(alert.level[0] for alert in watch.take()))
    return said


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([10, 74.9, 75, 80, 89, 90, 95], ["", "", "w", "", "", "c", ""]),
        ([95], ["c"]),
        ([95, 86, 84, 76, 69, 76], ["c", "", "", "", "", "w"]),  # falling usage raises no alert
        ([76, 74, 76, 74, 76], ["w", "", "", "", ""]),  # near a limit it alerts once
        ([91, 89, 91, 89], ["c", "", "", ""]),
        ([91, 84, 91], ["c", "", "c"]),
        ([91, 74, 76], ["c", "", ""]),  # from critical straight to below a warning: that level ends at 70 too
    ],
)
def test_each_level_is_reported_when_reached(shares: Sequence[float], said: list[str]) -> None:
    assert levels(Gauge(), shares) == said


def test_the_limits_are_configurable() -> None:
    limits = ResourceLimits(0.5, 0.7, ram_warning_threshold=0.4, ram_critical_threshold=0.55)
    watch = MemoryWatch(Gauge(vram=60, ram=60), limits=lambda: limits)
    watch.poll()
    assert [(alert.level, alert.reading.place) for alert in watch.take()] == [
        (MemoryLevel.WARNING, Place.VRAM),
        (MemoryLevel.CRITICAL, Place.RAM),
    ]
    assert watch.take() == []


def test_changed_limits_apply_at_the_next_sample(tmp_path: Path) -> None:
    kept = stored_limits(ConfigFile(tmp_path / "config.json"))
    gauge = Gauge(vram=60, ram=60)
    watch = MemoryWatch(gauge, limits=kept.current)
    watch.poll()
    assert watch.take() == []
    kept.change({"ram_warning_threshold": 0.5, "vram_critical_threshold": 0.95})
    watch.poll()
    assert [(alert.level, alert.reading.place) for alert in watch.take()] == [(MemoryLevel.WARNING, Place.RAM)]
    gauge.vram = 92
    watch.poll()
    assert [(alert.level, alert.reading.place) for alert in watch.take()] == [(MemoryLevel.WARNING, Place.VRAM)]
    (tmp_path / "config.json").write_text("{")  # while the file is broken, the limits in force stay
    watch.poll()
    assert watch.take() == []
    (tmp_path / "config.json").write_text("{}")
    watch.poll()
    assert [(alert.level, alert.reading.place) for alert in watch.take()] == [(MemoryLevel.CRITICAL, Place.VRAM)]


def test_an_alert_names_the_memory_and_its_usage() -> None:
    alert = MemoryAlert(MemoryLevel.CRITICAL, MemoryReading(Place.VRAM, 74 * GIB, 80 * GIB))
    assert alert.sentence == "The card's memory is 92 % full (74.0 GiB of 80.0 GiB)"
    assert alert.to_json() == {
        "alert_type": "memory",
        "severity": "critical",
        "message": alert.sentence,
        "place": "vram",
        "used_bytes": 74 * GIB,
        "total_bytes": 80 * GIB,
    }
    assert "this worker" in replace(alert, reading=MemoryReading(Place.RAM, 1, 2)).sentence


def test_peaks_are_measured_or_the_highest_samples_of_this_process_or_unknown() -> None:
    gauge = Gauge(vram=50, ram=40)
    watch = MemoryWatch(gauge)
    watch.begin()
    gauge.ram = 60
    watch.poll()
    gauge.ram = 10
    assert watch.peaks() == MemoryPeaks(None, 60 * GIB)
    gauge.counted = MemoryPeaks(7, 8)
    assert watch.peaks() == MemoryPeaks(7, 8)
    watch.begin()
    gauge.counted = MemoryPeaks()
    assert watch.peaks() == MemoryPeaks(None, 10 * GIB), "what was before is forgotten"
    assert MemoryWatch(Gauge()).peaks() == MemoryPeaks()


def test_the_thread_samples_until_it_is_stopped() -> None:
    gauge = Gauge(ram=95)
    watch = MemoryWatch(gauge, seconds=0.01)
    watch.start()
    assert gauge.looked.wait(30)
    watch.stop()
    assert [alert.level for alert in watch.take()] == [MemoryLevel.CRITICAL]
    MemoryWatch(gauge).stop()  # one that was never started


def test_at_the_critical_level_unused_models_are_unloaded_between_two_reports() -> None:
    gauge, heard = Gauge(vram=10), []
    watch = MemoryWatch(gauge)
    memory = RunMemory(
        watch,
        lambda alert, given_up: heard.append(f"{alert.level}: {given_up}"),
        lambda: ("TI2V-5B",),
    )
    memory.relieve()
    for share in (80, 92):
        gauge.vram = share
        watch.poll()
        memory.relieve()
    assert heard == ["warning: ()", "critical: ('TI2V-5B',)"]
    assert gauge.released == 1
    assert memory.warnings == [
        "The card's memory is 80 % full (80.0 GiB of 100.0 GiB)",
        "The card's memory is 92 % full (92.0 GiB of 100.0 GiB); TI2V-5B was unloaded",
    ]


def test_without_a_watch_nothing_is_known_and_nothing_is_unloaded() -> None:
    unloaded: list[str] = []
    memory = RunMemory(None, lambda alert, names: unloaded.extend(names), lambda: ("TI2V-5B",))
    memory.relieve()
    assert (unloaded, memory.warnings, memory.peaks) == ([], [], MemoryPeaks())


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> ModelIntegrationBridge[WanComponents]:
    home = Home(tmp_path_factory.mktemp("home"))
    return ModelIntegrationBridge(ModelManager(home, has_gpu=False), WanPipelineLoader("cpu"))


def test_the_record_contains_the_alerts_and_the_clip_is_unchanged(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path
) -> None:
    def result(watch: MemoryWatch | None) -> dict[str, object]:
        pipeline = RealGenerationPipeline(bridge, Home(tmp_path), RunOptions(watch=watch))
        output = pipeline.generate("one", REQUEST, report=lambda progress: None)
        assert list(output.warnings) == output.metadata["result"]["warnings"]
        values: dict[str, object] = output.metadata["result"]
        return values

    usual = result(None)
    assert (usual["peak_vram_bytes"], usual["peak_ram_bytes"]) == (None, None)
    full = result(MemoryWatch(Gauge(vram=93, counted=MemoryPeaks(5 * GIB, 6 * GIB))))
    assert full["frames_sha256"] == usual["frames_sha256"]
    assert full["warnings"] == ["The card's memory is 93 % full (93.0 GiB of 100.0 GiB)"]
    assert (full["peak_vram_bytes"], full["peak_ram_bytes"]) == (5 * GIB, 6 * GIB)
    assert bridge.loaded_model == REQUEST.model, "what a run uses is not given up"


def test_an_idle_model_is_unloaded_when_memory_is_full(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    RealGenerationPipeline(bridge, home).generate("first", REQUEST, report=lambda progress: None)
    bridge.load("tiny-ti2v-5b")
    alerts: list[tuple[MemoryAlert, tuple[str, ...]]] = []
    gauge = Gauge(ram=10)
    watch = MemoryWatch(gauge)
    pipeline = RealGenerationPipeline(bridge, home, RunOptions(watch=watch, alerted=lambda *one: alerts.append(one)))

    def report(progress: Progress) -> None:
        if progress.stage is Stage.POST_PROCESSING:  # the decoder alone is loaded now
            gauge.ram = 96
            watch.poll()

    decoded = pipeline.generate("second", replace(REQUEST, latents_of="first"), report=report)
    assert [(alert.level, given_up) for alert, given_up in alerts] == [(MemoryLevel.CRITICAL, ("tiny-ti2v-5b",))]
    assert bridge.loaded_model is None
    assert "tiny-ti2v-5b was unloaded" in decoded.warnings[0]


#: In a process of its own: what other tests leave behind is freed when the interpreter likes.
MEASURE = """
import json
import torch
from backend.core.planning.memory_level import Place
from backend.engine.memory.readings import DeviceMemory

memory = DeviceMemory(torch.device("cpu"))
(reading,) = memory.readings()
assert reading.place is Place.RAM and 0 < reading.used < reading.total
memory.release()
memory.begin()
before = memory.peaks()
block = torch.ones(400 * 1024**2, dtype=torch.uint8)
del block
memory.release()
after = memory.peaks()
memory.begin()
again = memory.peaks()
print(json.dumps([before.vram, before.ram, after.ram, again.ram]))
"""


def test_the_peak_of_a_process_is_measured_and_reset() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True, timeout=200)
    vram, before, after, again = json.loads(done.stdout)
    assert vram is None
    assert after - before > 300 * 1024**2
    assert again < after - 300 * 1024**2
