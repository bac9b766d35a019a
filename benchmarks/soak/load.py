"""The work of a soak: mock and real tasks, some of them cancelled or paused, and a worker that is killed now and then.

Mocks go the whole way of a task, from the API through the queue and the worker to a file, in a tenth of a second; so
thousands of them fit where only a hundred real clips do.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import httpx2
import psutil

from benchmarks.home_server import HomeServer, Late

#: A model that is not installed, of which requests accept a mock; its task does all but compute.
_MOCK: Final = {
    "model_type": "T2V-A14B",
    "on_model_failure": "mock",
    "resolution": "128x128",
    "num_frames": 5,
    "steps": 4,
}
_REAL: Final = (
    {"model_type": "tiny-t2v-a14b", "resolution": "64x64", "num_frames": 5, "steps": 8},
    {"model_type": "tiny-ti2v-5b", "resolution": "64x64", "num_frames": 5, "steps": 8},
    {"model_type": "tiny-t2v-a14b", "resolution": "64x64", "num_frames": 5, "loras": [{"id": "tiny_chalk"}]},
)
_PROMPT: Final = "a red circle moving right on a navy background"
#: Tasks that wait at most; the rest of the schedule waits for them.
_QUEUED: Final = 20
#: At one task in so many, it or the running one is cancelled, or it is paused and resumed.
_CANCELLED, _PAUSED = 20, 25
#: The whole queue is paused after so many tasks, for a moment.
_QUEUE_PAUSED: Final = 200
_PAUSE_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.1


class Load:
    """A schedule of tasks and disturbances over a span of time."""

    def __init__(self, server: HomeServer, *, mocks: int, reals: int, kills: int, seconds: float, seed: int) -> None:
        """Prepare; the tasks are spread over `seconds`, and the kills of the worker over the first half of them.

        So the last worker lives long enough to show whether it grows.
        """
        self._server = server
        self._chance = random.Random(f"load {seed}")  # noqa: S311 - reproducible, not secret
        self._tasks = [True] * reals + [False] * mocks
        self._chance.shuffle(self._tasks)
        self._seconds = seconds
        self._kill_at = [seconds / 2 * (number + 1) / (kills + 1) for number in range(kills)]
        self._submitted = 0
        self.counts: Counter[str] = Counter()  #: of what was done
        self.ended = 0  #: tasks that are over
        self._refused: list[str] = []  # unexpected answers

    def run(self, show: Callable[[int, int], None]) -> None:
        """Work through the schedule and wait until every task has ended; `show` receives submitted and ended tasks."""
        began = time.monotonic()
        for number, real in enumerate(self._tasks):
            while self._waiting() >= _QUEUED or time.monotonic() - began < self._seconds * number / len(self._tasks):
                self._disturb(time.monotonic() - began)
                time.sleep(_LOOK_SECONDS)
            self._disturb(time.monotonic() - began)
            self._submit(number, real=real)
            show(number + 1, self.ended)
        while self._waiting():
            show(len(self._tasks), self.ended)
            time.sleep(_LOOK_SECONDS)

    def faults(self) -> list[str]:
        """Return a sentence about each answer that was not expected, and about tasks that did not end as they should.

        Raises:
            Late: the server does not answer.
        """
        counts = self._server.ask("/api/v1/queue", limit=1)
        if counts is None:
            raise Late("the server does not answer at the end")
        found = [f"{count} times {answer}" for answer, count in Counter(self._refused).items()]
        if counts["failed_tasks"]:
            found.append(f"{counts['failed_tasks']} tasks failed")
        if counts["total_tasks"] != self._submitted:
            found.append(f"{counts['total_tasks']} tasks are there, and {self._submitted} were submitted")
        return found

    def _submit(self, number: int, *, real: bool) -> None:
        fields: dict[str, Any] = dict(self._chance.choice(_REAL) if real else _MOCK)
        answer = self._post("/api/v1/generation/submit", fields | {"prompt": _PROMPT, "seed": number})
        if answer is None:
            return
        task_id = answer["task_id"]
        self._submitted += 1
        self.counts["real" if real else "mock"] += 1
        if number % _CANCELLED == _CANCELLED - 1:
            running = self._server.ask("/api/v1/queue", status_filter="processing", limit=1)
            if running and running["tasks"] and self._chance.random() < 0.5:
                task_id = running["tasks"][0]["id"]
            self._post(f"/api/v1/queue/{task_id}/cancel", may_be_late=True)
            self.counts["cancels"] += 1
        elif number % _PAUSED == _PAUSED - 1:
            self._post(f"/api/v1/queue/{task_id}/pause", may_be_late=True)
            self._post(f"/api/v1/queue/{task_id}/resume", may_be_late=True)
            self.counts["pauses"] += 1
        if number % _QUEUE_PAUSED == _QUEUE_PAUSED - 1:
            self._post("/api/v1/queue/pause", {"now": True})
            time.sleep(_PAUSE_SECONDS)
            self._post("/api/v1/queue/resume")
            self.counts["pauses of the queue"] += 1

    def _disturb(self, since: float) -> None:
        """Kill the worker when it is time."""
        if self._kill_at and since >= self._kill_at[0] and (worker := self._server.worker) is not None:
            del self._kill_at[0]
            with suppress(psutil.Error):
                worker.kill()
                self.counts["kills"] += 1

    def _waiting(self) -> int:
        """Return how many tasks have not ended, and remember how many have."""
        counts = self._server.ask("/api/v1/queue", limit=1)
        if counts is None:
            return _QUEUED
        waiting = counts["pending_tasks"] + counts["processing_tasks"] + counts["paused_tasks"]
        self.ended = counts["total_tasks"] - waiting
        return int(waiting)

    def _post(self, path: str, body: dict[str, Any] | None = None, *, may_be_late: bool = False) -> Any:
        """Return the answer; None when the server refuses, which is a fault unless the task may have ended already."""
        try:
            answer = self._server.client.post(path, json=body)
        except httpx2.HTTPError as error:
            self._refused.append(f"{path}: {error!r}")
            return None
        if answer.is_success:
            return answer.json()
        if not (may_be_late and answer.status_code == 409):
            self._refused.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        return None
