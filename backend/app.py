"""Assembles the web app: services, routes, middleware, and the start-up and shutdown order.

Imports neither the engine nor torch; generation runs in another process.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from backend import __version__
from backend.api.gallery import imports, marks, selection, videos
from backend.api.http import pages
from backend.api.http.addressing import Addressing
from backend.api.http.content_type import JsonRecognition
from backend.api.http.errors import install_error_handlers
from backend.api.http.gate import Gate
from backend.api.http.pages import install_assets
from backend.api.http.request_context import RequestContext
from backend.api.http.routing import Routes
from backend.api.legacy import paths
from backend.api.live import stream, websocket
from backend.api.loras import routes as loras
from backend.api.models import adoption as model_adoption
from backend.api.models import advice as model_advice
from backend.api.models import capabilities
from backend.api.models import cleanup as model_cleanup
from backend.api.models import downloads as model_downloads
from backend.api.models import fit as model_fit
from backend.api.models import health as model_health
from backend.api.models import status as model_status
from backend.api.openai import models as openai_models
from backend.api.openai import videos as openai_videos
from backend.api.performance import ended, exposition, load, reports
from backend.api.planning import resources
from backend.api.planning import settings as settings_routes
from backend.api.system import (
    components,
    configuration,
    cors,
    health,
    keys,
    recovery,
    session,
    webhooks,
    workers,
)
from backend.api.system.description import complete_description
from backend.api.tasks import control, generation, policy, presets, prompts, queue
from backend.core.planning.hardware import HardwareProfile
from backend.core.settings import Settings
from backend.services.system.container import LocalWorker
from backend.wiring import build_services

#: Routers under `/api/v1`, in documentation order.
_VERSIONED = (
    generation.router,
    policy.router,
    prompts.router,
    presets.router,
    presets.history,
    control.router,
    queue.router,
    selection.router,
    marks.router,
    marks.board_routes,
    imports.router,
    videos.router,
    generation.image_routes,
    model_status.router,
    model_health.router,
    model_downloads.router,
    model_fit.router,
    model_adoption.router,
    model_cleanup.router,
    capabilities.router,
    model_advice.router,
    loras.router,
    health.router,
    load.system,
    cors.router,
    components.router,
    session.router,
    keys.router,
    workers.router,
    recovery.router,
    webhooks.router,
    settings_routes.router,
    resources.router,
    configuration.router,
    load.router,
    ended.router,
    reports.router,
    exposition.router,
)
#: Routers that have their whole path, after those.
_OTHERS = (
    openai_videos.router,
    openai_models.router,
    health.probes,
    exposition.metrics,
    videos.thumbnails,
    websocket.router,
    stream.router,
    paths.router,
    pages.router,
)

DESCRIPTION = """Text becomes video with Wan2.2, on this machine.

`POST /api/v1/generation/submit` queues a video, `GET /api/v1/queue/{task_id}` says how far it is, and
`GET /api/v1/outputs/{task_id}/download` has the file. Every error has the shape of `ErrorBody`. Where the server
has an API key, send it as `Authorization: Bearer <key>`; a browser starts a session with `POST /api/v1/session`.

**Live news**: open the WebSocket `/ws`. Everybody is told of each change of a task's state (`task_update`). For
more, send `{"type": "subscribe", "data": {"topic": "generation_progress"}}`; other topics are in `available_topics`
of the first message. A newcomer first gets the state of now, marked `"snapshot": true`, and then every change. All
messages carry an `event_id`; who comes back adds `"since": <the last event_id>` to the subscription and misses
nothing. `{"type": "ping"}` and `{"type": "get_status"}` are answered. A client that does not read is closed
with code 1013."""


def create_app(
    settings: Settings,
    *,
    supervisor: LocalWorker | None = None,
    workers_on: HardwareProfile | None = None,
    instance: str | None = None,
) -> FastAPI:
    """Build the app; databases and the supervisor start with its lifespan, not here.

    `workers_on` is the hardware profile of the machine that runs the tasks, used until workers have tested it.
    Without it, this machine is assumed if the server has its own worker; otherwise the hardware is unknown.
    `instance` identifies this run of the server in the answer of `/live`; None draws one.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = await asyncio.to_thread(build_services, settings, supervisor, workers_on)
        app.state.services = services
        await services.system.start()
        try:
            yield
        finally:
            await services.system.stop()

    app = FastAPI(
        title="wan22",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=_layers(settings),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.instance = instance or uuid.uuid4().hex
    install_error_handlers(app)
    app.router.routes.extend(_routes())
    install_assets(app)
    complete_description(app)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Return every route; made once for all apps of a process, since it takes half a second."""
    whole = Routes()
    for router in _VERSIONED:
        whole.include_router(router, prefix="/api/v1")
    for router in _OTHERS:
        whole.include_router(router)
    return whole.routes


def _layers(settings: Settings) -> list[Middleware]:
    """Return the middleware around every route, outermost first."""
    layers = [
        Middleware(RequestContext),
        Middleware(Addressing, settings=settings),
        Middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies),
    ]
    if settings.cors_origins:
        # Outside the gate: browsers send preflight requests without the key.
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
                allow_headers=["*"],
                expose_headers=["Content-Disposition", "Content-Range", "X-Request-ID"],
            )
        )
    return [*layers, Middleware(Gate, settings=settings), Middleware(JsonRecognition)]
