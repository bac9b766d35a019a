"""An app under test, and what a worker would do to its tasks."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from PIL import Image
from starlette.testclient import WebSocketDenialResponse

from backend.app import create_app
from backend.core.domain import Output, Progress, Stage, Task
from backend.core.planning.hardware import HardwareProfile
from backend.core.settings import load_settings
from backend.services.system.container import Services
from tests.support.database import put_new_database

ADDRESS = "http://127.0.0.1:8000"
SOCKET = "ws://127.0.0.1:8000/ws"
SUBMIT = "/api/v1/generation/submit"
TINY = "tiny-t2v-a14b"
OPENAI_TYPES = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
}
GOOD: dict[str, Any] = {"model_type": TINY, "prompt": "a red circle moving right on a navy background"}


def make_png(width: int, height: int, colour: tuple[int, int, int] = (200, 30, 40)) -> bytes:
    """Draw a PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


class Played:
    """What clients and workers do to the app under test."""

    app: FastAPI
    client: httpx2.Client

    @property
    def services(self) -> Services:
        """The stores and services behind the routes."""
        services: Services = self.app.state.services
        return services

    def submit(self, **changes: object) -> str:
        """Queue a task and return its id."""
        response = self.client.post(SUBMIT, json=GOOD | changes)
        assert response.status_code == 200, response.text
        return str(response.json()["task_id"])

    def count(self) -> int:
        """Return how many tasks were ever queued and are not deleted."""
        return sum(self.services.tasks.counts().values())

    def claim(self) -> Task:
        """Take the next task as a worker would."""
        task = self.services.tasks.claim("host:1:1:test", 60.0)
        assert task is not None
        return task

    def report(
        self, task: Task, fraction: float, step: int | None = None, stage: Stage = Stage.GENERATING, left: float = 6.5
    ) -> None:
        """Say how far a claimed task is, and how many seconds are left."""
        progress = Progress(stage, fraction, f"step {step}", step=step, total_steps=4, eta_seconds=left)
        self.services.tasks.report(task.id, str(task.lease_token), progress)

    def complete(self, task: Task, content: bytes = bytes(range(256)) * 40, **record: object) -> Output:
        """Finish a claimed task with a file of this content; `record` is more of what the worker says about it."""
        home = self.services.home
        home.video_of(task.id).write_bytes(content)
        home.thumbnail_of(task.id).write_bytes(b"\xff\xd8picture")
        output = Output(
            task_id=task.id,
            filename=f"{task.id}.mp4",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            width=64,
            height=64,
            num_frames=17,
            fps=8.0,
            generation_seconds=1.25,
            metadata={"request": task.request, "result": {"quality": "ok", "loras": []}} | record,
        )
        self.services.tasks.complete(task.id, str(task.lease_token), output)
        return output

    def complete_one(self) -> str:
        """Queue a task, finish it, and return its id."""
        task_id = self.submit()
        self.complete(self.claim())
        return task_id


class Served(Played):
    """One app on a home of its own, without a worker."""

    client: TestClient

    def __init__(self, home: Path, workers_on: HardwareProfile | None = None, **settings: object) -> None:
        loaded = load_settings(home=home, worker=False, poll_seconds=0.02, **settings)
        if loaded.database_url is None:
            put_new_database(loaded.paths)
        self.app = create_app(loaded, workers_on=workers_on)
        headers = {"Wan22-Model-Ids": "exact"}  # as our own clients; tests of earlier ones send other requests
        self.client = TestClient(self.app, base_url=ADDRESS, raise_server_exceptions=False, headers=headers)
        self.client.__enter__()

    def paths(self) -> dict[str, set[str]]:
        """Return the methods of every HTTP path, also of those that are not in the API's description."""
        found: dict[str, set[str]] = {}
        for route in iter_route_contexts(self.app.routes):
            if route.methods:
                found.setdefault(str(route.path), set()).update(route.methods)
        return found


def assert_error(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that an answer is an error in the one shape, and return it."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    refused_socket = isinstance(response, WebSocketDenialResponse)  # it has no request
    if not refused_socket and response.request.url.path.startswith("/v1/"):
        return _assert_openai_error(response, body, code)
    assert set(body) - {"actions"} == {"detail", "error", "message", "details", "suggestions", "request_id"}
    assert isinstance(body["detail"], str)
    assert body["detail"] == body["message"] != ""
    assert isinstance(body["suggestions"], list)
    assert all(isinstance(step, str) for step in body["suggestions"])
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    if code is not None:
        assert body["error"] == code
    return body


def _assert_openai_error(response: Any, body: dict[str, Any], code: str | None) -> dict[str, Any]:
    """Check that an answer under `/v1` is an error in OpenAI's shape, and return what is in the envelope."""
    assert response.status_code != 422
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"] != ""
    assert error["type"] in OPENAI_TYPES
    assert error["param"] is None or isinstance(error["param"], str)
    assert response.headers["x-request-id"]
    if code is not None:
        assert error["code"] == code
    return error
