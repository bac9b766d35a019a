"""The server that a command talks to: the running one of this home, or one that is started for the command alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import httpx2

from backend.commands.client import POLL_SECONDS, START_TIMEOUT, ApiClient, cannot_generate
from backend.core.errors.generation import GenerationFailed
from backend.core.paths import Announcement, Home
from backend.core.settings import Settings

#: A server lives as long as its command, so its log is measured when one starts.
_LOG_BYTES: Final = 5_000_000


def find_server(settings: Settings) -> str | None:
    """Return the address of this home's running server, if it answers."""
    announced = settings.paths.announced_server()
    if announced is None:
        return None
    return announced.url if _is_ours(announced) else None


@contextmanager
def own_server(settings: Settings, *, worker: bool = True) -> Iterator[str]:
    """Start a temporary server on a free port, yield its address once it is ready, and stop it at the end.

    Without a worker it starts in a second, and can list and delete but generate nothing.

    Raises:
        GenerationFailed: it did not come up; the message has the end of its log.
    """
    home = settings.paths.create()
    log_file = home.logs / "server.log"
    _move_aside(log_file)
    command = [sys.executable, "-m", "backend.cli", "serve", "--port", "0"]
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"WAN22_HOME": str(home.root)} | ({} if worker else {"WAN22_WORKER": "false"}),
            process_group=0,  # Ctrl-C reaches it through the end of this block, once the tasks are cancelled
        )
    try:
        with _stopped_by_signals():
            yield _wait_until_ready(process, home, log_file, settings if worker else None)
    finally:
        process.terminate()
        try:
            process.wait(settings.stop_grace_seconds + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Leave the block when the terminal closes or somebody stops this process, so that the server does not stay."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_ready(process: subprocess.Popen[bytes], home: Home, log_file: Path, settings: Settings | None) -> str:
    """Return the address; `settings` is None for a server that has no worker to wait for."""
    deadline, asked = time.monotonic() + START_TIMEOUT, 0.0
    while time.monotonic() < deadline and process.poll() is None:
        announced = home.announced_server()
        if announced is not None and announced.pid == process.pid:
            if _is_ours(announced) and (settings is None or _answers(f"{announced.url}/ready")):
                return announced.url
            if settings is not None and time.monotonic() - asked > 1.0:
                asked = time.monotonic()
                _refuse_without_worker(announced.url, settings)
        time.sleep(POLL_SECONDS)
    raise GenerationFailed(
        "The server did not start" + _last_sentence(log_file),
        suggestions=(f"{log_file} has its log.", "Run `wan22 doctor`."),
    )


def _refuse_without_worker(url: str, settings: Settings) -> None:
    """Raise GenerationFailed once the worker of a server that was just started cannot start."""
    client = ApiClient(url, settings, own=True)
    try:
        reason = client.not_ready()
    finally:
        client.close()
    if reason is not None:
        raise cannot_generate(reason)


def _move_aside(log_file: Path) -> None:
    """Keep a log that has grown large as the older one; without permission to, the new records join it."""
    with suppress(OSError):
        if log_file.stat().st_size > _LOG_BYTES:
            log_file.replace(log_file.with_name(f"{log_file.name}.1"))


def _last_sentence(log_file: Path) -> str:
    """Return the error at the end of a server's log, after a colon; empty when it ends with none."""
    lines = log_file.read_text(errors="replace").splitlines()
    told = next((line for line in reversed(lines[-20:]) if line.startswith("error: ")), "")
    return told.replace("error:", ":", 1)


def _is_ours(announced: Announcement) -> bool:
    """Whether the server that wrote the announcement answers, not another program that has its port now."""
    try:
        answer = httpx2.get(f"{announced.url}/live", timeout=5.0, trust_env=False)
        body = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False
    return answer.is_success and isinstance(body, dict) and body.get("instance") == announced.instance


def _answers(url: str) -> bool:
    """Whether a probe of this home's server succeeds; the server is on this machine, so no proxy is asked."""
    try:
        return httpx2.get(url, timeout=5.0, trust_env=False).is_success
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False
