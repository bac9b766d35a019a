"""Chromium for tests of the web interface, and pages that tell when something in them went wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect

WEB = Path(__file__).parents[2] / "backend" / "assets" / "web"
AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

#: Longest wait for one thing on a page, in milliseconds: a clip of the tiny model on a busy machine.
PATIENCE_MS = 60_000

#: Elements of the longest page that take the focus, twice.
_MOST_TABS = 200

#: A preview may go, with its task's end, between the message that names it and the request for it.
_PREVIEW = "/preview?step="


def launch(playwright: Playwright) -> Browser:
    """Start the system's Chromium, or the one that Playwright has installed.

    Without either, tests are skipped on a person's machine and fail in CI.
    """
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and not Path(playwright.chromium.executable_path).exists():
        reason = "no Chromium: install your system's package, or run `playwright install chromium`"
        if os.environ.get("CI"):
            raise AssertionError(reason)
        pytest.skip(reason)
    # The sandbox of Chromium needs rights that containers do not have.
    return playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


@contextmanager
def watched_page(context: BrowserContext, *, allowed: tuple[str, ...] = ()) -> Iterator[Page]:
    """Open a page that fails the test when its console shows an error that none of `allowed` is a part of."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(f"{line.text} {line.location}") if line.type == "error" else None)
    yield page
    page.close()
    left = [fault for fault in faults if not any(part in fault for part in (*allowed, _PREVIEW))]
    assert not left, left


def reach(page: Page, target: Locator) -> None:
    """Go to an element by the Tab key alone.

    Raises:
        AssertionError: it is not reached.
    """
    expect(target).to_be_visible()
    for _ in range(_MOST_TABS):
        if target.evaluate("one => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not reached by the Tab key")


def press(page: Page, target: Locator, key: str = "Enter") -> None:
    """Go to an element by the Tab key, and press another one there."""
    reach(page, target)
    page.keyboard.press(key)
