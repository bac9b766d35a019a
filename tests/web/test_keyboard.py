"""Without a mouse: from a blank page to a compared, starred and exported clip, and every deed on a task."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.browser import press, reach
from tests.support.server import LiveServer, wait_for
from tests.web.test_compose import picture

PROMPT = "a cyan ring staying still on a gray background"
MOST_PRESSES = 14


class Keys:
    """Presses keys, and counts them."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.count = 0

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            self._page.keyboard.press(key)
            self.count += 1


def test_from_a_blank_page_to_an_exported_clip_in_few_key_presses(
    live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    server = live_server()
    page = open_page(server.url)
    keys = Keys(page)
    expect(page.get_by_test_id("prompt-input")).to_be_focused()
    page.keyboard.type(PROMPT)
    expect(page.get_by_test_id("fits")).to_be_visible()
    keys.press("Control+Enter")
    expect(page.get_by_test_id("generate-button")).to_be_enabled()
    keys.press("Control+Enter")
    expect(page.get_by_test_id("recent-clip")).to_have_count(2)
    keys.press("Escape", "2")
    expect(page.get_by_test_id("video-card")).to_have_count(2)
    keys.press("x", "ArrowRight", "x", "c")
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    keys.press("f")
    with page.expect_download() as download:
        keys.press("s")
    assert download.value.suggested_filename.endswith(".mp4")
    starred = {"favourite": "true"}
    wait_for(lambda: server.client.get("/api/v1/outputs", params=starred).json()["videos"], what="the favourite")
    assert keys.count <= MOST_PRESSES


def test_a_waiting_task_is_moved_edited_and_cancelled_without_a_mouse(
    live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    server = live_server(WAN22_WORKER="false")
    for name in ("circle", "square"):
        server.submit(prompt=f"a red {name}")
    page = open_page(server.url)
    expect(page.get_by_test_id("prompt-input")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    last = page.get_by_test_id("task-card").filter(has_text="a red square")
    last.get_by_test_id("task-menu").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Run next")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("task-card").first).to_contain_text("a red square")
    last.get_by_test_id("task-menu").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("Edit")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("task-editor")).to_be_visible()
    page.get_by_test_id("task-editor").get_by_label("Prompt").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("a blue square")
    page.get_by_test_id("task-editor").get_by_role("button", name="Save changes").focus()
    page.keyboard.press("Enter")
    changed = page.get_by_test_id("task-card").filter(has_text="a blue square")
    changed.get_by_test_id("cancel-button").focus()
    page.keyboard.press("Space")
    expect(changed.get_by_test_id("task-status")).to_have_text("cancelled")


def test_image_and_lora_go_along_without_a_mouse(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(server.url)
    prompt = "a red square moving down on a gray background"
    page.keyboard.type(prompt)
    with page.expect_file_chooser() as chooser:
        press(page, page.get_by_role("button", name="Start image").first)
    chooser.value.set_files({"name": "start.png", "mimeType": "image/png", "buffer": picture()})
    expect(page.get_by_alt_text("Start of the clip")).to_be_visible()
    reach(page, page.get_by_label("Length in seconds"))
    page.keyboard.type("0.5")
    reach(page, page.get_by_label("LoRAs").last)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Strength, high-noise expert")).to_have_count(1)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_test_id("recent-clip").filter(has_text=prompt)).to_be_visible()
    tasks = server.client.get("/api/v1/queue", headers={"Wan22-Model-Ids": "exact"}).json()["tasks"]
    (task,) = [task for task in tasks if task["prompt"] == prompt]
    assert task["model"] == "tiny-i2v-a14b"
    assert len(server.task(task["id"])["parameters"]["loras"]) == 1


def test_login_a_setting_and_its_way_back_without_a_mouse(
    live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    key = "a-key-of-the-operator-0123456789"
    server = live_server(WAN22_WORKER="false", WAN22_API_KEY=key)
    page = open_page(f"{server.url}/settings#server", allowed=("401", "WebSocket connection"))
    reach(page, page.get_by_label("API key"))
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    field = page.get_by_test_id("field-optimization.vae_tile_size")
    reach(page, field)
    page.keyboard.press("Control+a")
    page.keyboard.type("384")
    page.keyboard.press("Control+s")
    expect(page.get_by_text("1 setting changed", exact=True)).to_be_visible()
    press(page, page.get_by_test_id("settings-history"))
    press(page, page.get_by_role("button", name="Take the last change back"))
    expect(page.get_by_test_id("version").first).to_contain_text("Back to version")
