"""Lifecycle of the web process: lock the home, bind, announce the address, supervise a worker, serve.

Imports neither the engine nor torch: the worker is another process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

import structlog
import uvicorn
from fastapi import FastAPI

from backend.api.http.connections import (
    ACCEPTED_AT_ONCE,
    BoundedConnection,
    BoundedSocket,
    raise_descriptor_limit,
    say_once_a_minute,
)
from backend.app import create_app
from backend.core.errors.surroundings import BadSettings, StoreUnavailable, UnsafeBind
from backend.core.files import replacing
from backend.core.heap import share_freed_memory
from backend.core.paths import Home
from backend.core.settings import Settings
from backend.store.access.keys import KeyStore
from backend.store.engine import Database
from backend.store.sqlite_file import named
from backend.store.upkeep.opening import open_database
from backend.worker.stop import at_once_status
from backend.worker.supervisor import Supervisor

#: How long running requests may take to end when the server stops, in seconds. The worker stops meanwhile.
REQUEST_GRACE_SECONDS: Final = 2
#: The server ends at most this long after the worker's grace, in seconds, whatever still runs: with the default grace
#: that is before `docker stop` kills it.
STOP_MARGIN_SECONDS: Final = 2.5
#: Pause before a PostgreSQL server that is not there is asked again, in seconds.
DATABASE_PAUSE_SECONDS: Final = 1.0

#: How long returning the task of a killed worker to the queue may take, in seconds.
HAND_BACK_SECONDS: Final = 1.5

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """A web server that asks its worker to stop at once, not after the last request, and that always ends in time.

    A second signal ends both at once; the task in hand returns to the queue and continues from its last saved state.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        supervisor: Supervisor | None,
        home: Home,
        longest_stop_seconds: float,
    ) -> None:
        super().__init__(config)
        self._supervisor = supervisor
        self._app = app
        self._home = home
        self._longest_stop_seconds = longest_stop_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept: a few connections at a time, while the others wait in the kernel."""
        say_once_a_minute(asyncio.get_running_loop())
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(socket.SOMAXCONN)  # uvicorn has set it to the few

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; uvicorn calls this when a signal has arrived."""
        last = threading.Timer(self._longest_stop_seconds, self._end, args=(1,))
        last.daemon = True
        last.start()
        if self._supervisor is not None:
            self._supervisor.ask_to_stop()
        services = getattr(self._app.state, "services", None)  # none where the start failed
        if services is not None:
            await services.sockets.stop()  # event streams would otherwise last as long as the grace
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, end at the second; uvicorn calls this in its signal handler."""
        if self.should_exit:
            # In a thread: the handler may have interrupted this one inside any lock.
            threading.Thread(target=self._end, args=(at_once_status(sig),), name="end", daemon=True).start()
            return
        super().handle_exit(sig, frame)

    def _end(self, status: int) -> NoReturn:
        """End the process; what it has not saved by now is saved nowhere, and is nobody's only copy."""
        log.warning("server.stopped_by_force", status=status)
        if self._supervisor is not None:
            # Its thread returns the task to the queue, unless the database is what holds everything up.
            ending = threading.Thread(target=self._supervisor.stop, args=(0.0,), name="end-worker", daemon=True)
            ending.start()
            ending.join(HAND_BACK_SECONDS)
            self._supervisor.kill()
        self._home.server_file.unlink(missing_ok=True)
        os._exit(status)


def serve(settings: Settings) -> None:
    """Run the server until it receives a stop signal.

    Raises:
        UnsafeBind: the address is reachable from other machines and there is no API key.
        HomeInUse: another server is using this home folder.
        BadSettings: the address cannot be bound.
        WanError: the database is unusable; it is left untouched.
    """
    refuse_unsafe_bind(settings)
    home = settings.paths.create()
    # uvicorn shuts down gracefully on the signal and then re-raises it; the default handler would end the process
    # before the context managers could clean up.
    signal.signal(signal.SIGTERM, _leave)
    with home.held(), _bound(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        settings = settings.model_copy(update={"port": port})
        _check_database(settings)
        _refuse_without_keys(settings)
        raise_descriptor_limit()
        listener.listen(socket.SOMAXCONN)
        instance = uuid.uuid4().hex
        supervisor = Supervisor(settings) if settings.worker else None
        share_freed_memory()
        app = create_app(settings, supervisor=supervisor, instance=instance)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # the app reads them itself
            http=BoundedConnection,
            ws=BoundedSocket,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=REQUEST_GRACE_SECONDS,
            server_header=False,
            ws_per_message_deflate=False,  # 250 KB for each client, to make messages of 500 bytes shorter
            ws_max_size=64 * 1024,  # clients send short messages; the default accepts 16 MiB from anyone
        )
        with _announced(home, settings.host, port, instance):
            _Server(config, app, supervisor, home, settings.stop_grace_seconds + STOP_MARGIN_SECONDS).run(
                sockets=[listener]
            )


def _check_database(settings: Settings) -> None:
    """Open, repair and migrate the database first, so that a problem is reported as a message, not a traceback.

    Waits for a PostgreSQL server that is not there yet: the two may have been started together.
    """
    database, told = Database(settings.database), None
    try:
        while True:
            try:
                open_database(database, settings.paths)
                return
            except StoreUnavailable as error:
                if database.file is not None or not database.is_away():
                    raise
                cause = str(getattr(error.__cause__, "orig", "")).strip()
                if cause != told:
                    told = cause
                    log.warning("server.waits_for_database", reason=error.message, cause=cause)
                time.sleep(DATABASE_PAUSE_SECONDS)
    finally:
        database.close()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def refuse_unsafe_bind(settings: Settings) -> None:
    """Raise UnsafeBind where the address can be reached from outside, and there can be no key.

    Looks into no database: one that is not there yet has no keys.
    """
    database = settings.paths.database
    if _needs_key(settings) and settings.database_url is None and not database.exists():
        raise UnsafeBind(f"{settings.host} can be reached from other machines and no API key is set")


def _needs_key(settings: Settings) -> bool:
    return settings.api_key is None and not _is_loopback(settings.host)


def _refuse_without_keys(settings: Settings) -> None:
    """Raise UnsafeBind where a key is needed and none is stored that opens the server."""
    if not _needs_key(settings):
        return
    database = Database(settings.database)
    try:
        if not any(key.state == "valid" for key in KeyStore(database).all()):
            raise UnsafeBind(f"{settings.host} can be reached from other machines and there is no valid API key")
    finally:
        database.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind before anything else starts, so that the actual port is known and reserved; clients are refused so far."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Connections inherit the protocol. asyncio sends at once (TCP_NODELAY) only where it is named; else the body of an
    # answer waits until the client has acknowledged the headers, which takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise BadSettings(
                f"Cannot listen on {host}:{port}: {error.strerror}", suggestions=("Choose another --port.",)
            ) from error
        yield listener


@contextmanager
def _announced(home: Home, host: str, port: int, instance: str) -> Iterator[None]:
    """Publish the address in the file that the CLI reads; remove it on exit.

    `/live` answers with the same `instance`, so that nobody mistakes a later program on the port for this server.
    """
    name = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
    url = f"http://{name}:{port}"
    try:
        with replacing(home.server_file, durable=False) as part:
            part.write_text(json.dumps({"url": url, "pid": os.getpid(), "instance": instance}))
    except OSError as error:
        raise named(error, f"The home folder {home.root}") from error
    log.info("server.listening", url=url, docs=f"{url}/docs", home=str(home.root))
    sys.stdout.write(f"Open {url}\n")  # for people; what reads the log finds the line above
    sys.stdout.flush()
    try:
        yield
    finally:
        home.server_file.unlink(missing_ok=True)
