"""The web interface as the server sends it: one page at each of its addresses, for everybody, under a strict policy."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from backend.api.http.pages import PAGES
from tests.api.support import Served
from tests.support.browser import WEB

ROUTER = WEB.parents[2] / "frontend" / "app" / "router.tsx"


@pytest.mark.parametrize("path", PAGES)
def test_each_address_of_the_interface_has_the_page(shared: Served, path: str) -> None:
    response = shared.client.get(path, follow_redirects=False)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["cache-control"] == "no-cache"
    assert '<div id="root">' in response.text


def test_what_an_address_of_the_interface_says_after_its_path_is_the_pages_own(shared: Served) -> None:
    response = shared.client.get("/gallery", params={"clip": "an-id", "favourite": "true"})
    assert response.status_code == 200
    assert response.text == shared.client.get("/gallery").text


def test_the_server_has_the_addresses_that_the_router_has() -> None:
    assert set(PAGES) == set(re.findall(r'path: "(/[^"]*)"', ROUTER.read_text()))


def test_the_policy_allows_nothing_from_elsewhere_and_no_inline_code(shared: Served) -> None:
    response = shared.client.get("/gallery")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"https?://", response.text)
    assert not re.search(r"<style|<script(?![^>]* src=)|\son\w+=|\sstyle=", response.text)


def test_scripts_are_compressed_and_kept_by_the_browser(shared: Served) -> None:
    page = shared.client.get("/").text
    (script,) = re.findall(r'src="\./(assets/index-[^"]+\.js)"', page)
    response = shared.client.get(f"/{script}", headers={"Accept-Encoding": "gzip"})
    assert response.status_code == 200
    assert response.headers["content-encoding"] == "gzip"
    assert "immutable" in response.headers["cache-control"]
    assert len((WEB / script).read_bytes()) > 100_000, "the test would not notice a missing compression"
    assert shared.client.get("/assets/../index.html").status_code == 404
    assert shared.client.get("/assets/..%2f..%2fconftest.py").status_code == 404


def test_behind_a_proxy_the_page_names_its_prefix(serve: Callable[..., Served]) -> None:
    assert '<base href="/studio/"' in serve(root_path="/studio").client.get("/gallery").text
    proxied = serve(trusted_proxies=["*"])
    page = proxied.client.get("/", headers={"X-Forwarded-Prefix": "/video"}).text
    assert '<base href="/video/"' in page
    assert proxied.client.get("/", headers={"X-Forwarded-Prefix": '/"><script src=x>'}).text.count("<script") == 1
