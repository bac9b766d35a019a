"""A downloaded folder is checked offline, file by file, and only what is wrong is fetched again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.errors.interruptions import DownloadStopped
from backend.core.errors.models import ModelDamaged
from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.folder.integrity import FileFinding, FileState, check_full, check_quick
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import MANIFEST_FILE, Manifest, read_manifest
from tests.support.hub import COMMIT, StandIn, repository_files

T2V = MODELS["T2V-A14B"]
SHARD = "transformer_2/diffusion_pytorch_model-00001-of-00003.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def downloaded(make_downloader: Callable[..., ModelDownloader], hub: StandIn) -> Path:
    folder = make_downloader().download(T2V)
    hub.requests.clear()
    return folder


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def _wrong(findings: list[FileFinding]) -> dict[str, FileState]:
    return {finding.name: finding.state for finding in findings if finding.state is not FileState.OK}


def test_an_untouched_folder_is_intact_and_every_byte_was_read(downloaded: Path) -> None:
    read: Counter[str] = Counter()
    manifest = _manifest(downloaded)
    assert _wrong(check_quick(downloaded, manifest)) == {}
    assert _wrong(check_full(downloaded, manifest, lambda name, count: read.update({name: count}))) == {}
    assert read == {name: record.size for name, record in manifest.files.items()}


def test_a_check_can_be_stopped(downloaded: Path) -> None:
    def stop(_name: str, _count: int) -> None:
        raise DownloadStopped

    with pytest.raises(DownloadStopped):
        check_full(downloaded, _manifest(downloaded), stop)


def test_a_flipped_byte_is_found_put_away_and_only_its_file_is_fetched(
    downloaded: Path,
    home: Home,
    hub: StandIn,
    make_downloader: Callable[..., ModelDownloader],
    needed: dict[str, bytes],
) -> None:
    _flip(downloaded / SHARD, len(needed[SHARD]) // 2)
    manifest = _manifest(downloaded)
    assert _wrong(check_quick(downloaded, manifest)) == {}, "of the right length and with a sound header"
    findings = check_full(downloaded, manifest)
    assert _wrong(findings) == {SHARD: FileState.CORRUPTED}
    assert make_downloader().repair(T2V, findings) == downloaded
    assert hub.fetched() == Counter([SHARD])
    asked = [request.path for request in hub.requests if request.path.startswith("/api/")]
    assert [path.partition("?")[0].rpartition("/")[2] for path in asked] == [COMMIT], "not what is newest now"
    assert (downloaded / SHARD).read_bytes() == needed[SHARD]
    quarantined = repository_files(home.models / "quarantine" / "T2V-A14B")
    assert list(quarantined) == [SHARD]
    assert len(quarantined[SHARD]) == len(needed[SHARD])
    assert _wrong(check_full(downloaded, _manifest(downloaded))) == {}


def test_every_kind_of_damage_has_its_name_and_is_repaired(
    downloaded: Path,
    home: Home,
    hub: StandIn,
    make_downloader: Callable[..., ModelDownloader],
    needed: dict[str, bytes],
) -> None:
    with (downloaded / SHARD).open("r+b") as file:
        file.truncate(1000)
    _flip(downloaded / VAE, 9)  # inside the header: the first brace
    (downloaded / "tokenizer" / "tokenizer.json").unlink()
    with (downloaded / "vae" / "config.json").open("ab") as file:
        file.write(b" ")
    expected = {
        SHARD: FileState.TRUNCATED,
        VAE: FileState.CORRUPTED,
        "tokenizer/tokenizer.json": FileState.MISSING,
        "vae/config.json": FileState.CORRUPTED,
    }
    findings = check_quick(downloaded, _manifest(downloaded))
    assert _wrong(findings) == expected
    assert _wrong(check_full(downloaded, _manifest(downloaded))) == expected
    state = ModelManager(home, has_gpu=False).state(T2V)
    assert (state.presence, state.available) == (Presence.CORRUPTED, False)
    with pytest.raises(ModelDamaged, match=r"tokenizer\.json is missing"):
        ModelManager(home, has_gpu=False).folder(T2V)
    # An ordinary download repairs what can be seen without reading all contents, too.
    make_downloader().download(T2V)
    assert hub.fetched() == Counter(list(expected))
    files = repository_files(downloaded)
    del files[MANIFEST_FILE]
    assert files == needed
    assert ModelManager(home, has_gpu=False).state(T2V).available


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"model": "m", "repository": "r", "commit": "c", "files": {"../x": {"size": 1, "sha256": "%s", "etag": "e"}}}',
        '{"model": "m", "repository": "r", "commit": "c", "files": {"x": {"size": -1, "sha256": "%s", "etag": "e"}}}',
        '{"model": "m", "repository": "r", "commit": "c", "files": {"x": {"size": 1, "sha256": "no", "etag": "e"}}}',
    ],
)
def test_a_manifest_that_is_none_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text.replace("%s", "0" * 64))
    assert read_manifest(tmp_path) is None
