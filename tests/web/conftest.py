"""A real server with the tiny models, and real Chromium in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.browser import PATIENCE_MS, launch, watched_page
from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(240)
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a worker that all tests of a process share: look only at what your test made."""
    server = LiveServer(tmp_path_factory.mktemp("web") / "home")
    yield server
    server.stop()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address as a new visitor; keyword arguments are those of Playwright's contexts, and `allowed` errors."""
    with ExitStack() as stack:

        def visit(url: str, *, allowed: tuple[str, ...] = (), **options: object) -> Page:
            settings: dict[str, object] = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
            context = browser.new_context(**(settings | options))  # type: ignore[arg-type]
            stack.callback(context.close)
            page = stack.enter_context(watched_page(context, allowed=allowed))
            page.goto(url)
            return page

        yield visit
