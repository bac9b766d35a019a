"""The pages for people: the web interface, and the interactive documentation at `/docs`.

Neither loads anything from elsewhere. The interface is made from `frontend/` and ships in `backend/assets/web`; its one
HTML file answers every address that it has, and names the prefix that a proxy adds. The scripts of the documentation
ship with the package `fastapi-offline`.
"""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from backend.api.http.routing import Routes

#: Folders with files for these pages. Whoever opens a page has no key yet, so they are public.
DOCS_ASSETS: Final = "/docs/assets"
WEB_ASSETS: Final = "/assets"
ICON: Final = "/favicon.svg"
#: The addresses of the web interface, as `frontend/app/router.tsx` has them.
PAGES: Final = ("/", "/gallery", "/compare", "/models", "/loras", "/system", "/settings")

_WEB: Final = Path(__file__).parents[2] / "assets" / "web"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_DOCS_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)
#: Shown where the interface was not built: in a source tree, before the first `make serve`.
_NOT_BUILT: Final = (
    "<!doctype html><html lang=en><title>wan22</title><h1>The web interface is not built</h1><p>The server works. To "
    "build its pages, run <code>make serve</code> in the source tree, or install the wheel. <a href=docs>The API</a> "
    "is here."
)

router = Routes(include_in_schema=False)


def web_page(request: Request) -> Response:
    """Send the page; what it shows depends on its address alone."""
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    try:
        page = (_WEB / "index.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return HTMLResponse(_NOT_BUILT, status_code=503, headers=headers)
    prefix = html.escape(request.scope.get("root_path", ""), quote=True)
    return HTMLResponse(page.replace('<base href="/"', f'<base href="{prefix}/"', 1), headers=headers)


for _path in PAGES:
    # What follows the `?` belongs to the page: filters, the clip that is open.
    router.get(_path, dependencies=[])(web_page)


@router.get(ICON)
def icon() -> Response:
    """Send the icon of the page."""
    return FileResponse(_WEB / "favicon.svg", media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})


@router.get("/docs")
async def interactive_docs(request: Request) -> HTMLResponse:
    """Show every route with a form to try it."""
    prefix = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{prefix}/openapi.json",
        title="wan22 API",
        swagger_js_url=f"{prefix}{DOCS_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{prefix}{DOCS_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{prefix}{DOCS_ASSETS}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


class _Immutable(StaticFiles):
    """Files whose names change with their content, so that a browser asks for each only once."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response: Response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def install_assets(app: FastAPI) -> None:
    """Add the files that the pages load."""
    app.mount(DOCS_ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")
    app.mount(WEB_ASSETS, GZipMiddleware(_Immutable(directory=_WEB / "assets", check_dir=False)), name="web-assets")
