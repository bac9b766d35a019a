"""Without a mouse: from a blank page to a compared, starred and exported clip, and every deed on a task."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.server import LiveServer

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
    starred = server.client.get("/api/v1/outputs", params={"favourite": "true"}).json()["videos"]
    assert [video["prompt"] for video in starred] == [PROMPT]
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
