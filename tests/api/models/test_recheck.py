"""Files of models are read again in the background: by a given clock, never beside a task, until told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS, put_in_force
from backend.core.paths import Home
from backend.models.folder.integrity import digest_of
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager, Presence
from backend.models.folder.manifest import (
    LAST_SEEN_FILE,
    MANIFEST_FILE,
    FileRecord,
    Manifest,
    read_last_seen,
    read_manifest,
)
from backend.models.own.configuration import table_of
from backend.services.models.recheck import Recheck
from tests.api.support import Served
from tests.support.hub import repository_files

T2V = MODELS["T2V-A14B"]
VAE = "vae/diffusion_pytorch_model.safetensors"
DEADLINE = 60


def _install(home: Home) -> Path:
    """A complete model with a manifest."""
    folder = home.models / T2V.id
    manifest = Manifest(T2V.id, str(T2V.repo_id), "c" * 40)
    for name, content in repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        manifest.files[name] = FileRecord(len(content), str(digest_of(path)), "")
    manifest.write(folder)
    return folder


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(days=1)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _recheck(home: Home, clock: Clock, busy: Callable[[], bool] = lambda: False, **options: object) -> Recheck:
    chosen: dict[str, object] = {"bytes_per_second": None} | options
    return Recheck(home, ModelManager(home, has_gpu=False), busy, 30, now=clock, **chosen)  # type: ignore[arg-type]


def test_a_flipped_byte_is_found_when_the_file_is_due(home: Home, clock: Clock) -> None:
    folder = _install(home)
    _flip(folder / VAE)
    recheck = _recheck(home, clock)
    assert recheck.poll() == []  # it was whole yesterday
    assert ModelManager(home, has_gpu=False).state(T2V).available
    clock.now += timedelta(days=30)
    assert recheck.poll() == [f"{T2V.id}/{VAE}"]
    state = ModelManager(home, has_gpu=False).state(T2V)
    assert state.presence is Presence.CORRUPTED
    assert "quarantine" in str(state.reason)
    assert (home.quarantine_of(T2V.id) / VAE).is_file()
    assert not (folder / VAE).exists()


def test_whole_files_are_remembered_and_not_read_before_they_are_due_again(home: Home, clock: Clock) -> None:
    folder = _install(home)
    manifest = read_manifest(folder)
    assert manifest is not None
    clock.now += timedelta(days=30)
    recheck = _recheck(home, clock)
    assert recheck.poll() == []
    seen = read_last_seen(folder)
    assert {seen.of(name) for name in manifest.files} == {clock.now}
    assert seen.oldest(manifest) == clock.now
    _flip(folder / VAE)
    clock.now += timedelta(days=29)
    assert recheck.poll() == []
    clock.now += timedelta(days=1)
    assert recheck.poll() == [f"{T2V.id}/{VAE}"]


def test_the_longest_unseen_file_goes_first_and_a_broken_note_counts_for_nothing(home: Home, clock: Clock) -> None:
    folder = _install(home)
    manifest = read_manifest(folder)
    assert manifest is not None
    seen = read_last_seen(folder)
    seen.saw(VAE, clock.now)
    due = seen.due(manifest, clock.now + timedelta(days=40), 30)
    assert due[-1] == VAE
    assert set(due) == set(manifest.files)
    for text in ("{", "[]", '{"a": 1}', '{"a": "yesterday"}'):
        (folder / LAST_SEEN_FILE).write_text(text)
        assert read_last_seen(folder).moments == {}
    (folder / MANIFEST_FILE).unlink()
    assert read_last_seen(folder).of(VAE).year == 1


def test_folders_that_are_not_complete_or_not_ours_are_left_alone(home: Home, clock: Clock, tmp_path: Path) -> None:
    folder = _install(home)
    clock.now += timedelta(days=40)
    _flip(folder / VAE)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert _recheck(home, clock).poll() == []
    folder.unlink()
    (tmp_path / "elsewhere").rename(folder)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert _recheck(home, clock).poll() == []
    assert (folder / VAE).is_file()


def test_it_waits_for_the_task_and_ends_when_told_to(home: Home, clock: Clock) -> None:
    _install(home)
    clock.now += timedelta(days=40)
    asked, running = threading.Event(), threading.Event()
    running.set()

    def busy() -> bool:
        asked.set()
        return running.is_set()

    recheck = _recheck(home, clock, busy, scan_seconds=0.01)
    recheck.start()
    assert asked.wait(DEADLINE)
    stopped = threading.Thread(target=recheck.stop)
    stopped.start()
    stopped.join(DEADLINE)
    assert not stopped.is_alive()
    assert not (home.models / T2V.id / LAST_SEEN_FILE).exists()


def test_a_slow_reading_is_ended_in_the_middle_of_a_file(home: Home, clock: Clock) -> None:
    _install(home)
    clock.now += timedelta(days=40)
    asked = threading.Event()

    def busy() -> bool:
        asked.set()
        return False

    recheck = _recheck(home, clock, busy, scan_seconds=0.01, bytes_per_second=1.0)
    recheck.start()
    assert asked.wait(DEADLINE)
    stopped = threading.Thread(target=recheck.stop)
    stopped.start()
    stopped.join(DEADLINE)
    assert not stopped.is_alive()


def test_health_says_what_was_found_and_how_it_is_mended(served: Served) -> None:
    folder = _install(served.services.home)
    health = served.client.get("/api/v1/models/health").json()["model_health"][T2V.id]
    assert health["is_healthy"]
    assert health["last_check"]
    _flip(folder / VAE)
    clock = Clock()
    clock.now += timedelta(days=40)
    assert _recheck(served.services.home, clock).poll() == [f"{T2V.id}/{VAE}"]
    health = served.client.get("/api/v1/models/health").json()
    model = health["model_health"][T2V.id]
    assert (model["health_status"], model["is_healthy"]) == ("corrupted", False)
    assert "quarantine" in model["issues"][0]
    assert "--repair" in model["repair_suggestions"][0]
    assert health["system_health"]["models_corrupted"] == 1


def test_the_server_looks_unless_it_is_told_not_to(serve: Callable[..., Served]) -> None:
    def threads() -> int:
        return sum(thread.name == "recheck" for thread in threading.enumerate())

    before = threads()
    serve(recheck_days=0)
    assert threads() == before
    served = serve(recheck_days=1)
    assert threads() == before + 1
    served.services.recheck.stop()
    assert threads() == before


def test_a_folder_that_the_user_keeps_elsewhere_is_left_alone(home: Home, clock: Clock, tmp_path: Path) -> None:
    folder = _install(home).rename(tmp_path / "mine")
    put_in_force(table_of({"mine": {"base": "T2V-A14B", "folder": str(folder)}}))
    _flip(folder / VAE)
    before = repository_files(folder)
    recheck = _recheck(home, clock)
    clock.now += timedelta(days=31)
    assert recheck.poll() == []
    assert repository_files(folder) == before
