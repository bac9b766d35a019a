"""A worker as started by `wan22 worker`, with its own home: measurements match what a user gets.

Queues requests in its database, waits for their videos, and reads the memory of the process from the system.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from backend.core.catalogue.table import find_model
from backend.core.domain import TERMINAL, Output, Priority, new_task_id
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.core.settings import load_settings
from backend.services.media.images import InputStore
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
from backend.store.tasks import TaskStore

#: Pages of libraries that a worker has mapped in an installation that has been used; bytes. How many are mapped beside
#: those that are read is up to the system's page cache: 134 to 226 MiB were observed for the same work.
LIBRARIES = 136 * 2**20
#: Longest wait for a task, in seconds.
DEADLINE = 900.0


class RealWorker:
    """One worker process and its queue."""

    def __init__(self, process: subprocess.Popen[bytes], home: Home, database: Database) -> None:
        self._process = process
        self._home = home
        self._tasks = TaskStore(database)
        self._outputs = OutputStore(database, home)

    def request(self, model: str, size: tuple[int, int, int], *, image: bool, steps: int) -> GenerationRequest:
        """Return a request for width, height and frames; where an image is wanted it is a gradient of that size."""
        width, height, frames = size
        picture = None
        if image:
            across = np.linspace(0, 255, width, dtype=np.uint8)
            pixels = np.broadcast_to(across[None, :, None], (height, width, 3))
            picture = InputStore(self._home).keep(np.ascontiguousarray(pixels))
        draft = RequestDraft(
            "a red circle", width=width, height=height, num_frames=frames, steps=steps, seed=1, image=picture
        )
        return resolve_request(find_model(model), draft)[0]

    def make(self, request: GenerationRequest) -> Output:
        """Queue a request and wait for its video.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        task_id = new_task_id()
        self._tasks.insert(
            task_id, request, adjustments=(), priority=Priority.NORMAL, max_attempts=1, fingerprint=request.digest
        )
        deadline = time.monotonic() + DEADLINE
        while self._tasks.get(task_id).status not in TERMINAL:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the worker is gone, or too slow")
            time.sleep(0.05)
        found = self._outputs.find(task_id)
        if found is None:
            raise RuntimeError(self._tasks.get(task_id).error_message)
        return found

    @property
    def peak_bytes(self) -> int:
        """The resident memory of the process at its highest point so far, with `LIBRARIES` for the pages of files."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        parts = (line.partition(":") for line in lines if line.endswith(" kB"))
        kept = {name: int(rest.split()[0]) * 1024 for name, _, rest in parts}
        return kept["VmHWM"] - kept["RssFile"] + LIBRARIES


@contextmanager
def real_worker(environment: Mapping[str, str] | None = None) -> Iterator[RealWorker]:
    """Start a worker on the processor with these additional environment variables, and stop it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(home=Path(folder))
        home = settings.paths.create()
        database = Database(settings.database)
        database.migrate()
        wished = {"WAN22_HOME": folder, "WAN22_DEVICE": "cpu", **(environment or {})}
        with (Path(folder) / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.cli", "worker"],
                env=os.environ | wished,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield RealWorker(process, home, database)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            database.close()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
