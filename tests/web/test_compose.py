"""A clip from the page: the first one, each mode, what it will cost, and a form that forgets nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.server import QUICK, LiveServer

PROMPT = QUICK["prompt"]


def _newest(server: LiveServer, prompt: str) -> dict[str, object]:
    tasks = server.client.get("/api/v1/queue", headers={"Wan22-Model-Ids": "exact"}).json()["tasks"]
    found: dict[str, object] = next(task for task in tasks if task["prompt"] == prompt)
    return found


def _small(page: Page) -> None:
    """Let the form ask for a clip that takes a second."""
    page.get_by_label("Length in seconds").fill("0.5")
    page.get_by_text("Draft").click()


def picture() -> bytes:
    """A start image, as a file."""
    file = io.BytesIO()
    Image.new("RGB", (128, 128), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def test_the_first_clip_takes_one_click(live_server: Callable[..., LiveServer], open_page: Callable[..., Page]) -> None:
    page = open_page(live_server().url)
    page.get_by_test_id("first-run").get_by_role("button", name=PROMPT).click()
    expect(page.get_by_test_id("running-clip")).to_be_visible()
    expect(page.get_by_test_id("recent-clip")).to_contain_text(PROMPT)
    expect(page.get_by_test_id("first-run")).to_have_count(0)
    page.get_by_test_id("recent-clip").click()
    expect(page.get_by_test_id("video-player")).to_be_visible()


def test_the_form_says_what_a_clip_will_take_and_what_the_model_does_not_know(
    server: LiveServer, open_page: Callable[..., Page]
) -> None:
    page = open_page(server.url)
    page.get_by_test_id("prompt-input").fill("a red circle and a xylophone")
    expect(page.get_by_text(re.compile("does not know: .*xylophone"))).to_be_visible()
    expect(page.get_by_test_id("character-counter")).to_contain_text("28 / 2000 · 7 of 64 tokens")
    expect(page.get_by_test_id("fits")).to_contain_text("Fits this machine")
    expect(page.get_by_test_id("estimate")).to_contain_text("RAM")


def test_text_and_keys_alone_make_a_clip(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(server.url)
    prompt = "a green square moving left on a black background"
    _small(page)
    page.get_by_test_id("prompt-input").fill(prompt)
    expect(page.get_by_test_id("fits")).to_be_visible()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_test_id("recent-clip").filter(has_text=prompt)).to_be_visible()
    task = _newest(server, prompt)
    assert (task["model"], task["num_frames"], task["steps"]) == ("tiny-t2v-a14b", 5, 8)


def test_an_image_and_two_images_choose_the_mode(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(server.url)
    prompt = "a red square shrinking on a gray background"
    page.get_by_test_id("prompt-input").fill(prompt)
    _small(page)
    file = {"name": "start.png", "mimeType": "image/png", "buffer": picture()}
    page.get_by_label("Start image").set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_alt_text("Start of the clip")).to_be_visible()
    page.get_by_label("End image").set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_alt_text("End of the clip")).to_be_visible()
    expect(page.get_by_text("tiny-i2v-a14b: ")).to_be_visible()
    page.get_by_test_id("generate-button").click()
    expect(page.get_by_test_id("recent-clip").filter(has_text=prompt)).to_be_visible()
    assert _newest(server, prompt)["model"] == "tiny-i2v-a14b"


def test_text_and_image_go_to_the_model_that_takes_both(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(server.url)
    prompt = "a blue ring moving up on a teal background"
    page.get_by_test_id("prompt-input").fill(prompt)
    page.get_by_test_id("model-select").select_option("tiny-ti2v-5b")
    _small(page)
    page.get_by_label("Start image").set_input_files(
        {"name": "start.png", "mimeType": "image/png", "buffer": picture()}  # type: ignore[arg-type]
    )
    expect(page.get_by_alt_text("Start of the clip")).to_be_visible()
    page.get_by_test_id("generate-button").click()
    expect(page.get_by_test_id("recent-clip").filter(has_text=prompt)).to_be_visible()
    assert _newest(server, prompt)["model"] == "tiny-ti2v-5b"


def test_a_lora_goes_along_with_its_strengths(server: LiveServer, open_page: Callable[..., Page]) -> None:
    lora = server.client.get("/api/v1/lora").json()["loras"][0]
    page = open_page(server.url)
    prompt = "a white circle staying still on a pink background"
    page.get_by_test_id("prompt-input").fill(prompt)
    _small(page)
    page.get_by_label("LoRAs").last.select_option(lora["id"])
    page.get_by_label("Strength, high-noise expert").fill("0.5")
    page.get_by_test_id("generate-button").click()
    expect(page.get_by_test_id("recent-clip").filter(has_text=prompt)).to_be_visible()
    stored = server.task(str(_newest(server, prompt)["id"]))["parameters"]["loras"]
    assert [(one["id"], one["strength"]) for one in stored] == [(lora["id"], 0.5)]


def test_suggested_words_are_shown_before_they_are_taken(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(server.url)
    page.get_by_test_id("prompt-input").fill(PROMPT)
    page.get_by_test_id("enhance-prompt-button").click()
    expect(page.get_by_label("Suggested prompt").locator("ins")).not_to_be_empty()
    expect(page.get_by_test_id("prompt-input")).to_have_value(PROMPT)
    page.get_by_test_id("accept-enhancement-button").click()
    expect(page.get_by_test_id("prompt-input")).not_to_have_value(PROMPT)


def test_nothing_is_lost_on_reload_and_a_refusal_stands_where_it_happened(
    server: LiveServer, open_page: Callable[..., Page]
) -> None:
    page = open_page(server.url, allowed=("422",))
    page.get_by_test_id("prompt-input").fill("a cyan triangle")
    page.get_by_test_id("resolution-select").select_option("custom")
    page.get_by_label("Width x height in pixels").fill("banana")
    expect(page.get_by_test_id("problem")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("prompt-input")).to_have_value("a cyan triangle")
    expect(page.get_by_label("Width x height in pixels")).to_have_value("banana")
    expect(page.get_by_test_id("problem")).to_be_visible()


def test_settings_come_back_from_a_dropped_clip(server: LiveServer, open_page: Callable[..., Page]) -> None:
    task_id = server.submit(prompt="a purple triangle spinning on a navy background", seed=4711)
    server.wait(task_id)
    clip = server.client.get(f"/api/v1/outputs/{task_id}/download").content
    page = open_page(server.url)
    page.evaluate(
        """bytes => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], "clip.mp4", {type: "video/mp4"}));
          document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
        }""",
        list(clip),
    )
    dialog = page.get_by_test_id("recall-dialog")
    expect(dialog).to_contain_text("4711")
    dialog.get_by_role("button", name="Apply").click()
    expect(page.get_by_test_id("prompt-input")).to_have_value("a purple triangle spinning on a navy background")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("4711")
