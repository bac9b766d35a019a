"""The first minute with the page: it opens quickly, without a fault, and what it is stays where it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.server import LiveServer

#: All layout shifts that nobody caused, as the browser measures them, with what was shifted.
SHIFTS = """() => new Promise(done => {
  const found = [];
  const named = ({node}) => (node?.outerHTML ?? node?.textContent ?? "").slice(0, 120);
  new PerformanceObserver(list => {
    for (const one of list.getEntries()) if (!one.hadRecentInput) found.push([one.value, one.sources.map(named)]);
  }).observe({type: "layout-shift", buffered: true});
  setTimeout(() => done(found), 1500);
})"""


@pytest.mark.parametrize("path", ["/", "/gallery", "/models", "/loras", "/system", "/settings"])
def test_every_page_opens_without_an_error_and_nothing_on_it_jumps(
    server: LiveServer, open_page: Callable[..., Page], path: str
) -> None:
    page = open_page(server.url + path)
    expect(page.get_by_test_id("queue-button")).to_be_visible()
    assert page.evaluate(SHIFTS) == []


def test_an_unknown_address_says_so(server: LiveServer, open_page: Callable[..., Page]) -> None:
    page = open_page(server.url)
    page.evaluate("history.pushState({}, '', '/nowhere'); dispatchEvent(new PopStateEvent('popstate'))")
    expect(page.get_by_text("There is nothing at this address")).to_be_visible()
