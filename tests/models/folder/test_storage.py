"""What models take on the disk is counted truly, and only what nobody misses is suggested."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from backend.core.catalogue.table import MODELS
from backend.core.paths import Home
from backend.models.folder.disk import usage_of
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager
from backend.models.folder.manifest import MANIFEST_FILE, FileRecord, Manifest
from backend.models.folder.storage import Leaving, StorageReport, Suggestion, clear, storage_report, suggest

NOW = datetime(2026, 5, 1, tzinfo=UTC)
T2V, I2V, TI2V = (MODELS[name] for name in ("T2V-A14B", "I2V-A14B", "TI2V-5B"))


def _install(home: Home, name: str, days_ago: int) -> Path:
    folder = home.models / name
    shutil.copytree(EMBEDDED_MODELS / "tiny-t2v-a14b", folder)
    Manifest(name, "Wan-AI/x", "c", {"model_index.json": FileRecord(530, "0" * 64, "")}).write(folder)
    moment = (NOW - timedelta(days=days_ago)).timestamp()
    os.utime(folder / MANIFEST_FILE, (moment, moment))
    return folder


def _report(home: Home, last_used: dict[str, datetime] | None = None) -> StorageReport:
    return storage_report(home, ModelManager(home, has_gpu=False), last_used or {})


def _suggest(report: StorageReport, **how: object) -> list[tuple[str, Leaving]]:
    options = {"now": NOW, "keep_days": 30} | how
    return [(one.spec.id, one.what) for one in suggest(report, **options)]  # type: ignore[arg-type]


def test_bytes_that_others_share_are_counted_and_not_promised(tmp_path: Path) -> None:
    folder, other = tmp_path / "model", tmp_path / "other"
    (folder / "vae").mkdir(parents=True)
    other.mkdir()
    (folder / "own").write_bytes(bytes(100))
    (folder / "vae" / "shared").write_bytes(bytes(30))
    (other / "name").hardlink_to(folder / "vae" / "shared")
    (other / "far").write_bytes(bytes(7))
    (folder / "link").symlink_to(other / "far")
    (folder / "dangling").symlink_to(other / "nothing")
    usage = usage_of(folder)
    assert (usage.size, usage.own, usage.shared, usage.elsewhere) == (130, 100, 30, 7)


def test_models_unused_for_long_go_the_least_recently_used_first(home: Home) -> None:
    for spec, days in ((T2V, 90), (I2V, 100), (TI2V, 5)):
        _install(home, spec.id, days)
    report = _report(home, {"T2V-A14B": NOW - timedelta(days=80), "I2V-A14B": NOW - timedelta(days=40)})
    assert _suggest(report) == [("T2V-A14B", Leaving.MODEL), ("I2V-A14B", Leaving.MODEL)]
    assert _suggest(report, keep_days=60) == [("T2V-A14B", Leaving.MODEL)]
    assert _suggest(report, needed={"T2V-A14B"}) == [("I2V-A14B", Leaving.MODEL)]
    assert {name for name, _ in _suggest(report, keep_days=0)} == {"T2V-A14B", "I2V-A14B", "TI2V-5B"}


def test_no_more_than_the_target_needs(home: Home) -> None:
    _install(home, "T2V-A14B", 90)
    _install(home, "I2V-A14B", 80)
    report = _report(home)
    assert _suggest(report, target_free=report.free_bytes) == []
    assert _suggest(report, target_free=report.free_bytes + 1) == [("T2V-A14B", Leaving.MODEL)]
    assert len(_suggest(report, target_free=report.free_bytes * 10)) == 2


def test_folders_of_the_user_and_links_are_never_suggested(home: Home, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_MODELS / "tiny-t2v-a14b", home.models / "T2V-A14B")
    (home.models / "I2V-A14B").symlink_to(home.models / "T2V-A14B")
    adopted = _install(home, "TI2V-5B", 100)
    for number, path in enumerate(sorted(adopted.rglob("*.safetensors"))):
        (tmp_path / f"original-{number}").hardlink_to(path)
    assert _suggest(_report(home), keep_days=0) == []


def test_leftovers_go_first_unless_a_download_is_at_work(home: Home) -> None:
    partial = home.partial_model_of("T2V-A14B")
    quarantine = home.quarantine_of("I2V-A14B") / "vae"
    assembling = home.models / "TI2V-5B.assembling"
    for folder, size in ((partial, 5), (quarantine, 6), (assembling, 7)):
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(bytes(size))
    report = _report(home)
    assert [(one.spec.id, one.what, one.frees) for one in suggest(report, now=NOW, keep_days=30)] == [
        ("T2V-A14B", Leaving.UNFINISHED, 5),
        ("I2V-A14B", Leaving.QUARANTINE, 6),
        ("TI2V-5B", Leaving.UNFINISHED, 7),
    ]
    with FileLock(home.model_lock_of("T2V-A14B")):
        assert ("T2V-A14B", Leaving.UNFINISHED) not in _suggest(_report(home))
        assert clear(home, Suggestion(T2V, Leaving.UNFINISHED, 5, "")) == 0
    assert partial.is_dir()
    assert [clear(home, one) for one in suggest(report, now=NOW, keep_days=30)] == [5, 6, 7]
    assert not any(folder.exists() for folder in (partial, quarantine, assembling))


def test_deleting_a_model_frees_what_was_said(home: Home) -> None:
    folder = _install(home, "T2V-A14B", 90)
    (suggestion,) = suggest(_report(home), now=NOW, keep_days=30)
    assert suggestion.frees == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert clear(home, suggestion) == suggestion.frees
    assert not folder.exists()
