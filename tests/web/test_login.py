"""A server with keys: the page asks for one, keeps it out of its own reach, and respects its scopes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.support.browser import WEB
from tests.support.server import LiveServer

KEY = "a-key-of-the-operator-0123456789"


def test_a_key_opens_the_page_and_a_wrong_one_does_not(
    live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    server = live_server(WAN22_API_KEY=KEY, WAN22_WORKER="false")
    page = open_page(f"{server.url}/gallery", allowed=("401", "WebSocket connection"))
    page.get_by_label("API key").fill("not-the-key")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_text("The server does not know this key.")).to_be_visible()
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_test_id("queue-button")).to_be_visible()
    assert page.url == f"{server.url}/gallery"
    kept = page.evaluate("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert KEY not in kept
    page.reload()
    expect(page.get_by_test_id("queue-button")).to_be_visible()


def test_another_name_of_the_same_machine_is_another_origin_and_needs_its_own_login(
    live_server: Callable[..., LiveServer], open_page: Callable[..., Page]
) -> None:
    server = live_server(WAN22_API_KEY=KEY, WAN22_WORKER="false")
    here, there = server.url, server.url.replace("127.0.0.1", "localhost")
    page = open_page(here, allowed=("401", "403", "WebSocket connection", "Content Security Policy", "Fetch API"))
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_test_id("queue-button")).to_be_visible()
    page.goto(there)
    expect(page.get_by_test_id("login")).to_be_visible()
    # A page of another origin can neither read nor change anything here, cookie or not.
    refused = page.evaluate(
        "url => fetch(url, {method: 'POST', credentials: 'include'}).then(() => 'answered', () => 'refused')",
        f"{here}/api/v1/queue/pause",
    )
    assert refused == "refused"
    assert server.client.get("/api/v1/queue", headers={"Authorization": f"Bearer {KEY}"}).json()["paused"] is False
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_test_id("queue-button")).to_be_visible()


def test_the_scripts_arrive_whole_while_the_server_looks_after_its_keys(
    live_server: Callable[..., LiveServer],
) -> None:
    """The look that ends the answers of revoked keys once ended those that need no key."""
    server = live_server(WAN22_API_KEY=KEY, WAN22_WORKER="false")
    (script,) = re.findall(r'src="\./(assets/index-[^"]+\.js)"', server.client.get("/").text)
    whole = (WEB / script).read_bytes()
    ends = time.monotonic() + 4  # four looks
    count = 0
    while time.monotonic() < ends:
        assert server.client.get(f"/{script}").content == whole
        count += 1
    assert count > 20
