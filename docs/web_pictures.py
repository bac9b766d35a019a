"""Makes the pictures of the web interface in `docs/images/web/`, from the real page: `python -m docs.web_pictures`.

Starts a server with the tiny models in an empty home, and Chromium in front of it. The moving picture is what happened,
at the speed at which it happened on this machine.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.browser import PATIENCE_MS, launch
from tests.support.server import LiveServer

FOLDER = Path(__file__).parent / "images" / "web"
WIDTH, HEIGHT = 1280, 800
#: Of the moving picture: pause between two frames in seconds, and the width of a frame in pixels.
_FRAME_SECONDS = 0.12
_FRAME_WIDTH = 900
#: Clips that make the gallery something to look at.
_PROMPTS = (
    "a yellow triangle spinning on a teal background",
    "a white ring growing on a pink background",
    "a blue square moving up on a gray background",
    "a green circle moving left on a black background",
    "a purple triangle shrinking on a navy background",
    "an orange square spinning on a teal background",
    "a cyan ring moving down on a black background",
)


class Film:
    """Frames of a page, collected while something happens on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []

    def roll(self, seconds: float) -> None:
        """Collect frames for a while."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.frame()
            self.page.wait_for_timeout(_FRAME_SECONDS * 1000 / 2)

    def frame(self) -> None:
        """Collect one frame."""
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        height = round(picture.height * _FRAME_WIDTH / picture.width)
        self.frames.append(picture.resize((_FRAME_WIDTH, height), Image.Resampling.LANCZOS))

    def save(self, path: Path) -> None:
        """Write the frames as an animated GIF that repeats."""
        first = self.frames[0].quantize(128, method=Image.Quantize.MEDIANCUT)
        rest = [frame.quantize(palette=first, dither=Image.Dither.NONE) for frame in self.frames[1:]]
        first.save(
            path, save_all=True, append_images=rest, duration=round(_FRAME_SECONDS * 1000), loop=0, optimize=True
        )


def _film(page: Page, url: str) -> None:
    """From an empty page to a clip that plays."""
    page.goto(url)
    expect(page.get_by_test_id("first-run")).to_be_visible()
    film = Film(page)
    film.roll(0.6)
    for word in ["a", "red", "circle", "moving", "right", "on", "a", "navy", "background"]:
        page.get_by_test_id("prompt-input").press_sequentially(f"{word} ")
        film.frame()
    expect(page.get_by_test_id("fits")).to_be_visible()
    film.roll(0.8)
    page.get_by_test_id("generate-button").click()
    ends = time.monotonic() + PATIENCE_MS / 1000
    while not page.get_by_test_id("recent-clip").count() and time.monotonic() < ends:
        film.frame()
        page.wait_for_timeout(_FRAME_SECONDS * 500)
    film.roll(0.6)
    page.get_by_test_id("recent-clip").first.click()
    expect(page.get_by_test_id("video-player")).to_be_visible()
    film.roll(3)
    film.save(FOLDER / "first-clip.gif")


def _shot(page: Page, name: str) -> None:
    page.wait_for_timeout(700)  # fonts and posters
    page.screenshot(path=FOLDER / f"{name}.png")


def _stills(page: Page, server: LiveServer) -> None:
    """One picture for each page, with something on it."""
    ids = [server.submit(prompt=prompt, steps=20, resolution="96x96", num_frames=17) for prompt in _PROMPTS]
    for task_id in ids:
        server.wait(task_id)
    for index in range(4):
        server.submit(prompt=_PROMPTS[index], steps=60, resolution="128x128", num_frames=33, seed=index)
    page.goto(server.url)
    page.get_by_test_id("prompt-input").fill("a red square spinning on a pink background")
    expect(page.get_by_test_id("fits")).to_be_visible()
    _shot(page, "create")
    page.get_by_test_id("enhance-prompt-button").click()
    expect(page.get_by_test_id("accept-enhancement-button")).to_be_visible()
    _shot(page, "prompt-help")
    page.get_by_test_id("queue-button").click()
    expect(page.get_by_test_id("task-card").first).to_be_visible()
    _shot(page, "queue")
    page.keyboard.press("Escape")
    page.goto(f"{server.url}/gallery")
    expect(page.get_by_test_id("video-card").first).to_be_visible()
    _shot(page, "gallery")
    page.goto(f"{server.url}/gallery?clip={ids[0]}")
    expect(page.get_by_test_id("video-player")).to_be_visible()
    _shot(page, "player")
    page.goto(f"{server.url}/compare?a={ids[0]}&b={ids[5]}")
    _shot(page, "compare")
    for name in ("models", "loras", "system", "settings"):
        page.goto(f"{server.url}/{name}")
        expect(page.locator("h1")).to_be_visible()
        page.wait_for_timeout(2500)  # live figures
        _shot(page, name)
    page.locator("#content").focus()
    page.keyboard.press("Control+k")
    expect(page.get_by_test_id("palette")).to_be_visible()
    _shot(page, "palette")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(server.url)
    _shot(page, "phone")


def main() -> None:
    """Make all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE_MS)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LiveServer(Path(folder) / "home")
        try:
            browser = launch(playwright)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.set_default_timeout(PATIENCE_MS)
            _film(page, server.url)
            _stills(page, server)
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
