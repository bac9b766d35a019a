"""A model's folder is made of files that are here, by links; what lacks comes from the hub, and nothing else does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from backend.core.catalogue.table import MODELS
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.paths import Home
from backend.models.adoption import assembly
from backend.models.adoption.assembly import PartFile, Parts, assemble, lacking, part_files
from backend.models.adoption.recognition import recognise
from backend.models.adoption.structure import Use
from backend.models.download.downloader import ModelDownloader
from backend.models.download.linking import Link
from backend.models.download.local_files import LocalFiles, Walk
from backend.models.folder.integrity import FileState, check_full, digest_of
from backend.models.folder.manager import EMBEDDED_MODELS, ModelManager, Presence
from backend.models.folder.manifest import read_manifest
from backend.models.folder.storage import remove_model
from tests.support.hub import StandIn, repository_files

T2V = MODELS["T2V-A14B"]
TINY = EMBEDDED_MODELS / "tiny-t2v-a14b"
COMPONENTS = ("transformer", "transformer_2", "vae", "text_encoder")

Make = Callable[..., ModelDownloader]


@pytest.fixture
def comfy(tmp_path: Path) -> Path:
    """Loose files as another program keeps them; their contents are those of the tiny model."""
    folder = tmp_path / "comfy"
    folder.mkdir()
    for part, name in (
        ("transformer", "wan2.2_t2v_high_noise.safetensors"),
        ("transformer_2", "wan2.2_t2v_low_noise.safetensors"),
        ("vae", "wan_2.1_vae.safetensors"),
        ("text_encoder", "umt5_xxl.safetensors"),
    ):
        shutil.copyfile(next((TINY / part).glob("*.safetensors")), folder / name)
    return folder


def _parts(comfy: Path, *, tokenizer: bool = True) -> Parts:
    files: list[PartFile] = []
    for part, word in zip(COMPONENTS, ("high", "low", "vae", "umt5"), strict=True):
        found = recognise(next(comfy.glob(f"*{word}*")))
        assert found.choose(Use("tiny-t2v-a14b", part)) is not None
        files += part_files(part, found)
    if tokenizer:
        files += [PartFile(path, f"tokenizer/{path.name}") for path in (TINY / "tokenizer").iterdir()]
    return Parts(tuple(files))


def test_whole_models_appear_at_once_and_share_their_bytes(home: Home, comfy: Path) -> None:
    read: list[str] = []
    made = assemble(home, T2V, _parts(comfy), on_read=lambda name, _count: read.append(name))
    assert made.complete
    assert made.folder == home.models / "T2V-A14B"
    assert set(made.links.values()) == {Link.HARD}
    high = made.folder / "transformer" / "wan2.2_t2v_high_noise.safetensors"
    assert high.samefile(comfy / high.name)
    assert (made.folder / "transformer" / "config.json").read_bytes() == (
        assembly.CONFIGS / "T2V-A14B" / "transformer" / "config.json"
    ).read_bytes()
    assert ModelManager(home, has_gpu=False).state(T2V).available
    manifest = read_manifest(made.folder)
    assert manifest is not None
    assert {name.partition("/")[0] for name in manifest.files} == {
        *COMPONENTS, "tokenizer", "scheduler", "model_index.json",
    }  # fmt: skip
    assert all(finding.state is FileState.OK for finding in check_full(made.folder, manifest))
    assert set(read) == {part.name for part in _parts(comfy).files}
    assert [path.name for path in home.models.iterdir() if path.suffix != ".lock"] == ["T2V-A14B"]


def test_another_device_gets_symbolic_links_and_copies_only_on_wish(
    home: Home, comfy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_device(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_device)
    made = assemble(home, T2V, _parts(comfy))
    assert set(made.links.values()) == {Link.SYMBOLIC}
    assert made.spared_bytes > 10_000_000
    assert ModelManager(home, has_gpu=False).state(T2V).available
    remove_model(home, T2V)
    assert len(list(comfy.iterdir())) == 4
    made = assemble(home, T2V, _parts(comfy), copy=True)
    assert set(made.links.values()) == {Link.COPY}
    assert made.spared_bytes == 0


def test_what_is_changed_later_is_found(home: Home, comfy: Path) -> None:
    folder = assemble(home, T2V, _parts(comfy)).folder
    path = folder / "vae" / "wan_2.1_vae.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (comfy / path.name).write_bytes(content)  # the other name of the same file
    manifest = read_manifest(folder)
    assert manifest is not None
    wrong = [finding.name for finding in check_full(folder, manifest) if finding.state is not FileState.OK]
    assert wrong == ["vae/wan_2.1_vae.safetensors"]


def test_the_downloader_brings_only_what_lacks(home: Home, comfy: Path, hub: StandIn, make_downloader: Make) -> None:
    made = assemble(home, T2V, _parts(comfy, tokenizer=False))
    assert not made.complete
    assert made.folder == home.models / "T2V-A14B.partial"
    assert ModelManager(home, has_gpu=False).state(T2V).presence is Presence.PARTIAL
    folder = make_downloader().download(T2V)
    fetched = {name.partition("/")[0] for name in hub.fetched()}
    assert fetched == {"tokenizer", "scheduler", "model_index.json"} | {
        name for name in hub.fetched() if "/" not in name
    }
    assert (folder / "transformer" / "wan2.2_t2v_high_noise.safetensors").samefile(
        comfy / "wan2.2_t2v_high_noise.safetensors"
    )
    asked = len(hub.requests)
    assert make_downloader().download(T2V) == folder
    assert len(hub.requests) == asked


def test_an_adopted_part_that_broke_is_replaced_by_the_published_one(
    home: Home, comfy: Path, hub: StandIn, make_downloader: Make
) -> None:
    assemble(home, T2V, _parts(comfy, tokenizer=False))
    folder = make_downloader().download(T2V)
    path = folder / "vae" / "wan_2.1_vae.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    manifest = read_manifest(folder)
    assert manifest is not None
    before = set(hub.fetched())
    downloader = make_downloader()
    wrong = [finding for finding in check_full(folder, manifest) if finding.state is not FileState.OK]
    assert downloader.repair(T2V, wrong) == folder
    assert {name.partition("/")[0] for name in set(hub.fetched()) - before} == {"vae"}
    assert {file.name for file in (folder / "vae").iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert (home.quarantine_of("T2V-A14B") / "vae" / "wan_2.1_vae.safetensors").exists()


def test_a_folder_that_is_here_stays_as_it_is(home: Home, comfy: Path) -> None:
    assemble(home, T2V, _parts(comfy))
    with pytest.raises(ModelUnavailable, match="already"):
        assemble(home, T2V, _parts(comfy))
    with pytest.raises(ModelUnavailable, match="ships"):
        assemble(home, MODELS["tiny-t2v-a14b"], _parts(comfy))


def test_a_folder_that_somebody_fills_is_left_alone(home: Home, comfy: Path) -> None:
    with FileLock(home.model_lock_of("T2V-A14B")), pytest.raises(ModelUnavailable, match="another process"):
        assemble(home, T2V, _parts(comfy))


def test_an_end_in_the_middle_leaves_nothing(home: Home, comfy: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(name: str, _count: int) -> None:
        if name.startswith("vae/"):
            raise Stopped

    with pytest.raises(Stopped):
        assemble(home, T2V, _parts(comfy), on_read=stop)
    assert [path for path in home.models.iterdir() if path.suffix != ".lock"] == []


def test_a_cached_file_of_other_bytes_is_left_to_the_hub(home: Home, comfy: Path) -> None:
    parts = _parts(comfy)
    first, *rest = parts.files
    wrong = PartFile(first.source, first.name, etag="0" * 64)
    made = assemble(home, T2V, Parts((wrong, *rest), "Wan-AI/Some", "c" * 40))
    assert made.refused == [first.name]
    assert not made.complete
    remove_model(home, T2V)
    with pytest.raises(ModelDamaged):
        assemble(home, T2V, Parts((wrong,)))


def test_names_that_are_no_names_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "wan2.2\n_t2v_high_noise.safetensors"
    shutil.copyfile(TINY / "transformer" / "diffusion_pytorch_model.safetensors", path)
    (part,) = part_files("transformer", recognise(path))
    assert part.name == "transformer/diffusion_pytorch_model.safetensors"


def test_what_lacks_is_said_by_component() -> None:
    names = [path.relative_to(TINY).as_posix() for path in TINY.rglob("*") if path.is_file()]
    assert lacking(T2V, names) == []
    assert lacking(T2V, [name for name in names if name != "tokenizer/tokenizer.json"]) == ["tokenizer"]
    assert lacking(MODELS["TI2V-5B"], ["transformer/a.gguf"]) == ["vae", "text_encoder", "tokenizer"]
    of_wan21 = lacking(MODELS["Wan2.1-I2V-14B-480P"], ["transformer/a.gguf", "vae/a.safetensors"])
    assert of_wan21 == ["text_encoder", "image_encoder", "tokenizer"]


def test_downloads_take_what_the_hugging_face_cache_has(
    home: Home, hub: StandIn, make_downloader: Make, tmp_path: Path, needed: dict[str, bytes]
) -> None:
    first = make_downloader().download(T2V)
    manifest = read_manifest(first)
    assert manifest is not None
    cache = tmp_path / "cache"
    blobs = cache / "models--somebody--else" / "blobs"
    blobs.mkdir(parents=True)
    wrong = "vae/diffusion_pytorch_model.safetensors"
    for name, record in manifest.files.items():
        content = (first / name).read_bytes()
        (blobs / record.etag).write_bytes(content if name != wrong else content[:-1] + b"?")
    remove_model(home, T2V)
    before = hub.fetched()
    folder = make_downloader(local=LocalFiles(cache=cache)).download(T2V)
    assert set((hub.fetched() - before).elements()) == {wrong}
    assert (folder / "transformer/config.json").samefile(blobs / manifest.files["transformer/config.json"].etag)
    assert {name: content for name, content in repository_files(folder).items() if name in needed} == needed


def test_downloads_take_files_of_the_right_content_from_further_folders(
    home: Home, hub: StandIn, make_downloader: Make, comfy: Path
) -> None:
    before = hub.fetched()
    folder = make_downloader(local=LocalFiles(roots=[comfy])).download(T2V)
    fetched = set((hub.fetched() - before).elements())
    # Smaller files are fetched, and the experts are in shards at the hub.
    assert not any(name.startswith("vae/diff") for name in fetched)
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").samefile(comfy / "wan_2.1_vae.safetensors")


def test_files_of_one_length_are_read_once_each(
    home: Home, hub: StandIn, make_downloader: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = make_downloader().download(T2V)
    mine = tmp_path / "mine"
    mine.mkdir()
    large = [path for path in published.glob("transformer*/*.safetensors") if path.stat().st_size >= 2**20]
    shards = sorted(large)
    for number, path in enumerate(shards):
        shutil.copyfile(path, mine / f"{number}.safetensors")
    assert len({path.stat().st_size for path in shards}) < len(shards)
    remove_model(home, T2V)
    read: list[Path] = []

    def counted(path: Path, on_read: Callable[[int], None]) -> str | None:
        read.append(path)
        return digest_of(path, on_read)

    monkeypatch.setattr("backend.models.download.local_files.digest_of", counted)
    before = hub.fetched()
    folder = make_downloader(local=LocalFiles(roots=[mine])).download(T2V)
    fetched = set((hub.fetched() - before).elements())
    assert not any(path.relative_to(published).as_posix() in fetched for path in shards)
    assert len(read) == len(set(read)) == len(shards)
    assert all(path.is_file() for path in folder.glob("transformer*/*.safetensors"))


def test_hostile_folders_are_walked_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    deep = root / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "up").symlink_to(root)
    (deep / "self").symlink_to(deep / "self")
    (deep / "away").symlink_to("/nowhere")
    (deep / "new\nline.safetensors").write_bytes(b"1")
    os.mkfifo(deep / "pipe")
    locked = root / "locked"
    locked.mkdir()
    real = Path.iterdir

    def iterdir(self: Path) -> object:
        if self == locked:
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    walk = Walk((root, root, tmp_path / "absent"))
    assert [path.name for path in walk.files()] == ["new\nline.safetensors"]
    assert walk.unreadable == [locked, tmp_path / "absent"]
    assert not walk.cut_short
    far = root.joinpath(*("x" * 20))
    far.mkdir(parents=True)
    walk = Walk((root,))
    assert len(list(walk.files())) == 1
    assert walk.cut_short
