"""The interactive page at /docs; works offline.

Its scripts ship with the package `fastapi-offline`; nothing is loaded from elsewhere.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS = "/docs/assets"
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def interactive_docs() -> HTMLResponse:
    """Show every route with a form to try it."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="wan22 API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def install_docs(app: FastAPI) -> None:
    """Add the page and its assets."""
    app.include_router(router)
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")
