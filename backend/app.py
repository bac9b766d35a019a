"""The web process put together: stores, services, routes, and their order of starting and stopping.

Imports neither the engine nor torch; whatever generates is another process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from backend import __version__
from backend.api import (
    generation,
    inputs,
    integration,
    legacy_paths,
    lora,
    model_advice,
    model_downloads,
    model_storage,
    models,
    optimization,
    outputs,
    queue,
    resources,
    system,
    websocket,
)
from backend.api.components import web_components
from backend.api.deps import Services, Supervisor
from backend.api.docs_page import install_docs
from backend.api.errors import install_error_handlers
from backend.api.host_stats import HostStats
from backend.api.request_context import RequestContext
from backend.api.schemas import ErrorBody
from backend.api.security import Gate
from backend.api.websocket import ConnectionManager
from backend.core.config.download_limit import kept_downloads
from backend.core.config.file import ConfigFile
from backend.core.domain import TaskStatus
from backend.core.planning.constraints import kept_optimization
from backend.core.planning.hardware import HardwareProfile, detect_hardware
from backend.core.planning.memory_level import kept_limits
from backend.core.settings import Settings
from backend.core.system_integration import SystemIntegration
from backend.models.folder.manager import ModelManager
from backend.models.lora.library import LoraLibrary
from backend.models.own.configuration import ModelConfigurationManager
from backend.services.downloads.control import DownloadControl
from backend.services.downloads.runner import downloads_into
from backend.services.generation_service import GenerationService
from backend.services.media.images import InputStore
from backend.services.models.availability import ModelNeed, ModelSupply
from backend.services.models.cleanup import StorageCleanup
from backend.services.models.fallback import FallbackAdvisor
from backend.services.models.recheck import Recheck
from backend.services.planning.advisor import OptimizationAdvisor
from backend.services.planning.forecast import Forecast
from backend.services.planning.worker_machine import WorkingMachine
from backend.store.download_orders import DownloadOrders
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.outputs import OutputStore, UsageStore
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore

#: One file of routes for each resource.
_RESOURCES = (
    generation,
    queue,
    outputs,
    inputs,
    models,
    model_downloads,
    model_storage,
    model_advice,
    lora,
    system,
    integration,
    optimization,
    resources,
)

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

    `workers_on` is how the machine that runs the tasks looks, until workers have tried it; without it, it is this one
    where the server has a worker of its own, and unknown where it has none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = await asyncio.to_thread(_services, settings, supervisor, workers_on)
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
        responses={422: {"model": ErrorBody, "description": "The request does not fit; nothing was done"}},
    )
    install_error_handlers(app)
    api = APIRouter(prefix="/api/v1")
    for module in _RESOURCES:
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


def _services(settings: Settings, supervisor: Supervisor | None, workers_on: HardwareProfile | None) -> Services:
    """Put everything together; nothing is opened or changed before its component starts."""
    home, database = settings.paths, Database(settings.database)
    stats, profile = HostStats(home.root), detect_hardware(home.root)
    tasks, events, outputs = TaskStore(database), EventLog(database), OutputStore(database, home)
    workers, orders = WorkerStore(database), DownloadOrders(database)
    machine = WorkingMachine(settings, workers, workers_on or profile)
    model_manager = ModelManager(home, has_gpu=machine.computes_on_gpu)
    loras, images = LoraLibrary(home), InputStore(home)
    config = ConfigFile(home.config_file)
    kept, configuration = kept_optimization(config), ModelConfigurationManager(home)
    binding, policy = settings.worker or workers_on is not None, settings.oom_policy
    forecast = Forecast(
        machine.now,
        outputs,
        loras,
        binding=binding,
        wishes=kept.current,
        policy=policy,
        packed=model_manager.packed,
    )
    supply = ModelSupply(home, model_manager, fetches=settings.auto_download)
    downloads = downloads_into(home, model_manager, orders, settings.model_roots)
    control = DownloadControl(home, model_manager, downloads, orders, tasks)
    need = ModelNeed(home, tasks, workers, orders, settings.lease_seconds)
    services = Services(
        settings=settings,
        home=home,
        tasks=tasks,
        events=events,
        outputs=outputs,
        workers=workers,
        configuration=configuration,
        models=model_manager,
        loras=loras,
        inputs=images,
        generation=GenerationService(
            settings, home, tasks, outputs, model_manager, loras, images, forecast, control.held_up
        ),
        downloads=downloads,
        orders=orders,
        control=control,
        pace=kept_downloads(config),
        need=need,
        cleanup=StorageCleanup(home, model_manager, need, outputs),
        recheck=Recheck(home, model_manager, lambda: tasks.counts()[TaskStatus.PROCESSING] > 0, settings.recheck_days),
        stats=stats,
        sockets=ConnectionManager(settings, tasks, events, stats),
        supervisor=supervisor,
        system=SystemIntegration(),
        optimization=kept,
        limits=kept_limits(config),
        usage=UsageStore(database),
        fallbacks=FallbackAdvisor(model_manager, forecast, downloads, supply),
        advisor=OptimizationAdvisor(kept, forecast, model_manager, outputs),
    )
    services.system.include(*web_components(services, database, profile))
    return services
