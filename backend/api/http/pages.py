"""The pages for people: the form at `/` that makes one clip and plays it, and the interactive documentation at `/docs`.

Neither loads anything from elsewhere. The form is one file, whose script and style are allowed by their digests and
everything else is not; the scripts of the documentation ship with the package `fastapi-offline`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from backend.api.http.routing import Routes

ASSETS = "/docs/assets"
_PAGE = Path(__file__).parents[2] / "assets" / "front_page.html"
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
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


@router.get("/docs")
async def interactive_docs(request: Request) -> HTMLResponse:
    """Show every route with a form to try it."""
    prefix = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{prefix}/openapi.json",
        title="wan22 API",
        swagger_js_url=f"{prefix}{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{prefix}{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{prefix}{ASSETS}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


def install_pages(app: FastAPI) -> None:
    """Add the pages and their assets."""
    app.include_router(router)
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")
