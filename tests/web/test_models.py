"""Models on the page: a download that is paused and goes on, files that are verified and repaired, and removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download
from playwright.sync_api import Page, expect

from backend.models.folder.manager import EMBEDDED_MODELS
from tests.support.browser import press
from tests.support.hub import COMMIT, REPOSITORY, StandIn, repository_files, stand_in
from tests.support.server import LiveServer, wait_for

pytestmark = pytest.mark.timeout(240)
T2V = "T2V-A14B"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    with stand_in(repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b")) as running:
        yield running


@pytest.fixture(scope="module")
def home_server(tmp_path_factory: pytest.TempPathFactory, hub: StandIn) -> Iterator[LiveServer]:
    """A server without a worker that downloads from the stand-in."""
    home = tmp_path_factory.mktemp("models") / "home"
    server = LiveServer(home, HF_ENDPOINT=hub.endpoint, WAN22_WORKER="false")
    yield server
    server.stop()


def test_a_model_is_downloaded_with_a_pause_verified_repaired_and_removed(
    home_server: LiveServer, hub: StandIn, open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{home_server.url}/models")
    card = page.get_by_test_id(f"model-{T2V}")
    expect(card.get_by_test_id("model-state")).to_have_text("Not installed")
    expect(card.get_by_test_id("model-fit")).to_contain_text("Fits this machine: ")

    hub.hold(6_000_000)
    card.get_by_role("button", name="Download").click()
    progress = card.get_by_role("progressbar")
    expect(progress).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d?$"))
    assert hub.held.wait(60)
    card.get_by_role("button", name="Pause").click()
    expect(card.get_by_test_id("model-state")).to_have_text("Download paused")
    hub.go_on()
    page.reload()
    expect(card.get_by_test_id("model-state")).to_have_text("Download paused")
    card.get_by_role("button", name="Resume").click()
    expect(card.get_by_test_id("model-state")).to_have_text("Installed")
    continued = [one.range for one in hub.requests if one.place == "cdn" and one.range]
    assert continued, "the download began again instead of going on"

    damage(home_server.home / "models" / T2V / VAE)
    card.get_by_role("button", name="Verify").click()
    dialog = page.get_by_test_id("verify-dialog")
    dialog.get_by_role("button", name="Full check").click()
    expect(dialog.get_by_test_id("verify-result")).to_contain_text(VAE)
    dialog.get_by_role("button", name="Repair").click()
    expect(page.get_by_text("1 damaged file put aside")).to_be_visible()
    wait_for(lambda: (home_server.home / "models" / T2V / VAE).exists(), what="the file to be back")
    expect(card.get_by_test_id("model-state")).to_have_text("Installed")
    card.get_by_role("button", name="Verify").click()
    dialog.get_by_role("button", name="Full check").click()
    expect(dialog.get_by_test_id("verify-result")).to_contain_text("every byte was read")
    expect(dialog.get_by_role("button", name="Repair")).to_have_count(0)
    page.keyboard.press("Escape")

    card.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Remove").click()
    question = page.get_by_test_id("confirm")
    expect(question).to_contain_text("can be downloaded again")
    question.get_by_role("button", name="Remove its files").click()
    expect(card.get_by_test_id("model-state")).to_have_text("Not installed")
    assert not (home_server.home / "models" / T2V).exists()


def test_a_model_is_downloaded_and_removed_without_a_mouse(
    hub: StandIn, live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{live_server(HF_ENDPOINT=hub.endpoint, WAN22_WORKER='false').url}/models")
    card = page.get_by_test_id(f"model-{T2V}")
    press(page, card.get_by_role("button", name="Download"))
    expect(card.get_by_test_id("model-state")).to_have_text("Installed")
    press(page, card.get_by_role("button", name="More for"))
    page.keyboard.type("Remove")
    page.keyboard.press("Enter")
    press(page, page.get_by_test_id("confirm").get_by_role("button", name="Remove its files"))
    expect(card.get_by_test_id("model-state")).to_have_text("Not installed")


def test_a_model_that_a_task_needs_is_not_removed(home_server: LiveServer, open_page: Callable[..., Page]) -> None:
    client = home_server.client
    client.post("/api/v1/models/download", json={"model_type": T2V})
    page = open_page(f"{home_server.url}/models")
    card = page.get_by_test_id(f"model-{T2V}")
    expect(card.get_by_test_id("model-state")).to_have_text("Installed")
    home_server.submit(model_type=T2V, resolution="128x128")
    card.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Remove").click()
    question = page.get_by_test_id("confirm")
    expect(question).to_contain_text("1 task in the queue needs it")
    expect(question.get_by_role("button", name="Remove its files")).to_be_disabled()


def test_the_speed_of_downloads_is_limited(home_server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{home_server.url}/models")
    page.get_by_label("Limit of each download").fill("12.5")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_text("At most 12.5 MB/s")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Limit of each download")).to_have_value("12.5")


def test_a_model_of_another_program_is_adopted(
    tmp_path: Path, hub: StandIn, live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    cache = tmp_path / "theirs"
    for name in hub.files:
        hf_hub_download(REPOSITORY, name, cache_dir=cache, endpoint=hub.endpoint, revision=COMMIT, token=False)
    server = live_server(WAN22_WORKER="false", WAN22_MODEL_ROOTS=json.dumps([str(cache)]))
    page = open_page(f"{server.url}/models")
    page.get_by_role("button", name="Adopt from other programs").click()
    dialog = page.get_by_test_id("adopt-dialog")
    dialog.get_by_label(T2V).check()
    dialog.get_by_role("button", name="Use them").click()
    expect(dialog.get_by_test_id(f"adoption-{T2V}")).to_contain_text("Installed")
    dialog.get_by_role("button", name="Done").click()
    expect(page.get_by_test_id(f"model-{T2V}").get_by_test_id("model-state")).to_have_text("Installed")


def damage(file: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
