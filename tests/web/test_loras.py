"""LoRAs on the page: uploaded with what the file says of itself, refused at the file, and deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(240)
CHALK = next((Path(__file__).parents[2] / "backend" / "assets").rglob("tiny_chalk_high_noise.safetensors"))


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server without a worker."""
    server = LiveServer(tmp_path_factory.mktemp("loras") / "home", WAN22_WORKER="false")
    yield server
    server.stop()


def lora_file(path: Path) -> Path:
    """Write a LoRA of one expert with trigger words of its own."""
    with safe_open(CHALK, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        metadata = file.metadata() or {}
    save_file(tensors, path, metadata | {"modelspec.trigger_phrase": "soft chalk"})
    return path


def test_a_lora_is_uploaded_looked_at_and_deleted(
    idle: LiveServer, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_page(f"{idle.url}/loras", allowed=("422", "400"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.get_by_test_id("lora-tiny_chalk")).to_contain_text("Ships with wan22")

    wrong = tmp_path / "notes.safetensors"
    wrong.write_bytes(b"not a LoRA at all")
    page.get_by_test_id("lora-file").set_input_files(wrong)
    row = page.get_by_test_id("upload").filter(has_text="notes.safetensors")
    expect(row.get_by_test_id("problem")).to_be_visible()

    page.get_by_test_id("lora-file").set_input_files(lora_file(tmp_path / "my_chalk.safetensors"))
    done = page.get_by_test_id("upload").filter(has_text="my_chalk.safetensors")
    expect(done).to_contain_text("It fits tiny-t2v-a14b")
    card = page.get_by_test_id("lora-my_chalk")
    expect(card).to_contain_text("high-noise expert")
    card.get_by_role("button", name="Copy soft chalk").click()
    assert page.evaluate("navigator.clipboard.readText()") == "soft chalk"

    card.get_by_text("Memory and prompt").click()
    expect(card).to_contain_text("in memory (low)")
    card.get_by_label("A prompt").fill("a house")
    card.get_by_role("button", name="Show").click()
    expect(card.get_by_test_id("lora-preview")).to_contain_text("soft chalk")

    card.get_by_role("button", name="Delete").click()
    page.get_by_test_id("confirm").get_by_role("button", name="Delete it").click()
    expect(card).to_have_count(0)
    assert not list((idle.home / "loras").glob("my_chalk*"))


def test_a_lora_is_dropped_on_the_page(idle: LiveServer, open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page(f"{idle.url}/loras")
    expect(page.get_by_test_id("lora-drop")).to_be_visible()
    content = list(lora_file(tmp_path / "dropped.safetensors").read_bytes())
    carried = page.evaluate_handle(
        """bytes => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], "dropped.safetensors"));
          return carried;
        }""",
        content,
    )
    page.get_by_test_id("lora-drop").dispatch_event("drop", {"dataTransfer": carried})
    expect(page.get_by_test_id("lora-dropped")).to_be_visible()
