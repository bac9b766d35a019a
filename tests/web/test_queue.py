"""The queue in the page: every deed on a task, and a page that outlives its server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.browser import PATIENCE_MS, press
from tests.support.server import LiveServer, wait_for

#: What a card says of a task that has made steps; slow ones, so that a task can be met in its middle on any machine.
IN_THE_MIDDLE = re.compile(r"step ([2-9]|[1-9]\d) of ")
SLOW = {"WAN22_FAULTS": "denoise.step:*=slow"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    server = LiveServer(tmp_path_factory.mktemp("slow") / "home", **SLOW)
    yield server
    server.stop()


@pytest.fixture
def paused(slow: LiveServer) -> Iterator[LiveServer]:
    """A server whose queue starts nothing, and is empty."""
    slow.client.post("/api/v1/queue/pause", json={}).raise_for_status()
    yield slow
    for task in slow.client.get("/api/v1/queue").json()["tasks"]:
        slow.client.post(f"/api/v1/queue/{task['id']}/cancel")
    wait_for(lambda: not slow.client.get("/api/v1/queue").json()["processing_tasks"], what="the end of what runs")
    slow.client.post("/api/v1/queue/clear")
    slow.client.post("/api/v1/queue/resume")


def _card(page: Page, prompt: str) -> Locator:
    return page.get_by_test_id("task-card").filter(has_text=prompt)


def _open_queue(page: Page) -> None:
    page.get_by_test_id("queue-button").click()
    expect(page.get_by_test_id("queue-panel")).to_be_visible()


def _order(server: LiveServer) -> list[str]:
    tasks = server.client.get("/api/v1/queue?status_filter=pending").json()["tasks"]
    return [task["prompt"] for task in sorted(tasks, key=lambda task: task["queue_position"])]


def test_waiting_tasks_are_moved_edited_copied_and_cancelled(
    paused: LiveServer, open_page: Callable[..., Page]
) -> None:
    for name in ("circle", "square", "ring"):
        paused.submit(prompt=f"a red {name}")
    page = open_page(paused.url)
    _open_queue(page)
    expect(page.get_by_test_id("task-card")).to_have_count(3)

    _card(page, "a red ring").get_by_test_id("task-menu").click()
    page.get_by_role("menuitem", name="Run next").click()
    wait_for(lambda: _order(paused)[0] == "a red ring", what="the move")
    expect(page.get_by_test_id("task-card").first).to_contain_text("a red ring")
    _card(page, "a red square").drag_to(_card(page, "a red ring"))
    wait_for(lambda: _order(paused) == ["a red square", "a red ring", "a red circle"], what="the drag")

    _card(page, "a red circle").get_by_test_id("task-menu").click()
    page.get_by_role("menuitem", name="Edit").click()
    editor = page.get_by_test_id("task-editor")
    editor.get_by_label("Prompt").fill("a blue circle")
    editor.get_by_label("Seed").fill("99")
    editor.get_by_role("button", name="Save changes").click()
    expect(_card(page, "a blue circle")).to_be_visible()

    _card(page, "a blue circle").get_by_test_id("task-menu").click()
    page.get_by_role("menuitem", name="Queue again").click()
    expect(_card(page, "a blue circle")).to_have_count(2)
    _card(page, "a blue circle").first.get_by_test_id("cancel-button").click()
    expect(_card(page, "a blue circle").filter(has_text="cancelled")).to_have_count(1)
    page.get_by_role("button", name="Clear ended").click()
    expect(page.get_by_test_id("task-card")).to_have_count(3)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_test_id("task-card")).to_have_count(4)
    page.get_by_role("button", name="Clear ended").click()
    expect(page.get_by_test_id("task-card")).to_have_count(3)
    assert paused.client.get("/api/v1/queue").json()["total_tasks"] == 4, "as long as it can be taken back"
    left = page.get_by_text("1 ended task left the list")
    left.locator("xpath=ancestor::*[.//button[@aria-label='Dismiss']][1]").get_by_label("Dismiss").click()
    wait_for(lambda: paused.client.get("/api/v1/queue").json()["total_tasks"] == 3, what="the end of the way back")


@pytest.mark.parametrize("hand", ["mouse", "keys"])
def test_a_running_task_is_paused_resumed_cancelled_and_tried_again(
    paused: LiveServer, open_page: Callable[..., Page], hand: str
) -> None:
    prompt = f"a yellow ring growing on a black background, by {hand}"

    def use(button: Locator) -> None:
        if hand == "mouse":
            button.click()
        else:
            press(page, button)

    paused.submit(prompt=prompt, steps=60)
    page = open_page(paused.url)
    expect(page.get_by_test_id("prompt-input")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    use(page.get_by_role("button", name="Resume the queue"))
    card = _card(page, prompt)
    expect(card.get_by_test_id("progress-bar")).to_be_visible()
    expect(card).to_contain_text(IN_THE_MIDDLE)
    use(card.get_by_role("button", name="Pause this task"))
    expect(card.get_by_test_id("task-status")).to_have_text("paused")
    use(card.get_by_role("button", name="Resume this task"))
    expect(card.get_by_test_id("task-status")).to_have_text("running")
    use(card.get_by_test_id("cancel-button"))
    expect(card.get_by_test_id("task-status")).to_have_text("cancelled")
    use(card.get_by_test_id("retry-button"))
    expect(card.get_by_test_id("task-status")).to_have_text("running")


def test_the_page_outlives_its_server(live_server: Callable[..., LiveServer], open_page: Callable[..., Page]) -> None:
    server = live_server(**SLOW)
    prompt = "a green triangle moving down on a gray background"
    server.submit(prompt=prompt, steps=40)
    lost = (
        "ERR_CONNECTION_REFUSED",
        "WebSocket connection",
        "ERR_CONNECTION_RESET",
        "ERR_EMPTY_RESPONSE",
        "ERR_ABORTED",
    )
    page = open_page(server.url, allowed=lost)
    _open_queue(page)
    card = _card(page, prompt)
    expect(card).to_contain_text(IN_THE_MIDDLE)
    port = server.url.rpartition(":")[2]
    server.kill()
    expect(page.get_by_test_id("offline-banner")).to_be_visible()
    server.start(port)
    expect(page.get_by_test_id("offline-banner")).to_have_count(0)
    # Until the lease of the worker that died is over, then a new worker starts.
    expect(card.get_by_test_id("task-status")).to_have_text("completed", timeout=3 * PATIENCE_MS)
    assert server.client.get("/api/v1/queue").json()["total_tasks"] == 1
