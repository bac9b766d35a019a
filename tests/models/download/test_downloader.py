"""A model comes from the hub to the disk: whole, verified, once; and every way in which the hub fails has its error."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.domain import DownloadPhase, DownloadProgress
from backend.core.errors.base import WanError
from backend.core.errors.interruptions import DownloadStopped
from backend.core.errors.models import (
    HubRateLimited,
    HubUnreachable,
    ModelDamaged,
    ModelGated,
    ModelUnavailable,
    RepositoryNotFound,
    UnsafeRepository,
)
from backend.core.errors.surroundings import StorageFull
from backend.core.paths import Home
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub, Listing, RemoteFile
from backend.models.download.retries import Retries, RetryPolicy
from backend.models.download.transfer import FileTransfer
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import MANIFEST_FILE, read_manifest
from backend.models.folder.progress import RateLimiter
from backend.models.folder.storage import remove_model
from tests.support.hub import COMMIT, REPOSITORY, Answer, StandIn, entry, repository_files

T2V = MODELS["T2V-A14B"]
TOKEN = "hf_secretsecretsecret"
SHARD = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"

Make = Callable[..., ModelDownloader]


def _without_manifest(folder: Path) -> dict[str, bytes]:
    files = repository_files(folder)
    del files[MANIFEST_FILE]
    return files


def test_a_model_arrives_whole_and_nothing_else_does(
    hub: StandIn, home: Home, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    seen: list[DownloadProgress] = []
    folder = make_downloader().download(T2V, on_progress=seen.append)
    assert folder == home.models / "T2V-A14B"
    assert _without_manifest(folder) == needed
    assert hub.fetched() == Counter(dict.fromkeys(needed, 1))
    total = sum(map(len, needed.values()))
    assert {moment.total_bytes for moment in seen} == {total}
    assert seen[-1].done_bytes == total
    assert [m.done_bytes for m in seen] == sorted(m.done_bytes for m in seen)
    assert {moment.file for moment in seen} == set(needed)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest.repository, manifest.commit, manifest.size_bytes) == (REPOSITORY, COMMIT, total)
    assert ModelManager(home, has_gpu=True).folder(T2V) == folder


def test_a_complete_model_asks_the_hub_nothing(hub: StandIn, make_downloader: Make) -> None:
    folder = make_downloader().download(T2V)
    asked = len(hub.requests)
    assert make_downloader().download(T2V) == folder
    assert len(hub.requests) == asked


def test_broken_connections_are_continued_where_they_broke(
    hub: StandIn, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    hub.cut.extend([1, 70_001, 200_000, 5, 333_333])
    folder = make_downloader().download(T2V)
    assert _without_manifest(folder) == needed
    assert sum(hub.served.values()) == sum(map(len, needed.values())), "not one byte was served twice"
    assert [r.range for r in hub.requests if r.place == "cdn" and r.range] == [
        "bytes=1-",
        "bytes=70002-",
        "bytes=270002-",
        "bytes=270007-",
    ]


def test_a_connection_that_stands_still_is_given_up_and_continued(
    hub: StandIn, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    hub.hold(6_000_000)
    downloader = make_downloader(stall_seconds=0.5, pause=lambda _seconds, _check: hub.go_on())
    assert _without_manifest(downloader.download(T2V)) == needed
    assert hub.held.is_set()
    assert sum(hub.served.values()) == sum(map(len, needed.values())), "not one byte was served twice"


def test_a_server_without_ranges_is_begun_anew_but_not_for_ever(
    hub: StandIn, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    hub.ranges = False
    hub.cut.append(100)
    assert _without_manifest(make_downloader().download(T2V)) == needed


def test_a_server_that_never_continues_is_given_up(hub: StandIn, make_downloader: Make) -> None:
    hub.ranges = False
    hub.cut.extend([100] * 50)
    with pytest.raises(HubUnreachable, match="be continued"):
        make_downloader().download(T2V)


def test_a_stop_keeps_what_has_arrived(
    hub: StandIn, home: Home, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    def stop() -> None:
        if sum(hub.served.values()) > 4_000_000:
            raise DownloadStopped

    with pytest.raises(DownloadStopped):
        make_downloader().download(T2V, check=stop)
    state = ModelManager(home, has_gpu=False).state(T2V)
    assert state.presence is Presence.PARTIAL
    assert not (home.models / "T2V-A14B").exists()
    finished = {name for name in needed if (home.models / "T2V-A14B.partial" / name).exists()}
    assert finished
    hub.requests.clear()
    assert _without_manifest(make_downloader().download(T2V)) == needed
    assert set(hub.fetched()) == set(needed) - finished


def test_a_part_of_another_content_is_not_continued(
    hub: StandIn, home: Home, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    """The repository gets a new commit while a download rests: the same name has other bytes now."""

    def stop() -> None:
        if hub.served[VAE] > 1_000_000:
            raise DownloadStopped

    with pytest.raises(DownloadStopped):
        make_downloader().download(T2V, check=stop)
    note = home.models / "T2V-A14B.partial" / f"{VAE}.part.json"
    assert json.loads(note.read_text())["size"] == len(needed[VAE])
    changed = bytearray(hub.files[VAE])
    changed[-1] ^= 1
    hub.files[VAE] = bytes(changed)
    hub.requests.clear()
    folder = make_downloader().download(T2V)
    assert (folder / VAE).read_bytes() == bytes(changed)
    assert [r.range for r in hub.requests if r.path.startswith("/objects/vae")] == [None]


def test_wrong_bytes_on_the_way_are_fetched_again_alone(
    hub: StandIn, home: Home, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    hub.flip[SHARD] = 1
    hub.flip["vae/config.json"] = 1
    folder = make_downloader().download(T2V)
    assert _without_manifest(folder) == needed
    assert hub.fetched() == Counter(dict.fromkeys(needed, 1)) + Counter([SHARD, "vae/config.json"])
    assert sorted(repository_files(home.models / "quarantine" / "T2V-A14B")) == [
        f"{SHARD}.part",
        "vae/config.json.part",
    ]


def test_a_hub_that_lies_is_named(hub: StandIn, home: Home, make_downloader: Make) -> None:
    hub.flip[SHARD] = 99
    with pytest.raises(ModelDamaged, match="with a wrong checksum 3 times"):
        make_downloader().download(T2V)
    assert hub.fetched()[SHARD] == 3
    assert not (home.models / "T2V-A14B").exists()


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (401, {"X-Error-Code": "GatedRepo"}, ModelGated),
        (401, {}, ModelGated),
        (403, {"X-Error-Code": "GatedRepo"}, ModelGated),
        (403, {}, ModelGated),
        (404, {"X-Error-Code": "RepoNotFound"}, RepositoryNotFound),
        (404, {"X-Error-Code": "RevisionNotFound"}, RepositoryNotFound),
        (410, {}, HubUnreachable),
    ],
)
@pytest.mark.parametrize("where", ["answers", "file_answers"])
def test_a_refusal_has_its_error_and_is_not_repeated(
    hub: StandIn, make_downloader: Make, status: int, headers: dict[str, str], expected: type[WanError], where: str
) -> None:
    getattr(hub, where).append(Answer(status, headers))
    with pytest.raises(expected) as caught:
        make_downloader().download(T2V)
    assert type(caught.value) is expected
    assert not getattr(hub, where)
    if expected is ModelGated:
        assert any("HF_TOKEN" in step and "licence" in step for step in caught.value.next_steps)


@pytest.mark.parametrize("where", ["answers", "file_answers", "cdn_answers"])
@pytest.mark.parametrize(("status", "expected"), [(429, HubRateLimited), (500, HubUnreachable), (503, HubUnreachable)])
def test_a_busy_hub_is_asked_again_and_given_up_in_the_end(
    hub: StandIn,
    make_downloader: Make,
    needed: dict[str, bytes],
    where: str,
    status: int,
    expected: type[WanError],
) -> None:
    getattr(hub, where).extend([Answer(status)] * 4)
    with pytest.raises(expected):
        make_downloader().download(T2V)
    getattr(hub, where).extend([Answer(status)] * 3)
    assert _without_manifest(make_downloader().download(T2V)) == needed


def test_the_wish_to_wait_is_honoured_and_a_long_one_is_told(hub: StandIn, make_downloader: Make) -> None:
    waited: list[float] = []
    hub.answers.append(Answer(429, {"Retry-After": "41"}))
    hub.file_answers.append(Answer(503, {"Retry-After": "7"}))
    make_downloader(pause=lambda seconds, _check: waited.append(seconds)).download(T2V)
    assert waited == [41, 7]


def test_a_wish_to_wait_for_hours_is_an_error(hub: StandIn, make_downloader: Make) -> None:
    hub.answers.append(Answer(429, {"Retry-After": "7200"}))
    with pytest.raises(HubRateLimited, match="7200 s"):
        make_downloader().download(T2V)


def test_an_expired_address_of_the_delivery_network_is_asked_for_anew(
    hub: StandIn, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    hub.cdn_answers.append(Answer(403))
    assert _without_manifest(make_downloader().download(T2V)) == needed


def test_a_hub_that_is_not_there_is_unreachable(home: Home) -> None:
    downloader = ModelDownloader(
        home,
        ModelManager(home, has_gpu=False),
        Hub("http://127.0.0.1:9"),
        policy=RetryPolicy(attempts=2, first_seconds=0.001),
    )
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        downloader.download(T2V)


def test_an_unknown_revision_and_an_embedded_model_are_refused(make_downloader: Make) -> None:
    with pytest.raises(RepositoryNotFound):
        make_downloader().download(T2V, revision="v9")
    with pytest.raises(ModelUnavailable, match="ships with wan22"):
        make_downloader().download(MODELS["tiny-t2v-a14b"])


def test_too_little_room_is_told_before_the_first_byte(hub: StandIn, make_downloader: Make) -> None:
    with pytest.raises(StorageFull, match=r"needs 0\.0 GB more .* nothing was downloaded"):
        make_downloader(free_bytes=lambda _folder: 2**29 + 1_000_000).download(T2V)
    assert not hub.fetched()


def test_a_disk_that_is_full_keeps_what_has_arrived(
    hub: StandIn, make_downloader: Make, needed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        if hub.served[VAE]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(StorageFull, match="kept"):
            make_downloader().download(T2V)
    assert _without_manifest(make_downloader().download(T2V)) == needed
    assert sum(hub.served.values()) == sum(map(len, needed.values())), "not one byte was served twice"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/etc/evil.json",
        "vae/../../evil.json",
        "vae\\..\\..\\evil.json",
        "c:/evil.json",
        "vae//x.json",
        "./x.json",
        "vae/a\nb.json",
        "..",
        "",
    ],
)
def test_names_that_leave_the_folder_are_refused(
    hub: StandIn, home: Home, make_downloader: Make, published: dict[str, bytes], name: str
) -> None:
    hub.listed = [entry(file, content) for file, content in published.items()] + [entry(name, b"{}")]
    before = sorted(home.root.parent.rglob("*evil*"))
    with pytest.raises(UnsafeRepository):
        make_downloader().download(T2V)
    assert not hub.fetched()
    assert sorted(home.root.parent.rglob("*evil*")) == before


def test_a_listing_without_index_sizes_or_digests_is_refused(
    hub: StandIn, make_downloader: Make, published: dict[str, bytes]
) -> None:
    whole = [entry(file, content) for file, content in published.items()]
    no_size = [e | {"size": None} if e["rfilename"] == "vae/config.json" else e for e in whole]
    no_digest = [e | {"blobId": None} if e["rfilename"] == "vae/config.json" else e for e in whole]
    twice = [*whole, whole[0] | {"rfilename": "vae/config.json"}]
    for listed in ([e for e in whole if e["rfilename"] != "model_index.json"], no_size, no_digest, twice):
        hub.listed = listed
        with pytest.raises(UnsafeRepository):
            make_downloader().download(T2V)
    assert not hub.fetched()


def test_a_link_inside_the_folder_does_not_lead_out(
    home: Home, make_downloader: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    partial = home.models / "T2V-A14B.partial"
    partial.mkdir()
    (partial / "vae").symlink_to(outside, target_is_directory=True)
    with pytest.raises(UnsafeRepository):
        make_downloader().download(T2V)
    assert not list(outside.iterdir())


def test_the_token_goes_to_the_hub_alone_and_into_no_log(
    hub: StandIn, home: Home, make_downloader: Make, caplog: pytest.LogCaptureFixture
) -> None:
    hub.required_token = TOKEN
    with caplog.at_level(logging.DEBUG):
        folder = make_downloader(TOKEN).download(T2V)
    asked = {place: {r.authorization for r in hub.requests if r.place == place} for place in ("hub", "cdn")}
    assert asked == {"hub": {f"Bearer {TOKEN}"}, "cdn": {None}}
    assert TOKEN not in caplog.text
    assert not any(TOKEN.encode() in content for content in repository_files(home.root).values())
    assert folder.is_dir()


def test_a_wrong_token_is_refused_without_being_repeated(
    hub: StandIn, make_downloader: Make, caplog: pytest.LogCaptureFixture
) -> None:
    hub.required_token = "another"
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelGated) as caught:
        make_downloader(TOKEN).download(T2V)
    assert TOKEN not in caplog.text + str(caught.value) + repr(caught.value.details)


def test_a_folder_of_the_user_is_completed_with_what_it_has(
    hub: StandIn, home: Home, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    folder = home.models / "T2V-A14B"
    for name, content in needed.items():
        if name != SHARD:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("mine")
    assert ModelManager(home, has_gpu=False).state(T2V).presence is Presence.CORRUPTED
    make_downloader().download(T2V)
    assert hub.fetched() == Counter([SHARD])
    files = _without_manifest(folder)
    assert files.pop("notes.txt") == b"mine"
    assert files == needed


def test_a_begun_download_and_a_folder_of_the_user_are_put_together(
    hub: StandIn, home: Home, make_downloader: Make, needed: dict[str, bytes]
) -> None:
    def stop() -> None:
        if hub.served[SHARD] > 100_000:
            raise DownloadStopped

    with pytest.raises(DownloadStopped):
        make_downloader().download(T2V, check=stop)
    begun = {name for name in needed if (home.models / "T2V-A14B.partial" / name).exists()}
    (home.models / "T2V-A14B.partial" / "wan22-manifest.json.0a1b2c3d.part").write_text("left by a killed process")
    (home.models / "T2V-A14B.partial" / "vae" / "gone.safetensors.part").write_text("of a file that is not listed")
    folder = home.models / "T2V-A14B"
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_bytes(needed["model_index.json"])
    (folder / VAE).write_bytes(needed[VAE])
    hub.requests.clear()
    make_downloader().download(T2V)
    assert _without_manifest(folder) == needed
    assert set(hub.fetched()) == set(needed) - begun - {VAE}
    assert not (home.models / "T2V-A14B.partial").exists()


def test_a_link_of_the_user_is_not_changed(
    hub: StandIn, home: Home, make_downloader: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "model_index.json").write_text("{")
    (home.models / "T2V-A14B").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(ModelDamaged, match="link"):
        make_downloader().download(T2V)
    assert remove_model(home, T2V) == 0
    assert [path.name for path in elsewhere.iterdir()] == ["model_index.json"]
    assert not hub.fetched()


def test_a_limit_of_the_network_makes_the_transfer_wait() -> None:
    waited: list[float] = []
    pace = RateLimiter(lambda: 1000.0, waited.append)
    for _ in range(5):
        pace(100)
    # Nobody really waited, so each pause contains the ones before it.
    assert waited == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=0.09)


def test_a_transfer_takes_the_time_that_its_limit_asks_for(
    hub: StandIn, needed: dict[str, bytes], tmp_path: Path
) -> None:
    clock, counts, content = [0.0], list[int](), needed[SHARD]

    def wait(seconds: float) -> None:
        clock[0] += seconds

    source = Hub(hub.endpoint)
    file = RemoteFile(SHARD, len(content), hashlib.sha256(content).hexdigest(), "")
    retries = Retries(RetryPolicy(attempts=1), lambda: None)
    transfer = FileTransfer(source, retries, lambda: None, RateLimiter(lambda: 1e5, wait, lambda: clock[0]))
    address = source.address(Listing(REPOSITORY, COMMIT, (file,)), file)
    transfer.fetch(file, address, tmp_path / "shard.safetensors", lambda count, _network: counts.append(count))
    transfer.close()
    assert len(counts) > 2
    # Nobody waits for the last bytes, after which nothing comes.
    assert clock[0] == pytest.approx((len(content) - counts[-1]) / 1e5, abs=1e-3)


def test_another_limit_counts_for_what_is_owed_already() -> None:
    allowed: list[float | None] = [1000.0]
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            allowed[0] = 10_000.0
        if len(waited) == 5:
            allowed[0] = None

    pace = RateLimiter(lambda: allowed[0], wait)
    pace(11_500)  # eleven seconds and a half at the first limit, in short waits
    assert waited == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5], abs=0.01)
    pace(10**9)
    assert len(waited) == 5, "without a limit nothing is owed"


def test_what_is_there_is_removed_whole_and_the_embedded_stays(home: Home, make_downloader: Make) -> None:
    make_downloader().download(T2V)
    size = sum(map(len, repository_files(home.models / "T2V-A14B").values()))
    assert remove_model(home, T2V) == size
    assert ModelManager(home, has_gpu=False).state(T2V).presence is Presence.MISSING
    for spec in (T2V, MODELS["tiny-t2v-a14b"]):
        with pytest.raises(ModelUnavailable):
            remove_model(home, spec)
    assert ModelManager(home, has_gpu=False).state(MODELS["tiny-t2v-a14b"]).available


def test_a_running_download_is_seen_by_others(hub: StandIn, home: Home, make_downloader: Make) -> None:
    manager = ModelManager(home, has_gpu=False)
    seen: dict[DownloadPhase, Presence] = {}

    def look(progress: DownloadProgress) -> None:
        seen[progress.phase] = manager.state(T2V).presence
        with pytest.raises(ModelUnavailable):
            remove_model(home, T2V)

    make_downloader().download(T2V, on_progress=look)
    assert seen == {DownloadPhase.VERIFYING: Presence.VERIFYING, DownloadPhase.DOWNLOADING: Presence.DOWNLOADING}
