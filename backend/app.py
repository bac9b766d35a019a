"""The web process put together: stores, services, routes, and their order of starting and stopping.

Imports neither the engine nor torch; whatever generates is another process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from backend import __version__
from backend.api import (
    generation,
    inputs,
    legacy_paths,
    lora,
    model_downloads,
    models,
    outputs,
    queue,
    system,
    websocket,
)
from backend.api.deps import Services, Supervisor
from backend.api.docs_page import install_docs
from backend.api.download_news import tell_download
from backend.api.errors import install_error_handlers
from backend.api.host_stats import HostStats
from backend.api.request_context import RequestContext
from backend.api.schemas import ErrorBody
from backend.api.security import Gate
from backend.api.websocket import ConnectionManager
from backend.core.hardware import HardwareProfile, detect_hardware
from backend.core.settings import Settings
from backend.core.system_optimizer import Machine
from backend.models.lora.library import LoraLibrary
from backend.models.manager import ModelManager
from backend.services.forecast import Forecast
from backend.services.generation_service import GenerationService
from backend.services.inputs import InputStore
from backend.services.machine_record import remember
from backend.services.model_downloads import downloads_into
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.outputs import OutputStore
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore

log = structlog.get_logger(__name__)

DESCRIPTION = """Text becomes video with Wan2.2, on this machine.

`POST /api/v1/generation/submit` queues a video, `GET /api/v1/queue/{task_id}` says how far it is, and
`GET /api/v1/outputs/{task_id}/download` has the file. Every error has the shape of `ErrorBody`. Where the server
has an API key, send it as `Authorization: Bearer <key>`.

**Live news**: open the WebSocket `/ws`. Everybody is told of each change of a task's state (`task_update`). For
more, send `{"type": "subscribe", "data": {"topic": "generation_progress"}}`; other topics are `queue_updates` and
`system_stats`. A newcomer first gets the state of now, marked `"snapshot": true`, and then every change. All messages
carry an `event_id`; who comes back adds `"after_event": <the last event_id>` to the subscription and misses nothing.
`{"type": "ping"}` and `{"type": "get_status"}` are answered. A client that does not read is closed with code 1013."""


def create_app(
    settings: Settings, *, supervisor: Supervisor | None = None, workers_on: HardwareProfile | None = None
) -> FastAPI:
    """Build the app; databases open and the supervisor starts when it starts, not here.

    `workers_on` is the machine that runs the tasks; without it, it is this one where the server has a worker of its
    own, and unknown where it has none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.database)
        try:
            app.state.services = services = await asyncio.to_thread(
                _services, settings, database, supervisor, workers_on
            )
            await services.sockets.start()
            services.downloads.on_change = partial(tell_download, services.sockets)
            if supervisor is not None:
                await asyncio.to_thread(supervisor.start)
            try:
                yield
            finally:
                await asyncio.to_thread(services.downloads.stop)
                await services.sockets.stop()
                if supervisor is not None:
                    await asyncio.to_thread(supervisor.stop, settings.stop_grace_seconds)
        finally:
            await asyncio.to_thread(database.close)

    app = FastAPI(
        title="wan22",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=_layers(settings),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={422: {"model": ErrorBody, "description": "The request does not fit; nothing was done"}},
    )
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v1")
    for module in (generation, queue, outputs, inputs, models, model_downloads, lora, system):
        api.include_router(module.router)
    for router in (api, system.probes, outputs.thumbnails, websocket.router, legacy_paths.router):
        app.include_router(router)
    install_docs(app)
    return app


def _layers(settings: Settings) -> list[Middleware]:
    """Return the layers around every route, outermost first."""
    layers = [Middleware(RequestContext)]
    if settings.cors_origins:
        # Outside the gate: a browser asks for permission without the key.
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
                allow_headers=["*"],
                expose_headers=["Content-Disposition", "Content-Range", "X-Request-ID"],
            )
        )
    return [*layers, Middleware(Gate, settings=settings)]


def _services(
    settings: Settings, database: Database, supervisor: Supervisor | None, workers_on: HardwareProfile | None
) -> Services:
    home = settings.paths.create()
    database.migrate()
    stats = HostStats(home.root)
    tasks, events, outputs = TaskStore(database), EventLog(database), OutputStore(database, home)
    model_manager = ModelManager(home, has_gpu=stats.has_gpu)
    loras, images = LoraLibrary(home), InputStore(home)
    profile = detect_hardware(home.root)
    for change in remember(home.hardware_file, profile):
        log.warning("the machine has changed since the last start", change=change)
    for finding in profile.findings:
        log.warning("the machine could not be asked about everything", finding=finding)
    machine = Machine.of(workers_on or profile, settings.device)
    binding = settings.worker or workers_on is not None
    forecast = Forecast(machine, outputs, loras, binding=binding, policy=settings.oom_policy)
    service = GenerationService(settings, home, tasks, outputs, model_manager, loras, images, forecast)
    service.prune_inputs()
    return Services(
        settings=settings,
        home=home,
        tasks=tasks,
        events=events,
        outputs=outputs,
        workers=WorkerStore(database),
        models=model_manager,
        loras=loras,
        inputs=images,
        generation=service,
        downloads=downloads_into(home, model_manager),
        stats=stats,
        sockets=ConnectionManager(settings, tasks, events, stats),
        supervisor=supervisor,
    )
