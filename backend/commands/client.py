"""The command line's HTTP client: find or start a server, submit, follow, save.

Everything goes through the public API, so what works here works for any other client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from backend.core.errors import BadSettings, GenerationFailed, WanError
from backend.core.paths import Home
from backend.core.settings import Settings

POLL_SECONDS = 0.15
START_TIMEOUT = 120.0  # seconds; the first start of a cold disk imports torch and loads a model
_FINISHED = {"completed", "failed", "cancelled"}


class ServerUnreachable(WanError):
    """No server answers."""

    code = "server_unreachable"
    suggestions = ("Start one with `wan22 serve`.",)


class ApiClient:
    """The API calls of the command line; error answers become exceptions."""

    def __init__(self, url: str, settings: Settings) -> None:
        headers = {}
        if settings.api_key is not None:
            headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self.url = url.rstrip("/")
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=30.0)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request and return the JSON answer.

        Raises:
            ServerUnreachable: nothing answers at the address.
            WanError: the server refused; message and next steps are the server's own.
        """
        try:
            response = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise ServerUnreachable(f"No server answers at {self.url}: {error}") from error
        if response.is_success:
            return response.json()
        try:
            body = response.json()
        except ValueError:
            body = {}
        raise WanError(
            body.get("message") or f"{self.url} answered {response.status_code}",
            suggestions=tuple(body.get("suggestions") or ()),
            details=body.get("details"),
        )

    def submit(self, fields: dict[str, Any], **images: Path | None) -> dict[str, Any]:
        """Queue a task; fields that are None take the model's defaults.

        Args:
            fields: the fields of the API.
            images: files to send with it, by field (`image`, `end_image`).

        Raises:
            BadSettings: a file cannot be read.
            WanError: as `call`.
        """
        return self._post("/api/v1/generation/submit", fields, images)

    def extend(self, output_id: str, fields: dict[str, Any], **images: Path | None) -> dict[str, Any]:
        """Queue a video that continues this one. Raises like `submit`."""
        return self._post(f"/api/v1/outputs/{quote(output_id, safe='')}/extend", fields, images)

    def redecode(self, output_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Queue another file from the kept latents of this video. Raises like `submit`."""
        return self._post(f"/api/v1/outputs/{quote(output_id, safe='')}/redecode", fields, {})

    def keep_image(self, image: Path) -> str:
        """Upload an image and return its id. Raises like `submit`."""
        return str(self._post("/api/v1/inputs", {}, {"image": image})["id"])

    def has_image(self, image_id: str) -> bool:
        """Whether the server has an image with this id.

        Raises:
            WanError: the server cannot say.
        """
        try:
            with self._http.stream("GET", f"/api/v1/inputs/{quote(image_id, safe='')}") as response:
                if response.status_code not in (httpx2.codes.OK, httpx2.codes.NOT_FOUND):
                    raise WanError(f"{self.url} answered {response.status_code}")
                return response.is_success
        except httpx2.TransportError as error:
            raise ServerUnreachable(f"No server answers at {self.url}: {error}") from error

    def _post(self, path: str, fields: dict[str, Any], images: dict[str, Path | None]) -> dict[str, Any]:
        body = {key: value for key, value in fields.items() if value is not None}
        files = {field: (image.name, _read(image)) for field, image in images.items() if image is not None}
        options = {"data": _as_form(body), "files": files} if files else {"json": body}
        answer: dict[str, Any] = self.call("POST", path, **options)
        return answer

    def follow(self, task_id: str) -> Iterator[dict[str, Any]]:
        """Yield the task at each change until it ends; wait for a server that restarts."""
        lost_since: float | None = None
        while True:
            try:
                task: dict[str, Any] = self.call("GET", f"/api/v1/queue/{task_id}")
            except ServerUnreachable:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > START_TIMEOUT:
                    raise
            else:
                lost_since = None
                yield task
                if task["status"] in _FINISHED:
                    return
            time.sleep(POLL_SECONDS)

    def save_video(self, task_id: str, target: Path) -> None:
        """Download the finished video; the file appears complete or not at all.

        Raises:
            ServerUnreachable: the download broke off; the server still has the video.
            BadSettings: the file cannot be written.
        """
        part = target.with_name(target.name + ".part")
        try:
            with self._http.stream("GET", f"/api/v1/outputs/{task_id}/download") as response:
                response.raise_for_status()
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
            part.replace(target)
        except httpx2.HTTPError as error:
            raise ServerUnreachable(f"The video {task_id} could not be downloaded: {error}") from error
        except OSError as error:
            raise BadSettings(f"{target} cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)


def _as_form(body: dict[str, Any]) -> dict[str, str]:
    """Encode the fields as form text; lists and booleans as JSON."""
    return {
        key: json.dumps(value) if isinstance(value, list | dict | bool) else str(value) for key, value in body.items()
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error


def find_server(settings: Settings) -> str | None:
    """Return the address of this home's running server, if it answers."""
    announced = settings.paths.announced_server()
    if announced is None:
        return None
    try:
        httpx2.get(f"{announced[0]}/live", timeout=5.0).raise_for_status()
    except httpx2.HTTPError:
        return None
    return announced[0]


@contextmanager
def own_server(settings: Settings) -> Iterator[str]:
    """Start a temporary server on a free port, yield its address once it is ready, and stop it at the end.

    Raises:
        GenerationFailed: it did not come up; the message has the end of its log.
    """
    home = settings.paths.create()
    log_file = home.logs / "server.log"
    command = [sys.executable, "-m", "backend.cli", "serve", "--port", "0"]
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"WAN22_HOME": str(home.root)},
        )
    try:
        yield _wait_until_ready(process, home, log_file)
    finally:
        process.terminate()
        try:
            process.wait(settings.stop_grace_seconds + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], home: Home, log_file: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        announced = home.announced_server()
        if announced is not None and announced[1] == process.pid and _is_ready(announced[0]):
            return announced[0]
        time.sleep(POLL_SECONDS)
    tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-8:])
    raise GenerationFailed(
        f"The server did not start. The end of {log_file}:\n{tail}", suggestions=("Run `wan22 doctor`.",)
    )


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready", timeout=5.0).is_success
    except httpx2.HTTPError:
        return False
