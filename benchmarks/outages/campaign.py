"""One clip undisturbed, and the same clip under each outage: does it end at its first attempt, with the same frames?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from benchmarks.chaos.promises import frames_of
from benchmarks.home_server import HomeServer, Late, wait_for
from benchmarks.outages.kinds import Disturb, Kind

#: A clip that takes half a minute on one core.
CLIP: Final = {
    "model_type": "tiny-t2v-a14b",
    "prompt": "a red circle moving right on a navy background",
    "resolution": "128x128",
    "num_frames": 9,
    "seed": 22,
}
SETTINGS: Final = {
    "WAN22_STATE_SECONDS": "2",  # so that states are to be saved during the outage, too
}
#: Steps that are done before the outage begins.
_BEFORE: Final = 3
#: Longest wait for a clip, in seconds, outage not included.
_PATIENCE: Final = 300.0
#: Interval between two questions of a client during an outage, in seconds.
_ASK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one clip."""

    outage: str
    seconds: float  #: that the outage lasted
    at_step: int  #: when it began
    attempt: int
    lost_attempts: int
    same_frames: bool
    same_worker: bool
    ready: str  #: what `/ready` said during the outage
    submit: str  #: what a submit was answered during the outage

    @property
    def is_unharmed(self) -> bool:
        """Whether the clip ended as if nothing had been."""
        return self.attempt == 1 and self.lost_attempts == 0 and self.same_frames

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"is_unharmed": self.is_unharmed}


def run_kind(
    kind: Kind, folder: Path, seconds: dict[str, float], steps: int, settings: dict[str, str]
) -> Iterator[Found]:
    """Try the outages of one kind for as long as `seconds` says, those without an entry not; yield what was found.

    Raises:
        Late: the server did not start, or a clip did not end.
    """
    with kind.place(folder, SETTINGS | settings) as place:
        server = place.server
        try:
            server.start()
            server.wait_ready()
            whole = _submit(server, steps)
            _wait_completed(server, whole)
            expected = frames_of(server.home / "outputs" / f"{whole}.mp4")
            for name, disturb in place.outages.items():
                if name in seconds:
                    yield _try(server, name, disturb, seconds[name], steps, expected)
            if (status := server.stop()) != 0:
                raise Late(f"the server stopped with status {status}")
        except Late as late:
            raise Late(f"{late}; the log ends with:\n{server.log_end()}") from None
        finally:
            server.close()


def _try(server: HomeServer, name: str, disturb: Disturb, seconds: float, steps: int, expected: str | None) -> Found:
    worker = server.worker
    task_id = _submit(server, steps)
    wait_for(lambda: _step(server, task_id) >= _BEFORE, _PATIENCE, f"step {_BEFORE}")
    step = _step(server, task_id)
    with _Client(server) as client:
        disturb(seconds)
    task = _wait_completed(server, task_id)
    same_worker = worker is not None and server.worker is not None and worker.pid == server.worker.pid
    events = (server.ask(f"/api/v1/queue/{task_id}/events") or {"events": []})["events"]
    lost = sum(event["type"] == "attempt_lost" for event in events)
    same = frames_of(server.home / "outputs" / f"{task_id}.mp4") == expected
    for other in client.accepted:  # they were only asked for to see the answer
        server.client.post(f"/api/v1/queue/{other}/cancel")
    return Found(
        name, seconds, step, task["attempt"], lost, same, same_worker, client.said("ready"), client.said("submit")
    )


class _Client:
    """Asks during an outage what a browser asks, and remembers the answers."""

    def __init__(self, server: HomeServer) -> None:
        self._server = server
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=("ready", self._ready), daemon=True),
            threading.Thread(target=self._ask, args=("submit", self._submit), daemon=True),
        ]
        self._answers: dict[str, dict[str, None]] = {"ready": {}, "submit": {}}
        self.accepted: list[str] = []

    def __enter__(self) -> _Client:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def said(self, what: str) -> str:
        """The different answers, in their order."""
        return ", ".join(self._answers[what]) or "nothing"

    def _ask(self, what: str, question: Callable[[httpx2.Client], httpx2.Response]) -> None:
        with httpx2.Client(base_url=self._server.url, timeout=20.0, trust_env=False) as client:
            while not self._over.wait(_ASK_SECONDS):
                try:
                    answer = question(client)
                    code = "" if answer.is_success or what == "ready" else f" {answer.json().get('error', '')}"
                    said = f"{answer.status_code}{code}"
                except httpx2.TimeoutException:
                    said = "no answer in 20 s"
                except httpx2.HTTPError as error:
                    said = type(error).__name__
                if not self._over.is_set():
                    self._answers[what].setdefault(said)

    @staticmethod
    def _ready(client: httpx2.Client) -> httpx2.Response:
        return client.get("/ready")

    def _submit(self, client: httpx2.Client) -> httpx2.Response:
        answer = client.post("/api/v1/generation/submit", json=CLIP | {"steps": 1, "num_frames": 1, "priority": "low"})
        if answer.is_success:
            self.accepted.append(answer.json()["task_id"])
            self._over.wait(20.0)  # one is enough to see that it is accepted
        return answer


def _submit(server: HomeServer, steps: int) -> str:
    answer = server.client.post("/api/v1/generation/submit", json=CLIP | {"steps": steps})
    if not answer.is_success:
        raise Late(f"the clip was refused: {answer.status_code} {answer.text[:300]}")
    return str(answer.json()["task_id"])


def _step(server: HomeServer, task_id: str) -> int:
    return int((server.ask(f"/api/v1/queue/{task_id}") or {}).get("current_step") or 0)


def _wait_completed(server: HomeServer, task_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        task = server.ask(f"/api/v1/queue/{task_id}")
        if task is not None and task["status"] == "completed":
            return dict(task)
        if task is not None and task["status"] in ("failed", "cancelled"):
            raise Late(f"the clip ended as {task['status']}: {task.get('error_message')}")
        time.sleep(0.2)
    raise Late(f"the clip did not end within {_PATIENCE:g} s; it is {task and task['status']}")
