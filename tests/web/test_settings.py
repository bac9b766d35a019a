"""Settings on the page: changed and kept, refused where they are wrong, taken back; keys made, shown once, revoked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(240)
TILE = "optimization.vae_tile_size"


@pytest.fixture
def idle_server(live_server: Callable[..., LiveServer]) -> LiveServer:
    """A server without a worker, for which the environment decides how long the trash is kept."""
    return live_server(WAN22_WORKER="false", WAN22_TRASH_DAYS="3")


def test_a_setting_is_refused_where_it_is_wrong_kept_over_a_restart_and_taken_back(
    idle_server: LiveServer, open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{idle_server.url}/settings#server", allowed=("422", "ERR_CONNECTION_REFUSED", "WebSocket"))
    fixed = page.get_by_test_id("setting-settings.trash_days")
    expect(fixed).to_contain_text("environment variable")
    expect(page.get_by_test_id("field-settings.trash_days")).to_be_disabled()

    field = page.get_by_test_id(f"field-{TILE}")
    row = page.get_by_test_id(f"setting-{TILE}")
    field.fill("5")
    page.keyboard.press("Control+s")
    expect(row.get_by_role("alert")).to_contain_text("between 128 and 512")
    row.get_by_role("button", name="Use 128").click()
    expect(field).to_have_value("128")
    field.fill("384")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("1 setting changed", exact=True)).to_be_visible()
    page.reload()
    expect(field).to_have_value("384")
    expect(row).to_contain_text("set in config.json")

    idle_server.stop()
    idle_server.start()
    page.goto(f"{idle_server.url}/settings#server")
    expect(field).to_have_value("384")
    page.get_by_test_id("settings-history").click()
    expect(page.get_by_test_id("version").first).to_contain_text(TILE)
    page.get_by_role("button", name="Take the last change back").click()
    expect(page.get_by_test_id("version").first).to_contain_text("Back to version")
    page.get_by_test_id("settings-server").click()
    expect(field).to_have_value("256")


def test_a_key_is_shown_once_and_refused_when_it_is_revoked(
    idle_server: LiveServer, open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{idle_server.url}/settings#keys", allowed=("401", "WebSocket"))
    make_key(page, "me")
    page.reload()
    expect(page.get_by_test_id("key-me")).to_contain_text("This browser")
    text = make_key(page, "night batch")
    expect(page.get_by_test_id("key-night batch")).to_contain_text("generate")
    assert text not in page.content()

    def answer() -> int:
        headers = {"Authorization": f"Bearer {text}"}
        return int(idle_server.client.get("/api/v1/queue", headers=headers).status_code)

    assert answer() == 200
    page.get_by_role("button", name="Revoke night batch").click()
    page.get_by_test_id("confirm").get_by_role("button", name="Revoke it").click()
    expect(page.get_by_test_id("key-night batch")).to_contain_text("revoked")
    assert answer() == 401

    page.get_by_test_id("settings-session").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_test_id("login")).to_be_visible()


def test_the_theme_belongs_to_the_browser(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{server.url}/settings")
    page.get_by_text("Dark", exact=True).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def make_key(page: Page, name: str) -> str:
    """Make a key on the page, and return it as it is shown."""
    page.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_test_id("key-dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Make it").click()
    text = page.get_by_test_id("key-text").input_value()
    assert text.startswith("wan22_")
    page.get_by_role("button", name="I have kept it").click()
    return text
