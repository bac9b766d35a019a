"""Every page in both themes and three widths: nobody is locked out, nothing is cut off, nothing overlaps the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import AXE
from tests.support.pictures import check_picture
from tests.support.server import LiveServer

#: Each screen by the name of its pictures. Pages are looked at by axe at every size, their parts at the largest.
PAGES = {
    "create": "/",
    "gallery": "/gallery",
    "clip": "/gallery?clip={0}",
    "compare": "/compare?a={0}&b={1}",
    "models": "/models",
    "loras": "/loras",
    "system": "/system",
    "settings": "/settings",
}
PARTS = {
    f"{page}-{part}": f"/{page}#{part}"
    for page, parts in {
        "system": ("workers", "health", "analytics", "use"),
        "settings": ("generation", "server", "history", "keys", "session"),
    }.items()
    for part in parts
}
WIDTHS = {360: 780, 768: 1024, 1440: 900}

FINDINGS = """async () => {
  await Promise.all(document.getAnimations().map(one => one.finished.catch(() => null)));
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  const said = node => `${node.html.slice(0, 160)} (${node.any[0]?.message ?? ""})`;
  return violations.map(one => `${one.id}: ${one.nodes.slice(0, 3).map(said).join(" | ")}`);
}"""
#: Elements with text that reach beyond the window, unless something around them scrolls or cuts on purpose.
CUT = """() => [...document.querySelectorAll("#root *")].filter(one => {
  if (!one.checkVisibility() || !one.textContent.trim()) return false;
  const box = one.getBoundingClientRect();
  if (box.width === 0 || (box.right <= innerWidth + 1 && box.left >= -1)) return false;
  for (let up = one.parentElement; up; up = up.parentElement)
    if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(up).overflowX)) return false;
  return getComputedStyle(one).position !== "absolute";
}).map(one => one.outerHTML.slice(0, 160))"""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with two finished clips, so that pages have something to show, and always the same."""
    server = LiveServer(tmp_path_factory.mktemp("looks") / "home")
    for number in range(2):
        server.wait(server.submit(prompt="a cyan circle moving up on a black background", seed=number))
    yield server
    server.stop()


def _ready(page: Page) -> None:
    expect(page.get_by_test_id("queue-button")).to_be_visible()
    expect(page.locator("h1").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !document.querySelector('.animate-pulse')")


@pytest.mark.parametrize("name", [*PAGES, *PARTS])
def test_a_page_is_usable_by_everybody_at_every_size(
    furnished: LiveServer, open_page: Callable[..., Page], name: str
) -> None:
    clips = [video["id"] for video in furnished.client.get("/api/v1/outputs").json()["videos"]]
    path = (PAGES | PARTS)[name].format(*clips)
    page = open_page(furnished.url + path)
    _ready(page)
    if name == "compare":
        page.get_by_role("button", name="equal ones").click()
    page.evaluate(AXE.read_text())
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            expect(page.locator("html")).to_have_attribute("data-theme", theme)
            if name in PAGES or width == max(WIDTHS):
                assert page.evaluate(FINDINGS) == [], (path, width, theme)
            check_picture(page, f"{name}-{width}-{theme}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
        assert page.evaluate(CUT) == [], (path, width)


def test_windows_are_usable_by_everybody(furnished: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(furnished.url)
    _ready(page)
    page.evaluate(AXE.read_text())
    page.locator("#content").focus()
    for key, name in (("q", "queue-panel"), ("Control+k", "palette"), ("?", "key-sheet")):
        page.keyboard.press(key)
        expect(page.get_by_test_id(name)).to_be_visible()
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            assert page.evaluate(FINDINGS) == [], (name, theme)
            check_picture(page, f"{name}-{theme}")
        page.keyboard.press("Escape")
        expect(page.get_by_test_id(name)).to_have_count(0)


def test_a_key_is_changed_and_kept(furnished: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(furnished.url)
    _ready(page)
    page.locator("#content").focus()
    page.keyboard.press("?")
    page.get_by_label("change the key of Go to Models").click()
    page.keyboard.press("z")
    expect(page.get_by_label("change the key of Go to Models")).to_have_text("Z")
    page.keyboard.press("Escape")
    page.reload()
    _ready(page)
    page.locator("#content").focus()
    page.keyboard.press("z")
    expect(page).to_have_url(f"{furnished.url}/models")
