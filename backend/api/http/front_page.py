"""The page at `/`: a form that makes one clip and plays it, until a web interface takes its place.

One file without outside resources; its script and its style are allowed by their digests, everything else is not.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi.responses import HTMLResponse

from backend.api.http.routing import Routes

_PAGE = Path(__file__).parents[2] / "assets" / "front_page.html"
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

router = Routes(include_in_schema=False)


@router.get("/")
def front_page() -> HTMLResponse:
    """Send the page."""
    page, policy = _page_and_policy()
    return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})


@cache
def _page_and_policy() -> tuple[str, str]:
    page = _PAGE.read_text(encoding="utf-8")
    return page, _POLICY.format(script=_digest(page, "script"), style=_digest(page, "style"))


def _digest(page: str, tag: str) -> str:
    """Return the source expression that allows the one inline element with this tag."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
