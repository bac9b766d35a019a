"""The gallery in a real browser: clips appear, are found again, marked, thrown away and taken back, and compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Locator, Page, expect

from backend.services.media.video_encoder import read_metadata
from tests.support.browser import AXE
from tests.support.server import LiveServer, wait_for

Visit = Callable[..., Page]


@dataclass(frozen=True)
class Clips:
    """Finished clips of this file's own, newest first, and a word that only their prompts have."""

    server: LiveServer
    word: str
    ids: list[str]

    def path(self, **query: str) -> str:
        """Return the address of the gallery with these clips alone."""
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return f"{self.server.url}/gallery?search={self.word}{more}"

    def of(self, clip: str) -> dict[str, Any]:
        """Return a clip as the API shows it."""
        answer: dict[str, Any] = self.server.client.get(f"/api/v1/outputs/{clip}?trash=true").json()
        return answer


@pytest.fixture(scope="module")
def clips(server: LiveServer) -> Clips:
    """Three clips, of which no two have the same length or the same rate."""
    word = "gallerytest"
    made = [
        server.submit(prompt=f"{word} a red circle moving {way}", num_frames=frames, fps=fps, keep_latents=frames == 9)
        for way, frames, fps in (("right", 5, 8), ("left", 9, 16), ("up", 17, 8))
    ]
    for task in made:
        server.wait(task)
    return Clips(server, word, made[::-1])


def cards(page: Page) -> Locator:
    """Return the tiles of finished clips."""
    return page.get_by_test_id("video-card")


def shown(page: Page) -> list[str | None]:
    """Return the ids of the tiles, in order."""
    found = cards(page).all()
    return [
        one.get_attribute("data-clip")
        for one in sorted(found, key=lambda one: int(one.get_attribute("data-index") or 0))
    ]


def query(page: Page) -> dict[str, list[str]]:
    """Return what the address of the page says after its path."""
    return parse_qs(urlparse(page.url).query)


def test_filters_are_in_the_address_and_in_the_list(clips: Clips, open_page: Visit) -> None:
    page = open_page(f"{clips.server.url}/gallery")
    page.get_by_test_id("gallery-search").fill(clips.word)
    expect(cards(page)).to_have_count(3)
    expect(page.get_by_test_id("gallery-count")).to_have_text("3 clips")
    assert shown(page) == clips.ids
    # On a server without other clips the list is right before the address is: this waits for typing to end.
    expect(page).to_have_url(f"{clips.server.url}/gallery?search={clips.word}")
    page.get_by_label("Order").select_option("longest")
    expect(cards(page).first).to_have_attribute("data-clip", clips.ids[0])
    page.get_by_test_id("gallery-search").fill(f"{clips.word} left")
    expect(cards(page)).to_have_count(1)
    page.reload()
    expect(cards(page)).to_have_count(1)
    assert shown(page) == [clips.ids[1]]
    assert query(page)["sort"] == ["longest"]
    page.get_by_role("button", name=re.compile("Filters")).click()
    page.get_by_label("Mocks", exact=True).select_option("yes")
    expect(page.get_by_text("No clip fits these filters")).to_be_visible()
    page.get_by_role("button", name="Take the filters away").click()
    expect(page.get_by_test_id("filter-chip")).to_have_count(0)
    assert "search" not in query(page)


def test_marks_and_the_trash_by_keys_alone_with_a_way_back(clips: Clips, open_page: Visit) -> None:
    page = open_page(clips.path())
    expect(cards(page)).to_have_count(3)
    page.keyboard.press("ArrowRight")
    expect(cards(page).nth(0)).to_be_focused()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.get_by_test_id("bulk-bar")).to_contain_text("2 selected")
    page.keyboard.press("f")
    expect(page.get_by_text("2 clips added to the favourites")).to_be_visible()
    assert [clips.of(clip)["favourite"] for clip in clips.ids] == [True, True, False]
    page.keyboard.press("Delete")
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_text("2 clips moved to the trash")).to_be_visible()
    wait_for(lambda: "trashed_at" in clips.of(clips.ids[0]), what="the trash")
    toast = page.get_by_text("2 clips moved to the trash").locator("xpath=ancestor::*[.//button][1]")
    toast.get_by_role("button", name="Undo").press("Enter")
    expect(cards(page)).to_have_count(3)
    assert "trashed_at" not in clips.of(clips.ids[0])
    page.keyboard.press("Escape")
    page.get_by_test_id("gallery-scroller").click(position={"x": 3, "y": 3})
    page.keyboard.press("Control+a")
    expect(page.get_by_test_id("bulk-bar")).to_contain_text("3 selected")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("bulk-bar")).to_have_count(0)
    clips.server.client.post("/api/v1/outputs/bulk", json={"ids": clips.ids, "favourite": False})


def test_clips_are_selected_by_the_mouse_as_everywhere(clips: Clips, open_page: Visit) -> None:
    page = open_page(clips.path())
    expect(cards(page)).to_have_count(3)
    cards(page).nth(0).click(modifiers=["Control"])
    cards(page).nth(2).click(modifiers=["Shift"])
    expect(page.get_by_test_id("bulk-bar")).to_contain_text("3 selected")
    cards(page).nth(1).click(modifiers=["Control"])
    expect(page.get_by_test_id("bulk-bar")).to_contain_text("2 selected")
    cards(page).nth(0).click(button="right")
    page.get_by_role("menuitem", name="Compare").click()
    expect(page.get_by_test_id("compare")).to_be_visible()


def test_tags_and_boards_are_made_kept_and_filtered_by(clips: Clips, open_page: Visit) -> None:
    page = open_page(clips.path())
    expect(cards(page)).to_have_count(3)
    cards(page).nth(0).focus()
    page.keyboard.press("t")
    page.get_by_label("New tags").fill("Sea, night")
    page.keyboard.press("Enter")
    wait_for(lambda: clips.of(clips.ids[0])["tags"] == ["night", "sea"], what="the tags")
    cards(page).nth(0).focus()
    page.keyboard.press("b")
    page.get_by_label("New board").fill("Harbour")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 clip put on “Harbour”")).to_be_visible()
    (board,) = clips.server.client.get("/api/v1/boards").json()["boards"]
    assert (board["name"], board["videos"]) == ("Harbour", 1)
    page.goto(clips.path(tag="sea", board=board["id"]))
    expect(cards(page)).to_have_count(1)
    expect(page.get_by_test_id("filter-chip").nth(2)).to_have_text("Harbour")
    page.get_by_role("button", name=re.compile("Filters")).click()
    page.get_by_role("button", name="Edit boards").click()
    page.get_by_role("button", name="Rename Harbour").click()
    page.get_by_label("New name of Harbour").fill("Docks")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete the board Docks").click()
    expect(page.get_by_text("Board deleted")).to_be_visible()
    assert clips.server.client.get("/api/v1/boards").json()["boards"] == []


def test_the_trash_says_when_a_clip_is_gone_and_empties(clips: Clips, open_page: Visit) -> None:
    spare = [clips.server.submit(prompt=f"spareclip {number}", steps=1) for number in range(2)]
    for task in spare:
        clips.server.wait(task)
    clips.server.client.post("/api/v1/outputs/bulk", json={"ids": spare, "action": "trash"})
    page = open_page(f"{clips.server.url}/gallery?trash=true&search=spareclip")
    expect(cards(page)).to_have_count(2)
    expect(cards(page).first).to_contain_text("Deleted for good")
    cards(page).first.click(button="right")
    page.get_by_role("menuitem", name="Restore").click()
    expect(cards(page)).to_have_count(1)
    page.get_by_role("button", name="Empty the trash").click()
    page.get_by_test_id("sure").get_by_role("button", name="Delete for good").click()
    expect(cards(page)).to_have_count(0)
    kept = clips.server.client.get("/api/v1/outputs?search=spareclip").json()["videos"]
    assert len(kept) == 1
    clips.server.client.delete(f"/api/v1/outputs/{kept[0]['id']}?permanent=true")


def test_a_clip_is_looked_at_frame_by_frame(clips: Clips, open_page: Visit, tmp_path: Path) -> None:
    page = open_page(clips.path())
    expect(cards(page)).to_have_count(3)
    cards(page).nth(0).focus()
    page.keyboard.press("Enter")
    player = page.get_by_test_id("video-player")
    expect(player).to_be_visible()
    assert query(page)["clip"] == [clips.ids[0]]
    time = page.get_by_test_id("player-time")
    page.keyboard.press(".")
    page.keyboard.press(".")
    expect(time).to_contain_text("frame 3 of 17")
    page.keyboard.press(",")
    expect(time).to_contain_text("frame 2 of 17")
    with page.expect_download() as saved:
        page.keyboard.press("s")
    assert saved.value.suggested_filename == "gallerytest-a-red-circle-moving-up-frame-002.png"
    saved.value.save_as(tmp_path / "frame.png")
    assert (tmp_path / "frame.png").read_bytes()[:4] == b"\x89PNG"
    page.keyboard.press("l")
    page.keyboard.press(">")
    assert player.evaluate("one => [one.loop, one.playbackRate]") == [False, 2]
    page.keyboard.press("Space")
    page.wait_for_function("() => !document.querySelector('[data-testid=video-player]').paused")
    page.wait_for_function("() => document.querySelector('[data-testid=video-player]').ended")
    page.keyboard.press("f")
    wait_for(lambda: clips.of(clips.ids[0])["favourite"], what="the favourite")
    page.keyboard.press("ArrowRight")
    expect(time).to_contain_text("of 9")
    assert query(page)["clip"] == [clips.ids[1]]
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("viewer")).to_have_count(0)
    expect(cards(page).nth(1)).to_be_focused()
    clips.server.client.patch(f"/api/v1/outputs/{clips.ids[0]}", json={"favourite": False})


@pytest.fixture
def paused(clips: Clips) -> Iterator[Clips]:
    """The clips on a server that starts nothing, so that what a test queues does not become one more of them."""
    clips.server.client.post("/api/v1/queue/pause", json={}).raise_for_status()
    yield clips
    clips.server.client.post("/api/v1/queue/resume").raise_for_status()


def test_the_details_say_how_a_clip_was_made_and_begin_new_ones(
    paused: Clips, open_page: Visit, tmp_path: Path
) -> None:
    clips = paused
    page = open_page(clips.path(clip=clips.ids[1]))
    panel = page.get_by_test_id("details-panel")
    for text in (
        "tiny-t2v-a14b",
        "9 frames at 16 per second",
        "4 (",
        "Seconds by phase",
        clips.of(clips.ids[1])["sha256"],
    ):
        expect(panel).to_contain_text(text)
    with page.expect_download() as whole:
        panel.get_by_role("button", name="Download").click()
    with page.expect_download() as plain:
        page.get_by_test_id("clip-menu").click()
        page.get_by_role("menuitem", name="Download without the record").click()
    whole.value.save_as(tmp_path / "whole.mp4")
    plain.value.save_as(tmp_path / "plain.mp4")
    assert (read_metadata(tmp_path / "whole.mp4") or {})["request"]["num_frames"] == 9
    assert read_metadata(tmp_path / "plain.mp4") is None
    before = {task["id"] for task in clips.server.client.get("/api/v1/queue?limit=1000").json()["tasks"]}
    panel.get_by_role("button", name="Vary").click()
    page.get_by_label("Variations").fill("2")
    page.get_by_role("button", name="Queue 2 variations").click()
    expect(page.get_by_test_id("vary-window")).to_have_count(0)
    page.get_by_test_id("clip-menu").click()
    page.get_by_role("menuitem", name="Make another file").click()
    page.get_by_label("Frames per second").fill("8")
    page.get_by_role("button", name="Queue it").click()
    expect(page.get_by_text("Queued another file of this clip")).to_be_visible()
    tasks = clips.server.client.get("/api/v1/queue?limit=1000").json()["tasks"]
    new = [task for task in tasks if task["id"] not in before]
    assert sorted((task["num_frames"], task["fps"]) for task in new) == [(9, 8), (9, 16), (9, 16)]
    assert len({task["seed"] for task in new}) == 3
    for task in new:
        clips.server.client.post(f"/api/v1/queue/{task['id']}/cancel").raise_for_status()
    panel.get_by_role("button", name="Reuse settings").click()
    expect(page.get_by_test_id("recall-dialog")).to_be_visible()
    assert urlparse(page.url).path == "/"


def test_a_clip_is_made_again_and_has_the_same_frames(server: LiveServer, open_page: Visit) -> None:
    clip = server.submit(prompt="againclip a red circle moving right on a navy background", seed=11, num_frames=9)
    server.wait(clip)
    page = open_page(f"{server.url}/gallery?search=againclip&clip={clip}")
    page.get_by_test_id("clip-menu").click()
    page.get_by_role("menuitem", name="Check: make it again").click()
    expect(page.get_by_text("The clip is made again")).to_be_visible()
    page.reload()  # the check outlives it
    verdict = page.get_by_text("The same frames, bit for bit")
    expect(verdict).to_be_visible()
    verdict.locator("xpath=ancestor::*[.//button][1]").get_by_role("button", name="Compare").click()
    expect(page.get_by_test_id("same-frames")).to_have_text("The frames are the same to the bit.")
    assert query(page)["a"] == [clip]


def test_the_running_clip_is_the_first_tile_until_it_is_a_clip(clips: Clips, open_page: Visit) -> None:
    page = open_page(f"{clips.server.url}/gallery")
    task = clips.server.submit(prompt="runningclip a blue ring", num_frames=33, steps=90, resolution="128x128")
    running = page.locator(f"[data-testid=running-card][data-task='{task}']")
    expect(running).to_be_visible()
    expect(running).to_have_attribute("data-index", "0")
    expect(running.get_by_test_id("running-preview")).to_be_visible()
    clips.server.wait(task)
    finished = page.locator(f"[data-testid=video-card][data-clip='{task}']")
    expect(finished).to_be_visible()
    expect(running).to_have_count(0)


def test_one_player_lives_at_a_time_and_plays_where_the_pointer_is(clips: Clips, open_page: Visit) -> None:
    page = open_page(clips.path(), reduced_motion="no-preference")
    expect(cards(page)).to_have_count(3)
    for place in (0, 1, 2):
        cards(page).nth(place).hover()
        playing = cards(page).nth(place).get_by_test_id("hover-video")
        expect(playing).to_be_visible()
        expect(page.locator("video")).to_have_count(1)
        page.wait_for_function("() => document.querySelector('video').currentTime > 0")


def test_a_mock_cannot_be_taken_for_a_clip(clips: Clips, open_page: Visit) -> None:
    # By the server's policy: the failure of a missing model would begin with a download of its 69 GB.
    policy = "/api/v1/generation/policy"
    clips.server.client.post(policy, json={"mode": "mock", "mock_seconds": 0.1}).raise_for_status()
    try:
        clips.server.wait(clips.server.submit(prompt="mockclip a harbour"))
    finally:
        clips.server.client.post(policy, json={"mode": "real"}).raise_for_status()
    page = open_page(f"{clips.server.url}/gallery?search=mockclip")
    expect(page.get_by_test_id("mock-badge")).to_be_visible()
    cards(page).first.click()
    expect(page.get_by_test_id("details-panel")).to_contain_text("no model made it")


def test_two_clips_play_as_one_although_their_lengths_and_rates_differ(clips: Clips, open_page: Visit) -> None:
    a, b = clips.ids[0], clips.ids[1]
    page = open_page(f"{clips.server.url}/compare?a={a}&b={b}")
    expect(page.get_by_test_id("compare-time")).to_contain_text("A frame 1 of 17 · B frame 1 of 9")
    for _ in range(5):
        page.keyboard.press(".")
    expect(page.get_by_test_id("compare-time")).to_contain_text("A frame 3 of 17 · B frame 6 of 9")
    page.keyboard.press(",")
    expect(page.get_by_test_id("compare-time")).to_contain_text("A frame 3 of 17 · B frame 5 of 9")
    page.keyboard.press("Space")
    page.wait_for_function("() => !document.querySelector('[data-testid=compare-a]').paused")
    # Over two loops: B has 9 frames at 16 per second and then waits for A, which has 17 at 8.
    apart = page.evaluate(
        """async () => {
          const [a, b] = ['a', 'b'].map(name => document.querySelector(`[data-testid=compare-${name}]`))
          const found = []
          const end = performance.now() + 5000
          while (performance.now() < end) {
            await new Promise(requestAnimationFrame)
            if (a.seeking || b.seeking || a.ended) continue
            found.push(Math.abs(Math.min(a.currentTime, 9 / 16) - Math.min(b.currentTime, 9 / 16)))
          }
          found.sort((x, y) => x - y)
          return [found.length, found[Math.floor(found.length * 0.99)]]
        }"""
    )
    assert apart[0] > 50
    assert apart[1] <= 1 / 8, f"{apart[1]:.3f} s apart"
    page.keyboard.press("Space")
    page.keyboard.press("v")
    expect(page.get_by_test_id("compare-stage")).to_have_attribute("data-view", "slider")
    page.keyboard.press("v")
    expect(page.get_by_test_id("compare-stage")).to_have_attribute("data-view", "difference")
    page.keyboard.press("b")
    expect(page.get_by_test_id("compare-stage")).to_have_attribute("data-view", "turns")
    page.keyboard.press("x")
    expect(page).to_have_url(re.compile(f"a={b}&b={a}"))
    page.keyboard.press("Shift+f")
    wait_for(lambda: clips.of(a)["favourite"], what="the favourite")
    with page.expect_download():
        page.keyboard.press("s")
    expect(page.get_by_test_id("differences")).to_contain_text("Frames per second")
    expect(page.get_by_test_id("same-frames")).to_have_text("The frames differ.")
    clips.server.client.patch(f"/api/v1/outputs/{a}", json={"favourite": False})


def test_the_other_clip_of_a_comparison_is_picked_by_keys(clips: Clips, open_page: Visit) -> None:
    page = open_page(clips.path())
    expect(cards(page)).to_have_count(3)
    cards(page).nth(0).focus()
    page.keyboard.press("c")
    expect(page).to_have_url(re.compile(f"a={clips.ids[0]}&b={clips.ids[1]}"))
    expect(page.get_by_test_id("compare-time")).to_be_visible()
    page.keyboard.press("Alt+ArrowRight")
    expect(page).to_have_url(re.compile(f"a={clips.ids[0]}&b={clips.ids[2]}"))
    page.keyboard.press("Alt+ArrowDown")
    expect(page).to_have_url(re.compile(f"a={clips.ids[1]}&b={clips.ids[2]}"))
    page.keyboard.press("Escape")
    expect(cards(page)).to_have_count(3)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 360])
def test_nothing_stands_in_the_way_of_anybody(clips: Clips, open_page: Visit, theme: str, width: int) -> None:
    page = open_page(clips.path(), color_scheme=theme, viewport={"width": width, "height": 800}, bypass_csp=True)
    addresses = [
        clips.path(),
        clips.path(clip=clips.ids[0]),
        f"{clips.server.url}/compare?a={clips.ids[0]}&b={clips.ids[1]}",
    ]
    for address in addresses:
        page.goto(address)
        page.wait_for_function(
            "() => document.querySelector('[data-testid=video-card] img, video')"
            " && !document.querySelector('.animate-pulse')"
        )
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == [], address
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
