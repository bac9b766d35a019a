"""Submits the requests of a campaign through the HTTP API while the server dies again and again.

Every submit has an idempotency key and is repeated until it is answered: a client that does this can neither lose a
task nor queue one twice. Only a few tasks wait at any moment, so that submits meet kills as often as runs do.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx2

from benchmarks.chaos.requests import ClipRequest

#: Tasks that are queued ahead of the worker.
QUEUED_AHEAD: Final = 5
#: Pause before a submit that was not answered, or that has to wait, is tried again, in seconds.
RETRY_SECONDS: Final = 0.5


class Submitter:
    """A thread that submits requests in their order."""

    def __init__(self, url: str, requests: Sequence[ClipRequest], name: str) -> None:
        """Prepare; `name` keeps the keys of two submitters of one server apart."""
        self._url = url
        self._requests = requests
        self._name = name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"submit-{name}", daemon=True)
        self.ids: list[str] = []  #: of the tasks, by the number of their request
        self.unanswered = 0  #: calls that were made again because the server died over them, or was not there
        self.fault: str | None = None  #: why it gave up

    def start(self) -> None:
        """Start submitting."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what has not been submitted, and end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether every request has been accepted, or none will be any more."""
        return len(self.ids) == len(self._requests) or self.fault is not None or self._stopping.is_set()

    def submit_again(self) -> list[str]:
        """Send every request once more, with the same keys; return the ids in the answers."""
        with httpx2.Client(base_url=self._url, timeout=15.0, trust_env=False) as client:
            return [self._submit(client, number) for number in range(len(self.ids))]

    def _run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=15.0, trust_env=False) as client:
            while not self.is_done:
                try:
                    if self._may_submit(client):
                        self.ids.append(self._submit(client, len(self.ids)))
                        continue
                except httpx2.HTTPError:
                    self.unanswered += 1
                except ValueError as refusal:
                    self.fault = str(refusal)
                self._stopping.wait(RETRY_SECONDS)

    def _may_submit(self, client: httpx2.Client) -> bool:
        """Whether few enough tasks wait, and the clip to be extended is there."""
        counts = _answer(client.get("/api/v1/queue/poll"))
        source = self._requests[len(self.ids)].extends
        if source is not None:
            return bool(_answer(client.get(f"/api/v1/queue/{self.ids[source]}"))["status"] == "completed")
        return int(counts["pending_count"]) + int(counts["processing_count"]) < QUEUED_AHEAD

    def _submit(self, client: httpx2.Client, number: int) -> str:
        request = self._requests[number]
        key = {"Idempotency-Key": f"{self._name}-{number}"}
        fields, files = dict(request.fields), {}
        if request.image is not None and request.uploads_first:
            stored = _answer(client.post("/api/v1/inputs", files={"image": ("start.png", request.image)}))
            fields["image_id"] = stored["id"]
        elif request.image is not None:
            files["image"] = ("start.png", request.image)
        if request.end_image is not None:
            files["end_image"] = ("end.png", request.end_image)
        path = "/api/v1/generation/submit"
        if request.extends is not None:
            path = f"/api/v1/outputs/{self.ids[request.extends]}/extend"
        if files:
            form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
            return str(_answer(client.post(path, data=form, files=files, headers=key))["task_id"])
        return str(_answer(client.post(path, json=fields, headers=key))["task_id"])


def _answer(response: httpx2.Response) -> dict[str, Any]:
    """Return a JSON answer.

    Raises:
        HTTPError: nobody could answer now; the same request may be repeated.
        ValueError: the server refused, and would refuse again.
    """
    if response.status_code >= 500:
        time.sleep(min(1.0, float(response.headers.get("Retry-After", 0))))
        response.raise_for_status()
    if not response.is_success:
        raise ValueError(f"{response.request.url.path} was answered with {response.status_code}: {response.text[:300]}")
    body: dict[str, Any] = response.json()
    return body
