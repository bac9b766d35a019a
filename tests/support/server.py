"""A real server in its own process, for tests that use HTTP like any client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")

START_SECONDS = 90.0  # importing torch takes 10 to 20 s on a loaded two-core machine
FINISHED = {"completed", "failed", "cancelled"}

#: A request that the tiny model completes quickly: small, with few frames and steps.
QUICK = {
    "model_type": "tiny-t2v-a14b",
    "prompt": "a red circle moving right on a navy background",
    "resolution": "64x64",
    "num_frames": 5,
    "steps": 4,
    "seed": 7,
}


def wait_for(probe: Callable[[], T], *, seconds: float = 60.0, what: str = "the condition") -> T:
    """Poll `probe` until it returns a true value, and return that value.

    Raises:
        AssertionError: the deadline passed first.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = probe()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not become true within {seconds:g} s")


class LiveServer:
    """`wan22 serve` on a free port with its own home."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        self._env = {"WAN22_HOME": str(home), "OMP_NUM_THREADS": "1", "WAN22_THREADS": "1"} | env
        self.log = home.parent / f"{home.name}.log"
        self.url = ""
        self.client = httpx2.Client()
        self.start()

    def start(self, port: str = "0") -> None:
        """Start the process on a port, 0 for a free one; wait until it and its worker, if any, are ready."""
        ready = "/live" if self._env.get("WAN22_WORKER") == "false" else "/ready"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "serve", "--port", port],
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.url = wait_for(self._announced, seconds=START_SECONDS, what="the announcement")
            self.client.close()  # of the process before
            self.client = httpx2.Client(base_url=self.url, timeout=30.0)
            wait_for(lambda: self._answers(ready), seconds=START_SECONDS, what=ready)
        except BaseException as error:
            self.kill()
            error.add_note(self.log.read_text(errors="replace")[-4000:])
            raise

    def _announced(self) -> str:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}")
        try:
            announced = json.loads((self.home / "server.json").read_text())
        except (OSError, ValueError):
            return ""
        return str(announced["url"]) if announced["pid"] == self.process.pid else ""

    def _answers(self, path: str) -> bool:
        try:
            return self.client.get(path).status_code == 200
        except httpx2.TransportError:
            return False

    @property
    def pid(self) -> int:
        """Process id of the web process."""
        return self.process.pid

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the live worker processes of this server."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except OSError:
                continue
            state, parent = text.rpartition(")")[2].split()[:2]
            if int(parent) == self.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def submit(self, **changes: Any) -> str:
        """Queue a quick task and return its id."""
        response = self.client.post("/api/v1/generation/submit", json=QUICK | changes)
        assert response.status_code == 200, response.text
        return str(response.json()["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        """Return the task as the API shows it."""
        response = self.client.get(f"/api/v1/queue/{task_id}")
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def wait(self, task_id: str, *statuses: str, seconds: float = 90.0) -> dict[str, Any]:
        """Wait until the task reaches one of the statuses (default: any final one) and return it."""
        wanted = set(statuses) or FINISHED

        def probe() -> dict[str, Any] | None:
            task = self.task(task_id)
            if task["status"] in FINISHED and task["status"] not in wanted:
                raise AssertionError(f"the task ended as {task}")
            return task if task["status"] in wanted else None

        task = wait_for(probe, seconds=seconds, what=f"{task_id} to be {wanted}")
        assert task is not None
        return task

    def kill(self) -> None:
        """Send SIGKILL to the web process."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask the web process to stop, wait for it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server did not stop within 30 s") from None
        finally:
            self.client.close()
