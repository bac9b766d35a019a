"""The page at the bare address: complete in one file, allowed by its own policy, and calling routes that exist."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from fastapi.routing import iter_route_contexts

from tests.api.support import Served

CALLED = re.compile(r'"((?:api/v1|ready)[^"]*)"(?: \+ \w+(?: \+ "([^"]*)")?)?')


@pytest.fixture(scope="module")
def page(shared: Served) -> str:
    response = shared.client.get("/", follow_redirects=False)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    return response.text


@pytest.mark.parametrize("tag", ["script", "style"])
def test_the_policy_allows_the_inline_code_by_its_digest_and_nothing_else(shared: Served, page: str, tag: str) -> None:
    policy = shared.client.get("/").headers["content-security-policy"]
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"\son\w+=|style=|javascript:", page.replace(content, "")), "inline code needs a digest"


def test_nothing_comes_from_elsewhere_and_every_address_stays_below_the_page(page: str) -> None:
    assert not re.search(r"https?://", page)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith(("data:", "docs")) for link in links), "behind a proxy the page may have a prefix"


def test_the_script_calls_routes_that_exist(shared: Served, page: str) -> None:
    served = {re.sub(r"{\w+}", "ID", route.path or "") for route in iter_route_contexts(shared.app.routes)}
    called = {"/" + begin + ("ID" + (end or "") if begin.endswith("/") else "") for begin, end in CALLED.findall(page)}
    assert {"/api/v1/generation/submit", "/api/v1/queue/ID/cancel", "/api/v1/outputs/ID/video", "/ready"} <= called
    assert called <= served


def test_every_element_that_the_script_names_is_on_the_page(page: str) -> None:
    named = set(re.findall(r'at\("([^"]+)"\)', page))
    assert len(named) > 15
    assert named <= set(re.findall(r'id="([^"]+)"', page))
